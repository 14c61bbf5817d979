//! Reads a snapshot, or a sample of it, back and proves it: every byte is fetched, opened and hashed again, lengths and
//! attachment ranges are compared.
//!
//! The one thing to know: opening a chunk already proves its hash; what is checked here besides is that the parts fit together.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use holdfast_record::Pin;
use holdfast_repository::{ChunkStore, ItemEntry, ItemKey, JobKeys, SnapshotReader};

use crate::{
    JobError,
    backup::Progress,
    restore::Restored,
    workload::{self, ProtectedWorkload, collect::ItemFailure},
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
        let mut n_items = 0;
        while let Some((key, entry, result)) = results.try_next().await? {
            let id = String::from_utf8_lossy(&key.0).into_owned();
            n_items += u64::from(!entry.kind.is_container());
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
        if n_items != self.pin.items {
            tracing::error!(
                found = n_items,
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
    ) -> Result<Result<Option<u64>, &'static str>, JobError> {
        if !self.is_sampled(key) {
            return Ok(Ok(None));
        }
        match prove(workload::of(self.pin.workload), reader, entry).await {
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
    Wrong(&'static str),
    Unreadable(holdfast_repository::Error),
}

impl From<holdfast_repository::Error> for Proof {
    fn from(error: holdfast_repository::Error) -> Self {
        Self::Unreadable(error)
    }
}

async fn prove(
    workload: &dyn ProtectedWorkload,
    reader: &SnapshotReader,
    entry: &ItemEntry,
) -> Result<u64, Proof> {
    let meta = reader.meta(entry).await?;
    let mut bytes = meta.len() as u64;
    if entry.kind.is_container() {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&meta).is_ok();
        if !is_json {
            return Err(Proof::Wrong("meta"));
        }
        return workload.check_container(&meta).map(|()| bytes).map_err(Proof::Wrong);
    }
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
    workload.check(&meta, &parts).map_err(Proof::Wrong)?;
    Ok(bytes)
}
