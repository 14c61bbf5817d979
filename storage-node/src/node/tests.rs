//! The core's promises about records: what is acknowledged survives, what is damaged is not served, who may not is refused.

use std::{fs, sync::atomic::Ordering};

use holdfast_model::{Epoch, Workload};
use holdfast_record::RecordKind;

use super::*;
use crate::{
    pin::PinOutcome,
    testing::{RESOURCE, Rig, SESSION, TENANT, authority, caller, fence, layout, put_pin, record, record_of},
};

const STORED: ReplicaOutcome = ReplicaOutcome::Stored;
const EXISTS: ReplicaOutcome = ReplicaOutcome::Exists;

async fn put(node: &Node, records: &[SealedRecord]) -> ReplicaPut {
    put_as(node, &caller(1), records).await.unwrap()
}

async fn put_as(node: &Node, caller: &Caller, records: &[SealedRecord]) -> Result<ReplicaPut, Error> {
    let wire = records.iter().map(SealedRecord::encode).collect();
    let mut replicas = node.put(caller, SESSION, wire).await?;
    assert_eq!(replicas[0].node, node.id());
    Ok(replicas.remove(0).answer)
}

async fn get(node: &Node, record: &SealedRecord) -> Option<SealedRecord> {
    let found = node.get(&caller(1), &[record.header.id], 1 << 20).await.unwrap();
    found[0].clone().map(|bytes| SealedRecord::decode(bytes).unwrap())
}

async fn has(node: &Node, record: &SealedRecord) -> bool {
    node.have_local(&caller(1), vec![record.header.id]).await.unwrap() == vec![Presence::Yes]
}

async fn serves(node: &Node, put: &SealedRecord) -> bool {
    get(node, put).await.is_some_and(|found| {
        (&found.header, &found.ciphertext, found.ct) == (&put.header, &put.ciphertext, put.ct)
            && found.placement.session == SESSION.0
            && found.placement.write_epoch == 5
    })
}

#[tokio::test]
async fn what_is_acknowledged_survives_a_kill_and_a_restart() {
    let rig = Rig::new();
    let node = rig.open();
    // Several segments of data, and one of tree nodes.
    let data: Vec<_> = (0..40).map(|n| record(n, 100_000)).collect();
    let tree: Vec<_> = (100..140).map(|n| record_of(TENANT, n, 3_000, RecordKind::ManifestLeaf)).collect();
    for batch in data.chunks(7).chain(tree.chunks(7)) {
        assert!(put(&node, batch).await.outcomes.iter().all(|outcome| *outcome == STORED));
    }
    let (_killed_rig, killed) = rig.after_a_kill();
    node.close().await.unwrap();
    drop(node);
    let restarted = rig.try_open().unwrap();
    for node in [&killed, &restarted] {
        for record in data.iter().chain(&tree) {
            assert!(serves(node, record).await);
        }
        assert_eq!(put(node, &data[..2]).await.outcomes, vec![EXISTS, EXISTS]);
        assert_eq!((node.status().unwrap().records, node.store().n_damaged()), (80, 0));
        let more = record(999, 500);
        assert_eq!(put(node, std::slice::from_ref(&more)).await.outcomes, vec![STORED]);
        assert!(serves(node, &more).await);
    }
}

#[tokio::test]
async fn a_sealed_segment_names_the_hash_of_its_headers_also_when_a_restart_went_on_with_it() {
    use holdfast_record::{Footer, TRAILER_BYTES, Trailer};
    let rig = Rig::new();
    let node = rig.open();
    put(&node, &(0..7).map(|n| record(n, 100_000)).collect::<Vec<_>>()).await;
    node.close().await.unwrap();
    drop(node);
    let first = rig.segment("data");
    let node = rig.try_open().unwrap();
    put(&node, &(7..20).map(|n| record(n, 100_000)).collect::<Vec<_>>()).await;
    let bytes = fs::read(&first).unwrap();
    let Trailer { footer_offset, footer_len } =
        Trailer::decode(&bytes[bytes.len() - TRAILER_BYTES..]).unwrap();
    let (start, len) = (usize::try_from(footer_offset).unwrap(), usize::try_from(footer_len).unwrap());
    let footer = Footer::decode(&bytes[start..start + len]).unwrap();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..4_096]);
    let mut entries = footer.entries.clone();
    entries.sort_by_key(|entry| entry.offset);
    for entry in &entries {
        let at = usize::try_from(entry.offset).unwrap();
        hasher.update(&bytes[at..at + holdfast_record::scan_len(&bytes[at..]).unwrap().header_len]);
    }
    assert_eq!(footer.segment_hash, *hasher.finalize().as_bytes());
    assert!(footer.entries.len() > 7);
    assert!(!first.with_extension("mark").exists());
}

#[tokio::test]
async fn the_index_is_rebuilt_from_the_segments_when_it_is_lost() {
    let rig = Rig::new();
    let node = rig.open();
    let records: Vec<_> = (0..30).map(|n| record(n, 100_000)).collect();
    put(&node, &records).await;
    node.close().await.unwrap();
    drop(node);
    fs::remove_file(rig.options.data.join("index.redb")).unwrap();
    let node = rig.try_open().unwrap();
    assert_eq!(node.status().unwrap().records, 30);
    for record in &records {
        assert!(serves(&node, record).await);
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_kept_aside() {
    let rig = Rig::new();
    let node = rig.open();
    put(&node, &[record(1, 5_000)]).await;
    let torn = rig.copy();
    let path = torn.segment("data");
    let mut bytes = fs::read(&path).unwrap();
    let len = bytes.len() as u64;
    bytes.extend_from_slice(&record(2, 9_000).encode()[..4_000]);
    fs::write(&path, &bytes).unwrap();

    let reopened = torn.try_open().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), len);
    assert_eq!(fs::read_dir(torn.options.data.join("quarantine")).unwrap().count(), 1);
    assert!(serves(&reopened, &record(1, 5_000)).await);
    assert_eq!(reopened.store().n_damaged(), 0);
    assert_eq!(put(&reopened, &[record(2, 9_000)]).await.outcomes, vec![STORED]);
}

#[tokio::test]
async fn a_flipped_bit_below_the_mark_is_damage_and_the_rest_is_served() {
    let rig = Rig::new();
    let node = rig.open();
    let records: Vec<_> = (0..3).map(|n| record(n, 5_000)).collect();
    put(&node, &records).await;
    let len_of_one = records[0].encoded_len();
    // In a ciphertext with records behind it, and in the header of the last record.
    for (nth, at) in [(0, 4_096 + 3_000), (2, 4_096 + 2 * len_of_one + 30)] {
        let damaged = rig.copy();
        let path = damaged.segment("data");
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 4;
        fs::write(&path, &bytes).unwrap();
        let reopened = damaged.try_open().unwrap();
        assert_eq!(reopened.store().n_damaged(), 1, "record {nth}");
        assert_eq!(&fs::read(&path).unwrap()[..bytes.len()], &bytes, "acknowledged bytes were changed");
        for (n, record) in records.iter().enumerate() {
            assert_eq!(serves(&reopened, record).await, n != nth);
            assert_eq!(has(&reopened, record).await, n != nth);
        }
        // The next put brings it back, and that survives.
        assert_eq!(put(&reopened, &records[nth..=nth]).await.outcomes, vec![STORED]);
        reopened.close().await.unwrap();
        drop(reopened);
        let again = damaged.try_open().unwrap();
        assert!(serves(&again, &records[nth]).await);
        assert_eq!(again.store().n_damaged(), 1);
    }
}

#[tokio::test]
async fn acknowledged_bytes_missing_from_the_end_of_a_file_are_reported() {
    let rig = Rig::new();
    let node = rig.open();
    put(&node, &[record(1, 5_000)]).await;
    put(&node, &[record(2, 5_000)]).await;
    let damaged = rig.copy();
    let path = damaged.segment("data");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    let reopened = damaged.try_open().unwrap();
    assert!(reopened.store().n_damaged() >= 1);
    assert!(serves(&reopened, &record(1, 5_000)).await);
    assert!(!has(&reopened, &record(2, 5_000)).await);
}

#[tokio::test]
async fn a_vanished_segment_is_noticed_and_its_records_are_absent() {
    let rig = Rig::new();
    let node = rig.open();
    put(&node, &[record(1, 5_000)]).await;
    node.close().await.unwrap();
    drop(node);
    fs::remove_file(rig.segment("data")).unwrap();
    let node = rig.try_open().unwrap();
    assert_eq!((node.store().n_damaged(), has(&node, &record(1, 5_000)).await), (1, false));
}

#[tokio::test]
async fn rot_while_the_node_runs_is_found_at_the_read_and_healed_by_a_put() {
    let rig = Rig::new();
    let node = rig.open();
    let victim = record(1, 5_000);
    put(&node, std::slice::from_ref(&victim)).await;
    let path = rig.segment("data");
    let mut bytes = fs::read(&path).unwrap();
    bytes[7_000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(get(&node, &victim).await.is_none());
    assert_eq!(node.status().unwrap().quarantined_records, 1);
    assert!(!has(&node, &victim).await);
    assert_eq!(put(&node, std::slice::from_ref(&victim)).await.outcomes, vec![STORED]);
    assert!(serves(&node, &victim).await);
}

#[tokio::test]
async fn a_failed_sync_is_never_followed_by_an_acknowledgement() {
    let rig = Rig::new();
    let node = rig.open();
    put(&node, &[record(1, 5_000)]).await;
    rig.faults.fail_segment_sync.store(true, Ordering::Relaxed);
    let failed = put(&node, &[record(2, 5_000)]).await;
    assert_eq!(failed.outcomes, vec![ReplicaOutcome::Failed]);
    assert!(failed.reason.contains("sync"), "{}", failed.reason);
    assert!(!has(&node, &record(2, 5_000)).await);
    let syncs = rig.faults.segment_syncs.load(Ordering::Relaxed);
    rig.faults.fail_segment_sync.store(false, Ordering::Relaxed);
    // A new segment takes over with two syncs of its own; the poisoned one is not synced again.
    assert_eq!(put(&node, &[record(2, 5_000)]).await.outcomes, vec![STORED]);
    assert_eq!(rig.faults.segment_syncs.load(Ordering::Relaxed), syncs + 2);
    let (_rig, killed) = rig.after_a_kill();
    for node in [&node, &killed] {
        for n in [1, 2] {
            assert!(serves(node, &record(n, 5_000)).await);
        }
        assert_eq!(node.store().n_damaged(), 0);
    }
}

#[tokio::test]
async fn a_seal_that_did_not_reach_the_disk_is_no_seal() {
    let rig = Rig::new();
    let node = rig.open();
    put(&node, &[record(1, 400_000)]).await;
    let mark = fs::read_dir(rig.options.data.join("segments")).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.extension().is_some_and(|extension| extension == "mark").then_some(path)
    });
    let (mark, path) = (mark.unwrap(), rig.segment("data"));
    let mark_bytes = fs::read(&mark).unwrap();
    put(&node, &[record(2, 400_000), record(3, 700_000)]).await;
    drop(node);
    // As a power cut leaves it: the trailer arrived, the records above the mark did not, and the mark was not removed yet.
    let mut bytes = fs::read(&path).unwrap();
    let (start, one) = (4_096, record(1, 400_000).encoded_len());
    bytes[start + one..start + one + 1_000].fill(0);
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(&path, permissions).unwrap();
    fs::write(&path, &bytes).unwrap();
    fs::write(&mark, &mark_bytes).unwrap();
    fs::remove_file(rig.options.data.join("index.redb")).unwrap();
    let node = rig.try_open().unwrap();
    assert!(serves(&node, &record(1, 400_000)).await);
    assert!(!has(&node, &record(2, 400_000)).await, "promised what is not there");
    assert_eq!(node.store().n_damaged(), 0, "what nobody was told is no damage");
    assert_eq!(put(&node, &[record(2, 400_000)]).await.outcomes, vec![STORED]);
    assert!(serves(&node, &record(2, 400_000)).await);
}

#[tokio::test]
async fn what_a_failed_sync_left_behind_is_written_again_before_it_is_served() {
    let rig = Rig::new();
    let node = rig.open();
    put(&node, &[record(1, 5_000)]).await;
    rig.faults.fail_segment_sync.store(true, Ordering::Relaxed);
    assert_eq!(put(&node, &[record(2, 5_000)]).await.outcomes, vec![ReplicaOutcome::Failed]);
    rig.faults.fail_segment_sync.store(false, Ordering::Relaxed);
    drop(node);
    let before = rig.faults.segment_bytes.load(Ordering::Relaxed);
    let node = rig.try_open().unwrap();
    let written = rig.faults.segment_bytes.load(Ordering::Relaxed) - before;
    assert!(serves(&node, &record(2, 5_000)).await);
    assert_eq!(written, record(2, 5_000).encoded_len() as u64);
}

#[tokio::test]
async fn a_read_that_fails_for_want_of_files_does_not_condemn_the_record() {
    let rig = Rig::new();
    let node = rig.open();
    put(&node, &[record(1, 5_000)]).await;
    rig.faults.no_files_left.store(true, Ordering::Relaxed);
    assert!(node.get(&caller(1), &[record(1, 5_000).header.id], 1 << 20).await.is_err());
    rig.faults.no_files_left.store(false, Ordering::Relaxed);
    assert!(serves(&node, &record(1, 5_000)).await);
    assert_eq!(node.store().n_damaged(), 0);
}

#[tokio::test]
async fn a_file_system_that_others_fill_stops_ingest_without_waiting_for_housekeeping() {
    let rig = Rig::new();
    let node = rig.open();
    rig.faults.used_percent.store(100, Ordering::Relaxed);
    let mut stored = 0_u64;
    for n in 0..100 {
        match put(&node, &[record(n, 1 << 20)]).await.outcomes[0] {
            ReplicaOutcome::Stored => stored += 1,
            _ => break,
        }
    }
    assert!((1..=64).contains(&stored), "{stored} MiB were taken in");
}

#[tokio::test]
async fn a_full_disk_stops_ingest_and_nothing_else() {
    let rig = Rig::new();
    let node = rig.open();
    put(&node, &[record(1, 5_000)]).await;
    rig.faults.disk_full.store(true, Ordering::Relaxed);
    let failed = put(&node, &[record(2, 500_000)]).await;
    assert!(failed.reason.contains("full: add a disk or node, or drain"), "{}", failed.reason);
    assert_eq!(failed.outcomes, vec![ReplicaOutcome::Failed]);
    assert!(node.status().unwrap().ingest_stopped);
    assert!(serves(&node, &record(1, 5_000)).await);
    assert_eq!(put_pin(&node, 1, 1).unwrap().0, PinOutcome::Stored);
    rig.faults.disk_full.store(false, Ordering::Relaxed);
    node.housekeeping().await.unwrap();
    assert_eq!(put(&node, &[record(2, 500_000)]).await.outcomes, vec![STORED]);
    let (_rig, killed) = rig.after_a_kill();
    assert!(serves(&killed, &record(2, 500_000)).await);

    rig.faults.used_percent.store(100, Ordering::Relaxed);
    node.housekeeping().await.unwrap();
    let failed = put(&node, &[record(3, 5_000)]).await;
    assert_eq!(failed.reason, "disk 100% full: add a disk or node, or drain");
}

#[tokio::test]
async fn ingest_stops_at_its_share_of_the_capacity() {
    let mut rig = Rig::new();
    rig.options.capacity = holdfast_runtime::ByteSize::kib(100);
    let node = rig.open();
    assert_eq!(put(&node, &[record(1, 95_000)]).await.outcomes, vec![STORED]);
    assert_eq!(put(&node, &[record(2, 10)]).await.outcomes, vec![ReplicaOutcome::Failed]);
}

#[tokio::test]
async fn a_dead_replica_is_reported_and_does_not_stop_the_others() {
    let rig = Rig::new();
    let node = rig.try_open().unwrap();
    node.apply(authority(1, 5, Some(layout(1, &[(1, "a"), (2, "b")], 2)))).unwrap();
    let replicas = node.put(&caller(1), SESSION, vec![record(1, 100).encode()]).await.unwrap();
    assert_eq!(replicas[0].answer.outcomes, vec![STORED]);
    assert_eq!(replicas[1].answer.outcomes, vec![ReplicaOutcome::Failed]);
    assert!(replicas[1].answer.reason.contains("node-2 in site b"), "{}", replicas[1].answer.reason);
    let ids = vec![record(1, 100).header.id, ChunkId([9; 32])];
    let asked = node.have(&caller(1), SESSION, ids).await.unwrap();
    assert_eq!(asked[0].answer, vec![Presence::Yes, Presence::Absent]);
    assert_eq!(asked[1].answer, vec![Presence::Unknown, Presence::Unknown]);
}

#[tokio::test]
async fn a_yes_is_durable_before_it_is_said_and_costs_nothing_twice() {
    let rig = Rig::new();
    let node = rig.open();
    put(&node, &[record(1, 100)]).await;
    node.apply(authority(1, 6, None)).unwrap();
    let touch_bytes = |rig: &Rig| -> u64 {
        let files = fs::read_dir(rig.options.data.join("touches")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    assert_eq!(touch_bytes(&rig), 0);
    assert!(has(&node, &record(1, 100)).await);
    let after_one = touch_bytes(&rig);
    assert!(after_one > 0);
    assert!(has(&node, &record(1, 100)).await);
    assert_eq!(touch_bytes(&rig), after_one);
    // After a kill the touch is known again: asking once more writes nothing.
    let (killed_rig, killed) = rig.after_a_kill();
    assert!(has(&killed, &record(1, 100)).await);
    assert_eq!(touch_bytes(&killed_rig), after_one);
}

#[tokio::test]
async fn a_record_that_is_wrong_or_not_ours_is_refused() {
    let rig = Rig::new();
    let node = rig.open();
    let foreign = record_of(holdfast_model::TenantId([9; 16]), 1, 100, RecordKind::Data);
    assert!(matches!(put_as(&node, &caller(1), &[foreign]).await, Err(Error::NotYours("tenant"))));
    let mut bad = record(1, 100);
    bad.ct[0] ^= 1;
    assert!(matches!(put_as(&node, &caller(1), &[bad]).await, Err(Error::BadBytes { .. })));
    let mut reader = caller(1);
    reader.claims.verbs = vec![Verb::Read];
    let refused = put_as(&node, &reader, &[record(1, 100)]).await;
    assert!(matches!(refused, Err(Error::VerbMissing(Verb::Write))));
    let mut expired = caller(1);
    expired.claims.expires_at_ms = 1;
    assert!(matches!(put_as(&node, &expired, &[record(1, 100)]).await, Err(Error::Signed(_))));
    assert_eq!(node.status().unwrap().records, 0);
}

#[tokio::test]
async fn a_node_takes_only_what_the_layout_gives_it() {
    let rig = Rig::new();
    let node = rig.try_open().unwrap();
    node.apply(authority(1, 5, Some(layout(1, &[(1, "a"), (2, "b")], 1)))).unwrap();
    let shared = node.layout().unwrap();
    let (mut ours, mut theirs) = (0, 0);
    for n in 0..40 {
        let record = record(n, 10);
        let owned = shared.owns(node.id(), PartitionId::of_chunk(record.header.id));
        match put_as(&node, &caller(1), &[record]).await {
            Ok(put) if owned && put.outcomes == vec![STORED] => ours += 1,
            Err(Error::NotOwner(_)) if !owned => theirs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(ours > 0 && theirs > 0);
}

#[tokio::test]
async fn old_epochs_and_fences_write_nothing() {
    let rig = Rig::new();
    let node = rig.open();
    let space = PinSpace { tenant: TENANT, resource: RESOURCE, workload: Workload::Mail };
    node.raise_fence(&space, fence(4)).unwrap();
    assert!(matches!(put_as(&node, &caller(3), &[record(1, 10)]).await, Err(Error::Fenced { .. })));
    assert!(matches!(node.open_session(&caller(3), SESSION, None), Err(Error::Fenced { .. })));
    assert!(put_as(&node, &caller(4), &[record(1, 10)]).await.is_ok());
    node.apply(authority(1, 6, None)).unwrap();
    assert!(put_as(&node, &caller(4), &[record(2, 10)]).await.is_ok());
    node.apply(authority(1, 7, None)).unwrap();
    assert!(matches!(put_as(&node, &caller(4), &[record(3, 10)]).await, Err(Error::StaleEpoch { .. })));
}

#[test]
fn lower_numbers_than_seen_are_refused_also_after_a_restart() {
    let rig = Rig::new();
    drop(rig.open());
    let node = rig.try_open().unwrap();
    assert_eq!((node.authority().epoch, node.layout().unwrap().version.0), (Epoch(5), 1));
    for (offered, what) in [
        (authority(0, 5, None), "generation"),
        (authority(1, 4, None), "epoch"),
        (authority(1, 5, Some(layout(0, &[(1, "a")], 1))), "layout version"),
    ] {
        let refused = node.apply(offered).unwrap_err();
        assert!(matches!(refused, Error::StaleAuthority { what: found, .. } if found == what), "{refused}");
    }
    let other = layout(1, &[(1, "a"), (2, "b")], 1);
    assert!(matches!(node.apply(authority(1, 5, Some(other))), Err(Error::LayoutRefused { .. })));
    let elsewhere = layout(2, &[(1, "b")], 1);
    assert!(matches!(node.apply(authority(1, 5, Some(elsewhere))), Err(Error::LayoutRefused { .. })));
    assert!(node.apply(authority(1, 5, Some(layout(1, &[(1, "a")], 1)))).is_ok());
}

#[tokio::test]
async fn without_a_layout_nothing_is_taken_in() {
    let rig = Rig::new();
    let node = rig.try_open().unwrap();
    let refused = node.put(&caller(1), SESSION, vec![record(1, 10).encode()]).await;
    assert_eq!(refused.unwrap_err().to_string(), "no layout yet");
}

#[test]
fn another_nodes_folder_is_refused() {
    let rig = Rig::new();
    drop(rig.open());
    let mut other = rig.options.clone();
    other.node_id = 2;
    let refused = rig.open_at(&other).err().unwrap().to_string();
    assert!(refused.contains("belongs to node 1 of cluster 'test'"), "{refused}");
    other.node_id = 1;
    other.cluster = "prod".to_owned();
    assert!(matches!(rig.open_at(&other), Err(Error::ForeignData { .. })));
    // A folder with something in it and no marker is somebody's too.
    let strange = rig.dir.path().join("strange");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("thesis.txt"), "x").unwrap();
    other.data = strange;
    assert!(matches!(rig.open_at(&other), Err(Error::ForeignData { .. })));
}

#[tokio::test]
async fn one_folder_has_one_node_at_a_time() {
    let rig = Rig::new();
    let _node = rig.open();
    assert!(matches!(rig.try_open(), Err(Error::DataInUse(_))));
}

#[tokio::test]
async fn a_put_of_a_known_record_protects_it_like_a_new_one() {
    let rig = Rig::new();
    let node = rig.open();
    put(&node, &[record(1, 100)]).await;
    node.apply(authority(1, 6, None)).unwrap();
    assert_eq!(put(&node, &[record(1, 100)]).await.outcomes, vec![EXISTS]);
    let touches = fs::read_dir(rig.options.data.join("touches")).unwrap().count();
    assert_eq!(touches, 1);
}

const CHILD_DATA: &str = "HOLDFAST_TEST_CHILD_DATA";
const CHILD_FROM: &str = "HOLDFAST_TEST_CHILD_FROM";

/// Not a test by itself: the process that [`kill_nine_at_any_moment_loses_nothing_acknowledged`] kills.
#[tokio::test]
#[ignore = "started by another test"]
async fn child_that_puts_until_it_is_killed() {
    let Ok(data) = std::env::var(CHILD_DATA) else { return };
    let from: u32 = std::env::var(CHILD_FROM).unwrap().parse().unwrap();
    let node = Rig::at(data.as_ref()).open();
    for n in from.. {
        let records = [record(n, 20_000), record_of(TENANT, 1_000_000 + n, 900, RecordKind::ManifestLeaf)];
        assert_eq!(put(&node, &records).await.outcomes, vec![STORED, STORED]);
        println!("acknowledged {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_at_any_moment_loses_nothing_acknowledged() {
    use std::io::{BufRead as _, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut from = 0;
    for round in 1..=4 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node::tests::child_that_puts_until_it_is_killed", "--ignored", "--nocapture"])
            .envs([(CHILD_DATA, data.as_os_str()), (CHILD_FROM, from.to_string().as_ref())])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        for line in lines {
            let line = line.unwrap();
            // The harness writes on the same line before the first of ours.
            if let Some((_, n)) = line.split_once("acknowledged ") {
                acknowledged.push(n.parse::<u32>().unwrap());
            }
            if acknowledged.len() == 30 * round {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(acknowledged.len() >= 30 * round);
        from = acknowledged.last().unwrap() + 2;
        let node = Rig::at(&data).try_open().unwrap();
        assert_eq!(node.store().n_damaged(), 0);
        for n in 0..=*acknowledged.last().unwrap() {
            // Between two rounds one number may have been cut off before its acknowledgement.
            if n >= acknowledged[0] {
                assert!(serves(&node, &record(n, 20_000)).await, "record {n} is gone");
                assert!(
                    serves(&node, &record_of(TENANT, 1_000_000 + n, 900, RecordKind::ManifestLeaf)).await
                );
            }
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    /// One fault anywhere in a segment: each record is served right or is absent, and the undamaged ones are served.
    #[test]
    fn one_fault_never_makes_a_wrong_byte_or_takes_a_neighbour(at in 0.0..1.0_f64, cut: bool, len in 1_usize..700) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let rig = Rig::new();
            let node = rig.open();
            let records: Vec<_> = (0..8).map(|n| record(n, 2_000 + 10 * n as usize)).collect();
            put(&node, &records).await;
            let damaged = rig.copy();
            let path = damaged.segment("data");
            let mut bytes = fs::read(&path).unwrap();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let at = (at * bytes.len() as f64) as usize;
            let end = if cut { bytes.len() } else { bytes.len().min(at + len) };
            bytes[at..end].iter_mut().for_each(|byte| *byte ^= 0x55);
            if cut {
                bytes.truncate(at);
            }
            fs::write(&path, &bytes).unwrap();
            let reopened = damaged.try_open().unwrap();
            assert!(reopened.store().n_damaged() >= 1);
            let mut start = 4_096;
            for record in &records {
                let stop = start + record.encoded_len();
                let touched = at < stop && end > start;
                let found = get(&reopened, record).await;
                assert!(found.is_none_or(|found| found.ciphertext == record.ciphertext));
                if !touched {
                    assert!(serves(&reopened, record).await, "an undamaged record is gone");
                }
                start = stop;
            }
        });
    }
}
