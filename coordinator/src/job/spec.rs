//! What a job is asked to do, as it stands in the job row.

use holdfast_model::{ConflictPolicy, ExportFormat, JobId, ResourceId, SnapshotId};
use serde::{Deserialize, Serialize};

/// The part of a job that depends on its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum JobSpec {
    /// Makes the next snapshot.
    Backup,
    /// Fetches a part of a backup's content.
    Shard {
        /// The backup.
        parent: JobId,
        /// What the backup's worker wrote, in base64: sealed with the resource's key.
        input: String,
    },
    /// Writes a snapshot back.
    Restore {
        /// What is restored.
        snapshot: SnapshotId,
        /// Where to; a resource of the same tenant.
        target: ResourceId,
        /// Folder paths or item ids; empty for everything.
        paths: Vec<String>,
        /// A folder to restore under; empty for the original places.
        into: String,
        /// What to do with what is there.
        conflict: ConflictPolicy,
        /// The same in every attempt.
        restore_key: String,
    },
    /// Writes files.
    Export {
        /// What is exported.
        snapshot: SnapshotId,
        /// Folder paths or item ids; empty for everything.
        paths: Vec<String>,
        /// What is written.
        format: ExportFormat,
        /// A folder the worker can write.
        out: String,
    },
    /// Reads back.
    Verify {
        /// What is verified.
        snapshot: SnapshotId,
        /// Percent of items whose content is read.
        sample_percent: u32,
    },
}
