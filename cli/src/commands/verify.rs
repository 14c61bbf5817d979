//! `holdfast verify`: read snapshots back and prove them.

use holdfast_proto::coordinator::StartVerifyRequest;
use holdfast_runtime::Exit;

use super::backup::started_run;
use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::Format,
};

/// Read snapshots back and prove them
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast verify 4f0c2a9be1d37788 --wait\n  holdfast verify --all --sample 5 --wait"
)]
pub struct Options {
    /// The snapshot
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    snapshot: Option<String>,
    /// The newest snapshot of every resource
    #[arg(long)]
    all: bool,
    /// Read the content of only this many percent of the items
    #[arg(long, value_name = "PCT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    sample: u32,
    /// Wait for the end and tell the outcome by exit code
    #[arg(long)]
    wait: bool,
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let mut client = client::connect(server)?;
    let request =
        StartVerifyRequest { snapshot: options.snapshot.unwrap_or_default(), sample_percent: options.sample };
    let started = client.start_verify(request).await?.into_inner();
    started_run(&mut client, started, options.wait, ("verifying", "Verification"), format).await
}
