//! The queue alone.

use std::time::Duration;

use super::*;
use crate::{disk::LocalDisk, testing::TestClock};

fn key(n: u8) -> RecordKey {
    RecordKey { tenant: TENANT, id: ChunkId([n; 32]) }
}

fn open(dir: &std::path::Path, clock: &Arc<TestClock>) -> RepairQueue {
    RepairQueue::open(&LocalDisk, &dir.join("repair.redb"), clock.clone()).unwrap()
}

fn due(queue: &RepairQueue, now_ms: Millis) -> Vec<u8> {
    queue.due(now_ms, 100).unwrap().iter().map(|(key, _)| key.id.0[0]).collect()
}

fn entry(why: Why, copies: usize) -> Entry {
    Entry::new(why, copies, Protection::default())
}

#[test]
fn fewest_copies_come_first_and_failed_tries_wait_longer_and_longer() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Rig::new().clock);
    let queue = open(dir.path(), &clock);
    let wanted: Vec<_> =
        [(1, 2), (2, 1), (3, 3), (4, 0)].map(|(n, copies)| (key(n), entry(Why::Hint, copies))).into();
    queue.add(&wanted).unwrap();
    assert_eq!(due(&queue, 5), vec![4, 2, 1, 3]);
    assert_eq!(queue.due(5, 2).unwrap().len(), 2);

    let mut one = queue.entry(&key(2)).unwrap().unwrap();
    let mut waits = Vec::new();
    for _ in 0..9 {
        one = one.later(1_000, Duration::from_secs(60), 1);
        waits.push((one.not_before_ms - 1_000) / 60_000);
    }
    assert_eq!(waits, vec![1, 2, 4, 8, 16, 32, 64, 64, 64]);
    queue.settle(&[(key(4), wanted[3].1)], &[(key(2), one)]).unwrap();
    // Entry 4 was stamped when it came: what was seen differs, so it stays.
    assert_eq!(due(&queue, 2_000), vec![4, 1, 3]);
    let seen = queue.entry(&key(4)).unwrap().unwrap();
    queue.settle(&[(key(4), seen)], &[]).unwrap();
    assert_eq!(due(&queue, 2_000), vec![1, 3]);
    assert_eq!(queue.release(2_000).unwrap(), 1);
    assert_eq!(due(&queue, 2_000), vec![2, 1, 3]);
    assert_eq!(queue.release(2_000).unwrap(), 0);
}

#[test]
fn it_survives_a_restart_with_its_counts_and_merges_what_it_knows() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Rig::new().clock);
    let queue = open(dir.path(), &clock);
    queue.add(&[(key(1), entry(Why::Hint, 2)), (key(2), entry(Why::Damaged, 1))]).unwrap();
    clock.advance(500);
    let high = Protection { write_epoch: 3, touch_epoch: 9, lock_floor_ms: 1 };
    queue.add(&[(key(1), Entry::new(Why::Damaged, 1, high))]).unwrap();
    let low = Protection { write_epoch: 4, touch_epoch: 2, lock_floor_ms: 0 };
    queue.add(&[(key(1), Entry::new(Why::Hint, 2, low))]).unwrap();
    queue.suspect(&[PartitionId(7), PartitionId(9)]).unwrap();
    queue.set_note("n", &5_u64).unwrap();
    let before = (queue.backlog().unwrap(), queue.entry(&key(1)).unwrap().unwrap());
    assert_eq!(
        before.0,
        Backlog { records: 2, at_one_copy: 2, damaged: 2, oldest_ms: Some(1_000_000), suspects: 2 }
    );
    assert_eq!((before.1.why, before.1.queued_ms), (Why::Damaged, 1_000_000));
    assert_eq!(before.1.protection, Protection { write_epoch: 4, touch_epoch: 9, lock_floor_ms: 1 });
    queue.flush().unwrap();
    drop(queue);
    let queue = open(dir.path(), &clock);
    assert_eq!((queue.backlog().unwrap(), queue.entry(&key(1)).unwrap().unwrap()), before);
    assert_eq!(queue.note::<u64>("n").unwrap(), Some(5));
    assert_eq!(queue.suspects(1).unwrap(), vec![PartitionId(7)]);
    queue.unsuspect(&[PartitionId(7)]).unwrap();
    assert_eq!(queue.suspects(9).unwrap(), vec![PartitionId(9)]);
}

#[test]
fn what_does_not_fit_makes_its_partition_suspect() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Rig::new().clock);
    let queue = open(dir.path(), &clock).with_limit(2);
    queue
        .add(&[(key(1), entry(Why::Hint, 1)), (key(2), entry(Why::Hint, 1)), (key(3), entry(Why::Hint, 1))])
        .unwrap();
    assert!(queue.is_full().unwrap());
    assert_eq!(queue.backlog().unwrap().records, 2);
    assert_eq!(queue.suspects(9).unwrap(), vec![PartitionId::of_chunk(key(3).id)]);
    // What is known already is still merged.
    queue.add(&[(key(1), entry(Why::Damaged, 1))]).unwrap();
    assert_eq!(queue.backlog().unwrap().damaged, 1);
}
