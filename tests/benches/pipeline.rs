//! The worker's pipeline beside its own primitives: MB/s of content through `SnapshotWriter` into memory, on one compute thread,
//! against 1 / Σ(1 / rate) of cutting, hashing, compressing, proving and encrypting the same bytes at the same zstd level.
//! Both sides compress a chunk only when its first bytes show that it pays.
//!
//! The data is shaped like mail: two thirds incompressible attachments, one third text.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::cast_precision_loss)]

use std::{hint::black_box, sync::Arc, time::Instant};

use bytes::Bytes;
use holdfast_model::{ResourceId, TenantId};
use holdfast_repository::{
    Chunker, ContentSource, EntryFlags, EntryKind, FolderKey, ItemFields, ItemKey, JobKeys, MemoryStore,
    ResourceKey, SnapshotWriter, TenantKeys, WriterOptions,
};
use holdfast_runtime::SystemRandom;

const ITEMS: usize = 64;
const ITEM_BYTES: usize = 3 << 20;
const CHUNK_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 64 << 10;
const ZSTD_LEVEL: i32 = 3;
const ROUNDS: u64 = 3;
const GOAL: f64 = 0.80;
/// The worker's rule: a chunk is compressed when its first bytes shrink by 4 % at least.
const PROBE_BYTES: usize = 64 << 10;
const PROBE_KEEPS_PERCENT: usize = 96;
const WORDS: [&str; 24] = [
    "the", "meeting", "is", "moved", "to", "Thursday", "please", "find", "attached", "our", "offer", "for",
    "next", "quarter", "regards", "invoice", "number", "delivery", "project", "budget", "approved", "by",
    "finance", "team",
];

fn item(round: u64, index: usize) -> Bytes {
    let mut bytes = vec![0; ITEM_BYTES];
    let mut seed = blake3::Hasher::new();
    seed.update(&round.to_le_bytes());
    seed.update(&index.to_le_bytes());
    seed.finalize_xof().fill(&mut bytes);
    let text_from = ITEM_BYTES * 2 / 3;
    let choices = bytes[..text_from].to_vec();
    let mut at = text_from;
    for (n, choice) in choices.iter().enumerate() {
        let word = WORDS[(usize::from(*choice) + n % 3) % WORDS.len()];
        if at + word.len() + 1 > ITEM_BYTES {
            break;
        }
        bytes[at..at + word.len()].copy_from_slice(word.as_bytes());
        bytes[at + word.len()] = b' ';
        at += word.len() + 1;
    }
    bytes.truncate(at);
    bytes.into()
}

fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

fn compress(chunk: &[u8]) -> Option<Vec<u8>> {
    let pack = |bytes: &[u8]| zstd::bulk::compress(bytes, ZSTD_LEVEL).expect("compress");
    let probe = &chunk[..chunk.len().min(PROBE_BYTES)];
    (pack(probe).len() * 100 <= probe.len() * PROBE_KEEPS_PERCENT).then(|| pack(chunk))
}

/// Seconds of each primitive over the same bytes, one thread.
fn primitives(items: &[Bytes]) -> [(&'static str, f64); 5] {
    let chunks: Vec<&[u8]> = items.iter().flat_map(|item| item.chunks(CHUNK_BYTES)).collect();
    let cut = seconds(|| {
        for item in items {
            let mut chunker = Chunker::new(0);
            black_box(chunker.push(item));
            black_box(chunker.finish());
        }
    });
    let hash = seconds(|| {
        for chunk in &chunks {
            black_box(blake3::keyed_hash(&[1; 32], chunk));
        }
    });
    let mut packed: Vec<Option<Vec<u8>>> = Vec::new();
    let compress = seconds(|| packed = chunks.iter().map(|chunk| compress(chunk)).collect());
    let prove = seconds(|| {
        for (chunk, packed) in chunks.iter().zip(&packed) {
            let Some(packed) = packed else { continue };
            let plain = zstd::bulk::decompress(packed, chunk.len()).expect("decompress");
            assert!(plain == *chunk);
        }
    });
    let stored: Vec<Vec<u8>> =
        chunks.iter().zip(packed).map(|(chunk, packed)| packed.unwrap_or_else(|| chunk.to_vec())).collect();
    let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_256_GCM, &[2; 32]).expect("a key");
    let key = aws_lc_rs::aead::LessSafeKey::new(key);
    let seal = seconds(|| {
        for mut bytes in stored {
            let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key([3; 12]);
            let nothing = aws_lc_rs::aead::Aad::empty();
            key.seal_in_place_append_tag(nonce, nothing, &mut bytes).expect("seal");
            black_box(blake3::hash(&bytes));
        }
    });
    [("cut", cut), ("hash", hash), ("compress", compress), ("prove", prove), ("encrypt+hash", seal)]
}

async fn pipeline(items: &[Bytes], pool: &Arc<rayon::ThreadPool>) -> f64 {
    let keys = JobKeys {
        tenant: TenantId([1; 16]),
        resource: ResourceId([2; 16]),
        tenant_keys: TenantKeys::generate(&SystemRandom),
        resource_key: ResourceKey::generate(&SystemRandom),
    };
    let options = WriterOptions { zstd_level: ZSTD_LEVEL, ..WriterOptions::default() };
    let writer =
        SnapshotWriter::create(Arc::new(MemoryStore::new()), Arc::new(keys), Arc::clone(pool), options, None);
    let started = Instant::now();
    for (index, item) in items.iter().enumerate() {
        let mut content = writer.content();
        for at in (0..item.len()).step_by(PIECE_BYTES) {
            content.push(item.slice(at..item.len().min(at + PIECE_BYTES))).await.expect("push");
        }
        let draft = content.finish().await.expect("finish");
        let fields = ItemFields {
            kind: EntryKind::MailMessage,
            flags: EntryFlags(0),
            change: [0; 16],
            size: item.len() as u64,
            parent: FolderKey([0; 16]),
            sort: index as u64,
        };
        let key = ItemKey(index.to_be_bytes().to_vec());
        writer
            .put_item(key, fields, Bytes::from_static(b"{}"), ContentSource::New(vec![draft]))
            .await
            .expect("put");
    }
    writer.merge().await.expect("merge");
    started.elapsed().as_secs_f64()
}

fn main() {
    // The producer, the store and the single compute thread share the clock: nothing runs beside the pool but hand-over.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool"));
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let items: Vec<Bytes> = (0..ITEMS).map(|index| item(round, index)).collect();
        let mib = items.iter().map(Bytes::len).sum::<usize>() as f64 / f64::from(1 << 20);
        let rates = primitives(&items);
        let ideal: f64 = rates.iter().map(|(_, seconds)| seconds).sum();
        let took = runtime.block_on(pipeline(&items, &pool));
        let shown: Vec<String> = rates.iter().map(|(name, s)| format!("{name} {:.0}", mib / s)).collect();
        println!("pipeline/zstd={ZSTD_LEVEL}/round={round}: primitives MiB/s: {}", shown.join(", "));
        println!(
            "pipeline/zstd={ZSTD_LEVEL}/round={round}: {:.0} MiB/s, ideal {:.0} MiB/s, ratio {:.2}",
            mib / took,
            mib / ideal,
            ideal / took
        );
        ratios.push(ideal / took);
    }
    ratios.sort_by(f64::total_cmp);
    println!("pipeline/zstd={ZSTD_LEVEL}: median ratio {:.2} (goal {GOAL})", ratios[ratios.len() / 2]);
}
