//! Handovers of pins when nodes join, keep pins only, crash or come back empty.

use holdfast_model::{LayoutChange, LayoutVersion, NodeDuty, Replication, SiteName};

use super::{
    moves::{four, install, without},
    *,
};
use crate::{
    pin::PinOutcome,
    testing::{RESOURCE, pin, put_this_pin},
};

fn resource_partition() -> PartitionId {
    PartitionId::of_pins(TENANT, RESOURCE)
}

fn pins(node: &Node) -> Vec<Bytes> {
    node.read_pins(&caller(9), 0).unwrap().pins
}

fn is_not_ready(node: &Node) -> bool {
    matches!(node.read_pins(&caller(9), 0), Err(Error::NotReady(_)))
}

fn is_complete(node: &Node, version: u64) -> bool {
    node.status().unwrap().layout_complete >= LayoutVersion(version)
}

fn place(id: u64, site: &str, duty: NodeDuty) -> LayoutNode {
    let address = format!("127.0.0.1:{id}");
    LayoutNode { duty, ..LayoutNode::new(NodeId(id), SiteName(site.to_owned()), address, 1 << 30) }
}

fn changed(before: &Layout, version: u64, nodes: Vec<LayoutNode>, lost: &[u64]) -> Layout {
    let lost = lost.iter().map(|id| NodeId(*id)).collect();
    let change = LayoutChange { nodes, replication: before.replication, lost };
    before.changed(LayoutVersion(version), change).unwrap()
}

/// Puts each record at its first owner.
async fn put_all(pool: &Pool, layout: &Layout, records: &[SealedRecord]) {
    for record in records {
        let owner = layout.owners_of(PartitionId::of_chunk(record.header.id)).next().unwrap().id.0;
        put(&pool.node(owner), std::slice::from_ref(record)).await;
    }
}

async fn every_owner_serves(pool: &Pool, layout: &Layout, records: &[SealedRecord]) {
    for record in records {
        for owner in layout.owners_of(PartitionId::of_chunk(record.header.id)) {
            assert!(serves(&pool.node(owner.id.0), record).await, "{} lacks a record", owner.id);
        }
    }
}

impl Pool {
    /// A pool in which some nodes are not in the first layout: they have none.
    fn with_layout(n: usize, layout: &Layout) -> Self {
        let mut pool = Self::start(n, layout.replication.copies);
        for id in 1..=n as u64 {
            let node = pool.empty(id);
            if layout.node(NodeId(id)).is_some() {
                node.apply(authority(1, 5, Some(layout.clone()))).unwrap();
            }
        }
        pool
    }

    /// Rounds until the nodes have everything of a layout.
    async fn until_complete(&mut self, version: u64, ids: &[u64]) {
        for _ in 0..10 {
            self.round().await;
            if ids.iter().all(|id| is_complete(&self.node(*id), version)) {
                return;
            }
        }
        panic!("the move does not end");
    }
}

fn data_layout(nodes: Vec<LayoutNode>, copies: u8) -> Layout {
    let replication = Replication { copies, ack_sites: copies };
    Layout::compute(LayoutVersion(1), "p".into(), replication, nodes).unwrap()
}

#[tokio::test]
async fn a_node_that_joins_gets_its_share_of_records_and_pins_while_writes_go_on() {
    let all: Vec<_> = (1..=4).zip(SITES).map(|(id, site)| place(id, site, NodeDuty::Data)).collect();
    let before = data_layout(all[..3].to_vec(), 3);
    let mut pool = Pool::with_layout(4, &before);
    let (old, new) = (records(0..60), records(100..130));
    put_all(&pool, &before, &old).await;
    for id in 1..=3 {
        assert_eq!(put_this_pin(&pool.node(id), &pin(1, 1, 5, 0)).unwrap().0, PinOutcome::Stored);
    }

    let after = changed(&before, 2, all, &[]);
    install(&pool, &after, &[1, 2, 3, 4]);
    let moved = (0..PARTITION_COUNT).filter(|one| after.owns(NodeId(4), PartitionId(*one))).count();
    assert!(moved > 2_500, "node 4 joined with {moved} partitions");
    assert!(!is_complete(&pool.node(4), 2));
    put_all(&pool, &after, &new).await;
    pool.until_complete(2, &[1, 2, 3, 4]).await;
    every_owner_serves(&pool, &after, &[old, new].concat()).await;
    for owner in after.pin_owners_of(resource_partition()) {
        assert_eq!(pins(&pool.node(owner.id.0)), [pin(1, 1, 5, 0).encode()]);
    }
    let mut kept = (0..PARTITION_COUNT).map(PartitionId).filter(|one| after.owns_pins(NodeId(4), *one));
    assert!(kept.all(|one| pool.node(4).is_taken_over(&after, one)));
}

#[tokio::test]
async fn a_witness_hands_over_and_takes_over_pins_and_keeps_no_data() {
    let (data, witness) = (NodeDuty::Data, NodeDuty::Witness);
    let before = data_layout(vec![place(1, "a", data), place(2, "b", data), place(4, "d", witness)], 2);
    let mut pool = Pool::with_layout(4, &before);
    let kept = records(0..40);
    put_all(&pool, &before, &kept).await;
    // Committed on the node that leaves and on the witness.
    for id in [1, 4] {
        assert_eq!(put_this_pin(&pool.node(id), &pin(1, 1, 5, 0)).unwrap().0, PinOutcome::Stored);
    }
    let after =
        changed(&before, 2, vec![place(2, "b", data), place(3, "c", data), place(4, "d", witness)], &[]);
    install(&pool, &after, &[1, 2, 3, 4]);
    assert!(is_not_ready(&pool.node(3)) && is_not_ready(&pool.node(4)));
    pool.until_complete(2, &[2, 3, 4]).await;
    for id in [2, 3, 4] {
        assert_eq!(pins(&pool.node(id)), [pin(1, 1, 5, 0).encode()], "node {id}");
    }
    every_owner_serves(&pool, &after, &kept).await;
    assert_eq!(pool.node(4).status().unwrap().records, 0, "a witness keeps no data");

    // It is replaced by a new one in another site, which takes the pins over too.
    let settled = after.settled(LayoutVersion(3), |id| id.0 != 1);
    install(&pool, &settled, &[2, 3, 4]);
    let last =
        changed(&settled, 4, vec![place(2, "b", data), place(3, "c", data), place(1, "a", witness)], &[]);
    pool.empty(1);
    install(&pool, &last, &[1, 2, 3, 4]);
    pool.until_complete(4, &[1, 2, 3]).await;
    assert_eq!(pins(&pool.node(1)), [pin(1, 1, 5, 0).encode()]);
    assert_eq!(pool.node(1).status().unwrap().records, 0, "a witness keeps no data");
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_handover_is_made_good_by_the_next_try() {
    let (mut pool, before, owners, other) = four();
    for id in &owners {
        put_this_pin(&pool.node(*id), &pin(1, 1, 5, 0)).unwrap();
    }
    install(&pool, &without(&before, 2, owners[0], &[]), &[1, 2, 3, 4]);
    // Its state takes the pin, its pin log does not.
    let faults = pool.rigs[usize::try_from(other).unwrap() - 1].faults.clone();
    faults.fail_pin_sync.store(true, Ordering::Relaxed);
    pool.now_ms += 3_600_000;
    assert!(pool.node(other).resync_step(pool.now_ms).await.is_err());
    let node = pool.kill(other);
    assert!(is_not_ready(&node), "pins are answered for before they are durable");
    drop(node);
    pool.round().await;
    assert_eq!(pins(&pool.node(other)), [pin(1, 1, 5, 0).encode()]);
    pool.until_complete(2, &[other]).await;
    // What it noted as taken over outlives the next crash, and the pin the loss of the state.
    assert!(!is_not_ready(&pool.kill(other)));
    pool.rigs[usize::try_from(other).unwrap() - 1].lose_state();
    let node = pool.kill(other);
    assert_eq!(node.state.pins(&caller(1).space(), 0).unwrap().len(), 1);
}

#[tokio::test]
async fn an_owner_before_that_crashes_in_the_middle_is_asked_again() {
    let (mut pool, before, owners, other) = four();
    for id in &owners[..2] {
        put_this_pin(&pool.node(*id), &pin(1, 1, 5, 0)).unwrap();
    }
    install(&pool, &without(&before, 2, owners[0], &[]), &[1, 2, 3, 4]);
    // Of the two that have the pin one is away: nothing can be decided.
    pool.cut(owners[0]);
    pool.round().await;
    assert!(is_not_ready(&pool.node(other)));
    pool.kill(owners[0]);
    pool.heal();
    pool.round().await;
    assert_eq!(pins(&pool.node(other)), [pin(1, 1, 5, 0).encode()]);
}

#[tokio::test]
async fn a_node_that_lost_everything_gets_all_back_once_it_is_said_to_be_lost() {
    let mut pool = Pool::start(4, 3);
    let mut before = pool.layout(1, &[1, 2, 3, 4]);
    let owners: Vec<u64> = before.pin_owners_of(resource_partition()).map(|node| node.id.0).collect();
    for at in 0..4 {
        before.nodes[at].folder = Some(pool.node(at as u64 + 1).status().unwrap().folder);
    }
    before.version = LayoutVersion(2);
    install(&pool, &before, &[1, 2, 3, 4]);
    let kept = records(0..60);
    put_all(&pool, &before, &kept).await;
    // Committed on two of three, one of which is lost: the other alone is no majority.
    let lost = owners[0];
    for id in &owners[..2] {
        put_this_pin(&pool.node(*id), &pin(1, 1, 5, 0)).unwrap();
    }
    let node = pool.empty(lost);
    assert!(matches!(
        node.apply(authority(1, 5, Some(before.clone()))),
        Err(Error::LayoutRefused { version: 2, .. })
    ));

    let mut nodes = before.nodes.clone();
    let back = nodes.iter_mut().find(|node| node.id.0 == lost).unwrap();
    back.folder = Some(node.status().unwrap().folder);
    assert_ne!(back.folder, before.node(NodeId(lost)).unwrap().folder);
    drop(node);
    let after = changed(&before, 3, nodes, &[lost]);
    install(&pool, &after, &[1, 2, 3, 4]);
    let ids: Vec<u64> = after.pin_owners_of(resource_partition()).map(|node| node.id.0).collect();
    assert!(ids.iter().all(|id| is_not_ready(&pool.node(*id))));
    pool.until_complete(3, &[1, 2, 3, 4]).await;
    every_owner_serves(&pool, &after, &kept).await;
    for id in ids {
        assert_eq!(pins(&pool.node(id)), [pin(1, 1, 5, 0).encode()], "node {id}");
    }
    assert!(pool.node(lost).status().unwrap().records > 0);
}

#[tokio::test]
async fn a_void_pin_gives_way_to_the_committed_one_of_its_sequence() {
    let (mut pool, before, owners, other) = four();
    let (void, committed) = (pin(1, 1, 5, 0), pin(1, 2, 5, 0));
    let keeper = owners[1];
    put_this_pin(&pool.node(keeper), &void).unwrap();
    for id in [owners[0], owners[2]] {
        put_this_pin(&pool.node(id), &committed).unwrap();
    }
    // One that nothing else took the place of stays where it is, and goes nowhere.
    put_this_pin(&pool.node(keeper), &pin(2, 3, 5, 0)).unwrap();
    install(&pool, &without(&before, 2, owners[0], &[]), &[1, 2, 3, 4]);
    pool.round().await;
    assert_eq!(pins(&pool.node(keeper)), [committed.encode(), pin(2, 3, 5, 0).encode()]);
    assert_eq!(pins(&pool.node(other)), [committed.encode()]);

    // Both stand in its pin segments. The check says nothing, and a state that was lost comes back with the right one.
    let node = pool.node(keeper);
    let checked = loop {
        let checked = crate::pin_log::check_step(&node.pin_log, &node.state).unwrap();
        if checked.is_over {
            break checked;
        }
    };
    assert_eq!((checked.n_unknown, checked.n_rewritten), (0, 0));
    drop(node);
    pool.rigs[usize::try_from(keeper).unwrap() - 1].lose_state();
    let node = pool.kill(keeper);
    let stored = node.state.pins(&caller(1).space(), 0).unwrap();
    assert_eq!(stored[0].1, committed.encode());
}
