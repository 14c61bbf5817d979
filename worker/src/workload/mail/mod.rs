//! Mail: folders and messages of one mailbox.
//!
//! # How it is stored
//!
//! An item's key is the bytes of Microsoft's immutable id; a folder's that of its id. Folders have the sort value 0, messages
//! their received time in milliseconds. The meta of a message is Microsoft's JSON with one more property, `_holdfast`
//! ([`meta::StoredMessage`]); its content is the MIME, followed by attachments that are not in it.
//! An entry's `change` is 8 bytes of the change key's hash, then 8 bytes of the content's fingerprint.

mod attachments;
mod backup;
mod by_id;
mod checkpoint;
mod content;
mod decode;
mod existing;
mod failed;
mod fetches;
mod flags;
mod folders;
mod ledger;
mod lister;
pub mod meta;
mod mime_header;
pub mod mime_parts;
pub mod paths;
mod reconcile;
mod restore_attachments;
mod restore_folders;
mod restore_message;
mod state;
mod write_back;

use std::sync::Arc;

use async_trait::async_trait;

use super::ProtectedWorkload;
use crate::{
    JobError,
    backup::{BackupContext, Collected},
    restore::{RestoreContext, Restored},
};

pub(crate) use decode::Decoder;
pub use failed::FailedMessage;

/// The mail workload.
#[derive(Debug, Clone, Copy)]
pub struct Mail;

/// The parent of the root folder.
pub const ROOT_PARENT: [u8; 16] = [0; 16];

/// What a folder's children are filed under: the coordinator computes the same when it browses.
pub fn folder_key(folder_id: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"holdfast mail folder 1");
    hasher.update(folder_id.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

#[async_trait]
impl ProtectedWorkload for Mail {
    fn can_resume(&self, checkpoint: &[u8]) -> bool {
        checkpoint::MailCheckpoint::read(checkpoint).is_some()
    }

    async fn back_up(&self, context: &Arc<BackupContext>) -> Result<Collected, JobError> {
        backup::MailBackup::open(context).await?.run().await
    }

    async fn write_back(&self, context: &RestoreContext) -> Result<Restored, JobError> {
        write_back::WriteBack::open(context).await?.run().await
    }
}
