//! A disk that is lost: the node goes on without it, and never claims what was on it.

use super::*;

/// A stopped node with records on both of its disks, and the path of the second.
async fn stopped(all: &[SealedRecord]) -> (Rig, PathBuf, Vec<u64>) {
    let mut rig = Rig::new();
    let path = rig.add_disk("second", ByteSize::gib(1));
    let node = rig.open();
    put_all(&node, all, STORED).await;
    let spread = counts(&node);
    node.close().await.unwrap();
    (rig, path, spread)
}

#[tokio::test]
async fn a_node_starts_without_a_lost_disk_and_claims_nothing_of_it() {
    let all = records(0..200);
    for is_below_a_missing_mount in [false, true] {
        let (rig, path, spread) = stopped(&all).await;
        let aside = rig.dir.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        if is_below_a_missing_mount {
            fs::create_dir(&path).unwrap();
        }
        let node = rig.try_open().unwrap();
        let status = node.status().unwrap();
        assert_eq!((status.n_disks, status.n_disks_lost, status.records), (2, 1, spread[0]));
        assert_eq!(have(&node, &all).await.into_iter().filter(|there| *there).count() as u64, spread[0]);
        let ids: Vec<_> = all.iter().map(|record| record.header.id).collect();
        let served = node.get(&caller(1), &ids, 64 << 20).await.unwrap();
        assert_eq!(served.iter().flatten().count() as u64, spread[0]);
        // Its share of the partitions is compared first.
        assert!(status.repair.backlog.suspects > 1_000, "{:?}", status.repair.backlog);
        // Workers bring it again meanwhile, and that is stored on the other disk.
        let put = put(&node, &all).await;
        assert_eq!(put.outcomes.iter().filter(|one| **one == STORED).count() as u64, spread[1]);
        assert!(serves_all(&node, &all).await);
        // Nothing was begun in its place, at no start.
        let node = restart(&rig, node).await;
        assert_eq!(node.status().unwrap().n_disks_lost, 1);
        assert_eq!(path.exists(), is_below_a_missing_mount);
        node.close().await.unwrap();
        drop(node);

        // Mounted again, it is what it was.
        if is_below_a_missing_mount {
            fs::remove_dir(&path).unwrap();
        }
        fs::rename(&aside, &path).unwrap();
        let node = rig.try_open().unwrap();
        assert_eq!(node.status().unwrap().n_disks_lost, 0);
        assert_eq!(counts(&node), [200, spread[1]]);
        assert!(serves_all(&node, &all).await);
        put_all(&node, &all, EXISTS).await;
    }
}

#[tokio::test]
async fn a_disk_that_does_not_open_is_lost_and_a_new_one_takes_its_place_elsewhere() {
    let all = records(0..100);
    let (mut rig, path, spread) = stopped(&all).await;
    // The segments cannot be listed.
    fs::remove_dir_all(path.join("segments")).unwrap();
    fs::write(path.join("segments"), "a file").unwrap();
    let node = rig.try_open().unwrap();
    assert_eq!((counts(&node), node.status().unwrap().n_disks_lost), (vec![spread[0]], 1));
    node.close().await.unwrap();
    drop(node);
    rig.options.disks.clear();
    rig.add_disk("third", ByteSize::gib(1));
    let node = rig.try_open().unwrap();
    let status = node.status().unwrap();
    assert_eq!((status.n_disks, status.n_disks_lost, counts(&node)), (2, 0, vec![spread[0], 0]));
    assert!(status.repair.backlog.suspects > 0);
    put(&node, &all).await;
    assert!(serves_all(&node, &all).await && counts(&node)[1] > 0);
    // What is not configured any more is told once and forgotten.
    let known: Vec<_> = node.state.disks().unwrap().into_iter().map(|disk| disk.path).collect();
    assert_eq!(known, [rig.dir.path().join("third")]);
}

#[tokio::test]
async fn a_disk_moves_to_another_path_and_keeps_what_it_has() {
    let all = records(0..100);
    let (mut rig, path, spread) = stopped(&all).await;
    rig.options.disks.clear();
    let moved = rig.add_disk("moved", ByteSize::gib(1));
    fs::rename(path, &moved).unwrap();
    let node = rig.try_open().unwrap();
    assert_eq!((counts(&node), node.status().unwrap().repair.backlog.suspects), (spread, 0));
    assert!(serves_all(&node, &all).await);
}

#[tokio::test]
async fn a_disk_that_fails_ends_the_node_and_nothing_is_answered_until_then() {
    let mut rig = Rig::new();
    let path = rig.add_disk("second", ByteSize::gib(1));
    let node = rig.open();
    let (all, more) = (records(0..100), records(100..200));
    put_all(&node, &all, STORED).await;
    *rig.faults.only_below.lock().unwrap() = Some(path.clone());
    rig.faults.fail_segment_sync.store(true, Ordering::Relaxed);
    let put = put(&node, &more).await;
    let stored: Vec<_> = more
        .iter()
        .zip(&put.outcomes)
        .filter(|(_, one)| **one == STORED)
        .map(|(one, _)| one.clone())
        .collect();
    assert!(!stored.is_empty() && stored.len() < more.len(), "the other disk stores its own");
    assert!(put.reason.starts_with("not stored"), "{}", put.reason);
    assert!(matches!(node.must_end(), Some(Error::DiskFailed(failed)) if failed == path));
    let ids: Vec<_> = all.iter().map(|record| record.header.id).collect();
    for error in [
        node.have_local(&caller(1), ids.clone()).await.map(drop).unwrap_err(),
        node.get(&caller(1), &ids, 1 << 20).await.map(drop).unwrap_err(),
        node.digests(vec![PartitionId(1)]).await.map(drop).unwrap_err(),
        node.holds(vec![all[0].key()]).await.map(drop).unwrap_err(),
    ] {
        assert!(
            matches!(error, Error::DiskFailed(_)) && error.is_retryable() && error.is_mended_by_restart()
        );
    }
    rig.faults.fail_segment_sync.store(false, Ordering::Relaxed);
    let node = restart(&rig, node).await;
    assert!(node.must_end().is_none());
    assert!(serves_all(&node, &all).await && serves_all(&node, &stored).await);
}

#[tokio::test]
async fn a_disk_that_is_taken_away_is_noticed_without_a_write() {
    let all = records(0..40);
    let (rig, path, spread) = stopped(&all).await;
    let node = rig.try_open().unwrap();
    node.housekeeping().await.unwrap();
    assert!(node.must_end().is_none());
    fs::rename(&path, rig.dir.path().join("aside")).unwrap();
    node.housekeeping().await.unwrap();
    assert!(matches!(node.must_end(), Some(Error::DiskFailed(gone)) if gone == path));
    node.close().await.unwrap();
    drop(node);
    let node = rig.try_open().unwrap();
    assert_eq!((counts(&node), node.must_end().is_none()), (vec![spread[0]], true));
}
