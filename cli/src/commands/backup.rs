//! `holdfast backup`: start a run by hand.

use holdfast_proto::coordinator::StartBackupRequest;
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    follow,
    output::{self, Format, say},
};

/// Back up a tenant, or some of its resources
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast backup contoso --wait                                  everything of everybody
  holdfast backup contoso --resource user:alex@contoso.com --workload mail")]
pub struct Options {
    /// The tenant's name
    tenant: String,
    /// Only this resource, `user:NAME` (can be repeated)
    #[arg(long, value_name = "R")]
    resource: Vec<String>,
    /// Only this workload: mail, contacts … (can be repeated); default: all that a person has
    #[arg(long, value_name = "W")]
    workload: Vec<String>,
    /// Wait for the end and tell the outcome by exit code
    #[arg(long)]
    wait: bool,
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let mut client = client::connect(server)?;
    let request = StartBackupRequest {
        tenant: options.tenant,
        resources: options.resource,
        workloads: options.workload,
    };
    let started = client.start_backup(request).await?.into_inner();
    started_run(&mut client, started, options.wait, ("backing up", "Backup"), format).await
}

/// Tells what was started, or waits for its end: alike for every command that starts a run.
pub(super) async fn started_run(
    client: &mut client::Operator,
    started: holdfast_proto::coordinator::StartRunResponse,
    wait: bool,
    (verb, noun): (&str, &str),
    format: Format,
) -> Result<Exit, CliError> {
    if !wait {
        format.print(&started, |started| {
            say!("{noun} run {} with {} started.", started.run, output::count(started.jobs.len(), "job"));
            say!("Follow it with: holdfast jobs --follow {}", started.run);
        })?;
        return Ok(Exit::Ok);
    }
    let (exit, jobs) = follow::run(client, &started.run, verb).await?;
    let answer = holdfast_proto::coordinator::GetRunResponse { jobs };
    format.print(&answer, |answer| summary(noun, &answer.jobs))?;
    Ok(exit)
}

fn summary(noun: &str, jobs: &[holdfast_proto::coordinator::Job]) {
    let total = follow::total(jobs);
    let kind = jobs.first().map_or("backup", |job| job.kind.as_str());
    let stored = match kind {
        "backup" => format!(", {} new in storage", output::bytes(total.bytes_stored)),
        _ => String::new(),
    };
    say!(
        "{noun}: {}, {} ({} read{stored}).",
        output::count(jobs.len(), "job"),
        output::account(&total, kind),
        output::bytes(total.bytes_read)
    );
    for job in jobs.iter().filter(|job| !job.message.is_empty() && job.state != "done") {
        say!("  {} of {} {}: {} ({})", job.workload, job.resource, job.state, job.message, job.code);
    }
    if total.has_exceptions() {
        match kind {
            "backup" => say!("Some items are missing: `holdfast status --failed` groups them by cause."),
            _ => say!("Some items failed: `holdfast jobs JOB` lists them; the jobs are in `holdfast jobs`."),
        }
    }
}
