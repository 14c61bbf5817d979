//! `holdfast restore`: give items back.

use holdfast_model::ConflictPolicy;
use holdfast_proto::coordinator::{StartRestoreRequest, StartRunResponse};
use holdfast_runtime::Exit;

use super::backup::started_run;
use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::{self, Format, say},
};

/// Give items, folders or a whole mailbox, calendar, address book or drive back
///
/// Nothing is ever sent to anybody, and running it twice restores nothing twice.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast restore 4f0c2a9be1d37788 --plan
  holdfast restore 4f0c2a9be1d37788 /Inbox/Projects --into Restored --wait
  holdfast restore 4f0c2a9be1d37788 --to user:new@contoso.com --wait")]
pub struct Options {
    /// The snapshot
    snapshot: String,
    /// Only these folders (like /Inbox/Projects) or item ids, as `browse` and `search` show them
    path: Vec<String>,
    /// Another resource to restore to, `user:NAME`
    #[arg(long, value_name = "RESOURCE")]
    to: Option<String>,
    /// A folder to restore under; default: the original places
    #[arg(long, value_name = "FOLDER")]
    into: Option<String>,
    /// What to do where the item is there already: skip, rename or replace
    #[arg(long, default_value = "skip")]
    conflict: ConflictPolicy,
    /// Only say what would be done: items, bytes, calls, time
    #[arg(long)]
    plan: bool,
    /// Wait for the end and tell the outcome by exit code
    #[arg(long)]
    wait: bool,
}

/// What makes a restore last, for people.
fn bound(by: &str) -> &'static str {
    match by {
        "requests" => "Microsoft's limit on requests sets the pace.",
        "bytes" => "Microsoft's limit on bytes sent sets the pace.",
        _ => "How fast Microsoft writes sets the pace, not a limit.",
    }
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let mut client = client::connect(server)?;
    let request = StartRestoreRequest {
        snapshot: options.snapshot,
        paths: options.path,
        to: options.to.unwrap_or_default(),
        into: options.into.unwrap_or_default(),
        conflict: options.conflict.as_str().to_owned(),
        plan: options.plan,
    };
    let started = client.start_restore(request).await?.into_inner();
    if options.plan {
        format.print(&started, |started| {
            let plan = started.plan.clone().unwrap_or_default();
            say!(
                "Would restore {} items in {} folders, {}, with about {} calls to Microsoft in about {}.",
                plan.items,
                plan.folders,
                output::bytes(plan.bytes),
                plan.calls,
                output::seconds(plan.seconds)
            );
            say!("{}", bound(&plan.bound_by));
        })?;
        return Ok(Exit::Ok);
    }
    let started = StartRunResponse { run: started.run, jobs: started.jobs };
    started_run(&mut client, started, options.wait, ("restoring", "Restore"), format).await
}
