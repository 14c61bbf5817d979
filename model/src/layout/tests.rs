use std::collections::BTreeMap;

use super::*;

const GIB: u64 = 1 << 30;

fn node(id: u64, site: &str, capacity_bytes: u64) -> LayoutNode {
    LayoutNode { id: NodeId(id), site: site.into(), address: format!("127.0.0.1:{id}"), capacity_bytes }
}

fn first(copies: u8, nodes: Vec<LayoutNode>) -> Layout {
    let replication = Replication { copies, ack_sites: copies.min(2) };
    Layout::compute(LayoutVersion(1), "p".into(), replication, nodes).unwrap()
}

fn four_nodes() -> Layout {
    first(2, vec![node(1, "a", GIB), node(2, "a", GIB), node(3, "b", GIB), node(4, "b", GIB)])
}

fn shares(layout: &Layout) -> BTreeMap<u64, usize> {
    let mut shares = BTreeMap::new();
    for owner in (0..PARTITION_COUNT).flat_map(|p| layout.owners_of(PartitionId(p))) {
        *shares.entry(owner.id.0).or_default() += 1;
    }
    shares
}

fn after(before: &Layout, nodes: Vec<LayoutNode>) -> Layout {
    let after = before.recompute(LayoutVersion(before.version.0 + 1), before.replication, nodes).unwrap();
    check_layout(&after, |_| 0).unwrap();
    after
}

#[test]
fn every_partition_has_one_owner_in_each_of_two_sites() {
    check_layout(&four_nodes(), |_| 1).unwrap();
}

#[test]
fn equal_nodes_get_equal_shares() {
    assert_eq!(shares(&four_nodes()), BTreeMap::from([(1, 2048), (2, 2048), (3, 2048), (4, 2048)]));
}

#[test]
fn shares_follow_capacity() {
    let layout = first(2, vec![node(1, "a", GIB), node(2, "a", 3 * GIB), node(3, "b", 9 * GIB)]);
    assert_eq!(shares(&layout), BTreeMap::from([(1, 1024), (2, 3072), (3, 4096)]));
}

#[test]
fn a_site_too_small_for_a_copy_of_everything_leaves_the_rest_to_the_others() {
    let layout = first(2, vec![node(1, "a", 8 * GIB), node(2, "b", 8 * GIB), node(3, "c", 2 * GIB)]);
    check_layout(&layout, |_| GIB / 512).unwrap();
    let shares = shares(&layout);
    assert!(shares[&3] < shares[&1] / 3, "{shares:?}");
}

#[test]
fn neighbours_in_the_id_space_have_different_pairs_of_owners() {
    let layout = four_nodes();
    let mut pairs: BTreeMap<Vec<u16>, usize> = BTreeMap::new();
    for owners in &layout.owners {
        let mut pair = owners.clone();
        pair.sort_unstable();
        *pairs.entry(pair).or_default() += 1;
    }
    assert_eq!(pairs.len(), 4, "{pairs:?}");
    assert!(pairs.values().all(|n| (800..1250).contains(n)), "{pairs:?}");
}

#[test]
fn being_first_is_spread_over_the_owners() {
    let layout = four_nodes();
    for index in 0..4u16 {
        let firsts = layout.owners.iter().filter(|owners| owners[0] == index).count();
        assert!((850..1200).contains(&firsts), "node {index} is first of {firsts}");
    }
}

#[test]
fn the_same_nodes_move_nothing() {
    let before = four_nodes();
    let again = after(&before, before.nodes.clone());
    assert_eq!(before.owners, again.owners);
    assert!(LayoutPlan::between(&before, &again, |_| 1).is_empty());
}

#[test]
fn a_leaving_node_moves_only_its_own_share() {
    let before = four_nodes();
    let after = after(&before, vec![node(1, "a", GIB), node(3, "b", GIB), node(4, "b", GIB)]);
    let plan = LayoutPlan::between(&before, &after, |_| 10);
    assert_eq!((plan.arrivals.len(), plan.bytes_to_move), (2048, 20_480));
    assert!(plan.departures.iter().all(|(_, node)| *node == NodeId(2)));
}

#[test]
fn a_joining_node_receives_its_share_and_nothing_else_moves() {
    let before = four_nodes();
    let mut nodes = before.nodes.clone();
    nodes.push(node(5, "b", GIB));
    let after = after(&before, nodes);
    let plan = LayoutPlan::between(&before, &after, |_| 1);
    // Site b has three nodes for 4,096 copies now; a third of them is the least that can move.
    let share = shares(&after)[&5];
    assert!((1360..=1366).contains(&share), "{share}");
    assert_eq!(plan.arrivals.len(), share);
    assert!(plan.arrivals.iter().all(|(_, node)| *node == NodeId(5)));
}

#[test]
fn a_drained_node_owns_nothing() {
    let before = four_nodes();
    let mut nodes = before.nodes.clone();
    nodes[0].capacity_bytes = 0;
    let after = after(&before, nodes);
    assert_eq!(shares(&after).get(&1), None);
    assert_eq!(LayoutPlan::between(&before, &after, |_| 1).arrivals.len(), 2048);
}

#[test]
fn a_third_copy_leaves_the_first_two_where_they_are() {
    let before = first(2, vec![node(1, "a", GIB), node(2, "b", GIB)]);
    let nodes = vec![node(1, "a", GIB), node(2, "b", GIB), node(3, "c", GIB)];
    let replication = Replication { copies: 3, ack_sites: 2 };
    let after = before.recompute(LayoutVersion(2), replication, nodes).unwrap();
    check_layout(&after, |_| 1).unwrap();
    let plan = LayoutPlan::between(&before, &after, |_| 1);
    assert!(plan.departures.is_empty());
    assert_eq!(plan.arrivals.len(), 4096);
}

/// The fewest moves there can be: what a node has beyond its new share must go, and nothing else has to.
#[test]
fn no_layout_moves_more_than_it_must() {
    let mut before = first(3, (1..=9).map(|id| node(id, ["a", "b", "c"][id as usize % 3], GIB)).collect());
    for change in [(3, 2 * GIB), (5, 0), (7, GIB / 2), (5, GIB), (1, 4 * GIB)] {
        let mut nodes = before.nodes.clone();
        nodes[change.0].capacity_bytes = change.1;
        let after = after(&before, nodes);
        let (had, has) = (shares(&before), shares(&after));
        let least: usize = has.iter().map(|(id, n)| n.saturating_sub(*had.get(id).unwrap_or(&0))).sum();
        let moved = LayoutPlan::between(&before, &after, |_| 1).arrivals.len();
        assert_eq!(moved, least, "after {change:?}: {had:?} → {has:?}");
        before = after;
    }
}

#[test]
fn one_site_cannot_hold_two_copies() {
    let nodes = vec![node(1, "a", GIB), node(2, "a", GIB)];
    let error = Layout::compute(LayoutVersion(1), "p".into(), Replication::default(), nodes);
    assert_eq!(error, Err(LayoutError::TooFewSites { pool: "p".into(), copies: 2, sites: 1 }));
}

#[test]
fn a_site_without_capacity_does_not_count() {
    let nodes = vec![node(1, "a", GIB), node(2, "b", 0)];
    let error = Layout::compute(LayoutVersion(1), "p".into(), Replication::default(), nodes);
    assert_eq!(error, Err(LayoutError::TooFewSites { pool: "p".into(), copies: 2, sites: 1 }));
}

#[test]
fn the_checker_finds_each_fault() {
    let good = four_nodes();
    let fault = |change: fn(&mut Layout), bytes: u64| {
        let mut layout = good.clone();
        change(&mut layout);
        check_layout(&layout, |_| bytes).unwrap_err()
    };
    let p = PartitionId(7);
    assert_eq!(fault(|l| l.owners.truncate(9), 0), LayoutFault::Partitions { found: 9 });
    assert_eq!(fault(|l| l.owners[7] = vec![0, 99], 0), LayoutFault::UnknownOwner(p));
    assert_eq!(
        fault(|l| l.owners[7] = vec![0], 0),
        LayoutFault::Copies { partition: p, found: 1, copies: 2 }
    );
    assert_eq!(fault(|l| l.owners[7] = vec![0, 1], 0), LayoutFault::SameSite(p));
    assert_eq!(fault(|l| l.nodes[2].capacity_bytes = 0, 0), LayoutFault::Drained(NodeId(3)));
    let overfull = fault(|_| (), GIB / 1024);
    assert_eq!(overfull, LayoutFault::Overfull { node: NodeId(1), bytes: 2 * GIB, capacity: GIB });
}
