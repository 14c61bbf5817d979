//! What several disks promise, over real files: records are spread, found wherever they are, and never claimed of a disk that is
//! lost.

use std::{collections::BTreeMap, fs, path::Path, sync::atomic::Ordering};

use holdfast_record::SealedRecord;
use holdfast_runtime::{ByteSize, Step};

use super::*;
use crate::{
    DiskOptions, Node, Pace, Presence, ReplicaOutcome, ReplicaPut,
    index::IndexEntry,
    store::{FIRST_KEY, LAST_KEY},
    testing::{Rig, SESSION, authority, caller, copy_dir, record},
};

mod loss;
mod refusals;

const STORED: ReplicaOutcome = ReplicaOutcome::Stored;
const EXISTS: ReplicaOutcome = ReplicaOutcome::Exists;

fn records(range: std::ops::Range<u32>) -> Vec<SealedRecord> {
    range.map(|n| record(n, 300)).collect()
}

async fn put(node: &Node, records: &[SealedRecord]) -> ReplicaPut {
    let wire = records.iter().map(SealedRecord::encode).collect();
    node.replicate(&caller(1), SESSION, wire).await.unwrap()
}

async fn put_all(node: &Node, records: &[SealedRecord], outcome: ReplicaOutcome) {
    let put = put(node, records).await;
    assert_eq!(put.outcomes, vec![outcome; records.len()], "{}", put.reason);
}

async fn have(node: &Node, records: &[SealedRecord]) -> Vec<bool> {
    let ids = records.iter().map(|record| record.header.id).collect();
    let there = node.have_local(&caller(1), ids).await.unwrap();
    there.into_iter().map(|one| one == Presence::Yes).collect()
}

/// Whether all are told to be there, and are given back.
async fn serves_all(node: &Node, records: &[SealedRecord]) -> bool {
    let ids: Vec<_> = records.iter().map(|record| record.header.id).collect();
    let found = node.get(&caller(1), &ids, 64 << 20).await.unwrap();
    let are_right = found.into_iter().zip(records).all(|(found, record)| {
        found.is_some_and(|bytes| SealedRecord::decode(bytes).unwrap().ciphertext == record.ciphertext)
    });
    are_right && have(node, records).await.into_iter().all(|there| there)
}

/// Records on each disk.
fn counts(node: &Node) -> Vec<u64> {
    node.store.stores().map(|store| store.n_records().unwrap()).collect()
}

fn entry(node: &Node, disk: usize, record: &SealedRecord) -> Option<IndexEntry> {
    node.store.open[disk].store.index().get_many(&[record.key()]).unwrap()[0]
}

async fn restart(rig: &Rig, node: Arc<Node>) -> Arc<Node> {
    node.close().await.unwrap();
    drop(node);
    rig.try_open().unwrap()
}

/// Every file below a folder.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(content(&path));
            files.insert(path, Vec::new());
        } else {
            files.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    files
}

#[tokio::test]
async fn records_are_spread_by_capacity_and_found_again_after_a_restart() {
    let mut rig = Rig::new();
    let path = rig.add_disk("second", ByteSize::gib(3));
    let node = rig.open();
    let all = records(0..400);
    put_all(&node, &all, STORED).await;
    let spread = counts(&node);
    assert!(spread[1].abs_diff(300) < 60 && spread[0] + spread[1] == 400, "{spread:?}");
    let status = node.status().unwrap();
    assert_eq!((status.records, status.n_disks, status.n_disks_lost), (400, 2, 0));
    assert!(status.bytes_used > 400 * 300 && status.bytes_free > 3 << 30);
    assert!(path.join("index.redb").exists() && !path.join("state.redb").exists());

    let node = restart(&rig, node).await;
    assert!(serves_all(&node, &all).await);
    put_all(&node, &all, EXISTS).await;
    // The indexes are made again from their own segments.
    node.close().await.unwrap();
    drop(node);
    for folder in [&rig.options.data, &path] {
        fs::remove_file(folder.join("index.redb")).unwrap();
    }
    let node = rig.try_open().unwrap();
    assert_eq!(counts(&node), spread);
    assert!(serves_all(&node, &all).await);
}

#[tokio::test]
async fn a_disk_that_is_added_later_takes_its_share_of_what_is_new() {
    let mut rig = Rig::new();
    let node = rig.open();
    let (old, new) = (records(0..200), records(200..600));
    put_all(&node, &old, STORED).await;
    node.close().await.unwrap();
    drop(node);
    rig.add_disk("second", ByteSize::gib(1));
    let node = rig.try_open().unwrap();
    assert!(serves_all(&node, &old).await);
    // Also those that the second disk would have now: they are not written again.
    put_all(&node, &old, EXISTS).await;
    assert_eq!(counts(&node), [200, 0]);
    put_all(&node, &new, STORED).await;
    let spread = counts(&node);
    assert!(spread[1].abs_diff(200) < 50, "{spread:?}");
    let node = restart(&rig, node).await;
    assert!(serves_all(&node, &old).await && serves_all(&node, &new).await);
    assert_eq!(counts(&node), spread);
}

#[tokio::test]
async fn what_a_full_disk_would_have_is_put_on_another() {
    let mut rig = Rig::new();
    let path = rig.add_disk("second", ByteSize::gib(1));
    let node = rig.open();
    let (before, during, after) = (records(0..100), records(100..200), records(200..300));
    put_all(&node, &before, STORED).await;
    let second = counts(&node)[1];
    *rig.faults.only_below.lock().unwrap() = Some(path);
    rig.faults.used_percent.store(100, Ordering::Relaxed);
    node.housekeeping().await.unwrap();
    put_all(&node, &during, STORED).await;
    assert_eq!(counts(&node), [200 - second, second]);
    assert!(!node.status().unwrap().ingest_stopped && node.must_end().is_none());
    put_all(&node, &before, EXISTS).await;
    assert!(serves_all(&node, &before).await && serves_all(&node, &during).await);

    *rig.faults.only_below.lock().unwrap() = None;
    node.housekeeping().await.unwrap();
    let refused = put(&node, &after[..1]).await;
    assert_eq!(refused.outcomes, [ReplicaOutcome::Failed]);
    assert_eq!(refused.reason, "disk 100% full: add a disk or node, or drain");
    assert!(node.status().unwrap().ingest_stopped);

    rig.faults.used_percent.store(0, Ordering::Relaxed);
    node.housekeeping().await.unwrap();
    put_all(&node, &after, STORED).await;
    assert!(counts(&node)[1] > second, "there is room on the second disk again");
}

#[tokio::test]
async fn what_a_disk_has_no_room_for_while_it_writes_is_put_on_another() {
    let mut rig = Rig::new();
    let path = rig.add_disk("second", ByteSize::gib(1));
    let node = rig.open();
    let (before, during, after) = (records(0..100), records(100..300), records(300..320));
    put_all(&node, &before, STORED).await;
    let second = counts(&node)[1];
    *rig.faults.only_below.lock().unwrap() = Some(path);
    rig.faults.disk_full.store(true, Ordering::Relaxed);
    let stored = put(&node, &during).await;
    assert_eq!((stored.outcomes, stored.reason.as_str()), (vec![STORED; during.len()], ""));
    assert_eq!(counts(&node), [300 - second, second]);
    assert!(!node.status().unwrap().ingest_stopped && node.must_end().is_none());
    assert!(serves_all(&node, &before).await && serves_all(&node, &during).await);
    let node = restart(&rig, node).await;
    assert!(serves_all(&node, &before).await && serves_all(&node, &during).await);

    // Where no disk has room it is refused with the reason, and nothing is claimed.
    *rig.faults.only_below.lock().unwrap() = None;
    let refused = put(&node, &after).await;
    assert_eq!(refused.outcomes, vec![ReplicaOutcome::Failed; after.len()]);
    assert!(refused.reason.contains("full: add a disk or node, or drain"), "{}", refused.reason);
    assert!(have(&node, &after).await.into_iter().all(|there| !there));
}

#[tokio::test]
async fn a_record_is_protected_on_the_disk_that_has_it() {
    let mut rig = Rig::new();
    rig.add_disk("second", ByteSize::gib(1));
    let node = rig.open();
    let all = records(0..60);
    put_all(&node, &all, STORED).await;
    let node_at = |epoch| authority(1, epoch, None);
    node.apply(node_at(6)).unwrap();
    assert!(have(&node, &all).await.into_iter().all(|there| there));
    let raises: Vec<_> = all.iter().map(|record| (record.key(), 6, 1_234)).collect();
    let gone = record(9_999, 10).key();
    let touches = [(7, vec![all[0].key(), all[59].key(), gone])].into();
    node.store.protect(touches, raises).await.unwrap();
    // Touches survive a crash, and what is not here has none.
    node.close().await.unwrap();
    drop(node);
    let node = rig.try_open().unwrap();
    for (n, record) in all.iter().enumerate() {
        let expected = if [0, 59].contains(&n) { 7 } else { 6 };
        assert_eq!(node.store.protected_epoch(&record.key()).unwrap(), Some(expected), "record {n}");
        let protection = node.store.protection(&[record.key()]).unwrap()[0].unwrap();
        assert_eq!((protection.write_epoch, protection.lock_floor_ms), (6, 1_234));
    }
    assert_eq!(node.status().unwrap().repair.backlog.records, 0);
}

#[tokio::test]
async fn pages_of_the_indexes_are_in_order_and_name_a_record_once() {
    let mut rig = Rig::new();
    rig.add_disk("second", ByteSize::gib(1));
    let node = rig.open();
    let all = records(0..200);
    put_all(&node, &all, STORED).await;
    // One that is on both disks, as after the return of a lost one.
    let twice = all.iter().find(|record| entry(&node, 0, record).is_none()).unwrap();
    node.store.open[0].store.put(vec![twice.clone()], 9).await.unwrap();
    let mut keys: Vec<_> = all.iter().map(SealedRecord::key).collect();
    keys.sort_unstable();
    let (mut found, mut from) = (Vec::new(), FIRST_KEY);
    loop {
        let page = node.store.index().range(&from, &LAST_KEY, 17).unwrap();
        found.extend(page.iter().copied());
        if page.len() < 17 {
            break;
        }
        // The next page begins with the last key of this one.
        from = found.pop().unwrap().0;
    }
    assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
    let (_, of_both) = found.iter().find(|(key, _)| *key == twice.key()).unwrap();
    assert_eq!(of_both.touch_epoch, 9, "the higher protection counts");
    let sample = node.store.sample(Some(keys[99]), 500, usize::MAX).unwrap();
    assert_eq!((sample.n_records, sample.n_unreadable, sample.last), (100, 0, Some(keys[199])));
}

#[tokio::test]
async fn a_read_stops_at_its_budget_whatever_disk_a_record_is_on() {
    let mut rig = Rig::new();
    rig.add_disk("second", ByteSize::gib(1));
    let node = rig.open();
    let all: Vec<_> = (0..12).map(|n| record(n, 100_000)).collect();
    put_all(&node, &all, STORED).await;
    let keys: Vec<_> = all.iter().map(SealedRecord::key).collect();
    let read = node.store.read(&keys, 350_000).unwrap();
    assert_eq!(read.iter().flatten().count(), 3);
    assert_eq!(node.store.read(&keys, 1).unwrap().len(), 1, "at least one");
    assert_eq!(node.store.copies(&keys, 550_000).unwrap().iter().flatten().count(), 5);
}

#[tokio::test]
async fn the_scrub_reads_every_disk_and_damage_is_kept_per_disk() {
    let mut rig = Rig::new();
    let path = rig.add_disk("second", ByteSize::gib(1));
    let node = rig.open();
    put_all(&node, &records(0..100), STORED).await;
    node.close().await.unwrap();
    drop(node);
    let segment = fs::read_dir(path.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|kind| kind == "seg")).min().unwrap();
    let node = rig.try_open().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[4_096 + 400] ^= 1;
    fs::write(&segment, bytes).unwrap();
    for _ in 0..1_000 {
        if node.scrub_step(2_000_000, Pace::AtOnce).await.unwrap() == Step::Idle {
            break;
        }
    }
    let damaged = |node: &Node| node.store.stores().map(|store| store.n_damaged()).collect::<Vec<_>>();
    assert_eq!(damaged(&node), [0, 1]);
    let status = node.status().unwrap();
    assert_eq!((status.quarantined_records, status.repair.backlog.damaged, status.records), (1, 1, 99));
    let node = restart(&rig, node).await;
    assert_eq!((damaged(&node), node.store.n_records().unwrap()), (vec![0, 1], 99));
}
