//! One file per command: an `Options` struct whose docs are the help text, and one function.

mod audit;
mod backup;
mod browse;
mod daemons;
mod diff;
mod export;
mod jobs;
mod key;
mod layout;
mod nodes;
mod resources;
mod restore;
mod search;
mod snapshots;
mod status;
mod tenant;
pub mod up;
mod verify;

use clap::{Parser, Subcommand};
use holdfast_runtime::Exit;

use crate::{client::ServerArguments, demo, error::CliError, output::Format};

const EXAMPLES: &str = "\
Examples:
  holdfast demo                                     see all of it on a simulated tenant
  holdfast up --data /srv/holdfast                  run every role on this machine
  holdfast tenant connect contoso --tenant-id ID --client-id ID --client-secret-file secret.txt
  holdfast backup contoso --wait                    back up everybody
  holdfast snapshots contoso --resource user:alex@contoso.com
  holdfast restore SNAPSHOT /Inbox/Projects --into Restored --wait

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 finished with exceptions, 4 unreachable, 64 bad configuration";

const COORDINATOR_EXAMPLES: &str = "\
Examples:
  holdfast coordinator --config /etc/holdfast/coordinator.toml
  holdfast coordinator --config /etc/holdfast/coordinator.toml --dump-config";

const WORKER_EXAMPLES: &str = "\
Examples:
  holdfast worker --config /etc/holdfast/worker.toml
  holdfast worker --config /etc/holdfast/worker.toml --dump-config";

const NODE_EXAMPLES: &str = "\
Examples:
  holdfast storage-node --config /etc/holdfast/storage-node.toml
  holdfast storage-node --config /etc/holdfast/storage-node.toml --dump-config";

const SIM_EXAMPLES: &str = "\
Examples:
  holdfast graph-sim                                             a small tenant on a free port
  holdfast graph-sim --config deploy/examples/graph-sim.toml";

/// Backs up Microsoft 365 to storage you own, and gives it all back
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about, after_help = EXAMPLES, max_term_width = 110)]
pub struct Arguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show everything on a simulated tenant: back up, change, back up, lose a site, wipe, restore, compare
    Demo(demo::Options),
    /// Run every role on this machine with embedded defaults
    Up(up::Options),
    /// Run a coordinator
    #[command(after_help = COORDINATOR_EXAMPLES)]
    Coordinator(daemons::Options),
    /// Run a worker
    #[command(after_help = WORKER_EXAMPLES)]
    Worker(daemons::Options),
    /// Run a storage node
    #[command(after_help = NODE_EXAMPLES)]
    StorageNode(daemons::NodeOptions),
    /// Run the simulator of Microsoft Graph
    #[command(after_help = SIM_EXAMPLES)]
    GraphSim(daemons::SimOptions),
    /// Make and keep the keys everything is sealed with
    #[command(subcommand)]
    Key(key::Command),
    /// Connect Microsoft 365 tenants
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// List what can be protected in a tenant
    Resources(resources::Options),
    /// Back up a tenant, or some of its resources
    Backup(backup::Options),
    /// List jobs, or show one with its failed items
    Jobs(jobs::Options),
    /// Tell whether everybody is protected
    Status(status::Options),
    /// List recovery points
    Snapshots(snapshots::Options),
    /// Look into a snapshot, without Microsoft
    Browse(browse::Options),
    /// Show what changed between two snapshots of one resource
    Diff(diff::Options),
    /// Find items in snapshots by name, people, dates, size and folder, without Microsoft
    Search(search::Options),
    /// Give items, folders or whole resources back
    Restore(restore::Options),
    /// Write a snapshot's items to files
    Export(export::Options),
    /// Read snapshots back and prove them
    Verify(verify::Options),
    /// Show the storage nodes
    Nodes(nodes::Options),
    /// Show and change which storage node owns what
    #[command(subcommand)]
    Layout(layout::Command),
    /// Move everything off a storage node, so that it can be switched off
    Drain(layout::Drain),
    /// Show who did what
    Audit(audit::Options),
}

/// Runs the command that was typed.
pub async fn run(arguments: Arguments) -> Result<Exit, CliError> {
    let format = if arguments.json { Format::Json } else { Format::Text };
    let server = arguments.server;
    match arguments.command {
        Command::Demo(options) => demo::run(options, format).await,
        Command::Up(options) => up::run(options, format).await,
        Command::Coordinator(options) => daemons::coordinator(options, format).await,
        Command::Worker(options) => daemons::worker(options, format).await,
        Command::StorageNode(options) => daemons::storage_node(options, format).await,
        Command::GraphSim(options) => daemons::graph_sim(options, format).await,
        Command::Key(command) => key::run(command, format),
        Command::Tenant(command) => tenant::run(command, &server, format).await,
        Command::Resources(options) => resources::run(options, &server, format).await,
        Command::Backup(options) => backup::run(options, &server, format).await,
        Command::Jobs(options) => jobs::run(options, &server, format).await,
        Command::Status(options) => status::run(options, &server, format).await,
        Command::Snapshots(options) => snapshots::run(options, &server, format).await,
        Command::Browse(options) => browse::run(options, &server, format).await,
        Command::Diff(options) => diff::run(options, &server, format).await,
        Command::Search(options) => search::run(options, &server, format).await,
        Command::Restore(options) => restore::run(options, &server, format).await,
        Command::Export(options) => export::run(options, &server, format).await,
        Command::Verify(options) => verify::run(options, &server, format).await,
        Command::Nodes(options) => nodes::run(options, &server, format).await,
        Command::Layout(command) => layout::run(command, &server, format).await,
        Command::Drain(options) => layout::drain(options, &server, format).await,
        Command::Audit(options) => audit::run(options, &server, format).await,
    }
}

#[cfg(test)]
mod tests;
