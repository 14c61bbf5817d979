//! Moves sealed segments to the object store, one at a time.
//!
//! Order for each: verify all of it → create the object, unless it is there → read the whole object back and compare → note →
//! remove the local file. A kill between any two leaves the local file, or the object, or both, and the next step goes on from
//! there. The local folder is the queue: nothing else has to remember what is to be uploaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use holdfast_model::{Clock, Millis, Random};
use holdfast_runtime::{Background, Backoff, Step};

use super::{
    ObjectDisk, ObjectError, ObjectStore, PutNew,
    load::{Loaded, load},
    metrics,
    notes::Note,
};
use crate::{Error, segment::SegmentFile};

/// How often the folder is looked at when nobody seals.
const EVERY: Duration = Duration::from_secs(5);
/// Bytes read back at a time.
const READ_BACK_BYTES: u64 = 8 << 20;
/// After a failed upload the next waits up to this, then twice as long, and so on,
const DELAY_FIRST: Duration = Duration::from_secs(1);
/// but not longer. It never gives up: what waits is on no other disk of this node.
const DELAY_MAX: Duration = Duration::from_secs(300);
/// From here on the delay is the longest.
const DOUBLINGS_MAX: u32 = 16;
/// A segment that is damaged, or whose object differs, is looked at again so often: the scrub may have mended it.
const LOOK_AGAIN: Duration = Duration::from_secs(3_600);
const DAY_MS: Millis = 24 * 60 * 60 * 1_000;

/// How segments are uploaded.
#[derive(Debug, Clone, Copy)]
pub struct UploadOptions {
    /// Objects are locked for so many days, in compliance mode; none: not at all.
    pub lock_days: Option<u32>,
}

/// What an operator sees of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadStatus {
    /// Sealed segments that are only on the local disk.
    pub waiting_segments: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Those that are not uploaded because they are damaged, or their object holds other bytes.
    pub held_segments: u64,
    /// Since when no upload succeeds.
    pub failing_since_ms: Option<Millis>,
    /// Why the last one failed, or else why a segment is not uploaded.
    pub last_error: Option<String>,
}

#[derive(Default)]
struct Progress {
    status: UploadStatus,
    failures: u32,
    /// Nothing is tried before.
    not_before: Duration,
    /// Segments that are passed over until then, and why.
    held: BTreeMap<String, (Duration, String)>,
}

/// Uploads the sealed segments of one node.
pub struct Uploader {
    disk: ObjectDisk,
    options: UploadOptions,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    backoff: Backoff,
    progress: Mutex<Progress>,
}

impl Uploader {
    /// An uploader for a disk.
    pub fn new(
        disk: ObjectDisk,
        options: UploadOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let backoff = Backoff::new(DELAY_FIRST, DELAY_MAX, 1).expect("the first delay is below the last");
        Self { disk, options, clock, random, backoff, progress: Mutex::default() }
    }

    /// How far it is.
    pub fn status(&self) -> UploadStatus {
        let progress = self.progress();
        let mut status = progress.status.clone();
        let held = progress.held.values().next().map(|(_, reason)| reason.clone());
        status.last_error = status.last_error.or(held);
        status
    }

    /// Runs until shutdown.
    pub fn spawn(self: &Arc<Self>, loops: &Background) {
        let (uploader, wake) = (self.clone(), self.disk.0.sealed.clone());
        loops.spawn_loop_woken("upload", EVERY, wake, move || {
            let uploader = uploader.clone();
            async move { uploader.step().await }
        });
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uploads one segment, if one waits and its time has come. A store that does not take it is no error of the step: it is
    /// told in the status and tried again later.
    pub async fn step(&self) -> Result<Step, Error> {
        let now = self.clock.monotonic();
        let waiting = self.look(now).await?;
        if self.progress().not_before > now {
            return Ok(Step::Idle);
        }
        let next = waiting.into_iter().find(|segment| !self.progress().held.contains_key(&segment.name()));
        let Some(segment) = next else { return Ok(Step::Idle) };
        match self.upload(&segment).await {
            Ok(()) => {
                self.succeeded();
                Ok(Step::More)
            }
            Err(Trouble::Held(reason)) => {
                self.hold(&segment, reason);
                Ok(Step::More)
            }
            Err(Trouble::Store(error)) => {
                self.failed(&segment, &error);
                Ok(Step::Idle)
            }
            Err(Trouble::Node(error)) => Err(error),
        }
    }

    /// What waits, in the order of its names; tells the status of it.
    async fn look(&self, now: Duration) -> Result<Vec<SegmentFile>, Error> {
        let disk = self.disk.clone();
        let journal = blocking(move || disk.0.journal().map_err(Error::io("list", &disk.0.segments))).await?;
        let names: BTreeSet<String> = journal.iter().map(|(segment, _)| segment.name()).collect();
        let mut progress = self.progress();
        progress.held.retain(|name, (until, _)| *until > now && names.contains(name));
        let held_segments = progress.held.len() as u64;
        let status = &mut progress.status;
        status.waiting_segments = journal.len() as u64;
        status.waiting_bytes = journal.iter().map(|(_, len)| len).sum();
        status.held_segments = held_segments;
        metrics::waiting(status.waiting_segments, status.waiting_bytes, held_segments);
        let failing_ms = status.failing_since_ms.map_or(0, |since| self.clock.now_ms().saturating_sub(since));
        metrics::failing_for(failing_ms);
        Ok(journal.into_iter().map(|(segment, _)| segment).collect())
    }

    /// All steps for one segment.
    async fn upload(&self, segment: &SegmentFile) -> Result<(), Trouble> {
        let Loaded { bytes, note } = self.load(segment).await?;
        self.put(segment, bytes, &note).await?;
        self.settle(segment, note).await
    }

    pub(super) async fn load(&self, segment: &SegmentFile) -> Result<Loaded, Trouble> {
        let (disk, name) = (self.disk.clone(), segment.clone());
        let loaded = blocking(move || load(&*disk.0.local, &name).map_err(Error::io("read", name.path())));
        loaded
            .await?
            .ok_or(Trouble::Held("it is damaged or too large, and stays on the local disk".to_owned()))
    }

    /// Creates the object and reads it back.
    pub(super) async fn put(&self, segment: &SegmentFile, bytes: Bytes, note: &Note) -> Result<(), Trouble> {
        let (store, key) = (&self.disk.0.store, self.disk.0.key(&segment.name()));
        let locked_until_ms = self
            .options
            .lock_days
            .map(|days| self.clock.now_ms().saturating_add(Millis::from(days) * DAY_MS));
        let put = store.put_new(&key, bytes, locked_until_ms).await?;
        let found = store.head(&key).await?;
        let same = found.len == note.len && read_back(&**store, &key, note.len).await? == note.sha256;
        if !same {
            return Err(Trouble::Held(ObjectError::Differs { key }.to_string()));
        }
        if put == PutNew::Exists {
            tracing::info!(segment = segment.name(), "object was there already, with the same bytes");
        }
        if locked_until_ms.is_some() && found.locked_until_ms.is_none() {
            let reason = "its object has no lock: correct the bucket, then remove the object, and it is uploaded again";
            return Err(Trouble::Held(reason.to_owned()));
        }
        Ok(())
    }

    /// Notes the object, then removes the local file.
    pub(super) async fn settle(&self, segment: &SegmentFile, note: Note) -> Result<(), Trouble> {
        let (disk, segment) = (self.disk.clone(), segment.clone());
        let settled = blocking(move || {
            let name = segment.name();
            disk.0.keep(&name, &note)?;
            disk.0.free(&name).map_err(Error::io("remove", segment.path()))?;
            metrics::uploaded(note.len);
            tracing::debug!(segment = name, bytes = note.len, "segment uploaded");
            Ok(())
        });
        Ok(settled.await?)
    }

    fn succeeded(&self) {
        let mut progress = self.progress();
        if progress.failures > 0 {
            tracing::info!("segments are uploaded again");
        }
        progress.failures = 0;
        progress.status.failing_since_ms = None;
        progress.status.last_error = None;
    }

    fn failed(&self, segment: &SegmentFile, error: &ObjectError) {
        metrics::upload_failed();
        let mut progress = self.progress();
        let delay = self.backoff.delay(progress.failures.min(DOUBLINGS_MAX), &*self.random);
        progress.failures = progress.failures.saturating_add(1);
        progress.not_before = self.clock.monotonic().saturating_add(delay);
        let now_ms = self.clock.now_ms();
        progress.status.failing_since_ms.get_or_insert(now_ms);
        progress.status.last_error = Some(error.to_string());
        if progress.failures == 1 {
            tracing::error!(
                segment = segment.name(),
                %error,
                "segment cannot be uploaded: it stays on the local disk and is tried again"
            );
        }
    }

    fn hold(&self, segment: &SegmentFile, reason: String) {
        metrics::upload_failed();
        tracing::error!(
            segment = segment.name(),
            reason,
            "segment is not uploaded now: it is looked at again in an hour"
        );
        let until = self.clock.monotonic().saturating_add(LOOK_AGAIN);
        self.progress().held.insert(segment.name(), (until, reason));
    }
}

/// Why a segment was not uploaded.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Of this segment: others may go on.
    Held(String),
    /// Of the store.
    Store(ObjectError),
    /// Of this node.
    Node(Error),
}

impl From<ObjectError> for Trouble {
    fn from(error: ObjectError) -> Self {
        Self::Store(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Node(error)
    }
}

/// SHA-256 of the whole object, as it is read.
async fn read_back(store: &dyn ObjectStore, key: &str, len: u64) -> Result<[u8; 32], ObjectError> {
    let mut context = Context::new(&SHA256);
    let mut at = 0;
    while at < len {
        let end = len.min(at + READ_BACK_BYTES);
        context.update(&store.get_range(key, at..end).await?);
        at = end;
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Ok(out)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)?
}
