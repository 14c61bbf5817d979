//! What differs between workloads, behind one trait: enumerate → fetch → item → manifest, and back: plan → write back.
//!
//! The one thing to know: a workload never touches sessions, pins or leases; it reads Microsoft and edits a manifest.

pub(crate) mod attachments;
pub mod calendar;
pub mod collect;
pub mod contacts;
pub mod mail;
pub mod onedrive;
mod parts;
pub mod snapshot_folders;
pub(crate) mod stored;
pub mod tasks;
pub mod write_back;

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_model::Workload;
use holdfast_repository::{ContentPart, TreeRoots};

use crate::{
    JobError,
    backup::{BackupContext, Collected, FinishedShard},
    restore::{RestoreContext, Restored},
};

/// The parent of what is at the top.
pub const ROOT_PARENT: [u8; 16] = [0; 16];

/// What the items of a container are filed under: the coordinator computes the same when it browses.
pub fn container_key(id: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    // Mail had it first; the words are part of the format.
    hasher.update(b"holdfast mail folder 1");
    hasher.update(id.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

/// A kind of data Holdfast can protect.
#[async_trait]
pub trait ProtectedWorkload: Send + Sync {
    /// Whether a job can go on from this body of a job checkpoint.
    fn can_resume(&self, checkpoint: &[u8]) -> bool;

    /// Brings the manifest up to date with Microsoft.
    async fn back_up(&self, context: &Arc<BackupContext>) -> Result<Collected, JobError>;

    /// Fetches a part of the content of a backup that runs elsewhere. Most workloads are not split: their limits are those of one
    /// mailbox, and one worker reaches them.
    async fn fetch_shard(
        &self,
        _context: &Arc<BackupContext>,
        _input: TreeRoots,
    ) -> Result<FinishedShard, JobError> {
        Err(JobError::NotSplit)
    }

    /// Whether a stored item and its content fit together; else what is wrong, as a code.
    fn check(&self, meta: &[u8], parts: &[ContentPart]) -> Result<(), &'static str>;

    /// Whether a stored container has what it is for; else what is wrong, as a code.
    fn check_container(&self, _meta: &[u8]) -> Result<(), &'static str> {
        Ok(())
    }

    /// Writes what was selected back to Microsoft.
    async fn write_back(&self, context: &RestoreContext) -> Result<Restored, JobError>;
}

/// The module of a workload.
pub fn of(workload: Workload) -> &'static dyn ProtectedWorkload {
    match workload {
        Workload::Mail => &mail::Mail,
        Workload::Contacts => &contacts::Contacts,
        Workload::OneDrive => &onedrive::OneDrive,
        Workload::Tasks => &tasks::Tasks,
        Workload::Calendar => &calendar::Calendars,
    }
}
