//! OneDrive: the files and folders of one person's drive.
//!
//! # How it is stored
//!
//! An item's key is the bytes of Microsoft's id. The root of the drive is the top entry; everything else is filed under the
//! folder it is in. Folders are items of the account and containers at once: they have the sort value 0, files the time of
//! their last change in milliseconds. The meta is Microsoft's JSON without download addresses, with one more property,
//! `_holdfast` ([`meta::StoredDriveItem`]). A file's content is its bytes, followed by those of earlier versions where the
//! settings ask for them. A large drive is split: files are fetched by shards, on any worker. An entry's `change` is 8 bytes of the etag's hash, then 8 bytes of what tells its content apart.

mod content;
mod grants;
pub mod meta;
mod permissions;
mod source;
mod target;
mod upload;

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_repository::{ContentPart, TreeRoots};

use super::{ProtectedWorkload, collect, write_back::WriteBack};
use crate::{
    JobError,
    backup::{BackupContext, Collected, FinishedShard},
    restore::{RestoreContext, Restored},
};

/// The OneDrive workload.
#[derive(Debug, Clone, Copy)]
pub struct OneDrive;

#[async_trait]
impl ProtectedWorkload for OneDrive {
    fn can_resume(&self, checkpoint: &[u8]) -> bool {
        collect::can_resume(checkpoint)
    }

    async fn back_up(&self, context: &Arc<BackupContext>) -> Result<Collected, JobError> {
        let source = source::DriveSource::open(context.clone()).await?;
        collect::Collector::open(source, context.clone()).await?.run().await
    }

    async fn fetch_shard(
        &self,
        context: &Arc<BackupContext>,
        input: TreeRoots,
    ) -> Result<FinishedShard, JobError> {
        let source = source::DriveSource::open(context.clone()).await?;
        collect::fetch_shard(source, context, input).await
    }

    fn check(&self, meta: &[u8], parts: &[ContentPart]) -> Result<(), &'static str> {
        let stored = meta::stored_drive_item(meta).map_err(|_| "meta")?;
        meta::fit_together(&stored, parts)
    }

    async fn write_back(&self, context: &RestoreContext) -> Result<Restored, JobError> {
        let target = target::DriveTarget::open(context).await?;
        WriteBack::open(context, target).await?.run().await
    }
}
