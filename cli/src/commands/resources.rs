//! `holdfast resources`: what can be protected.

use holdfast_proto::coordinator::ListResourcesRequest;
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::{self, Format, Table},
};

/// List what can be protected in a tenant
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast resources contoso
  holdfast resources contoso --workload mail --refresh    ask Microsoft first")]
pub struct Options {
    /// The tenant's name
    tenant: String,
    /// Only this workload; default: all that a person has
    #[arg(long, value_name = "W")]
    workload: Option<String>,
    /// Ask Microsoft first
    #[arg(long)]
    refresh: bool,
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let request = ListResourcesRequest {
        tenant: options.tenant,
        workload: options.workload.unwrap_or_default(),
        refresh: options.refresh,
    };
    let answer = client::connect(server)?.list_resources(request).await?.into_inner();
    format.print(&answer, |answer| {
        let mut table =
            Table::new(&["RESOURCE", "WORKLOAD", "STATE", "LAST SNAPSHOT (UTC)", "SNAPSHOTS", "NAME"]);
        for resource in &answer.resources {
            table.row([
                resource.name.clone(),
                resource.workload.clone(),
                resource.state.clone(),
                output::time(resource.last_snapshot_ms),
                resource.snapshots.to_string(),
                resource.display_name.clone(),
            ]);
        }
        table.print("Nothing found in this tenant.");
    })?;
    Ok(Exit::Ok)
}
