//! What the storage nodes say together, in sentences: `holdfast status` and `holdfast nodes` tell the same.

use holdfast_proto::coordinator::StorageHealth;

/// What an administrator must look at, counted. Nothing: every record is protected as the layout asks, and new ones are taken in
/// everywhere.
pub fn problems(health: &StorageHealth) -> Vec<(u64, &'static str)> {
    let counted = [
        (health.nodes_away, "storage nodes down"),
        (health.nodes_replaced, "storage nodes without their data"),
        (health.disks_lost, "lost disks"),
        (health.nodes_full, "full storage nodes"),
        (health.nodes_not_uploading, "storage nodes that do not upload"),
        (records_below_policy(health), "records with too few copies"),
    ];
    counted.into_iter().filter(|(n, _)| *n > 0).collect()
}

/// Whether there is none of these. Partitions that move and a nearly full disk are told, and take no protection away.
pub fn is_fine(health: &StorageHealth) -> bool {
    problems(health).is_empty()
}

/// One line for each thing to know, the most urgent first; one that says that all is well where there is nothing.
pub fn lines(health: &StorageHealth) -> Vec<String> {
    let StorageHealth { nodes_away, nodes_replaced, nodes_full, nodes_nearly_full, .. } = *health;
    let StorageHealth { nodes_not_uploading, partitions_incomplete, disks_lost, .. } = *health;
    let known = [
        (
            nodes_away,
            format!(
                "{} not answer: what they keep has a copy less until they are back.",
                nodes(nodes_away, "does", "do")
            ),
        ),
        (
            nodes_replaced,
            format!(
                "{} another data folder than before: mount the right disk, or run `holdfast layout apply --lost NODE`.",
                nodes(nodes_replaced, "has", "have")
            ),
        ),
        (
            disks_lost,
            format!(
                "{} lost: what was there is brought back from other nodes. Mount it again, or take it out of `disks` of its node.",
                if disks_lost == 1 { "1 disk is".to_owned() } else { format!("{disks_lost} disks are") }
            ),
        ),
        (
            nodes_full,
            format!(
                "{} full: nothing new is taken in there. Add a disk or a node.",
                nodes(nodes_full, "is", "are")
            ),
        ),
        (
            nodes_not_uploading,
            format!(
                "{} not get segments into the bucket: what waits is only on the local disk, and not locked.",
                nodes(nodes_not_uploading, "does", "do")
            ),
        ),
        (records_below_policy(health), below_policy(health)),
        (
            nodes_nearly_full,
            format!(
                "{} nearly full: no copies from other nodes are taken in there. Add a disk or a node.",
                nodes(nodes_nearly_full, "is", "are")
            ),
        ),
        (
            u64::from(is_moving(health)),
            format!(
                "Partitions are moving: {partitions_incomplete} are not complete yet. Nothing is to be done."
            ),
        ),
    ];
    let told: Vec<String> = known.into_iter().filter(|(n, _)| *n > 0).map(|(_, line)| line).collect();
    if told.is_empty() {
        return vec!["Every copy is where it should be, as far as the nodes know.".to_owned()];
    }
    told
}

fn is_moving(health: &StorageHealth) -> bool {
    health.moving || health.partitions_incomplete > 0
}

/// While partitions move, their new owners count what they do not have yet, and the previous owners still have it.
fn records_below_policy(health: &StorageHealth) -> u64 {
    if is_moving(health) { 0 } else { health.records_below_policy }
}

fn below_policy(health: &StorageHealth) -> String {
    let at_one_copy = match health.records_at_one_copy {
        0 => String::new(),
        n => format!(", {n} of them only one"),
    };
    let n = health.records_below_policy;
    format!("{n} records have too few copies{at_one_copy}: they are brought back by themselves.")
}

fn nodes(n: u64, one: &str, many: &str) -> String {
    if n == 1 { format!("1 node {one}") } else { format!("{n} nodes {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only line, and whether it is no problem.
    fn line(health: StorageHealth) -> (String, bool) {
        let [line] = <[String; 1]>::try_from(lines(&health)).unwrap();
        (line, is_fine(&health))
    }

    #[test]
    fn each_thing_to_know_has_its_line_and_what_takes_protection_away_is_a_problem() {
        let default = StorageHealth::default;
        let cases = [
            (default(), "Every copy is where it should be", true),
            (StorageHealth { nodes_away: 1, ..default() }, "1 node does not answer", false),
            (StorageHealth { nodes_replaced: 1, ..default() }, "1 node has another data folder", false),
            (StorageHealth { disks_lost: 1, ..default() }, "1 disk is lost:", false),
            (StorageHealth { nodes_full: 2, ..default() }, "2 nodes are full", false),
            (StorageHealth { nodes_nearly_full: 1, ..default() }, "1 node is nearly full", true),
            (StorageHealth { nodes_not_uploading: 1, ..default() }, "1 node does not get segments", false),
            (StorageHealth { records_below_policy: 7, ..default() }, "7 records have too few copies:", false),
            (
                StorageHealth {
                    moving: true,
                    partitions_incomplete: 3,
                    records_below_policy: 7,
                    ..default()
                },
                "Partitions are moving: 3 are not complete",
                true,
            ),
        ];
        for (health, begins, fine) in cases {
            let (line, is_fine) = line(health);
            assert!(line.starts_with(begins) && line.ends_with('.'), "{line}");
            assert_eq!(is_fine, fine, "{line}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_the_most_urgent_first() {
        let health = StorageHealth {
            nodes_away: 2,
            nodes_nearly_full: 1,
            records_below_policy: 9,
            records_at_one_copy: 4,
            ..StorageHealth::default()
        };
        let told = lines(&health);
        assert_eq!(told.len(), 3);
        assert!(told[0].starts_with("2 nodes do not answer"));
        assert!(told[1].starts_with("9 records have too few copies, 4 of them only one:"));
        assert!(told[2].starts_with("1 node is nearly full"));
        assert_eq!(problems(&health), [(2, "storage nodes down"), (9, "records with too few copies")]);
    }
}
