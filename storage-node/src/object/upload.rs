//! Moves sealed segments to the object store, a few at a time.
//!
//! Order for each: verify all of it → create the object, unless it is there → read the whole object back and compare → note →
//! remove the local file. A kill between any two leaves the local file, or the object, or both, and the next step goes on from
//! there. The local folder is the queue: nothing else has to remember what is to be uploaded.
//!
//! Invariant: a local file is removed only after the read-back and the durable note of its own object; what becomes of the
//! others that are uploaded beside it does not matter.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures::future::join_all;
use holdfast_model::{Clock, Millis, Random};
use holdfast_runtime::{Background, Step};

use super::{
    ObjectDisk, ObjectError, ObjectStore, PutNew,
    load::{Loaded, load},
    metrics,
    notes::Note,
    progress::{Held, Progress, UploadStatus},
};
use crate::{Error, segment::SegmentFile};

/// How often the folder is looked at when nobody seals.
const EVERY: Duration = Duration::from_secs(5);
/// Bytes read back at a time.
const READ_BACK_BYTES: u64 = 8 << 20;
const DAY_MS: Millis = 24 * 60 * 60 * 1_000;

/// How segments are uploaded.
#[derive(Debug, Clone, Copy)]
pub struct UploadOptions {
    /// Objects are locked for so many days, in compliance mode; none: not at all.
    pub lock_days: Option<u32>,
}

/// Uploads the sealed segments of one node.
pub struct Uploader {
    disk: ObjectDisk,
    options: UploadOptions,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
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
        Self { disk, options, clock, random, progress: Mutex::default() }
    }

    /// How far it is.
    pub fn status(&self) -> UploadStatus {
        self.progress().status(self.clock.monotonic())
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

    /// Uploads a few segments at once, if some wait and their time has come. A store that does not take one is no error of the
    /// step: it is told in the status and tried again later.
    pub async fn step(&self) -> Result<Step, Error> {
        let disk = self.disk.clone();
        let journal = blocking(move || disk.0.journal().map_err(Error::io("list", &disk.0.segments))).await?;
        let batch = self.progress().next_batch(journal, self.clock.monotonic());
        if batch.is_empty() {
            return Ok(Step::Idle);
        }
        let outcomes = join_all(batch.iter().map(|segment| self.upload(segment))).await;
        self.take_note(batch.iter().zip(outcomes))
    }

    fn take_note<'a>(
        &self,
        outcomes: impl Iterator<Item = (&'a SegmentFile, Result<(), Trouble>)>,
    ) -> Result<Step, Error> {
        let now = self.clock.monotonic();
        let mut progress = self.progress();
        let (mut n_arrived, mut of_store, mut of_node) = (0_u64, None, None);
        for (segment, outcome) in outcomes {
            if !matches!(outcome, Ok(()) | Err(Trouble::Node(_))) {
                metrics::upload_failed();
            }
            match outcome {
                Ok(()) => n_arrived += 1,
                Err(Trouble::Held(held)) => progress.hold(segment, &held, now),
                Err(Trouble::Store(error)) => of_store = Some((segment, error)),
                Err(Trouble::Node(error)) => of_node = Some(error),
            }
        }
        match &of_store {
            Some((segment, error)) => {
                progress.failed((*segment, error), n_arrived, now, &*self.random);
            }
            None if n_arrived > 0 => progress.succeeded(),
            None => {}
        }
        match of_node {
            Some(error) => Err(error),
            None if of_store.is_some() => Ok(Step::Idle),
            None => Ok(Step::More),
        }
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
        loaded.await?.ok_or(Trouble::Held(Held::Damaged))
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
            return Err(Trouble::Held(Held::Differs(ObjectError::Differs { key })));
        }
        if put == PutNew::Exists {
            tracing::info!(segment = segment.name(), "object was there already, with the same bytes");
        }
        if locked_until_ms.is_some() && found.locked_until_ms.is_none() {
            return Err(Trouble::Held(Held::NoLock));
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
}

/// Why a segment was not uploaded.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Of this segment: others may go on.
    Held(Held),
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
