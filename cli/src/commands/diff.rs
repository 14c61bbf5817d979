//! `holdfast diff`: what changed between two snapshots.

use holdfast_proto::coordinator::DiffRequest;
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::{self, Format, say},
};

/// Show what changed between two snapshots of one resource
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast diff 4f0c2a9be1d37788 91ab34cd56ef7890    what came, went, changed and moved")]
pub struct Options {
    /// The older snapshot
    a: String,
    /// The newer snapshot
    b: String,
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let mut client = client::connect(server)?;
    let mut changes = client.diff(DiffRequest { a: options.a, b: options.b }).await?.into_inner();
    let mut count = 0u64;
    if format == Format::Json {
        say!("{{\"changes\": [");
    }
    while let Some(change) = changes.message().await? {
        match format {
            // One change per line: a diff may be long, and is never held whole.
            Format::Json => {
                let comma = if count == 0 { "" } else { "," };
                say!("{comma}{}", serde_json::to_string(&change).map_err(CliError::failed)?);
            }
            Format::Text => {
                let entry = change.entry.unwrap_or_default();
                say!(
                    "{:<8} {}  {}  {}/{}",
                    change.change,
                    output::time(entry.time_ms),
                    entry.id,
                    change.path,
                    entry.name
                );
            }
        }
        count += 1;
    }
    match format {
        Format::Json => say!("]}}"),
        Format::Text if count == 0 => say!("The two snapshots hold the same."),
        Format::Text => {}
    }
    Ok(Exit::Ok)
}
