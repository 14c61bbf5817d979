//! Ingest of one storage node over gRPC with mTLS, beside raw append + fsync of the same bytes on the same disk.
//!
//! One unit covers: sealed records in memory → client → socket → node → segment → fdatasync → acknowledgement. Sealing is outside
//! the timed part. Prints MiB/s of both and their ratio.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::cast_precision_loss)]

use std::{io::Write as _, sync::Arc, time::Instant};

use harness::single_node::SingleNode;
use holdfast_model::{ResourceId, TenantId};
use holdfast_record::{RecordKind, SealedRecord};
use holdfast_repository::{ChunkStore as _, JobKeys, ResourceKey, SealOptions, Sealer, TenantKeys};
use holdfast_runtime::SystemRandom;

const RECORDS: usize = 384;
const RECORD_BYTES: usize = 1 << 20;
const BATCH: usize = 4;
const BATCHES_IN_FLIGHT: usize = 8;
/// The node's own group commit: what the raw side pays too.
const SYNC_EVERY_BYTES: usize = 4 << 20;
const ROUNDS: usize = 3;

fn records(round: usize, sealer: &Sealer) -> Vec<SealedRecord> {
    (0..RECORDS)
        .map(|index| {
            let mut bytes = vec![0; RECORD_BYTES];
            let mut seed = blake3::Hasher::new();
            seed.update(&round.to_le_bytes());
            seed.update(&index.to_le_bytes());
            seed.finalize_xof().fill(&mut bytes);
            let h = sealer.hash(RecordKind::Data, &bytes);
            sealer.seal(RecordKind::Data, h, &bytes, Vec::new(), SealOptions::default()).expect("seal")
        })
        .collect()
}

fn raw_append(folder: &std::path::Path, records: &[SealedRecord]) -> f64 {
    let encoded: Vec<_> = records.iter().map(SealedRecord::encode).collect();
    let mut file = std::fs::File::create(folder.join("raw")).expect("create a file");
    let started = Instant::now();
    let mut unsynced = 0;
    for bytes in &encoded {
        file.write_all(bytes).expect("append");
        unsynced += bytes.len();
        if unsynced >= SYNC_EVERY_BYTES {
            file.sync_data().expect("sync");
            unsynced = 0;
        }
    }
    file.sync_data().expect("sync");
    started.elapsed().as_secs_f64()
}

async fn through_the_node(node: &SingleNode, records: Vec<SealedRecord>) -> f64 {
    use futures::StreamExt as _;
    let batches: Vec<Vec<SealedRecord>> = records.chunks(BATCH).map(<[_]>::to_vec).collect();
    let started = Instant::now();
    futures::stream::iter(batches)
        .map(|batch| node.session.put(batch))
        .buffer_unordered(BATCHES_IN_FLIGHT)
        .for_each(|outcome| async move { outcome.expect("put") })
        .await;
    started.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    holdfast_runtime::install_crypto();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk of target/");
    let (tenant, resource) = (TenantId([1; 16]), ResourceId([2; 16]));
    let keys = JobKeys {
        tenant,
        resource,
        tenant_keys: TenantKeys::generate(&SystemRandom),
        resource_key: ResourceKey::generate(&SystemRandom),
    };
    let sealer = Sealer::new(&Arc::new(keys));
    let node = SingleNode::start(folder.path(), tenant, resource).await;
    let mib = (RECORDS * RECORD_BYTES) as f64 / f64::from(1 << 20);
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let records = records(round, &sealer);
        let raw = mib / raw_append(folder.path(), &records);
        let ingest = mib / through_the_node(&node, records).await;
        println!(
            "ingest/size=1MiB/round={round}: node {ingest:.0} MiB/s, raw append+fsync {raw:.0} MiB/s, ratio {:.2}",
            ingest / raw
        );
        ratios.push(ingest / raw);
    }
    ratios.sort_by(f64::total_cmp);
    println!("ingest/size=1MiB: median ratio {:.2} (goal 0.50)", ratios[ROUNDS / 2]);
    node.session.close().await;
}
