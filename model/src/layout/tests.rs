use std::collections::BTreeMap;

use super::*;

const GIB: u64 = 1 << 30;

fn node(id: u64, site: &str, capacity_bytes: u64) -> LayoutNode {
    LayoutNode::new(NodeId(id), site.into(), format!("127.0.0.1:{id}"), capacity_bytes)
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

fn change(before: &Layout, nodes: Vec<LayoutNode>, lost: &[u64]) -> Result<Layout, LayoutError> {
    let lost = lost.iter().map(|id| NodeId(*id)).collect();
    let change = LayoutChange { nodes, replication: before.replication, lost };
    before.changed(LayoutVersion(before.version.0 + 1), change)
}

fn drained(node: LayoutNode) -> LayoutNode {
    LayoutNode { duty: NodeDuty::Drained, ..node }
}

fn ids<'a>(nodes: impl Iterator<Item = &'a LayoutNode>) -> Vec<u64> {
    nodes.map(|node| node.id.0).collect()
}

#[test]
fn what_moves_keeps_its_previous_owners_until_the_move_has_ended() {
    let before = four_nodes();
    let mut nodes = before.nodes.clone();
    nodes[0] = drained(nodes[0].clone());
    let moving = change(&before, nodes.clone(), &[]).unwrap();
    check_layout(&moving, |_| 0).unwrap();
    assert_eq!(
        (moving.previous.len(), moving.moved_in, moving.handover),
        (2048, moving.version, PinHandover::Committed)
    );
    for p in (0..PARTITION_COUNT).map(PartitionId) {
        let was_there: Vec<u64> = ids(before.owners_of(p));
        assert!(was_there.iter().all(|id| ids(moving.holders_of(p)).contains(id)), "{p:?}");
        assert_eq!(moving.previous.contains_key(&p), was_there.contains(&1));
    }
    assert!(matches!(change(&moving, nodes, &[]), Err(LayoutError::Moving { partitions: 2048 })));

    let settled = moving.settled(LayoutVersion(9), |id| id.0 != 1);
    check_layout(&settled, |_| 0).unwrap();
    assert!(!settled.is_moving() && settled.node(NodeId(1)).is_none());
    for p in (0..PARTITION_COUNT).map(PartitionId) {
        assert_eq!(ids(settled.owners_of(p)), ids(moving.owners_of(p)));
    }
}

#[test]
fn a_node_that_is_no_longer_listed_stays_until_the_move_has_ended() {
    let before = four_nodes();
    let moving = change(&before, before.nodes[..3].to_vec(), &[]).unwrap();
    assert_eq!(moving.node(NodeId(4)).unwrap().duty, NodeDuty::Drained);
    assert_eq!(shares(&moving).get(&4), None);
}

#[test]
fn a_lost_node_is_waited_for_by_nobody() {
    let before = four_nodes();
    let replaced = change(&before, before.nodes.clone(), &[1]).unwrap();
    assert_eq!((replaced.previous.len(), replaced.handover), (2048, PinHandover::AnyCopy));
    for (p, sources) in &replaced.previous {
        assert_eq!(ids(replaced.owners_of(*p)).len(), 2);
        assert!(sources.iter().all(|index| replaced.nodes[usize::from(*index)].id != NodeId(1)));
    }
    // Another one is lost while the first is being replaced: what only they had is not given up.
    assert!(matches!(
        change(&replaced, before.nodes.clone(), &[3, 4]),
        Err(LayoutError::NothingLeft { partitions: 2048 })
    ));
    let twice = change(&replaced, before.nodes.clone(), &[2]).unwrap();
    assert_eq!((twice.previous.len(), twice.handover), (4096, PinHandover::AnyCopy));
}

#[test]
fn a_witness_makes_an_even_number_of_pin_owners_odd_and_owns_no_data() {
    let mut nodes = four_nodes().nodes;
    nodes.push(LayoutNode { duty: NodeDuty::Witness, ..node(5, "c", 0) });
    let layout = first(2, nodes.clone());
    let p = PartitionId(7);
    assert_eq!(
        (layout.owners_of(p).count(), layout.pin_owners_of(p).count(), layout.pin_majority_of(p)),
        (2, 3, 2)
    );
    assert!(layout.owns_pins(NodeId(5), p) && !layout.owns(NodeId(5), p));
    assert!(!ids(layout.holders_of(p)).contains(&5));

    // A witness that is added takes over the pins of everything, and no data moves.
    let moving = change(&four_nodes(), nodes.clone(), &[]).unwrap();
    assert_eq!(moving.previous.len(), 4096);
    assert!(LayoutPlan::between(&four_nodes(), &moving, |_| 1).is_empty());

    nodes[4].site = "a".into();
    let replication = Replication { copies: 2, ack_sites: 2 };
    let refused = Layout::compute(LayoutVersion(1), "p".into(), replication, nodes).unwrap_err();
    assert_eq!(refused, LayoutError::WitnessAmongData(NodeId(5)));
}

#[test]
fn nothing_moves_when_only_an_address_changes() {
    let before = four_nodes();
    let mut nodes = before.nodes.clone();
    nodes[2].address = "elsewhere:1".to_owned();
    let after = change(&before, nodes, &[]).unwrap();
    assert!(!after.is_moving());
    assert_eq!(after.moved_in, before.moved_in);
}

#[test]
fn a_layout_of_an_earlier_release_can_be_read() {
    let mut value = serde_json::to_value(four_nodes()).unwrap();
    for field in ["moved_in", "previous", "handover"] {
        assert!(value.as_object_mut().unwrap().remove(field).is_some());
    }
    assert_eq!(serde_json::from_value::<Layout>(value).unwrap(), four_nodes());
}
