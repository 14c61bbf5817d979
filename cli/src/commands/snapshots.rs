//! `holdfast snapshots`: recovery points, with the copies that answer now.

use holdfast_model::Account;
use holdfast_proto::coordinator::ListSnapshotsRequest;
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::{self, Format, Table},
};

/// List recovery points
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast snapshots contoso
  holdfast snapshots contoso --resource user:alex@contoso.com --workload contacts")]
pub struct Options {
    /// The tenant's name
    tenant: String,
    /// Only this resource, `user:NAME`
    #[arg(long, value_name = "R")]
    resource: Option<String>,
    /// Only this workload
    #[arg(long, value_name = "W")]
    workload: Option<String>,
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let request = ListSnapshotsRequest {
        tenant: options.tenant,
        resource: options.resource.unwrap_or_default(),
        workload: options.workload.unwrap_or_default(),
    };
    let answer = client::connect(server)?.list_snapshots(request).await?.into_inner();
    format.print(&answer, |answer| {
        let mut table = Table::new(&[
            "SNAPSHOT",
            "RESOURCE",
            "WORKLOAD",
            "NO",
            "TIME (UTC)",
            "ITEMS",
            "MISSING",
            "COPIES",
            "ACCOUNT",
        ]);
        for snapshot in &answer.snapshots {
            let account: Account = snapshot.account.unwrap_or_default().into();
            table.row([
                snapshot.id.clone(),
                snapshot.resource.clone(),
                snapshot.workload.clone(),
                snapshot.sequence.to_string(),
                output::time(snapshot.created_ms),
                snapshot.items.to_string(),
                snapshot.items_missing.to_string(),
                snapshot.copies.to_string(),
                output::account(&account, "backup"),
            ]);
        }
        table.print("No snapshots yet: start a backup with `holdfast backup NAME`.");
    })?;
    Ok(Exit::Ok)
}
