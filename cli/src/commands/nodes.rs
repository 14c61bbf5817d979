//! `holdfast nodes`: the storage nodes, as they answer now.

use holdfast_proto::coordinator::{ListNodesRequest, ListNodesResponse, Node, StorageHealth};
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::{self, Format, Table, say},
    storage_health,
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
    format.print(&answer, print)?;
    Ok(if storage_health::is_fine(&health(&answer)) { Exit::Ok } else { Exit::Exceptions })
}

fn print(answer: &ListNodesResponse) {
    let headings = [
        "NODE",
        "SITE",
        "STATE",
        "USED",
        "FREE",
        "PARTITIONS",
        "RECORDS",
        "BELOW POLICY",
        "UPLOADS",
        "SCRUBBED",
        "COMPARED",
        "ADDRESS",
        "REASON",
    ];
    let mut table = Table::new(&headings);
    for node in &answer.nodes {
        let partitions = match node.partitions_incomplete {
            0 => node.partitions.to_string(),
            n => format!("{} ({n} incomplete)", node.partitions),
        };
        let scrubbed = match node.scrub_permille {
            0 => output::time(node.last_scrub_ms),
            n => format!("{} ({} % of the next)", output::time(node.last_scrub_ms), n / 10),
        };
        table.row([
            format!("node-{}", node.id),
            node.site.clone(),
            state(node),
            output::bytes(node.bytes_used),
            output::bytes(node.bytes_free),
            partitions,
            node.records.to_string(),
            backlog(node),
            uploads(node),
            scrubbed,
            output::time(node.last_comparison_ms),
            node.address.clone(),
            node.reason.clone(),
        ]);
    }
    table.print("No storage nodes.");
    if !answer.nodes.is_empty() {
        storage_health::lines(&health(answer)).iter().for_each(|line| say!("{line}"));
    }
    if answer.configuration_differs {
        say!(
            "The configuration asks for another layout: see `holdfast layout plan`, then `holdfast layout apply`."
        );
    }
}

fn health(answer: &ListNodesResponse) -> StorageHealth {
    answer.storage.unwrap_or_default()
}

fn state(node: &Node) -> String {
    if node.duty == "data" { node.state.clone() } else { format!("{}, {}", node.state, node.duty) }
}

/// Records with fewer copies than the layout asks for, as far as the node knows.
fn backlog(node: &Node) -> String {
    if node.records_below_policy == 0 {
        return "0".to_owned();
    }
    let mut text = node.records_below_policy.to_string();
    let parts = [(node.records_at_one_copy, "with one copy"), (node.damaged_waiting, "damaged")];
    let told: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if !told.is_empty() {
        text = format!("{text} ({})", told.join(", "));
    }
    format!("{text}, for {}", output::seconds(node.oldest_age_ms / 1000))
}

/// What waits for the node's bucket; nothing for a node without one.
fn uploads(node: &Node) -> String {
    let Some(uploads) = &node.uploads else { return "-".to_owned() };
    let mut text = uploads.waiting_segments.to_string();
    if uploads.waiting_segments > 0 {
        let (waiting, age) =
            (output::bytes(uploads.waiting_bytes), output::seconds(uploads.oldest_age_ms / 1000));
        text = format!("{text} ({waiting}), for {age}");
    }
    if uploads.held_segments > 0 {
        text = format!("{text}, {} held back", uploads.held_segments);
    }
    if uploads.failing_ms > 0 {
        text = format!("{text}, failing for {}", output::seconds(uploads.failing_ms / 1000));
    }
    if uploads.last_error_class.is_empty() { text } else { format!("{text}: {}", uploads.last_error_class) }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::coordinator::NodeUploads;

    use super::*;

    #[test]
    fn a_backlog_names_what_is_worst() {
        let node =
            Node { records_below_policy: 9, records_at_one_copy: 4, oldest_age_ms: 5_000, ..Node::default() };
        assert_eq!(backlog(&node), "9 (4 with one copy), for 5 s");
        assert_eq!(backlog(&Node::default()), "0");
    }

    #[test]
    fn uploads_show_what_waits_and_what_is_wrong_and_nothing_without_a_bucket() {
        let shown = |of: NodeUploads| uploads(&Node { uploads: Some(of), ..Node::default() });
        assert_eq!(uploads(&Node::default()), "-");
        assert_eq!(shown(NodeUploads::default()), "0");
        let waiting = NodeUploads {
            waiting_segments: 3,
            waiting_bytes: 3 << 20,
            oldest_age_ms: 5_000,
            ..NodeUploads::default()
        };
        assert_eq!(shown(waiting.clone()), "3 (3.0 MiB), for 5 s");
        let away = NodeUploads {
            failing_ms: 180_000,
            last_error_class: "unreachable".to_owned(),
            ..waiting.clone()
        };
        assert_eq!(shown(away), "3 (3.0 MiB), for 5 s, failing for 3 min: unreachable");
        let held = NodeUploads { held_segments: 1, last_error_class: "damaged".to_owned(), ..waiting };
        assert_eq!(shown(held), "3 (3.0 MiB), for 5 s, 1 held back: damaged");
    }
}
