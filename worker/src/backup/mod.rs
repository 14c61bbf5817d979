//! A backup from the base's snapshot to the next pin, whatever the workload. It does not know sessions or the coordinator:
//! the store, the checkpoint sink and Microsoft are handed in.
//!
//! The invariant: the pin is made only after the account adds up and everything it reaches is durable.

mod manifest;
mod progress;
mod shard;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_graph_client::GraphClient;
use holdfast_model::{
    Account, ChunkId, Clock, Epoch, Fence, Millis, PinHash, Random, ResourceId, Sequence, SnapshotId,
    TenantId, Workload,
};
use holdfast_record::Pin;
use holdfast_repository::{
    ChunkStore, JobKeys, SnapshotHeader, SnapshotReader, SnapshotWriter, StoreError, TreeRoots, WriterOptions,
};

pub use manifest::{Manifest, key};
pub use progress::Progress;
pub use shard::{FinishedShard, ShardBoard, ShardEnds, ShardJob, ShardStanding, ShardState, WantedShard};
pub(crate) use shard::{RESULT_CONTEXT, seal_input};

use crate::{CheckpointEvery, JobError, memory::MemoryBudget, workload, workload::collect::ItemFailure};

/// The format of meta, state and failed list.
pub const WORKLOAD_FORMAT: u32 = 1;

/// Keeps job checkpoints.
#[async_trait]
pub trait CheckpointSink: Send + Sync {
    /// Keeps this one; it replaces the one before. `roots` are the records it reaches.
    async fn put(&self, body: Bytes, roots: &[ChunkId]) -> Result<(), StoreError>;
}

/// How a backup works.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Contents fetched at once.
    pub fetches: usize,
    /// How often a checkpoint is made.
    pub checkpoint_every: CheckpointEvery,
    /// The slow listing of read flags is due every so many snapshots; 0: never.
    pub flags_every: u32,
    /// Earlier versions of each file that are kept with it, where Microsoft has them.
    pub drive_versions: usize,
    /// Bytes of listed pages that wait for their contents.
    pub page_buffer_bytes: u64,
    /// Bytes on their way to storage.
    pub in_flight_bytes: usize,
    /// A drive with more files to fetch than this is split into shards of so many; 0: never.
    pub shard_files: usize,
    /// While all shards are with other workers, it is asked so often how they stand.
    pub shard_wait: Duration,
    /// The pause before a content is asked for again.
    pub content_retry: Duration,
    /// The worker's name, for people.
    pub worker: String,
}

/// What every job of this process shares.
#[derive(Clone)]
pub struct Shared {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives random bytes.
    pub random: Arc<dyn Random>,
    /// Cuts, hashes, compresses and seals.
    pub pool: Arc<rayon::ThreadPool>,
    /// Buffers of all jobs.
    pub memory: MemoryBudget,
}

/// One backup job.
pub struct BackupJob {
    /// Whose.
    pub tenant: TenantId,
    /// Which resource.
    pub resource: ResourceId,
    /// What of it.
    pub workload: Workload,
    /// Microsoft's id of the user.
    pub user: String,
    /// The newest committed pin.
    pub base: Option<Pin>,
    /// The sequence of the new pin.
    pub sequence: Sequence,
    /// The attempt.
    pub fence: Fence,
    /// The session's epoch.
    pub epoch: Epoch,
    /// Retention the pin starts with.
    pub retain_until_ms: Millis,
    /// How it works.
    pub options: BackupOptions,
}

/// Where a backup reads and writes.
pub struct Ends {
    /// Microsoft.
    pub graph: GraphClient,
    /// Storage.
    pub store: Arc<dyn ChunkStore>,
    /// The job's keys.
    pub keys: Arc<JobKeys>,
    /// Job checkpoints.
    pub checkpoints: Arc<dyn CheckpointSink>,
    /// Where other workers are asked to help; without one the job does everything itself.
    pub shards: Option<Arc<dyn ShardBoard>>,
    /// The job checkpoint of an earlier attempt.
    pub resume: Option<Bytes>,
    /// Told about as it goes.
    pub progress: Arc<Progress>,
}

/// What a workload works with.
pub struct BackupContext {
    /// Microsoft.
    pub graph: GraphClient,
    /// Microsoft's id of the user.
    pub user: String,
    /// The snapshot in the making.
    pub manifest: Manifest,
    /// The base snapshot's header.
    pub base: Option<SnapshotHeader>,
    /// The base's name.
    pub base_pin: Option<PinHash>,
    /// The sequence of the new pin.
    pub sequence: Sequence,
    /// Job checkpoints.
    pub checkpoints: Arc<dyn CheckpointSink>,
    /// Where other workers are asked to help; none in a shard.
    pub shards: Option<Arc<dyn ShardBoard>>,
    /// An earlier attempt's job checkpoint, opened; it fits this base and sequence, and the workload can read it.
    pub resume: Option<Vec<u8>>,
    /// How it works.
    pub options: BackupOptions,
    /// What the process shares.
    pub shared: Shared,
    /// Told about as it goes.
    pub progress: Arc<Progress>,
}

/// What a workload has brought together.
pub struct Collected {
    /// The sums; of requests and stored bytes, only those of shards.
    pub account: Account,
    /// What the next run starts from.
    pub state: Vec<u8>,
    /// What is missing.
    pub failed: Vec<ItemFailure>,
    /// Items in the snapshot.
    pub items: u64,
}

/// A finished snapshot, not yet committed.
pub struct FinishedBackup {
    /// What the owners will hold.
    pub pin: Pin,
    /// The sums.
    pub account: Account,
    /// What is missing.
    pub failed: Vec<ItemFailure>,
}

/// Said in front of the body when a job checkpoint is sealed.
const CHECKPOINT_CONTEXT: &str = "holdfast job checkpoint 1";

/// The part of a job checkpoint that is the same for every workload: `roots length 1 · roots · base 32 · sequence 8 · body`.
pub(crate) fn seal_checkpoint(context: &BackupContext, roots: &TreeRoots, body: &[u8]) -> Bytes {
    let roots = roots.to_bytes();
    let length = u8::try_from(roots.len()).expect("two roots are at most 66 bytes");
    let base = context.base_pin.map_or([0; 32], |hash| hash.0);
    let plain = [&[length][..], &roots, &base, &context.sequence.0.to_le_bytes(), body].concat();
    context.manifest.keys().seal_blob(CHECKPOINT_CONTEXT, context.shared.random.as_ref(), &plain).into()
}

/// (roots, body) of a checkpoint that belongs to this base and sequence; anything else is none.
fn open_checkpoint(
    keys: &JobKeys,
    sealed: &[u8],
    base: Option<PinHash>,
    sequence: Sequence,
) -> Option<(TreeRoots, Vec<u8>)> {
    let plain = keys.open_blob(CHECKPOINT_CONTEXT, sealed).ok()?;
    let (length, rest) = plain.split_first()?;
    let (roots, rest) = rest.split_at_checked(usize::from(*length))?;
    let (head, body) = rest.split_at_checked(40)?;
    let fits = head[..32] == base.map_or([0; 32], |hash| hash.0) && head[32..] == sequence.0.to_le_bytes();
    fits.then_some(())?;
    Some((TreeRoots::from_bytes(roots).ok()?, body.to_vec()))
}

impl BackupJob {
    /// Runs until the new snapshot is durable. Nothing is committed yet.
    pub async fn run(&self, ends: Ends, shared: Shared) -> Result<FinishedBackup, JobError> {
        let started_ms = shared.clock.now_ms();
        let (clock, progress) = (shared.clock.clone(), ends.progress.clone());
        let context = Arc::new(self.open(ends, shared).await?);
        let collected = workload::of(self.workload).back_up(&context).await?;
        // Merged first, so that the account counts the bundles and trees too: all but the snapshot object it stands in.
        context.manifest.writer().merge().await?;
        let stats = context.manifest.writer().stats();
        let account = Account {
            bytes_stored: collected.account.bytes_stored + stats.bytes_stored,
            requests: collected.account.requests + context.graph.requests(),
            ..collected.account
        };
        progress.set(account);
        let header = SnapshotHeader {
            tenant: self.tenant,
            resource: self.resource,
            workload: self.workload,
            sequence: self.sequence,
            parent: context.base_pin,
            roots: TreeRoots::default(),
            state: collected.state,
            account,
            failed: serde_json::to_vec(&collected.failed)
                .map_err(|source| JobError::Stored { what: "failed list", source })?,
            started_ms,
            finished_ms: clock.now_ms(),
            worker: self.options.worker.clone(),
            format: WORKLOAD_FORMAT,
        };
        let finished_ms = header.finished_ms;
        let finished = context.manifest.writer().finish(header).await?;
        let pin = Pin {
            tenant: self.tenant,
            resource: self.resource,
            workload: self.workload,
            sequence: self.sequence,
            fence: self.fence,
            epoch: self.epoch,
            snapshot: SnapshotId::derive(self.tenant, self.resource, self.workload, self.sequence),
            root: finished.root,
            sealed_root: finished.sealed_root,
            previous: context.base_pin,
            created_ms: finished_ms,
            retain_until_ms: self.retain_until_ms,
            items: collected.items,
            items_missing: collected.failed.len() as u64,
        };
        Ok(FinishedBackup { pin, account, failed: collected.failed })
    }

    async fn open(&self, ends: Ends, shared: Shared) -> Result<BackupContext, JobError> {
        let base_pin = self.base.as_ref().map(Pin::hash);
        let base = match &self.base {
            None => None,
            Some(pin) => {
                let reader = SnapshotReader::open(ends.store.clone(), ends.keys.clone(), pin).await?;
                Some(reader.header().clone())
            }
        };
        let resume =
            ends.resume.and_then(|sealed| open_checkpoint(&ends.keys, &sealed, base_pin, self.sequence));
        // Its trees are of no use without what says how far they got.
        let resume = resume.filter(|(_, body)| {
            let can_resume = workload::of(self.workload).can_resume(body);
            if !can_resume {
                tracing::warn!("job checkpoint cannot be read, starting from the base");
            }
            can_resume
        });
        let (roots, resume) = match resume {
            Some((roots, body)) => (Some(roots), Some(body)),
            None => (base.as_ref().map(|header| header.roots), None),
        };
        Ok(BackupContext {
            graph: ends.graph,
            user: self.user.clone(),
            manifest: new_manifest((ends.store, ends.keys), &self.options, &shared, roots),
            base,
            base_pin,
            sequence: self.sequence,
            checkpoints: ends.checkpoints,
            shards: ends.shards,
            resume,
            options: self.options.clone(),
            shared,
            progress: ends.progress,
        })
    }
}

/// A manifest on trees that are there, or on nothing.
fn new_manifest(
    (store, keys): (Arc<dyn ChunkStore>, Arc<JobKeys>),
    options: &BackupOptions,
    shared: &Shared,
    roots: Option<TreeRoots>,
) -> Manifest {
    let options = WriterOptions { in_flight_bytes: options.in_flight_bytes, ..WriterOptions::default() };
    let writer = SnapshotWriter::create(store.clone(), keys.clone(), shared.pool.clone(), options, roots);
    Manifest::new(writer, store, keys)
}
