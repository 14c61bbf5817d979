//! Mail: folders and messages of one mailbox.
//!
//! # How it is stored
//!
//! An item's key is the bytes of Microsoft's immutable id; a folder's that of its id. Folders have the sort value 0, messages
//! their received time in milliseconds. The meta of a message is Microsoft's JSON with one more property, `_holdfast`
//! ([`meta::StoredMessage`]); its content is the MIME, followed by attachments that are not in it.
//! An entry's `change` is 8 bytes of the change key's hash, then 8 bytes of the content's fingerprint.
//!
//! Search folders, rules, categories and the mailbox's settings are entries like folders, with Microsoft's JSON and no content:
//! they are no items of the account. Those that Microsoft has in no folder are below made folders, whose ids begin with
//! `holdfast:`: `/Search Folders`, `/Settings/Rules`, `/Settings/Categories`, `/Settings/Mailbox`. What can still be recovered
//! after it was deleted is below `/Recoverable Items`.

mod apart;
mod attachments;
mod content;
mod decode;
mod flags;
mod folders;
pub mod meta;
mod mime_header;
pub mod mime_parts;
mod restore_message;
mod restore_settings;
mod settings;
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
        let source = source::MailSource::new(context.clone());
        collect::Collector::open(source, context.clone()).await?.run().await
    }

    fn check(&self, meta: &[u8], parts: &[ContentPart]) -> Result<(), &'static str> {
        let stored = meta::stored_message(meta).map_err(|_| "meta")?;
        meta::fit_together(&stored, parts)
    }

    fn check_container(&self, meta: &[u8]) -> Result<(), &'static str> {
        meta::is_whole_definition(meta)
    }

    async fn write_back(&self, context: &RestoreContext) -> Result<Restored, JobError> {
        let target = target::MailTarget::open(context).await?;
        let restored = WriteBack::open(context, target).await?.run().await?;
        restore_settings::run(context, restored).await
    }
}
