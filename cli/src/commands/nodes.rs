//! `holdfast nodes`: the storage nodes, as they answer now.

use holdfast_proto::coordinator::{ListNodesRequest, ListNodesResponse, Node};
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::{self, Format, Table, say},
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
    Ok(if answer.nodes.iter().all(|node| node.state == "up") { Exit::Ok } else { Exit::Exceptions })
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
            scrubbed,
            output::time(node.last_comparison_ms),
            node.address.clone(),
            node.reason.clone(),
        ]);
    }
    table.print("No storage nodes.");
    if !answer.nodes.is_empty() {
        say!("{}", verdict(answer));
    }
    if answer.configuration_differs {
        say!(
            "The configuration asks for another layout: see `holdfast layout plan`, then `holdfast layout apply`."
        );
    }
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

/// Whether every copy is where it should be, in one sentence.
fn verdict(answer: &ListNodesResponse) -> String {
    let away = answer.nodes.iter().filter(|node| node.state != "up").count();
    let below: u64 = answer.nodes.iter().map(|node| node.records_below_policy).sum();
    let incomplete: u64 = answer.nodes.iter().map(|node| node.partitions_incomplete).sum();
    if away > 0 {
        return format!("{} not answer: what they keep has a copy less until they are back.", does(away));
    }
    if answer.moving || incomplete > 0 {
        return format!("Partitions are moving: {incomplete} are not complete yet. Nothing is to be done.");
    }
    if below > 0 {
        return format!(
            "{below} records have too few copies and are being brought back. Nothing is to be done."
        );
    }
    "Every copy is where it should be, as far as the nodes know.".to_owned()
}

fn does(n: usize) -> String {
    if n == 1 { "1 node does".to_owned() } else { format!("{n} nodes do") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_nodes() -> ListNodesResponse {
        let node = |id| Node { id, state: "up".to_owned(), duty: "data".to_owned(), ..Node::default() };
        ListNodesResponse { nodes: vec![node(1), node(2)], ..ListNodesResponse::default() }
    }

    #[test]
    fn the_last_line_says_whether_every_copy_is_where_it_should_be() {
        assert!(verdict(&two_nodes()).starts_with("Every copy is where it should be"));
        let mut below = two_nodes();
        below.nodes[0].records_below_policy = 7;
        assert!(verdict(&below).starts_with("7 records have too few copies"));
        let mut moving = two_nodes();
        (moving.moving, moving.nodes[1].partitions_incomplete) = (true, 3);
        assert!(verdict(&moving).starts_with("Partitions are moving: 3 are not complete"));
        let mut away = two_nodes();
        away.nodes[0].state = "down".to_owned();
        assert!(verdict(&away).starts_with("1 node does not answer"));
    }

    #[test]
    fn a_backlog_names_what_is_worst() {
        let node =
            Node { records_below_policy: 9, records_at_one_copy: 4, oldest_age_ms: 5_000, ..Node::default() };
        assert_eq!(backlog(&node), "9 (4 with one copy), for 5 s");
        assert_eq!(backlog(&Node::default()), "0");
    }
}
