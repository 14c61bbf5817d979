//! `holdfast layout` and `holdfast drain`: which node owns what, and how that changes.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use holdfast_proto::coordinator::{
    ChangeLayoutRequest, ChangeLayoutResponse, GetLayoutRequest, GetLayoutResponse,
};
use holdfast_runtime::Exit;

use crate::{
    client::{self, Operator, ServerArguments},
    error::CliError,
    output::{self, Format, Table, note, say},
};

/// How often the coordinator is asked how far a move is.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How often a line is printed when nobody watches a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How many answers may be missed in a row before the command gives up: the move itself goes on.
const MISSED_ANSWERS_MAX: u32 = 60;

/// Which storage node owns what
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the layout in use and how far a move is
    #[command(after_help = "Examples:\n  holdfast layout show\n  holdfast layout show --json")]
    Show,
    /// Show what the configuration would change, and how many bytes that moves; changes nothing
    #[command(after_help = "Examples:\n  holdfast layout plan\n  holdfast layout plan --lost 3")]
    Plan(Change),
    /// Put the configuration's nodes to use: what moves stays readable where it was until the new owners have it
    #[command(after_help = "\
Examples:
  holdfast layout apply --wait                  after adding a node to [pool], or taking one out of it
  holdfast layout apply --lost 3 --wait         node 3 lost its data folder, and comes back empty")]
    Apply(Apply),
}

/// What `plan` and `apply` have in common.
#[derive(Debug, clap::Args)]
pub struct Change {
    /// The data of this node is gone for good (can be repeated)
    #[arg(long, value_name = "NODE", value_parser = node_number)]
    lost: Vec<u64>,
}

#[derive(Debug, clap::Args)]
pub struct Apply {
    #[command(flatten)]
    change: Change,
    /// Wait until the new owners have everything
    #[arg(long)]
    wait: bool,
}

/// Move everything off a storage node, so that it can be switched off
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast drain 3 --plan                       what would move, and how much
  holdfast drain 3 --wait                       then take it out of [pool], and switch it off
  holdfast drain 3 --undo                       let it own partitions again")]
pub struct Drain {
    /// The node's number
    #[arg(value_parser = node_number)]
    node: u64,
    /// Let it own partitions again
    #[arg(long)]
    undo: bool,
    /// Only show what would move
    #[arg(long)]
    plan: bool,
    /// Wait until the other nodes have everything
    #[arg(long, conflicts_with = "plan")]
    wait: bool,
}

/// `3`, or `node-3` as the listings write it.
fn node_number(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("node-").unwrap_or(text);
    digits.parse().map_err(|_| "not a node: expected its number, as in 3 or node-3".to_owned())
}

pub async fn run(command: Command, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let mut client = client::connect(server)?;
    let by_configuration =
        |lost| ChangeLayoutRequest { from_configuration: true, lost, ..Default::default() };
    match command {
        Command::Show => {
            let answer = client.get_layout(GetLayoutRequest {}).await?.into_inner();
            format.print(&answer, print_layout)?;
            Ok(Exit::Ok)
        }
        Command::Plan(change) => {
            let request = ChangeLayoutRequest { dry_run: true, ..by_configuration(change.lost) };
            let answer = client.change_layout(request).await?.into_inner();
            format.print(&answer, print_change)?;
            Ok(Exit::Ok)
        }
        Command::Apply(options) => {
            change(&mut client, by_configuration(options.change.lost), options.wait, format).await
        }
    }
}

pub async fn drain(options: Drain, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let mut client = client::connect(server)?;
    let nodes = vec![options.node];
    let (drain, undrain) = if options.undo { (Vec::new(), nodes) } else { (nodes, Vec::new()) };
    let request = ChangeLayoutRequest { drain, undrain, dry_run: options.plan, ..Default::default() };
    change(&mut client, request, options.wait, format).await
}

async fn change(
    client: &mut Operator,
    request: ChangeLayoutRequest,
    wait: bool,
    format: Format,
) -> Result<Exit, CliError> {
    let answer = client.change_layout(request).await?.into_inner();
    if !wait {
        format.print(&answer, print_change)?;
        return Ok(Exit::Ok);
    }
    if format == Format::Text {
        print_change(&answer);
    }
    let layout = wait_for_the_end(client).await?;
    match format {
        Format::Text => say!("Every owner has its partitions."),
        Format::Json => format.print(&layout, |_| {})?,
    }
    Ok(Exit::Ok)
}

/// Follows a move; the coordinator ends it.
async fn wait_for_the_end(client: &mut Operator) -> Result<GetLayoutResponse, CliError> {
    let every = if std::io::stderr().is_terminal() { POLL_EVERY } else { LINE_EVERY };
    let (mut missed, mut told, mut first) = (0, None::<Instant>, None::<(Instant, u64)>);
    loop {
        match client.get_layout(GetLayoutRequest {}).await {
            Ok(answer) => {
                missed = 0;
                let layout = answer.into_inner();
                if layout.partitions_moving == 0 {
                    return Ok(layout);
                }
                let now = now();
                let left: u64 = layout.nodes.iter().map(|node| node.partitions_incomplete).sum();
                let (since, at_first) = *first.get_or_insert((now, left));
                if told.is_none_or(|told| now.duration_since(told) >= every) {
                    told = Some(now);
                    let silent =
                        layout.nodes.iter().filter(|node| !node.complete && node.partitions > 0).count();
                    note!("{}", progress(left, at_first, now.duration_since(since), silent));
                }
            }
            Err(status) => {
                missed += 1;
                if missed > MISSED_ANSWERS_MAX {
                    return Err(status.into());
                }
            }
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "how long this command has been watching")]
fn now() -> Instant {
    Instant::now()
}

fn progress(left: u64, at_first: u64, watched: Duration, nodes: usize) -> String {
    let done = at_first.saturating_sub(left);
    let at = output::count(nodes, "node");
    if done == 0 || left == 0 {
        return format!("{left} partitions are not complete yet at {at}");
    }
    let seconds_left = watched.as_secs().saturating_mul(left) / done;
    let left_for = output::seconds(seconds_left);
    format!("{left} partitions are not complete yet at {at}, about {left_for} left")
}

fn print_layout(layout: &GetLayoutResponse) {
    let state = match layout.partitions_moving {
        0 => "at rest".to_owned(),
        n => format!("{n} of 4096 partitions are moving"),
    };
    say!(
        "Layout {} of pool '{}': {} copies, {} sites acknowledge; {state}",
        layout.version,
        layout.pool,
        layout.copies,
        layout.ack_sites
    );
    let mut table =
        Table::new(&["NODE", "SITE", "DUTY", "CAPACITY", "PARTITIONS", "COMPLETE", "INCOMPLETE", "ADDRESS"]);
    for node in &layout.nodes {
        table.row([
            format!("node-{}", node.id),
            node.site.clone(),
            node.duty.clone(),
            output::bytes(node.capacity_bytes),
            node.partitions.to_string(),
            if node.complete { "yes" } else { "no" }.to_owned(),
            node.partitions_incomplete.to_string(),
            node.address.clone(),
        ]);
    }
    table.print("No storage nodes.");
    if layout.configuration_differs {
        say!(
            "The configuration asks for another layout: see `holdfast layout plan`, then `holdfast layout apply`."
        );
    }
}

fn print_change(change: &ChangeLayoutResponse) {
    if change.version_after == 0 {
        say!("Nothing changes: layout {} is what is asked for.", change.version_before);
        return;
    }
    let mut table = Table::new(&["NODE", "SITE", "PARTITIONS IN", "BYTES IN", "PARTITIONS OUT", "BYTES OUT"]);
    for node in &change.nodes {
        table.row([
            format!("node-{}", node.id),
            node.site.clone(),
            node.partitions_in.to_string(),
            output::bytes(node.bytes_in),
            node.partitions_out.to_string(),
            output::bytes(node.bytes_out),
        ]);
    }
    table.print("No data moves.");
    say!(
        "{} partitions get new owners, about {} are copied.",
        change.partitions_moving,
        output::bytes(change.bytes_to_move)
    );
    if change.applied {
        say!("Layout {} is in use; `holdfast layout show` tells how far it is.", change.version_after);
    } else {
        say!("Nothing was changed: this is a plan on layout {}.", change.version_before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_written_as_its_number_or_as_the_listings_write_it() {
        assert_eq!((node_number("3"), node_number("node-3")), (Ok(3), Ok(3)));
        assert!(node_number("three").is_err());
    }

    #[test]
    fn progress_tells_the_time_left_once_something_is_done() {
        assert_eq!(progress(9, 9, Duration::from_secs(4), 1), "9 partitions are not complete yet at 1 node");
        assert_eq!(
            progress(25, 100, Duration::from_secs(30), 2),
            "25 partitions are not complete yet at 2 nodes, about 10 s left"
        );
    }
}
