//! Calendars: all calendars and events of one mailbox.
//!
//! # How it is stored
//!
//! An event's key is the bytes of Microsoft's immutable id; a calendar's that of its id. Calendars have the sort value 0, events
//! their start in milliseconds. The groups that calendars are in stand in the meta of the made container at the top. An event's
//! meta is Microsoft's JSON with one more property, `_holdfast` ([`meta::StoredEvent`]); the parts of its content are its
//! attachments. A series is one item: its exceptions, with their attachments, and its cancelled times belong to the master.
//!
//! # How changes are found
//!
//! A calendar is listed whole, and from then on asked for the changes of a view of it ([`link`]). The view has a window, and
//! what changes outside of it is called removed: so each event that is called removed is looked at ([`changes`]). After a
//! month the calendar is listed whole again, which compares change keys and reads nothing that is known. Where Microsoft has
//! no changes for a calendar it is listed whole each time.

mod calendars;
mod changes;
mod content;
mod invited;
mod link;
pub mod meta;
mod series;
mod source;
mod target;
pub(crate) mod zone;

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_repository::ContentPart;

use super::{ProtectedWorkload, collect, write_back::WriteBack};
use crate::{
    JobError,
    backup::{BackupContext, Collected},
    restore::{RestoreContext, Restored},
};

/// The calendar workload.
#[derive(Debug, Clone, Copy)]
pub struct Calendars;

#[async_trait]
impl ProtectedWorkload for Calendars {
    fn can_resume(&self, checkpoint: &[u8]) -> bool {
        collect::can_resume(checkpoint)
    }

    async fn back_up(&self, context: &Arc<BackupContext>) -> Result<Collected, JobError> {
        let source = source::EventSource::new(context.clone());
        collect::Collector::open(source, context.clone()).await?.run().await
    }

    fn check(&self, meta: &[u8], parts: &[ContentPart]) -> Result<(), &'static str> {
        let stored = meta::stored_event(meta).map_err(|_| "meta")?;
        meta::fit_together(&stored, parts)
    }

    async fn write_back(&self, context: &RestoreContext) -> Result<Restored, JobError> {
        let target = target::EventTarget::open(context).await?;
        WriteBack::open(context, target).await?.run().await
    }
}
