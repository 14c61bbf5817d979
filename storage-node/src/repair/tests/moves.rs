//! What a move of partitions promises: records and pins are at the new owners before the old ones are forgotten.

use holdfast_model::{LayoutChange, LayoutVersion, Replication};

use super::*;
use crate::{
    pin::PinOutcome,
    testing::{RESOURCE, caller, fence, pin, put_this_pin},
};

/// Four nodes, three copies; the pin owners of the tests' resource, and the node that is none.
fn four() -> (Pool, Layout, Vec<u64>, u64) {
    let pool = Pool::start(4, 3);
    let layout = pool.layout(1, &[1, 2, 3, 4]);
    let owners: Vec<u64> = layout.pin_owners_of(resource_partition()).map(|node| node.id.0).collect();
    let other = (1..=4).find(|id| !owners.contains(id)).unwrap();
    (pool, layout, owners, other)
}

fn resource_partition() -> PartitionId {
    PartitionId::of_pins(TENANT, RESOURCE)
}

/// The layout that drains a node.
fn without(layout: &Layout, version: u64, leaves: u64, lost: &[u64]) -> Layout {
    let nodes = layout.nodes.iter().filter(|node| node.id.0 != leaves).cloned().collect();
    let replication = Replication { copies: 3, ack_sites: 3 };
    let lost = lost.iter().map(|id| NodeId(*id)).collect();
    layout.changed(LayoutVersion(version), LayoutChange { nodes, replication, lost }).unwrap()
}

fn install(pool: &Pool, layout: &Layout, ids: &[u64]) {
    for id in ids {
        pool.node(*id).apply(authority(1, 5, Some(layout.clone()))).unwrap();
    }
}

fn is_complete(pool: &Pool, id: u64, version: u64) -> bool {
    let status = pool.node(id).status().unwrap();
    assert_eq!(status.layout_complete >= LayoutVersion(version), status.partitions_incomplete == 0);
    status.layout_complete >= LayoutVersion(version)
}

fn sequences(node: &Node) -> Vec<u64> {
    let pins = node.state.pins(&caller(1).space(), 0).unwrap();
    pins.iter().map(|(sequence, _)| sequence.0).collect()
}

#[tokio::test]
async fn a_drained_node_is_left_with_nothing_that_is_only_there() {
    let (mut pool, before, owners, other) = four();
    let leaves = owners[0];
    let kept = records(0..60);
    let first = pool.node(leaves);
    for record in &kept {
        let owner = before.owners_of(PartitionId::of_chunk(record.header.id)).next().unwrap().id.0;
        put(&pool.node(owner), std::slice::from_ref(record)).await;
    }
    for id in &owners {
        let stored = put_this_pin(&pool.node(*id), &pin(1, 1, 5, 0)).unwrap();
        assert_eq!(stored, (PinOutcome::Stored, fence(1)));
        pool.node(*id).open_session(&caller(2), SESSION, None).unwrap();
    }
    // A minority has this one: it was never committed.
    put_this_pin(&pool.node(owners[1]), &pin(2, 2, 5, 0)).unwrap();

    let after = without(&before, 2, leaves, &[]);
    install(&pool, &after, &[1, 2, 3, 4]);
    let new = pool.node(other);
    let asks = |node: &Node| node.read_pins(&caller(1), 0);
    assert!(matches!(asks(&new), Err(Error::NotReady(_))));
    assert!(matches!(asks(&first), Err(Error::NotOwner(_))));
    assert!(matches!(first.admit(LayoutVersion(1)), Err(Error::StaleLayout { .. })));
    assert!(!is_complete(&pool, other, 2));

    // Not while one of the owners before is silent.
    pool.cut(leaves);
    pool.round().await;
    assert!(!is_complete(&pool, other, 2));
    pool.heal();
    for _ in 0..3 {
        pool.round().await;
    }
    let staying: Vec<u64> = (1..=4).filter(|id| *id != leaves).collect();
    assert!(staying.iter().all(|id| is_complete(&pool, *id, 2)));
    assert_eq!(sequences(&new), [1], "a minority pin travelled, or a committed one did not");
    assert_eq!(new.state.highest_fence(&caller(1).space()), fence(2));
    new.renew_session(&caller(2), SESSION).unwrap();
    for record in &kept {
        assert!(
            serves(&first, record).await || !before.owns(first.id(), PartitionId::of_chunk(record.header.id))
        );
        for owner in after.owners_of(PartitionId::of_chunk(record.header.id)) {
            assert!(serves(&pool.node(owner.id.0), record).await);
        }
    }
    drop(new);
    let new = pool.restart(other).await;
    assert!(asks(&new).is_ok(), "a restart forgot what was taken over");
    assert!(is_complete(&pool, other, 2));
}

#[tokio::test]
async fn an_owner_that_stays_gets_the_committed_pin_it_lacked() {
    let (mut pool, before, owners, other) = four();
    for id in &owners[..2] {
        put_this_pin(&pool.node(*id), &pin(1, 1, 5, 0)).unwrap();
    }
    install(&pool, &without(&before, 2, owners[0], &[]), &[1, 2, 3, 4]);
    pool.round().await;
    for id in [owners[1], owners[2], other] {
        assert_eq!(sequences(&pool.node(id)), [1]);
    }
}

#[tokio::test]
async fn a_pin_that_a_silent_owner_may_have_is_waited_for() {
    let (mut pool, before, owners, other) = four();
    // On two of three: one of these is silent.
    for id in &owners[..2] {
        put_this_pin(&pool.node(*id), &pin(1, 1, 5, 0)).unwrap();
    }
    install(&pool, &without(&before, 2, owners[0], &[]), &[1, 2, 3, 4]);
    pool.cut(owners[0]);
    pool.round().await;
    assert!(matches!(pool.node(other).read_pins(&caller(1), 0), Err(Error::NotReady(_))));
    pool.heal();
    pool.round().await;
    assert_eq!(sequences(&pool.node(other)), [1]);
}

#[tokio::test]
async fn of_lost_owners_every_pin_that_is_left_is_taken() {
    let (mut pool, before, owners, other) = four();
    put_this_pin(&pool.node(owners[1]), &pin(1, 1, 5, 0)).unwrap();
    pool.cut(owners[0]);
    let staying: Vec<u64> = (1..=4).filter(|id| *id != owners[0]).collect();
    install(&pool, &without(&before, 2, owners[0], &[owners[0]]), &staying);
    pool.round().await;
    assert_eq!(sequences(&pool.node(other)), [1]);
}

#[tokio::test]
async fn a_write_that_an_old_layout_admitted_keeps_the_move_open() {
    let (mut pool, before, owners, other) = four();
    let running = pool.node(owners[0]).admit(LayoutVersion(1)).unwrap();
    install(&pool, &without(&before, 2, owners[0], &[]), &[1, 2, 3, 4]);
    for _ in 0..3 {
        pool.round().await;
    }
    assert!(!is_complete(&pool, other, 2));
    drop(running);
    pool.round().await;
    assert!(is_complete(&pool, other, 2));
}

#[tokio::test]
async fn a_node_whose_folder_was_lost_takes_no_layout_that_knows_it() {
    let (pool, before, ..) = four();
    let mut known = before;
    known.version = LayoutVersion(2);
    known.nodes[0].folder = Some(holdfast_model::DataFolderId([9; 16]));
    let refused = pool.node(1).apply(authority(1, 5, Some(known.clone())));
    assert!(matches!(refused, Err(Error::LayoutRefused { version: 2, .. })));
    known.nodes[0].folder = Some(pool.node(1).status().unwrap().folder);
    pool.node(1).apply(authority(1, 5, Some(known))).unwrap();
}
