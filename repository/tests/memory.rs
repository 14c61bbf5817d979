//! Memory: a huge message and a million items fit in little, because messages stream and trees are written as they grow.
//!
//! `cargo nextest run -p holdfast-repository --run-ignored all -E 'binary(memory)' --no-capture` prints the figures. Each test needs a
//! process of its own, as nextest gives it; without it, only one of them runs.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use common::{job_keys, noise, pool};
use futures::TryStreamExt as _;
use holdfast_model::ChunkId;
use holdfast_record::SealedRecord;
use holdfast_repository::{
    ChunkStore, ContentSource, EntryFlags, EntryKind, FolderKey, ItemFields, ItemKey, SnapshotWriter,
    StoreError, TreeReader, WriterOptions,
};

const MIB: u64 = 1 << 20;
/// A job merges at least this often.
const MERGE_EVERY: u64 = 10_000;
/// What the writer of a million items may add to the process, of the worker's 512 MiB.
const GROWTH_MAX: u64 = 256 * MIB;
/// The largest message that Exchange takes.
const HUGE_MESSAGE_BYTES: u64 = 150_000_000;
/// What storing or reading it may add: the writer's budget below, a chunk, and what the pool and the compressor work with.
const HUGE_MESSAGE_GROWTH_MAX: u64 = 64 * MIB;

/// Read side by side.
const FILES: u64 = 16;
const FILE_BYTES: usize = 16 << 20;
const READ_AHEAD_BYTES: usize = 8 << 20;
/// What reading them may add, of 256 MiB: what is read ahead, per file the chunk that comes next and the one that is used, of at
/// most 4 MiB each and 1 MiB on average, and as much again for what the allocator keeps.
const SIDE_BY_SIDE_GROWTH_MAX: u64 = 128 * MIB;

/// Keeps records in a file, so that what is measured is the writer and not the store.
struct FileStore {
    file: File,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// Offset and length.
    records: HashMap<ChunkId, (u64, usize)>,
    end: u64,
}

#[async_trait]
impl ChunkStore for FileStore {
    async fn have(&self, ids: &[ChunkId]) -> Result<Vec<bool>, StoreError> {
        let places = self.places.lock().unwrap();
        Ok(ids.iter().map(|id| places.records.contains_key(id)).collect())
    }

    async fn put(&self, records: Vec<SealedRecord>) -> Result<(), StoreError> {
        let mut places = self.places.lock().unwrap();
        for record in records {
            let (bytes, at) = (record.encode(), places.end);
            self.file.write_all_at(&bytes, at).unwrap();
            places.records.insert(record.header.id, (at, bytes.len()));
            places.end += bytes.len() as u64;
        }
        Ok(())
    }

    async fn get(&self, ids: &[ChunkId]) -> Result<Vec<SealedRecord>, StoreError> {
        let places = self.places.lock().unwrap();
        let read = |id: &ChunkId| {
            let (at, len) = places.records.get(id).copied().ok_or(StoreError::Missing { id: *id })?;
            let mut bytes = vec![0; len];
            self.file.read_exact_at(&mut bytes, at).unwrap();
            Ok(SealedRecord::decode(bytes.into()).unwrap())
        };
        ids.iter().map(read).collect()
    }

    async fn get_copies(&self, id: ChunkId) -> Result<Vec<SealedRecord>, StoreError> {
        self.get(&[id]).await
    }
}

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}

fn key(n: u64, is_random: bool) -> ItemKey {
    let n = if is_random { n.wrapping_mul(0x9E37_79B9_7F4A_7C15) } else { n };
    ItemKey(format!("AAMkAGI2TG93AAA-{n:016x}").into_bytes())
}

fn fields(size: u64) -> ItemFields {
    ItemFields {
        kind: EntryKind::MailMessage,
        flags: EntryFlags::default(),
        change: [0; 16],
        size,
        parent: FolderKey([1; 16]),
        sort: 1,
    }
}

async fn a_million_items(is_random: bool) {
    const ITEMS: u64 = 1_000_000;
    let file = tempfile::tempfile().unwrap();
    let store = Arc::new(FileStore { file, places: Mutex::default() });
    let keys = Arc::new(job_keys(1));
    let options = WriterOptions { zstd_level: 1, ..WriterOptions::default() };
    let writer = SnapshotWriter::create(store.clone(), keys.clone(), pool(), options, None);
    // The peak so far is forgotten.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, start) = (status("VmRSS"), tokio::time::Instant::now());
    for n in 0..ITEMS {
        let fields = ItemFields {
            kind: EntryKind::MailMessage,
            flags: EntryFlags::default(),
            change: *noise(n, 16).first_chunk().unwrap(),
            size: n,
            parent: FolderKey([u8::try_from(n % 20).unwrap(); 16]),
            sort: u64::MAX - n,
        };
        let meta = noise(n, 60).into();
        writer.put_item(key(n, is_random), fields, meta, ContentSource::None).await.unwrap();
        if n % MERGE_EVERY == MERGE_EVERY - 1 {
            writer.merge().await.unwrap();
        }
    }
    let roots = writer.merge().await.unwrap();
    let (growth, took) = (status("VmHWM") - before, start.elapsed());
    let (n_records, stored) = {
        let places = store.places.lock().unwrap();
        (places.records.len(), places.end)
    };
    println!(
        "{ITEMS} items, random keys {is_random}: {took:?}, peak growth {} MiB, of which the store's index about {} MiB; \
         {n_records} records, {} MiB written",
        growth / MIB,
        n_records as u64 * 64 / MIB,
        stored / MIB
    );
    assert!(growth <= GROWTH_MAX, "{} MiB", growth / MIB);
    let reader = TreeReader::new(store, &keys, roots);
    let count = reader.items().try_fold(0_u64, |count, _| async move { Ok(count + 1) }).await.unwrap();
    assert_eq!(count, ITEMS);
}

/// The message piece by piece: two attachments, one within an attached message.
fn huge_message() -> impl Iterator<Item = Bytes> {
    let lines = |seed: u64| base64_lines(&noise(seed, 57 * 1_000));
    let n_pieces = HUGE_MESSAGE_BYTES / 78_000;
    let first = (0..n_pieces / 2).map(lines);
    // Base64 of base64: a run in a run, all of whose lines are full.
    let second = (0..n_pieces * 2 / 5).map(move |n| base64_lines(&lines(1_000_000 + n)[..78 * 19 * 50]));
    [Bytes::from_static(b"Subject: huge\r\n\r\n")]
        .into_iter()
        .chain(first)
        .chain([Bytes::from_static(b"\r\n--xyz\r\n\r\n")])
        .chain(second)
        .chain([Bytes::from_static(b"--xyz--\r\n")])
}

fn base64_lines(bytes: &[u8]) -> Bytes {
    let text = common::mime(bytes);
    let start = text.windows(4).rposition(|four| four == b"\r\n\r\n").unwrap() + 4;
    Bytes::copy_from_slice(&text[start..text.len() - b"--xyz--\r\n".len()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_message_streams_in_and_out_of_little_memory() {
    let store = Arc::new(FileStore { file: tempfile::tempfile().unwrap(), places: Mutex::default() });
    let keys = Arc::new(job_keys(1));
    let options = WriterOptions { in_flight_bytes: 8 << 20, zstd_level: 1 };
    let writer = SnapshotWriter::create(store.clone(), keys.clone(), pool(), options, None);
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");

    let (mut mime, mut original) = (writer.mime(), blake3::Hasher::new());
    for piece in huge_message() {
        original.update(&piece);
        mime.push(piece).await.unwrap();
    }
    let draft = mime.finish().await.unwrap().expect("a recipe makes its message");
    assert!(draft.is_recipe() && draft.len() >= HUGE_MESSAGE_BYTES);
    writer
        .put_item(key(1, false), fields(draft.len()), Bytes::new(), ContentSource::New(vec![draft]))
        .await
        .unwrap();
    let roots = writer.merge().await.unwrap();
    let written = status("VmHWM") - before;

    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let reader = TreeReader::new(store, &keys, roots);
    let entry = reader.item(&key(1, false)).await.unwrap().unwrap();
    let part = reader.content(&entry).await.unwrap().remove(0);
    let (mut pieces, mut read) = (reader.read(&part), blake3::Hasher::new());
    while let Some(piece) = pieces.try_next().await.unwrap() {
        read.update(&piece);
    }
    assert_eq!(read.finalize(), original.finalize());
    let growth = (written, status("VmHWM") - before);
    println!("{} bytes: writing grew by {} MiB, reading by {} MiB", part.len, growth.0 / MIB, growth.1 / MIB);
    assert!(growth.0 <= HUGE_MESSAGE_GROWTH_MAX && growth.1 <= HUGE_MESSAGE_GROWTH_MAX, "{growth:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_files_read_side_by_side_take_what_is_read_ahead_and_a_few_chunks_each() {
    let store = Arc::new(FileStore { file: tempfile::tempfile().unwrap(), places: Mutex::default() });
    let keys = Arc::new(job_keys(1));
    let options = WriterOptions { in_flight_bytes: 8 << 20, zstd_level: 1 };
    let writer = SnapshotWriter::create(store.clone(), keys.clone(), pool(), options, None);
    for n in 0..FILES {
        let mut content = writer.file();
        for piece in 0..FILE_BYTES >> 20 {
            content.push(noise(n << 16 | piece as u64, 1 << 20).into()).await.unwrap();
        }
        let contents = ContentSource::New(vec![content.finish().await.unwrap()]);
        writer.put_item(key(n, false), fields(n), Bytes::new(), contents).await.unwrap();
    }
    let roots = writer.merge().await.unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");

    let reader = TreeReader::new(store, &keys, roots).with_read_ahead(READ_AHEAD_BYTES);
    let mut reading = tokio::task::JoinSet::new();
    for n in 0..FILES {
        let reader = reader.clone();
        reading.spawn(async move {
            let entry = reader.item(&key(n, false)).await.unwrap().unwrap();
            let part = reader.content(&entry).await.unwrap().remove(0);
            let (mut pieces, mut len) = (reader.read(&part), 0);
            while let Some(piece) = pieces.try_next().await.unwrap() {
                len += piece.len();
            }
            len
        });
    }
    assert_eq!(reading.join_all().await, vec![FILE_BYTES; usize::try_from(FILES).unwrap()]);
    let growth = status("VmHWM") - before;
    println!("{FILES} files of {} MiB: reading grew by {} MiB", FILE_BYTES >> 20, growth / MIB);
    assert!(growth <= SIDE_BY_SIDE_GROWTH_MAX, "{} MiB", growth / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a while: a million items"]
async fn a_million_items_with_time_local_keys_stay_within_a_part_of_the_workers_memory() {
    a_million_items(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a while: a million items"]
async fn a_million_items_with_random_keys_stay_within_a_part_of_the_workers_memory() {
    a_million_items(true).await;
}
