//! To Do: lists and tasks of one person, with what hangs on a task.
//!
//! # How it is stored
//!
//! Microsoft finds a task only in its list, so a task's key is `list:task`; a list's is its id. Lists have the sort value 0,
//! tasks the time when they were made in milliseconds. The meta of a task is Microsoft's JSON with one more property,
//! `_holdfast` ([`meta::StoredTask`]): its checklist, its links, and where its attachments are, which are the parts of its
//! content. An entry's `change` is the hash of the etag, which changes with whatever hangs on the task. A task that is dragged
//! to another list is a new one there. Of the list that shows flagged mail only the list is stored: its tasks are messages.

mod content;
mod lists;
pub mod meta;
mod source;
mod target;

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_repository::ContentPart;

use super::{ProtectedWorkload, collect, write_back::WriteBack};
use crate::{
    JobError,
    backup::{BackupContext, Collected},
    restore::{RestoreContext, Restored},
};

/// The tasks workload.
#[derive(Debug, Clone, Copy)]
pub struct Tasks;

#[async_trait]
impl ProtectedWorkload for Tasks {
    fn can_resume(&self, checkpoint: &[u8]) -> bool {
        collect::can_resume(checkpoint)
    }

    async fn back_up(&self, context: &Arc<BackupContext>) -> Result<Collected, JobError> {
        let source = source::TaskSource { context: context.clone() };
        collect::Collector::open(source, context.clone()).await?.run().await
    }

    fn check(&self, meta: &[u8], parts: &[ContentPart]) -> Result<(), &'static str> {
        let stored = meta::stored_task(meta).map_err(|_| "meta")?;
        meta::fit_together(&stored, parts)
    }

    async fn write_back(&self, context: &RestoreContext) -> Result<Restored, JobError> {
        let target = target::TaskTarget::open(context).await?;
        WriteBack::open(context, target).await?.run().await
    }
}
