//! Contacts: folders and contacts of one mailbox, with their photos.
//!
//! # How it is stored
//!
//! A contact's key is the bytes of Microsoft's immutable id; a folder's that of its id. Folders have the sort value 0, contacts
//! the time when they were made in milliseconds. The meta of a contact is Microsoft's JSON with one more property, `_holdfast`
//! ([`meta::StoredContact`]); its content is the photo, where it has one. An entry's `change` is the hash of the change key,
//! which does not know of photos: these are fetched with each change of the contact, and looked at again in the course of a
//! week ([`photos`]).

mod folders;
pub mod meta;
mod photos;
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

/// The contacts workload.
#[derive(Debug, Clone, Copy)]
pub struct Contacts;

#[async_trait]
impl ProtectedWorkload for Contacts {
    fn can_resume(&self, checkpoint: &[u8]) -> bool {
        collect::can_resume(checkpoint)
    }

    async fn back_up(&self, context: &Arc<BackupContext>) -> Result<Collected, JobError> {
        let source = source::ContactSource { context: context.clone() };
        collect::Collector::open(source, context.clone()).await?.run().await
    }

    fn check(&self, meta: &[u8], parts: &[ContentPart]) -> Result<(), &'static str> {
        let stored = meta::stored_contact(meta).map_err(|_| "meta")?;
        meta::fit_together(&stored, parts)
    }

    async fn write_back(&self, context: &RestoreContext) -> Result<Restored, JobError> {
        let target = target::ContactTarget::open(context).await?;
        WriteBack::open(context, target).await?.run().await
    }
}
