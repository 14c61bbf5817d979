//! A file much larger than memory.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use async_trait::async_trait;
use holdfast_graph_sim::{Population, SimOptions};
use holdfast_model::{ChunkId, ConflictPolicy, Workload};
use holdfast_record::{Pin, SealedRecord};
use holdfast_repository::{ChunkStore, StoreError};
use holdfast_worker::{
    backup::{Ends, Progress},
    restore::RestoreJob,
};
use serde_json::json;

use crate::harness::World;

const FILE_BYTES: u64 = 5_000_000_000;
/// What the process may ever hold: the simulator, the buffers of the jobs, and no file.
const PEAK_BYTES: u64 = 600 << 20;

/// A store that keeps a file per record: one in memory would hold all of it.
struct FolderStore {
    folder: PathBuf,
    /// Files are written one at a time: a record may be put twice at once.
    writing: Mutex<()>,
}

impl FolderStore {
    fn path(&self, id: ChunkId) -> PathBuf {
        self.folder.join(hex(&id.0))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[async_trait]
impl ChunkStore for FolderStore {
    async fn have(&self, ids: &[ChunkId]) -> Result<Vec<bool>, StoreError> {
        Ok(ids.iter().map(|id| self.path(*id).exists()).collect())
    }

    async fn put(&self, records: Vec<SealedRecord>) -> Result<(), StoreError> {
        let _one_at_a_time = self.writing.lock().unwrap();
        for record in records {
            std::fs::write(self.path(record.header.id), record.encode()).unwrap();
        }
        Ok(())
    }

    async fn get(&self, ids: &[ChunkId]) -> Result<Vec<SealedRecord>, StoreError> {
        let read = |id: &ChunkId| {
            let bytes = std::fs::read(self.path(*id)).map_err(|_| StoreError::Missing { id: *id })?;
            SealedRecord::decode(bytes.into()).map_err(|_| StoreError::Corrupt { id: *id })
        };
        ids.iter().map(read).collect()
    }

    async fn get_copies(&self, id: ChunkId) -> Result<Vec<SealedRecord>, StoreError> {
        self.get(&[id]).await
    }
}

/// The most that this process ever held in memory.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and 5 GB of disk: run it after changes to downloads, uploads or the chunk pipeline"]
async fn a_file_of_five_gigabytes_is_backed_up_and_restored_in_flat_memory() {
    let population = Population {
        users: 1,
        messages_per_user: 0,
        drive_files_per_user: 0,
        drive_large_file_bytes: FILE_BYTES,
        ..Population::default()
    };
    let mut world =
        World::start(Workload::OneDrive, SimOptions { population, ..SimOptions::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(FolderStore { folder: folder.path().to_owned(), writing: Mutex::default() });
    let started = Instant::now();
    let pin = back_up(&mut world, store.clone()).await;
    let (backup_time, backup_peak) = (started.elapsed(), peak_bytes());

    let before = world.truth_list().await;
    world.control("wipe", json!({"user": world.user.id, "workload": "onedrive"})).await;
    let started = Instant::now();
    restore(&world, store, pin).await;
    let (restore_time, peak) = (started.elapsed(), peak_bytes());
    println!(
        "backup {backup_time:.1?} with at most {} MiB, restore {restore_time:.1?} with at most {} MiB",
        backup_peak >> 20,
        peak >> 20
    );
    let after = world.truth_list().await;
    assert_eq!(after.len(), 1);
    for property in ["identity", "size", "blake3", "lastModifiedDateTime"] {
        assert_eq!(after[0][property], before[0][property], "{property}");
    }
    assert!(peak < PEAK_BYTES, "{} MiB", peak >> 20);
}

async fn back_up(world: &mut World, store: Arc<FolderStore>) -> Pin {
    let job = world.job();
    let ends = Ends {
        graph: world.graph(),
        store,
        keys: world.keys.clone(),
        checkpoints: world.checkpoints.clone(),
        shards: None,
        resume: None,
        progress: Arc::new(Progress::default()),
    };
    let finished = job.run(ends, world.shared.clone()).await.unwrap();
    assert_eq!((finished.failed.len(), finished.account.bytes_read), (0, FILE_BYTES));
    finished.pin
}

async fn restore(world: &World, store: Arc<FolderStore>, pin: Pin) {
    let job = RestoreJob {
        workload: Workload::OneDrive,
        pin,
        user: world.user.id.clone(),
        paths: Vec::new(),
        into: String::new(),
        conflict: ConflictPolicy::Skip,
        restore_key: "r1".to_owned(),
        writes: 4,
        read_ahead_bytes: crate::support::READ_AHEAD_BYTES,
    };
    let progress = Arc::new(Progress::default());
    let restored = job.run(world.graph(), store, world.keys.clone(), world.shared.clone(), progress).await;
    let restored = restored.unwrap();
    assert_eq!((restored.failed.len(), restored.account.stored), (0, 1));
}
