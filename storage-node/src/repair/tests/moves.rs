//! What a move of partitions promises: records and pins are at the new owners before the old ones are forgotten.

use holdfast_model::{LayoutChange, LayoutVersion, Replication};

use super::*;
use crate::{
    index::{IndexBatch, IndexEntry},
    pin::PinOutcome,
    segment::Location,
    testing::{RESOURCE, caller, fence, pin, put_this_pin},
};

/// Four nodes, three copies; the pin owners of the tests' resource, and the node that is none.
pub(super) fn four() -> (Pool, Layout, Vec<u64>, u64) {
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
pub(super) fn without(layout: &Layout, version: u64, leaves: u64, lost: &[u64]) -> Layout {
    let nodes = layout.nodes.iter().filter(|node| node.id.0 != leaves).cloned().collect();
    let replication = Replication { copies: 3, ack_sites: 3 };
    let lost = lost.iter().map(|id| NodeId(*id)).collect();
    layout.changed(LayoutVersion(version), LayoutChange { nodes, replication, lost }).unwrap()
}

pub(super) fn install(pool: &Pool, layout: &Layout, ids: &[u64]) {
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
    assert!(!is_complete(&pool, other, 2), "a start trusts what it has not compared");
    pool.round().await;
    assert!(is_complete(&pool, other, 2));
}

/// The partitions that move, of records that all three staying nodes are to have.
fn moving_records(after: &Layout, n: usize) -> Vec<SealedRecord> {
    let moves = |record: &SealedRecord| after.previous.contains_key(&PartitionId::of_chunk(record.header.id));
    let moving: Vec<_> =
        records(0..4 * u32::try_from(n).unwrap()).into_iter().filter(moves).take(n).collect();
    assert_eq!(moving.len(), n);
    moving
}

fn n_incomplete(pool: &Pool, id: u64) -> u64 {
    pool.node(id).status().unwrap().partitions_incomplete
}

#[tokio::test]
async fn a_move_ends_although_something_is_missing_somewhere_all_the_time() {
    let (mut pool, before, owners, _) = four();
    let after = without(&before, 2, owners[0], &[]);
    install(&pool, &after, &[1, 2, 3, 4]);
    let staying: Vec<u64> = after.nodes.iter().map(|node| node.id.0).filter(|id| *id != owners[0]).collect();
    // In every round the other two find that they missed one more.
    for (n, missed) in moving_records(&after, 4).into_iter().enumerate() {
        put_alone(&pool.node(staying[0]), std::slice::from_ref(&missed)).await;
        pool.now_ms += 3_600_000;
        for id in &staying {
            pool.compare(*id).await;
        }
        let waiting: Vec<u64> = staying.iter().map(|id| backlog(&pool.node(*id)).records).collect();
        assert_eq!(waiting, [0, 1, 1]);
        assert_eq!(staying.iter().all(|id| is_complete(&pool, *id, 2)), n > 0, "round {n}");
        for id in &staying {
            pool.resync(*id).await;
        }
    }
}

#[tokio::test]
async fn a_record_that_nobody_can_bring_back_keeps_no_move_open() {
    let (mut pool, before, owners, other) = four();
    let lost = record(1, 3_000);
    let kept_by = before.owners_of(PartitionId::of_chunk(lost.header.id)).find(|node| node.id.0 != owners[0]);
    let kept_by = kept_by.unwrap().id.0;
    put_alone(&pool.node(kept_by), std::slice::from_ref(&lost)).await;
    pool.rot(kept_by, &lost, 0.5);
    assert!(!serves(&pool.node(kept_by), &lost).await);
    install(&pool, &without(&before, 2, owners[0], &[]), &[1, 2, 3, 4]);
    for _ in 0..2 {
        pool.round().await;
    }
    assert_eq!(backlog(&pool.node(kept_by)).damaged, 1, "it does not wait any more");
    assert!([owners[1], owners[2], other].iter().all(|id| is_complete(&pool, *id, 2)));
}

#[tokio::test]
async fn a_record_that_is_missing_here_keeps_its_partition_open() {
    let (mut pool, before, owners, other) = four();
    let leaves = owners[0];
    let after = without(&before, 2, leaves, &[]);
    let only_there = moving_records(&after, 1).remove(0);
    put_alone(&pool.node(leaves), std::slice::from_ref(&only_there)).await;
    install(&pool, &after, &[1, 2, 3, 4]);
    // It cannot be fetched.
    lock(&pool.wire).rotten.insert(NodeId(leaves));
    for _ in 0..3 {
        pool.round().await;
    }
    let staying = [owners[1], owners[2], other];
    assert_eq!(staying.map(|id| n_incomplete(&pool, id)), [1, 1, 1]);
    lock(&pool.wire).rotten.clear();
    for _ in 0..2 {
        pool.round().await;
    }
    assert!(staying.iter().all(|id| is_complete(&pool, *id, 2)));
    assert!(serves(&pool.node(other), &only_there).await);
}

#[tokio::test]
async fn damage_that_is_found_later_opens_its_partition_again() {
    let (mut pool, before, owners, other) = four();
    let after = without(&before, 2, owners[0], &[]);
    install(&pool, &after, &[1, 2, 3, 4]);
    let moved = moving_records(&after, 1).remove(0);
    put(&pool.node(other), std::slice::from_ref(&moved)).await;
    pool.round().await;
    assert!(is_complete(&pool, other, 2));
    pool.rot(other, &moved, 0.5);
    assert!(!serves(&pool.node(other), &moved).await);
    assert_eq!(n_incomplete(&pool, other), 1);
    // The first round finds it missing and brings it back, the second one finds it.
    pool.round().await;
    assert_eq!(n_incomplete(&pool, other), 1);
    pool.round().await;
    assert!(is_complete(&pool, other, 2) && serves(&pool.node(other), &moved).await);
}

#[tokio::test]
async fn what_moves_is_compared_again_long_before_the_next_round() {
    let (mut pool, before, owners, other) = four();
    install(&pool, &without(&before, 2, owners[0], &[]), &[1, 2, 3, 4]);
    pool.resync(other).await;
    pool.cut(owners[0]);
    pool.now_ms += 3_600_000;
    pool.compare(other).await;
    assert!(!is_complete(&pool, other, 2));
    let last_comparison_ms = |pool: &Pool| pool.node(other).status().unwrap().repair.last_comparison_ms;
    let ended_ms = last_comparison_ms(&pool);
    pool.heal();
    pool.compare(other).await;
    assert!(!is_complete(&pool, other, 2));
    pool.now_ms += 5_000;
    pool.compare(other).await;
    assert!(is_complete(&pool, other, 2));
    assert_eq!(last_comparison_ms(&pool), ended_ms, "everything was compared");
}

#[tokio::test]
async fn a_leaf_that_is_not_seen_to_its_end_keeps_its_partition_open() {
    let (mut pool, before, owners, other) = four();
    let after = without(&before, 2, owners[0], &[]);
    install(&pool, &after, &[1, 2, 3, 4]);
    // More keys in one leaf than pages are read, of one key each; nothing is missing here, there is one more.
    let entry = IndexEntry {
        location: Location { segment: [1; 16], offset: 8, len: 8 },
        write_epoch: 1,
        touch_epoch: 1,
        lock_floor_ms: 0,
    };
    let partition = *after.previous.keys().next().unwrap();
    let keys = (0_u16..300).map(|n| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&(partition.0 << 4).to_be_bytes());
        id[30..].copy_from_slice(&n.to_be_bytes());
        (RecordKey { tenant: TENANT, id: ChunkId(id) }, entry)
    });
    let inserts: Vec<_> = keys.collect();
    let apply = |id: u64, inserts| {
        let batch = IndexBatch { inserts, ..IndexBatch::default() };
        pool.node(id).store.alone().index().apply(&batch).unwrap();
    };
    apply(other, inserts.clone());
    apply(owners[1], inserts[..299].to_vec());
    lock(&pool.wire).short_pages.insert(NodeId(owners[1]));
    pool.resync(other).await;
    pool.now_ms += 3_600_000;
    pool.compare(other).await;
    assert_eq!((n_incomplete(&pool, other), backlog(&pool.node(other)).records), (1, 0));
    lock(&pool.wire).short_pages.clear();
    pool.now_ms += 3_600_000;
    pool.compare(other).await;
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
