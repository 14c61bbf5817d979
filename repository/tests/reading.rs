//! Reading many things side by side: each record is fetched once, what is read ahead is bounded, and nothing waits for another.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{job_keys, noise, pool};
use futures::{TryStreamExt as _, future::try_join_all, stream::BoxStream};
use holdfast_model::{Account, Epoch, Fence, ResourceId, Sequence, SnapshotId, TenantId, Workload};
use holdfast_record::Pin;
use holdfast_repository::{
    ContentSource, EntryFlags, EntryKind, Error, FolderKey, ItemEntry, ItemFields, ItemKey, JobKeys,
    MemoryStore, SnapshotHeader, SnapshotReader, SnapshotWriter, TreeRoots, WriterOptions,
};

const FILE_BYTES: usize = 12 << 20;
const N_FILES: u64 = 4;

struct Bench {
    store: Arc<MemoryStore>,
    keys: Arc<JobKeys>,
    writer: SnapshotWriter,
}

impl Bench {
    fn new() -> Self {
        let (store, keys) = (Arc::new(MemoryStore::new()), Arc::new(job_keys(1)));
        let options = WriterOptions { zstd_level: 1, ..WriterOptions::default() };
        let writer = SnapshotWriter::create(store.clone(), keys.clone(), pool(), options, None);
        Self { store, keys, writer }
    }

    async fn put_small(&self, n: u64, meta: Vec<u8>) {
        self.writer.put_item(key(n), fields(), meta.into(), ContentSource::None).await.unwrap();
    }

    async fn put_file(&self, n: u64) {
        let mut content = self.writer.file();
        content.push(noise(n, FILE_BYTES).into()).await.unwrap();
        let draft = content.finish().await.unwrap();
        let contents = ContentSource::New(vec![draft]);
        self.writer.put_item(key(n), fields(), Bytes::new(), contents).await.unwrap();
    }

    async fn finish(self) -> (Arc<MemoryStore>, SnapshotReader, Vec<ItemEntry>) {
        let finished = self.writer.finish(header()).await.unwrap();
        let (sequence, root) = (Sequence(1), finished.root);
        let pin = Pin {
            tenant: TenantId([1; 16]),
            resource: ResourceId([2; 16]),
            workload: Workload::Mail,
            sequence,
            fence: Fence::default(),
            epoch: Epoch(1),
            snapshot: SnapshotId([3; 8]),
            root,
            sealed_root: finished.sealed_root,
            previous: None,
            created_ms: 0,
            retain_until_ms: 0,
            items: 0,
            items_missing: 0,
        };
        let reader = SnapshotReader::open(self.store.clone(), self.keys, &pin).await.unwrap();
        let items: Vec<_> = reader.items().try_collect().await.unwrap();
        (self.store, reader, items.into_iter().map(|(_, entry)| entry).collect())
    }
}

fn key(n: u64) -> ItemKey {
    ItemKey(format!("item-{n:08}").into_bytes())
}

fn fields() -> ItemFields {
    ItemFields {
        kind: EntryKind::MailMessage,
        flags: EntryFlags::default(),
        change: [0; 16],
        size: 0,
        parent: FolderKey([1; 16]),
        sort: 0,
    }
}

fn header() -> SnapshotHeader {
    SnapshotHeader {
        tenant: TenantId([1; 16]),
        resource: ResourceId([2; 16]),
        workload: Workload::Mail,
        sequence: Sequence(1),
        parent: None,
        roots: TreeRoots::default(),
        state: Vec::new(),
        account: Account::default(),
        failed: Vec::new(),
        started_ms: 1,
        finished_ms: 2,
        worker: "worker-1".into(),
        format: 1,
    }
}

/// All files at one time, each with its first chunk read.
async fn start_all(
    reader: &SnapshotReader,
    entries: &[ItemEntry],
) -> Vec<(Bytes, BoxStream<'static, Result<Bytes, Error>>)> {
    let mut started = Vec::new();
    for entry in entries {
        let part = reader.content(entry).await.unwrap().remove(0);
        let mut pieces = reader.read(&part);
        started.push((pieces.try_next().await.unwrap().unwrap(), pieces));
    }
    started
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_many_are_read_from_at_one_time_is_fetched_once() {
    let bench = Bench::new();
    for n in 0..40 {
        bench.put_small(n, noise(n, 20_000)).await;
    }
    let (store, reader, entries) = bench.finish().await;

    let before = store.n_gets();
    let metas = try_join_all(entries.iter().map(|entry| reader.meta(entry))).await.unwrap();
    assert_eq!(store.n_gets() - before, 1);
    for (n, meta) in (0..).zip(metas) {
        assert!(meta == noise(n, 20_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_to_read_ahead_every_stream_still_has_its_next_chunk_and_no_more() {
    let bench = Bench::new();
    for n in 0..N_FILES {
        bench.put_file(n).await;
    }
    let (store, reader, entries) = bench.finish().await;
    let reader = reader.with_read_ahead(0);
    // The contents' lists of chunks are read from one bundle.
    reader.meta(&entries[0]).await.unwrap();

    let before = store.n_gets();
    let started = start_all(&reader, &entries).await;
    assert!(store.n_gets() - before <= 2 * N_FILES, "{}", store.n_gets() - before);
    // Backwards, so that the first to be started is the last to be used.
    let numbered: Vec<_> = (0..N_FILES).zip(started).collect();
    for (n, (first, rest)) in numbered.into_iter().rev() {
        let rest: Vec<Bytes> = rest.try_collect().await.unwrap();
        assert!([&[first], &rest[..]].concat().concat() == noise(n, FILE_BYTES));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_ahead_is_asked_for_before_it_is_wanted() {
    let bench = Bench::new();
    bench.put_file(1).await;
    let (store, reader, entries) = bench.finish().await;

    let before = store.n_gets();
    let (_, mut pieces) = start_all(&reader, &entries).await.remove(0);
    while store.n_gets() - before < 4 {
        tokio::task::yield_now().await;
    }
    assert!(pieces.try_next().await.unwrap().is_some());
}
