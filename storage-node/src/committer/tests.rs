//! What becomes of groups when the index fails or the disk has no room for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Semaphore;

use super::*;
use crate::{
    index::{ChunkIndex, MemoryIndex},
    segment::SegmentIdentity,
    space::StopPercents,
    testing::{FaultyDisk, Rig, SESSION, TENANT, caller, record},
};

/// An index that fails when told, and counts its checkpoints.
#[derive(Default)]
struct TestIndex {
    inner: MemoryIndex,
    fails: AtomicBool,
    checkpoints: AtomicU64,
}

impl ChunkIndex for TestIndex {
    fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<IndexEntry>>, Error> {
        self.inner.get_many(keys)
    }

    fn apply(&self, batch: &IndexBatch) -> Result<(), Error> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::database(redb::Error::PreviousIo));
        }
        self.inner.apply(batch)
    }

    fn checkpoint(&self) -> Result<(), Error> {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn progress(&self) -> Result<BTreeMap<String, u64>, Error> {
        self.inner.progress()
    }

    fn clear(&self) -> Result<(), Error> {
        self.inner.clear()
    }

    fn range(
        &self,
        from: &RecordKey,
        to: &RecordKey,
        n: usize,
    ) -> Result<Vec<(RecordKey, IndexEntry)>, Error> {
        self.inner.range(from, to, n)
    }

    fn len(&self) -> Result<u64, Error> {
        self.inner.len()
    }
}

fn committer(rig: &Rig, index: Arc<TestIndex>) -> Committer {
    let disk = Arc::new(FaultyDisk(rig.faults.clone()));
    let dir = rig.dir.path().to_owned();
    let setup = WriterSetup {
        disk: disk.clone(),
        dir: dir.clone(),
        identity: SegmentIdentity { cluster: [1; 16], node: 1, disk: [2; 16], generation: 1 },
        target_bytes: 1 << 20,
        random: Arc::new(holdfast_runtime::SystemRandom),
    };
    Committer {
        data: SegmentWriter::new(setup.clone(), SegmentClass::Data, None),
        tree: SegmentWriter::new(setup.clone(), SegmentClass::Tree, None),
        touches: TouchLog::new(disk.clone(), dir.clone(), &[]),
        index: Arc::new(TouchedIndex::new(index)),
        reader: Arc::new(SegmentReader::new(disk.clone(), 8)),
        space: Arc::new(Space::new(disk, dir, 1 << 30, StopPercents { ingest: 90, repair: 85 })),
        setup,
        clock: rig.clock.clone(),
        executor: Executor::Threads,
        group_bytes: 1 << 20,
        seal_after: None,
        group_time: Duration::from_millis(20),
        since_checkpoint: Unflushed::default(),
        index_failed: false,
    }
}

async fn put(committer: &mut Committer, n: u32) -> PutResult {
    put_in(committer, n, 5).await
}

async fn put_in(committer: &mut Committer, n: u32, epoch: u64) -> PutResult {
    let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
    let (reply, answer) = oneshot::channel();
    let work = Work::Put { records: vec![record(n, 5_000)], epoch, reply, permit };
    let mut group = committer.new_group();
    assert!(committer.take(&mut group, work).is_none());
    committer.commit(group);
    answer.await.unwrap()
}

#[tokio::test]
async fn an_index_that_failed_once_is_not_fed_and_leaves_no_more_bytes_behind() {
    let rig = Rig::new();
    let index = Arc::new(TestIndex::default());
    let mut committer = committer(&rig, index.clone());
    assert_eq!(put(&mut committer, 1).await.unwrap(), vec![PutOutcome::Stored]);
    index.fails.store(true, Ordering::Relaxed);
    assert!(put(&mut committer, 2).await.unwrap_err().contains("database failed"));
    let written = rig.faults.segment_bytes.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert!(put(&mut committer, 2).await.unwrap_err().contains("start the node again"));
    }
    assert_eq!(rig.faults.segment_bytes.load(Ordering::Relaxed), written);
    let stored = index.get_many(&[RecordKey { tenant: TENANT, id: record(1, 5_000).header.id }]).unwrap();
    assert!(stored[0].is_some(), "what was acknowledged stays");
}

#[tokio::test]
async fn the_index_is_not_made_durable_on_a_disk_without_room_for_it() {
    let rig = Rig::new();
    let index = Arc::new(TestIndex::default());
    let mut committer = committer(&rig, index.clone());
    put(&mut committer, 1).await.unwrap();
    rig.clock.advance(60_000);
    rig.faults.used_percent.store(100, Ordering::Relaxed);
    committer.checkpoint_if_due();
    assert!(committer.last_checkpoint().unwrap_err().contains("full"));
    assert_eq!(index.checkpoints.load(Ordering::Relaxed), 0);
    rig.faults.used_percent.store(50, Ordering::Relaxed);
    committer.checkpoint_if_due();
    assert_eq!(index.checkpoints.load(Ordering::Relaxed), 1, "as soon as there is room");
}

#[tokio::test]
async fn a_put_of_a_known_record_alone_makes_a_checkpoint_due() {
    let rig = Rig::new();
    let index = Arc::new(TestIndex::default());
    let mut committer = committer(&rig, index.clone());
    put(&mut committer, 1).await.unwrap();
    rig.clock.advance(60_000);
    committer.checkpoint_if_due();
    assert_eq!(put_in(&mut committer, 1, 6).await.unwrap(), vec![PutOutcome::Exists]);
    rig.clock.advance(60_000);
    committer.checkpoint_if_due();
    assert_eq!(index.checkpoints.load(Ordering::Relaxed), 2);
    let entry = index.get_many(&[record(1, 5_000).key()]).unwrap()[0].unwrap();
    assert_eq!(entry.touch_epoch, 6);
}

#[tokio::test]
async fn a_disk_without_room_for_the_end_of_a_group_poisons_no_segment() {
    let rig = Rig::new();
    let mut committer = committer(&rig, Arc::default());
    put(&mut committer, 1).await.unwrap();
    // So small that it is written only when the group is synced.
    rig.faults.disk_full.store(true, Ordering::Relaxed);
    assert!(put(&mut committer, 2).await.unwrap_err().contains("full"));
    rig.faults.disk_full.store(false, Ordering::Relaxed);
    assert_eq!(put(&mut committer, 2).await.unwrap(), vec![PutOutcome::Stored]);
    let names = std::fs::read_dir(rig.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let segments = names.filter(|name| name.as_encoded_bytes().ends_with(b".seg")).count();
    assert_eq!(segments, 1, "the segment went on");
}

#[tokio::test]
async fn a_node_starts_on_a_full_disk_and_serves_what_it_has() {
    let rig = Rig::new();
    let node = rig.open();
    let kept = record(1, 5_000);
    node.replicate(&caller(1), SESSION, vec![kept.encode()]).await.unwrap();
    drop(node);
    let path = rig.segment("data");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(&[0x5a; 3_000]);
    std::fs::write(&path, &bytes).unwrap();
    rig.faults.disk_full.store(true, Ordering::Relaxed);
    rig.faults.used_percent.store(100, Ordering::Relaxed);
    let node = rig.try_open().expect("the torn tail cannot be kept aside, and is not needed");
    let found = node.get(&caller(1), &[kept.header.id], 1 << 20).await.unwrap();
    assert!(found[0].is_some());
    assert_eq!(node.store().n_damaged(), 0);
}
