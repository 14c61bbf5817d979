//! A restore: what a snapshot has, written back to Microsoft by the workload's own module.
//!
//! The invariant: it can be run again from the start at any point; what was written before is recognised by its restore key.

use std::sync::Arc;

use holdfast_graph_client::GraphClient;
use holdfast_model::{Account, ConflictPolicy, Workload};
use holdfast_record::Pin;
use holdfast_repository::{ChunkStore, JobKeys, SnapshotReader};

use crate::{
    JobError,
    backup::{Progress, Shared},
    workload,
    workload::collect::ItemFailure,
};

/// One restore job.
pub struct RestoreJob {
    /// What of the resource.
    pub workload: Workload,
    /// The snapshot.
    pub pin: Pin,
    /// Microsoft's id of the user to restore to.
    pub user: String,
    /// Folder paths or item ids; empty for everything.
    pub paths: Vec<String>,
    /// Restore under this folder; empty for the original places.
    pub into: String,
    /// What to do where the same message is already.
    pub conflict: ConflictPolicy,
    /// The same in every attempt.
    pub restore_key: String,
    /// Messages written at once.
    pub writes: usize,
    /// Bytes of content read ahead.
    pub read_ahead_bytes: usize,
}

/// What a workload works with.
pub struct RestoreContext {
    /// Microsoft.
    pub graph: GraphClient,
    /// Microsoft's id of the user to restore to.
    pub user: String,
    /// The snapshot.
    pub reader: SnapshotReader,
    /// What is selected.
    pub paths: Vec<String>,
    /// Restore under this folder.
    pub into: String,
    /// What to do where the same message is already.
    pub conflict: ConflictPolicy,
    /// The same in every attempt.
    pub restore_key: String,
    /// Messages written at once.
    pub writes: usize,
    /// What the process shares.
    pub shared: Shared,
    /// Told about as it goes.
    pub progress: Arc<Progress>,
}

/// What became of a restore, export or verify.
#[derive(Debug, Default)]
pub struct Restored {
    /// The sums.
    pub account: Account,
    /// What is missing, or different.
    pub failed: Vec<ItemFailure>,
}

impl Restored {
    /// Counts an item of which no copy is left. That must not keep the others from being saved.
    pub(crate) fn count_unreadable(&mut self, id: &str, path: &str, error: &holdfast_repository::Error) {
        tracing::warn!(%error, "item cannot be read");
        self.account.failed_permanent += 1;
        self.failed.push(ItemFailure::ours(id, path, "unreadable", false));
    }
}

impl RestoreJob {
    /// Runs to the end.
    pub async fn run(
        self,
        graph: GraphClient,
        store: Arc<dyn ChunkStore>,
        keys: Arc<JobKeys>,
        shared: Shared,
        progress: Arc<Progress>,
    ) -> Result<Restored, JobError> {
        let reader = SnapshotReader::open(store, keys, &self.pin).await?;
        let reader = reader.with_read_ahead(self.read_ahead_bytes);
        let context = RestoreContext {
            graph,
            user: self.user,
            reader,
            paths: self.paths,
            into: self.into,
            conflict: self.conflict,
            restore_key: self.restore_key,
            writes: self.writes,
            shared,
            progress,
        };
        workload::of(self.workload).write_back(&context).await
    }
}
