//! `holdfast export`: write items to files.

use std::path::PathBuf;

use holdfast_model::ExportFormat;
use holdfast_proto::coordinator::StartExportRequest;
use holdfast_runtime::Exit;

use super::backup::started_run;
use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::Format,
};

/// Write a snapshot's items to files
///
/// The files are written by the worker that runs the job: with `up` that is this machine, in a cluster DIR must be a
/// folder that the workers share.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast export 4f0c2a9be1d37788 --format mbox --out /srv/exports/alex --wait
  holdfast export 4f0c2a9be1d37788 /Inbox --format eml --out /srv/exports/alex
  holdfast export 4f0c2a9be1d37788 --format zip --out /srv/exports/alex")]
pub struct Options {
    /// The snapshot
    snapshot: String,
    /// Only these folders (like /Inbox/Projects) or item ids
    path: Vec<String>,
    /// What to write: eml (a file per message), mbox (a file per folder), ics (a file per event), vcf (a card per contact),
    /// files (those of a drive), json (everything, of any workload), or zip (one archive of what eml, ics, vcf, files or,
    /// for tasks, json would write)
    #[arg(long)]
    format: ExportFormat,
    /// The folder to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Wait for the end and tell the outcome by exit code
    #[arg(long)]
    wait: bool,
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let mut client = client::connect(server)?;
    let out = std::path::absolute(&options.out)?;
    let request = StartExportRequest {
        snapshot: options.snapshot,
        paths: options.path,
        format: options.format.as_str().to_owned(),
        out: out.to_string_lossy().into_owned(),
    };
    let started = client.start_export(request).await?.into_inner();
    started_run(&mut client, started, options.wait, ("exporting", "Export"), format).await
}
