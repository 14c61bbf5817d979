//! A part of a backup's content that any worker may fetch: a *shard*.
//!
//! The parent writes what is to be fetched as a tree of its own, the shard's *input*; the shard writes what it fetched as
//! another, its *output*. Neither is a snapshot: both are named by roots that travel sealed, and what a shard stored counts
//! when its parent has merged it. A shard opens no base, writes no job checkpoint and commits nothing.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_graph_client::GraphClient;
use holdfast_model::{Account, ChunkId, JobId, Random, Sequence, Workload};
use holdfast_repository::{ChunkStore, JobKeys, StoreError, TreeRoots};

use super::{BackupContext, BackupOptions, CheckpointSink, Progress, Shared, new_manifest};
use crate::{JobError, workload};

/// Said in front of a shard's input when it is sealed.
const INPUT_CONTEXT: &str = "holdfast shard input 1";
/// Said in front of what a shard hands to its parent when it is sealed.
pub(crate) const RESULT_CONTEXT: &str = "holdfast shard result 1";

/// A shard that a backup wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedShard {
    /// Its name.
    pub id: JobId,
    /// What it is to fetch, sealed.
    pub input: Bytes,
}

/// How far a shard is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardStanding {
    /// No worker has it.
    Queued,
    /// A worker has it.
    Running,
    /// It is done.
    Done {
        /// What it hands to its parent, sealed.
        result: Bytes,
    },
    /// It was given up.
    Failed,
}

/// How a shard stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardState {
    /// Which one.
    pub id: JobId,
    /// How far it is.
    pub standing: ShardStanding,
    /// What became of its items so far.
    pub progress: Account,
}

/// Where shards are asked for.
#[async_trait]
pub trait ShardBoard: Send + Sync {
    /// Names all shards that are wanted, and says how they stand. Those that are there and not named end; the call can be
    /// repeated.
    async fn sync(&self, wanted: &[WantedShard]) -> Result<Vec<ShardState>, JobError>;
}

/// Seals the roots of a shard's input.
pub(crate) fn seal_input(keys: &JobKeys, random: &dyn Random, roots: &TreeRoots) -> Bytes {
    keys.seal_blob(INPUT_CONTEXT, random, &roots.to_bytes()).into()
}

fn open_input(keys: &JobKeys, sealed: &[u8]) -> Result<TreeRoots, JobError> {
    let plain = keys.open_blob(INPUT_CONTEXT, sealed).map_err(holdfast_repository::Error::from)?;
    Ok(TreeRoots::from_bytes(&plain)?)
}

/// One shard.
pub struct ShardJob {
    /// What of the resource.
    pub workload: Workload,
    /// Microsoft's id of the user.
    pub user: String,
    /// What its parent wrote.
    pub input: Bytes,
    /// How it works.
    pub options: BackupOptions,
}

/// Where a shard reads and writes.
pub struct ShardEnds {
    /// Microsoft.
    pub graph: GraphClient,
    /// Storage.
    pub store: Arc<dyn ChunkStore>,
    /// The job's keys.
    pub keys: Arc<JobKeys>,
    /// Told about as it goes.
    pub progress: Arc<Progress>,
}

/// A shard whose content is durable.
pub struct FinishedShard {
    /// The sums.
    pub account: Account,
    /// What it hands to its parent, sealed.
    pub result: Bytes,
}

impl ShardJob {
    /// Runs until what it fetched is durable.
    pub async fn run(&self, ends: ShardEnds, shared: Shared) -> Result<FinishedShard, JobError> {
        let input = open_input(&ends.keys, &self.input)?;
        let progress = ends.progress.clone();
        let context = BackupContext {
            graph: ends.graph,
            user: self.user.clone(),
            manifest: new_manifest((ends.store, ends.keys), &self.options, &shared, None),
            base: None,
            base_pin: None,
            sequence: Sequence(0),
            checkpoints: Arc::new(NoCheckpoints),
            shards: None,
            resume: None,
            options: self.options.clone(),
            shared,
            progress: ends.progress,
        };
        let finished = workload::of(self.workload).fetch_shard(&Arc::new(context), input).await?;
        progress.set(finished.account);
        Ok(finished)
    }
}

/// A shard is small enough to be repeated.
struct NoCheckpoints;

#[async_trait]
impl CheckpointSink for NoCheckpoints {
    async fn put(&self, _body: Bytes, _roots: &[ChunkId]) -> Result<(), StoreError> {
        Err(StoreError::Refused { reason: "a shard writes no job checkpoint".to_owned() })
    }
}
