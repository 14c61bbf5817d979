//! Mail: folders and messages of one mailbox.
//!
//! # How it is stored
//!
//! An item's key is the bytes of Microsoft's immutable id; a folder's that of its id. Folders have the sort value 0, messages
//! their received time in milliseconds. The meta of a message is Microsoft's JSON with one more property, `_holdfast`
//! ([`meta::StoredMessage`]); its content is the MIME, followed by attachments that are not in it.
//! An entry's `change` is 8 bytes of the change key's hash, then 8 bytes of the content's fingerprint.

mod attachments;
mod content;
mod decode;
mod flags;
mod folders;
pub mod meta;
mod mime_header;
pub mod mime_parts;
mod restore_message;
mod source;
mod staging;
mod target;
mod target_folders;

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_repository::ContentPart;

use super::{ProtectedWorkload, collect, write_back::WriteBack};
use crate::{
    JobError,
    backup::{BackupContext, Collected},
    restore::{RestoreContext, Restored},
};

pub(crate) use decode::Decoder;
pub(crate) use restore_message::{CreateAs, original_properties};

/// The mail workload.
#[derive(Debug, Clone, Copy)]
pub struct Mail;

#[async_trait]
impl ProtectedWorkload for Mail {
    fn can_resume(&self, checkpoint: &[u8]) -> bool {
        collect::can_resume(checkpoint)
    }

    async fn back_up(&self, context: &Arc<BackupContext>) -> Result<Collected, JobError> {
        let source = source::MailSource { context: context.clone() };
        collect::Collector::open(source, context.clone()).await?.run().await
    }

    fn check(&self, meta: &[u8], parts: &[ContentPart]) -> Result<(), &'static str> {
        let stored = meta::stored_message(meta).map_err(|_| "meta")?;
        meta::fit_together(&stored, parts)
    }

    async fn write_back(&self, context: &RestoreContext) -> Result<Restored, JobError> {
        let target = target::MailTarget::open(context).await?;
        WriteBack::open(context, target).await?.run().await
    }
}
