//! `holdfast nodes`: the storage nodes, as they answer now.

use holdfast_proto::coordinator::ListNodesRequest;
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::{self, Format, Table},
};

/// Show the storage nodes
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast nodes
  holdfast nodes --json")]
pub struct Options {}

pub async fn run(_options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let answer = client::connect(server)?.list_nodes(ListNodesRequest {}).await?.into_inner();
    format.print(&answer, |answer| {
        let mut table = Table::new(&[
            "NODE",
            "SITE",
            "STATE",
            "USED",
            "FREE",
            "PARTITIONS",
            "RECORDS",
            "ADDRESS",
            "REASON",
        ]);
        for node in &answer.nodes {
            table.row([
                format!("node-{}", node.id),
                node.site.clone(),
                node.state.clone(),
                output::bytes(node.bytes_used),
                output::bytes(node.bytes_free),
                node.partitions.to_string(),
                node.records.to_string(),
                node.address.clone(),
                node.reason.clone(),
            ]);
        }
        table.print("No storage nodes.");
    })?;
    Ok(if answer.nodes.iter().all(|node| node.state == "up") { Exit::Ok } else { Exit::Exceptions })
}
