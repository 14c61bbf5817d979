//! What the uploader knows of the segments that wait: how old they are, which are held back, when it may try again. Kept in
//! memory: a start finds the same segments in the folder again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use holdfast_model::Random;
use holdfast_runtime::Backoff;

use super::{ObjectError, metrics};
use crate::segment::SegmentFile;

/// Segments uploaded at the same time. One alone waits for the server most of the time; more than a few only share the line.
pub(super) const UPLOADS_AT_ONCE: usize = 4;
/// Bytes of the segments uploaded at the same time, unless a single one is larger: all of them are in memory until the server
/// has them. Four of the default size.
pub(super) const UPLOAD_BYTES_AT_ONCE: u64 = 256 << 20;
/// After a failed upload the next waits up to this, then twice as long, and so on,
const DELAY_FIRST: Duration = Duration::from_secs(1);
/// but not longer. It never gives up: what waits is on no other disk of this node.
const DELAY_MAX: Duration = Duration::from_secs(300);
/// From here on the delay is the longest.
const DOUBLINGS_MAX: u32 = 16;
/// A held segment is looked at again so often: the scrub may have mended it, or an administrator the bucket.
const LOOK_AGAIN: Duration = Duration::from_secs(3_600);

/// Why a segment is not uploaded until somebody looks after it. Others go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Held {
    #[error("it is damaged or too large, and stays on the local disk")]
    Damaged,
    #[error(transparent)]
    Differs(ObjectError),
    #[error("its object has no lock: correct the bucket, then remove the object, and it is uploaded again")]
    NoLock,
}

impl Held {
    fn told(&self) -> UploadError {
        let class = match self {
            Self::Damaged => "damaged",
            Self::Differs(error) => error.class(),
            Self::NoLock => "no-lock",
        };
        UploadError { class, reason: self.to_string() }
    }
}

/// Why an upload failed, or a segment is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadError {
    /// What kind of error it is: one word of a closed set.
    pub class: &'static str,
    /// In a sentence.
    pub reason: String,
}

/// What an operator sees of the uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadStatus {
    /// Sealed segments that are only on the local disk.
    pub waiting_segments: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Those that are not uploaded because they are damaged, or their object is not as it should be.
    pub held_segments: u64,
    /// For how long the oldest has been waiting, counted from the node's start at the earliest.
    pub oldest_age: Duration,
    /// For how long uploads have been failing; none while they succeed.
    pub failing_for: Option<Duration>,
    /// Why the last one failed, or else why a segment is held.
    pub last_error: Option<UploadError>,
}

/// Times are of the monotonic clock.
#[derive(Default)]
pub(super) struct Progress {
    /// Every segment that waits, and since when.
    waiting: BTreeMap<String, Duration>,
    waiting_bytes: u64,
    /// Segments that are passed over until then, and why.
    held: BTreeMap<String, (Duration, UploadError)>,
    failures: u32,
    /// Nothing is tried before.
    not_before: Duration,
    failing_since: Option<Duration>,
    last_error: Option<UploadError>,
}

impl Progress {
    pub fn status(&self, now: Duration) -> UploadStatus {
        let oldest = self.waiting.values().min().copied().unwrap_or(now);
        let held = self.held.values().next().map(|(_, error)| error.clone());
        UploadStatus {
            waiting_segments: self.waiting.len() as u64,
            waiting_bytes: self.waiting_bytes,
            held_segments: self.held.len() as u64,
            oldest_age: now.saturating_sub(oldest),
            failing_for: self.failing_since.map(|since| now.saturating_sub(since)),
            last_error: self.last_error.clone().or(held),
        }
    }

    /// Takes note of what waits now, in the order of the names, and chooses what is uploaded next: nothing while a delay lasts.
    pub fn next_batch(&mut self, journal: Vec<(SegmentFile, u64)>, now: Duration) -> Vec<SegmentFile> {
        let names: BTreeSet<String> = journal.iter().map(|(segment, _)| segment.name()).collect();
        self.waiting.retain(|name, _| names.contains(name));
        self.held.retain(|name, (until, _)| *until > now && names.contains(name));
        for name in names {
            self.waiting.entry(name).or_insert(now);
        }
        self.waiting_bytes = journal.iter().map(|(_, len)| len).sum();
        metrics::waiting(&self.status(now));
        if self.not_before > now {
            return Vec::new();
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let free = journal.into_iter().filter(|(segment, _)| !self.held.contains_key(&segment.name()));
        for (segment, len) in free.take(UPLOADS_AT_ONCE) {
            bytes += len;
            if bytes > UPLOAD_BYTES_AT_ONCE && !batch.is_empty() {
                break;
            }
            batch.push(segment);
        }
        batch
    }

    /// Everything that was tried arrived.
    pub fn succeeded(&mut self) {
        if self.failing_since.is_some() {
            tracing::info!("segments are uploaded again");
        }
        self.failures = 0;
        self.failing_since = None;
        self.last_error = None;
    }

    /// The store did not take a segment. Where others arrived meanwhile it is not away, and asked again soon.
    pub fn failed(
        &mut self,
        (segment, error): (&SegmentFile, &ObjectError),
        n_others_arrived: u64,
        now: Duration,
        random: &dyn Random,
    ) {
        if n_others_arrived > 0 {
            self.failures = 0;
        }
        let backoff = Backoff::new(DELAY_FIRST, DELAY_MAX, 1).expect("the first delay is below the last");
        let delay = backoff.delay(self.failures.min(DOUBLINGS_MAX), random);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.saturating_add(delay);
        self.last_error = Some(UploadError { class: error.class(), reason: error.to_string() });
        if self.failing_since.is_none() {
            self.failing_since = Some(now);
            tracing::error!(
                segment = segment.name(),
                %error,
                "segment cannot be uploaded: it stays on the local disk and is tried again"
            );
        }
    }

    pub fn hold(&mut self, segment: &SegmentFile, held: &Held, now: Duration) {
        let error = held.told();
        tracing::error!(
            segment = segment.name(),
            reason = error.reason,
            "segment is not uploaded now: it is looked at again in an hour"
        );
        self.held.insert(segment.name(), (now.saturating_add(LOOK_AGAIN), error));
    }
}
