//! Photos of contacts. No delta tells of them: besides being fetched with each change of their contact, all are looked at again
//! in the course of a week, a share at a time. Only what differs is written.
//!
//! The invariant: a photo that is stored is given up only when Microsoft says twice that there is none, because it also says so
//! of what it has just not found.

use bytes::Bytes;
use futures::StreamExt as _;
use holdfast_graph_client::{ErrorClass, GraphError};
use holdfast_repository::{ContentSource, EntryFlags, EntryKind, ItemEntry};

use super::{
    meta::{StoredContact, StoredPhoto, stored_contact},
    source::ContactSource,
};
use crate::{
    JobError,
    backup::{BackupContext, key},
    metrics,
    workload::{
        collect::{Collector, Content, DueShares, FetchError},
        parts::{BODY_ATTEMPTS, FETCH_BYTES, Parts},
        stored::{with_holdfast, without_holdfast},
    },
};

/// A photo as Microsoft has it now.
pub(super) struct Photo {
    bytes: Option<Bytes>,
    missing: Option<String>,
}

impl Photo {
    /// Asks for a contact's photo; `before` is what is stored.
    pub(super) async fn read(
        context: &BackupContext,
        id: &str,
        before: Option<&StoredContact>,
    ) -> Result<Self, GraphError> {
        let mut photo = read_whole(context, id).await;
        if matches!(photo, Ok(None)) && before.is_some_and(|before| before.photo.is_some()) {
            photo = read_whole(context, id).await;
        }
        match photo {
            Ok(bytes) => Ok(Self { bytes, missing: None }),
            Err(error) if error.class() == ErrorClass::SkipItem => {
                Ok(Self { bytes: None, missing: Some(error.code().to_owned()) })
            }
            Err(error) => Err(error),
        }
    }

    /// What is stored of it.
    pub(super) fn stored(&self) -> StoredContact {
        StoredContact {
            photo: self.bytes.as_deref().map(StoredPhoto::of),
            photo_missing: self.missing.clone(),
        }
    }

    /// A contact's content: Microsoft's JSON and this photo.
    pub(super) async fn into_content(
        self,
        context: &BackupContext,
        raw: &str,
    ) -> Result<Content, FetchError> {
        let meta = with_holdfast(raw, &self.stored())?;
        let mut parts = Parts::default();
        if let Some(bytes) = self.bytes {
            parts.push_bytes(context, bytes).await?;
        }
        if let Some(code) = self.missing {
            parts.note_missing(format!("PhotoMissing:{code}"));
        }
        Ok(parts.into_content(meta, raw.len()))
    }
}

/// Reads a photo, again when it ends early.
async fn read_whole(context: &BackupContext, id: &str) -> Result<Option<Bytes>, GraphError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match context.graph.contact_photo(&context.user, id).await {
            Err(error) if error.class() == ErrorClass::Retry && attempt < BODY_ATTEMPTS => {
                metrics::content_retried();
                tracing::debug!(code = error.code(), attempt, "photo ended early, fetching it again");
                tokio::time::sleep(context.options.content_retry * attempt).await;
            }
            result => return result,
        }
    }
}

/// Looks at the shares that are due.
pub(super) async fn correct_if_due(run: &mut Collector<ContactSource>) -> Result<(), JobError> {
    let now_ms = run.context().shared.clock.now_ms();
    let mut shares = run.state_mut().shares;
    let due = shares.take_due(now_ms);
    if !due.is_empty() {
        correct(run, due).await?;
    }
    // Only now: a run that ends before looks at them again.
    run.state_mut().shares = shares;
    Ok(())
}

async fn correct(run: &mut Collector<ContactSource>, due: DueShares) -> Result<(), JobError> {
    let roots = run.context().manifest.merge().await?;
    let folders: Vec<[u8; 16]> = run.all_containers().iter().map(|folder| folder.key).collect();
    for folder in folders {
        let mut children = run.context().manifest.children(roots, folder);
        while let Some(child) = children.next().await {
            let child = child?;
            if child.kind == EntryKind::Contact
                && let Ok(id) = String::from_utf8(child.key.0)
                && due.contains(&id)
                && let Some(entry) = run.context().manifest.entry(&id).await?
                && !entry.flags.contains(EntryFlags::STALE)
            {
                correct_one(run, &id, &entry).await?;
            }
        }
    }
    Ok(())
}

async fn correct_one(
    run: &mut Collector<ContactSource>,
    id: &str,
    entry: &ItemEntry,
) -> Result<(), JobError> {
    let context = run.context().clone();
    let _share = context.shared.memory.reserve(FETCH_BYTES).await;
    let meta = context.manifest.meta(entry).await?;
    let before = stored_contact(&meta)?;
    let photo = match Photo::read(&context, id, Some(&before)).await {
        Ok(photo) => photo,
        Err(error) if JobError::is_fatal_for_job(&error) => return Err(error.into()),
        Err(error) => {
            tracing::debug!(code = error.code(), "a photo cannot be looked at, the stored one stays");
            return Ok(());
        }
    };
    // One that is stored and cannot be read now is better than none.
    if photo.missing.is_some() || photo.stored() == before {
        return Ok(());
    }
    let Some(raw) = without_holdfast(&meta) else { return Ok(()) };
    let content = match photo.into_content(&context, &raw).await {
        Ok(content) => content,
        Err(FetchError::Job(error)) => return Err(error),
        Err(FetchError::Graph(error)) => return Err(error.into()),
    };
    let mut fields = entry.fields();
    fields.size = content.size;
    let source = match content.drafts.is_empty() {
        true => ContentSource::None,
        false => ContentSource::New(content.drafts),
    };
    context.manifest.writer().put_item(key(id), fields, content.meta, source).await?;
    run.note_whole(id);
    Ok(())
}
