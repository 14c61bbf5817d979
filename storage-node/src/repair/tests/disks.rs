//! A node with several disks among others: what a lost disk kept comes back by itself, and its return harms nothing.

use super::*;

impl Pool {
    /// Three copies of everything on three nodes, the first of which has two disks.
    fn with_two_disks() -> Self {
        let mut pool = Self::start(3, 3);
        lock(&pool.wire).nodes.remove(&NodeId(1));
        pool.rigs[0].add_disk("second", ByteSize::gib(1));
        pool.open(1);
        pool
    }

    fn second_disk(&self) -> PathBuf {
        self.rigs[0].options.disks[0].path.clone()
    }
}

async fn serves_all(node: &Node, records: &[SealedRecord]) -> bool {
    let serves_one = records.iter().map(|record| serves(node, record));
    futures::future::join_all(serves_one).await.into_iter().all(|served| served)
}

#[tokio::test]
async fn what_a_lost_disk_kept_comes_back_from_the_other_nodes_onto_those_that_are_left() {
    let mut pool = Pool::with_two_disks();
    let all = records(0..200);
    put(&pool.node(1), &all).await;
    let before = pool.node(1).status().unwrap();
    assert_eq!((before.records, before.n_disks_lost), (200, 0));
    let protections: Vec<_> = all.iter().map(|record| protection(&pool.node(2), record)).collect();
    pool.stop(1).await;
    let aside = pool.rigs[0].dir.path().join("aside");
    fs::rename(pool.second_disk(), &aside).unwrap();

    let node = pool.open(1);
    let lost = 200 - node.store.n_records().unwrap();
    assert!((50..150).contains(&lost), "{lost} were on the second disk");
    // Without a round: its share of the partitions is suspect from the start.
    let suspects = backlog(&node).suspects;
    for _ in 0..suspects.div_ceil(16) {
        node.compare_step(0).await.unwrap();
    }
    assert_eq!(backlog(&node).records, lost);
    pool.resync(1).await;
    assert_eq!((node.store.n_records().unwrap(), backlog(&node).records), (200, 0));
    assert!(serves_all(&node, &all).await);
    for (record, expected) in all.iter().zip(&protections) {
        assert_eq!(protection(&node, record), *expected);
    }
    assert_eq!(node.status().unwrap().n_disks_lost, 1);
    drop(node);

    // It comes back with what it had, while other nodes have more than that.
    pool.stop(1).await;
    fs::rename(&aside, pool.second_disk()).unwrap();
    let node = pool.open(1);
    put(&pool.node(2), &records(200..220)).await;
    for id in [1, 2, 3] {
        assert_eq!(pool.node(id).digests(vec![PartitionId(7)]).await.unwrap().digests.len(), 1);
    }
    pool.round().await;
    assert!(serves_all(&node, &all).await && serves_all(&node, &records(200..220)).await);
    let digests = |id| {
        let node = pool.node(id);
        async move {
            let mut all = Vec::new();
            for from in (0..PARTITION_COUNT).step_by(64) {
                let some = (from..from + 64).map(PartitionId).collect();
                all.extend(node.digests(some).await.unwrap().digests);
            }
            all
        }
    };
    assert_eq!(digests(1).await, digests(2).await, "owners have the same");
    assert_eq!(backlog(&node).records, 0);
}

#[tokio::test]
async fn a_node_never_gives_its_peers_half_of_what_it_has() {
    let mut pool = Pool::with_two_disks();
    let all = records(0..50);
    put(&pool.node(1), &all).await;
    *pool.rigs[0].faults.only_below.lock().unwrap() = Some(pool.second_disk());
    pool.rigs[0].faults.fail_segment_sync.store(true, Ordering::Relaxed);
    put(&pool.node(1), &records(50..100)).await;
    assert!(pool.node(1).must_end().is_some());
    // To the others it is as if it were away: no round is complete, and nothing is taken for missing.
    pool.round_of(2).await;
    assert_eq!(pool.node(2).repair_status().unwrap().last_comparison_ms, 0);
    pool.rigs[0].faults.fail_segment_sync.store(false, Ordering::Relaxed);
    pool.restart(1).await;
    for id in [1, 2, 3] {
        pool.round_of(id).await;
    }
    for id in [1, 2, 3] {
        assert!(
            serves_all(&pool.node(id), &all).await && serves_all(&pool.node(id), &records(50..100)).await
        );
        assert!(pool.node(id).repair_status().unwrap().last_comparison_ms > 0);
    }
}

impl Pool {
    /// An hour later one node compares and brings back.
    async fn round_of(&mut self, id: u64) {
        self.now_ms += 3_600_000;
        self.compare(id).await;
        self.resync(id).await;
    }
}
