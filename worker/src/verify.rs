//! Reads a snapshot, or a sample of it, back and proves it: every byte is fetched, opened and hashed again, lengths and
//! attachment ranges are compared.
//!
//! The one thing to know: opening a chunk already proves its hash; what is checked here besides is that the parts fit together.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use holdfast_record::Pin;
use holdfast_repository::{ChunkStore, ContentPart, EntryKind, ItemEntry, ItemKey, JobKeys, SnapshotReader};

use crate::{
    JobError,
    backup::Progress,
    restore::Restored,
    workload::{
        collect::ItemFailure,
        mail::meta::{AttachmentSource, StoredMessage, stored_message},
    },
};

/// Items read at once.
const READS: usize = 4;

/// One verify job.
pub struct VerifyJob {
    /// The snapshot.
    pub pin: Pin,
    /// Percent of items whose content is read.
    pub sample_percent: u32,
    /// Bytes of content read ahead.
    pub read_ahead_bytes: usize,
}

/// What is wrong with an item, as a code.
type Wrong = &'static str;

impl VerifyJob {
    /// Runs to the end. Proved items count as stored, those outside the sample as skipped.
    pub async fn run(
        &self,
        store: Arc<dyn ChunkStore>,
        keys: Arc<JobKeys>,
        progress: Arc<Progress>,
    ) -> Result<Restored, JobError> {
        let reader = SnapshotReader::open(store, keys, &self.pin).await?;
        let reader = reader.with_read_ahead(self.read_ahead_bytes);
        progress.expect_items(self.pin.items);
        let mut done = Restored::default();
        let mut results = reader
            .items()
            .map_err(JobError::from)
            .map(|item| async {
                let (key, entry) = item?;
                let result = self.item(&reader, &key, &entry).await?;
                Ok::<_, JobError>((key, entry, result))
            })
            .buffer_unordered(READS);
        let mut n_messages = 0;
        while let Some((key, entry, result)) = results.try_next().await? {
            let id = String::from_utf8_lossy(&key.0).into_owned();
            n_messages += u64::from(entry.kind == EntryKind::MailMessage);
            let account = &mut done.account;
            account.listed += 1;
            match result {
                Ok(None) => account.skipped += 1,
                Ok(Some(bytes)) => {
                    account.stored += 1;
                    account.bytes_read += bytes;
                }
                Err(code) => {
                    account.failed_permanent += 1;
                    done.failed.push(ItemFailure::ours(&id, "", code, false));
                }
            }
            progress.set(*account);
        }
        drop(results);
        if n_messages != self.pin.items {
            tracing::error!(
                found = n_messages,
                announced = self.pin.items,
                "snapshot does not hold what its pin says"
            );
            done.account.listed += 1;
            done.account.failed_permanent += 1;
            done.failed.push(ItemFailure::ours("", "", "item-count", false));
        }
        Ok(done)
    }

    fn is_sampled(&self, key: &ItemKey) -> bool {
        let hash = blake3::hash(&key.0);
        let place = u32::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1], hash.as_bytes()[2], 0]) % 100;
        place < self.sample_percent
    }

    /// The bytes proved, none outside the sample; or what is wrong. An error only when storage is away.
    async fn item(
        &self,
        reader: &SnapshotReader,
        key: &ItemKey,
        entry: &ItemEntry,
    ) -> Result<Result<Option<u64>, Wrong>, JobError> {
        if !self.is_sampled(key) {
            return Ok(Ok(None));
        }
        match prove(reader, entry).await {
            Ok(bytes) => Ok(Ok(Some(bytes))),
            Err(Proof::Wrong(code)) => Ok(Err(code)),
            Err(Proof::Unreadable(error)) if error.is_retryable() => Err(error.into()),
            Err(Proof::Unreadable(error)) => {
                tracing::warn!(%error, "item cannot be read");
                Ok(Err("unreadable"))
            }
        }
    }
}

enum Proof {
    Wrong(Wrong),
    Unreadable(holdfast_repository::Error),
}

impl From<holdfast_repository::Error> for Proof {
    fn from(error: holdfast_repository::Error) -> Self {
        Self::Unreadable(error)
    }
}

async fn prove(reader: &SnapshotReader, entry: &ItemEntry) -> Result<u64, Proof> {
    let meta = reader.meta(entry).await?;
    let mut bytes = meta.len() as u64;
    if entry.kind == EntryKind::Folder {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&meta).is_ok();
        return if is_json { Ok(bytes) } else { Err(Proof::Wrong("meta")) };
    }
    let stored = stored_message(&meta).map_err(|_| Proof::Wrong("meta"))?;
    let parts = reader.content(entry).await?;
    for part in &parts {
        let mut pieces = reader.read(part);
        let mut len = 0;
        while let Some(piece) = pieces.try_next().await? {
            len += piece.len() as u64;
        }
        if len != part.len {
            return Err(Proof::Wrong("length"));
        }
        bytes += len;
    }
    fit_together(&stored, &parts).map_err(Proof::Wrong)?;
    Ok(bytes)
}

fn fit_together(stored: &StoredMessage, parts: &[ContentPart]) -> Result<(), Wrong> {
    let len_of = |part: usize| parts.get(part).map(|part| part.len);
    if len_of(0) != Some(stored.mime_len) {
        return Err("mime-length");
    }
    for attachment in &stored.attachments {
        let fits = match &attachment.source {
            AttachmentSource::Mime { start, len, .. } => {
                start.checked_add(*len).is_some_and(|end| end <= stored.mime_len)
            }
            AttachmentSource::Part { part, len } | AttachmentSource::Json { part, len } => {
                len_of(*part as usize) == Some(*len)
            }
            AttachmentSource::Missing { .. } => true,
        };
        if !fits {
            return Err("attachment");
        }
    }
    Ok(())
}
