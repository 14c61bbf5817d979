//! Ingest of one storage node over gRPC with mTLS, beside raw append + fsync of the same bytes on the same disk.
//!
//! One unit covers: sealed records in memory → client → socket → node → segment → fdatasync → acknowledgement. Sealing is outside
//! the timed part. Prints MiB/s of both, their ratio, and the CPU time that worker, node and file side took: client and node
//! share this machine's cores, so what they need together bounds the rate.
//!
//! `cargo bench --bench ingest -- 12` takes 12 rounds instead of 3. With `PERF_CONTROL` and `PERF_ACK`, the fifos of a `perf record
//! --control`, only the timed part through the node is recorded: `make bench-profile` does.
//!
//! Memory that a virtual machine has not touched for a while costs it several times a copy to write to again, which would be
//! charged to whoever comes second. So before each timed part as much page cache as it fills is taken and given back, and both
//! sides write to files that are new.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::cast_precision_loss)]

#[path = "allocator.rs"]
mod allocator;

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    sync::Arc,
    time::Instant,
};

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
const GOAL: f64 = 0.70;
/// Page cache taken and given back before a timed part, over what it fills.
const WARM_FACTOR: usize = 2;
/// Linux counts the CPU time of a process in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

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

/// Seconds elapsed, and seconds of CPU.
fn raw_append(folder: &std::path::Path, records: &[SealedRecord]) -> (f64, f64) {
    let encoded: Vec<_> = records.iter().map(SealedRecord::encode).collect();
    let mut file = File::create_new(folder.join("raw")).expect("create a file");
    warm(folder);
    let (started, cpu) = (Instant::now(), cpu_seconds(std::process::id()));
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
    let took = (started.elapsed().as_secs_f64(), cpu_seconds(std::process::id()) - cpu);
    std::fs::remove_file(folder.join("raw")).expect("remove the file");
    took
}

/// Takes page cache and gives it back, with nothing left to write.
fn warm(folder: &std::path::Path) {
    let path = folder.join("warm");
    let mut file = File::create_new(&path).expect("create a file");
    let piece = vec![0x5a; RECORD_BYTES];
    for _ in 0..WARM_FACTOR * RECORDS {
        file.write_all(&piece).expect("write");
    }
    nix::unistd::sync();
    // Last: what is free goes back to the host within seconds.
    std::fs::remove_file(path).expect("remove the file");
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

/// User and system time of a process so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name in brackets may hold anything.
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).expect("a stat line");
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// Turns a waiting `perf record` on and off.
struct Profiler(Option<(File, File)>);

impl Profiler {
    fn from_environment() -> Self {
        let fifo = |name: &str, write: bool| {
            let path = std::env::var_os(name)?;
            Some(OpenOptions::new().read(!write).write(write).open(path).expect("open perf's fifo"))
        };
        Self(fifo("PERF_CONTROL", true).zip(fifo("PERF_ACK", false)))
    }

    fn tell(&mut self, command: &[u8]) {
        let Some((control, ack)) = &mut self.0 else { return };
        control.write_all(command).expect("tell perf");
        let mut answer = [0; 5];
        ack.read_exact(&mut answer).expect("perf answers");
    }
}

#[tokio::main]
async fn main() {
    holdfast_runtime::install_crypto();
    let n_rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
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
    let mut profiler = Profiler::from_environment();
    let mib = (RECORDS * RECORD_BYTES) as f64 / f64::from(1 << 20);
    let (own, its) = (std::process::id(), node.process.pid().as_raw().unsigned_abs());
    let mut ratios = Vec::new();
    for round in 0..n_rounds {
        let records = records(round, &sealer);
        let (raw_seconds, raw_cpu) = raw_append(folder.path(), &records);
        warm(folder.path());
        let before = [own, its].map(cpu_seconds);
        profiler.tell(b"enable\n");
        let seconds = through_the_node(&node, records).await;
        profiler.tell(b"disable\n");
        let after = [own, its].map(cpu_seconds);
        let [worker, storage] = [after[0] - before[0], after[1] - before[1]].map(|cpu| cpu * 1e3 / mib);
        let ratio = raw_seconds / seconds;
        println!(
            "ingest/size=1MiB/round={round}: node {:.0} MiB/s, raw append+fsync {:.0} MiB/s, ratio {ratio:.2}",
            mib / seconds,
            mib / raw_seconds
        );
        println!(
            "ingest/size=1MiB/round={round}: CPU ms per MiB: worker {worker:.2}, node {storage:.2}, raw {:.2}; {:.2} cores busy",
            raw_cpu * 1e3 / mib,
            (worker + storage) * mib / 1e3 / seconds
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("ingest/size=1MiB: median ratio {:.2} (goal {GOAL})", ratios[ratios.len() / 2]);
    node.session.close().await;
}
