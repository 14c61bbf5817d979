//! Small things share records: large enough to spare the index, small enough to fetch, and never with more references than fit.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{job_keys, noise, pool};
use futures::TryStreamExt as _;
use holdfast_record::{MAX_REFS, RecordKind, SealedRecord};
use holdfast_repository::{
    ContentDraft, ContentSource, EntryFlags, EntryKind, FILE_INLINE_MAX, FolderKey, INLINE_MAX, ItemFields,
    ItemKey, JobKeys, MemoryStore, SnapshotWriter, TreeReader, TreeRoots, WriterOptions,
};

struct Bench {
    store: Arc<MemoryStore>,
    keys: Arc<JobKeys>,
    writer: SnapshotWriter,
}

impl Bench {
    fn new() -> Self {
        let (store, keys) = (Arc::new(MemoryStore::new()), Arc::new(job_keys(1)));
        let writer =
            SnapshotWriter::create(store.clone(), keys.clone(), pool(), WriterOptions::default(), None);
        Self { store, keys, writer }
    }

    async fn put(&self, n: u64, meta: Vec<u8>, contents: ContentSource) {
        self.writer.put_item(key(n), fields(), meta.into(), contents).await.unwrap();
    }

    fn records(&self, kind: RecordKind) -> Vec<SealedRecord> {
        self.store.records().into_iter().filter(|record| record.header.kind == kind).collect()
    }

    async fn meta(&self, roots: TreeRoots, n: u64) -> Bytes {
        let reader = TreeReader::new(self.store.clone(), &self.keys, roots);
        reader.meta(&reader.item(&key(n)).await.unwrap().unwrap()).await.unwrap()
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

#[tokio::test(flavor = "multi_thread")]
async fn small_things_fill_records_of_up_to_a_mebibyte() {
    let bench = Bench::new();
    let len = |n: u64| usize::try_from(n * 7_919 % (INLINE_MAX as u64 + 1)).unwrap();
    for n in 0..1_500 {
        bench.put(n, noise(n, len(n)), ContentSource::None).await;
    }
    let roots = bench.writer.merge().await.unwrap();

    let sizes: Vec<u32> =
        bench.records(RecordKind::Bundle).iter().map(|record| record.header.pt_len).collect();
    assert!(sizes.iter().all(|size| *size <= 1 << 20), "{sizes:?}");
    assert!(sizes.iter().filter(|size| **size < 256 << 10).count() <= 1, "only the last is small: {sizes:?}");
    assert!(bench.records(RecordKind::Data).is_empty());
    for n in (0..1_500).step_by(97) {
        assert!(bench.meta(roots, n).await == noise(n, len(n)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_more_than_the_limit_makes_a_record_of_its_own() {
    let bench = Bench::new();
    bench.put(1, noise(1, INLINE_MAX), ContentSource::None).await;
    bench.put(2, noise(2, INLINE_MAX + 1), ContentSource::None).await;
    let roots = bench.writer.merge().await.unwrap();
    assert_eq!(bench.records(RecordKind::Bundle).len(), 1);
    assert_eq!(bench.records(RecordKind::Data).len(), 1);
    assert!(bench.meta(roots, 1).await == noise(1, INLINE_MAX));
    assert!(bench.meta(roots, 2).await == noise(2, INLINE_MAX + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_its_own_record_from_a_smaller_size_on() {
    let bench = Bench::new();
    for (n, len) in [(1, FILE_INLINE_MAX), (2, FILE_INLINE_MAX + 1), (3, FILE_INLINE_MAX + 1)] {
        let mut file = bench.writer.file();
        file.push(noise(len as u64, len).into()).await.unwrap();
        bench.put(n, Vec::new(), ContentSource::New(vec![file.finish().await.unwrap()])).await;
    }
    bench.writer.merge().await.unwrap();
    let data = bench.records(RecordKind::Data);
    assert_eq!(data.len(), 1, "the two larger are one");
    assert_eq!(data[0].header.pt_len as usize, FILE_INLINE_MAX + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_of_things_with_many_references_stay_within_what_a_record_carries() {
    let bench = Bench::new();
    for n in 0..600 {
        let mut drafts = Vec::new();
        for part in 0..11 {
            let mut file = bench.writer.file();
            file.push(noise(n * 11 + part, FILE_INLINE_MAX + 1).into()).await.unwrap();
            drafts.push(file.finish().await.unwrap());
        }
        bench.put(n, b"meta".to_vec(), ContentSource::New(drafts)).await;
    }
    let roots = bench.writer.merge().await.unwrap();
    let bundles = bench.records(RecordKind::Bundle);
    assert!(bundles.iter().all(|record| record.refs.len() <= MAX_REFS));
    assert!(bundles.len() > 1 && bundles.iter().map(|record| record.refs.len()).sum::<usize>() == 6_600);
    let reader = TreeReader::new(bench.store.clone(), &bench.keys, roots);
    let parts = reader.content(&reader.item(&key(599)).await.unwrap().unwrap()).await.unwrap();
    let last: Vec<Bytes> = reader.read(&parts[10]).try_collect().await.unwrap();
    assert!(last.concat() == noise(599 * 11 + 10, FILE_INLINE_MAX + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_names_more_than_fits_is_refused_and_nothing_else_suffers() {
    let bench = Bench::new();
    let mut drafts = Vec::new();
    for message in 0..3 {
        let mut mime = bench.writer.mime();
        for n in 0..900 {
            mime.push(common::mime(&noise(message * 1_000 + n, FILE_INLINE_MAX + 1)).into()).await.unwrap();
        }
        drafts.push(mime.finish().await.unwrap().unwrap());
    }
    let put = bench.writer.put_item(key(1), fields(), Bytes::new(), ContentSource::New(drafts)).await;
    assert!(matches!(put, Err(holdfast_repository::Error::TooLarge { .. })), "{put:?}");
    bench.put(2, b"meta".to_vec(), ContentSource::None).await;
    let roots = bench.writer.merge().await.unwrap();
    assert_eq!(bench.meta(roots, 2).await, "meta");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_at_all_and_places_asked_for_early_are_fine() {
    let bench = Bench::new();
    bench.put(1, Vec::new(), ContentSource::New(vec![ContentDraft::inline(Bytes::new())])).await;
    let early = bench.writer.entry(&key(1)).await.unwrap().unwrap();
    bench.put(2, b"behind".to_vec(), ContentSource::None).await;
    let roots = bench.writer.merge().await.unwrap();
    let reader = TreeReader::new(bench.store.clone(), &bench.keys, roots);
    assert_eq!(reader.item(&key(1)).await.unwrap(), Some(early));
    assert!(bench.meta(roots, 1).await.is_empty());
    assert_eq!(bench.meta(roots, 2).await, "behind");
    assert_eq!(bench.writer.merge().await.unwrap(), roots, "nothing more to merge");
}
