//! The one loop that appends: it gathers puts and touches into groups, syncs each group once, and only then answers.
//!
//! Order within a group: touches → sync; bytes → sync → durable mark; index → answers. Synced touches are kept in memory in front
//! of the index (`index/touched.rs`). Invariant: when any of these fails, the whole group is answered as failed, and nothing of
//! it is retried.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, mpsc::RecvTimeoutError},
    time::Duration,
};

use holdfast_model::{Clock, RecordKey};
use holdfast_record::{SealedRecord, SegmentClass};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    Error,
    executor::{Executor, Inbox},
    index::{ChunkIndex as _, IndexBatch, IndexEntry, TouchedIndex},
    metrics,
    segment::{Location, SegmentFile, SegmentReader, SegmentWriter, WriterSetup, is_full},
    space::Space,
    store::PutOutcome,
    touch::TouchLog,
};

/// A group is closed early when nothing more arrives for this long.
const QUIET: Duration = Duration::from_millis(1);
/// No group takes in more once it has this much.
const GROUP_BYTES_MAX: u64 = 16 << 20;
/// How often the loop wakes without work, to checkpoint the index.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// The index is checkpointed at least so often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);
/// And after so many bytes.
const CHECKPOINT_BYTES: u64 = 1 << 30;

/// Every record's outcome, or why none of them is stored.
pub type PutResult = Result<Vec<PutOutcome>, String>;

/// Something to make durable. The permit bounds what waits.
pub enum Work {
    /// Records, verified.
    Put {
        /// With their placement set.
        records: Vec<SealedRecord>,
        /// A record that is there already is touched in this epoch.
        epoch: u64,
        /// Where the outcome goes.
        reply: oneshot::Sender<PutResult>,
        /// Room in the queue.
        permit: OwnedSemaphorePermit,
    },
    /// Records that are there and must be protected.
    Touch {
        /// Which.
        keys: Vec<RecordKey>,
        /// In which epoch.
        epoch: u64,
        /// Whether the touch is durable.
        reply: oneshot::Sender<Result<(), String>>,
        /// Room in the queue.
        permit: OwnedSemaphorePermit,
    },
    /// Checkpoint the index and end.
    Stop {
        /// Told when it is done.
        reply: oneshot::Sender<Result<(), String>>,
    },
}

/// The committer's parts.
pub struct Committer {
    pub(crate) data: SegmentWriter,
    pub(crate) tree: SegmentWriter,
    pub(crate) touches: TouchLog,
    pub(crate) index: Arc<TouchedIndex>,
    pub(crate) reader: Arc<SegmentReader>,
    pub(crate) space: Arc<Space>,
    pub(crate) setup: WriterSetup,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executor: Executor,
    pub(crate) group_bytes: u64,
    pub(crate) group_time: Duration,
    /// Segments are sealed at this age, so that they are uploaded; none: only when they are full.
    pub(crate) seal_after: Option<Duration>,
    pub(crate) since_checkpoint: Unflushed,
    /// Nothing more is appended: the index would not know it, and each attempt would leave its bytes behind.
    pub(crate) index_failed: bool,
}

/// What the index would lose in a crash.
#[derive(Default)]
pub struct Unflushed {
    bytes: u64,
    changed: bool,
    last: Duration,
}

#[derive(Default)]
struct Group {
    bytes: u64,
    new: BTreeMap<RecordKey, (SegmentClass, IndexEntry)>,
    touches: BTreeMap<u64, Vec<RecordKey>>,
    puts: Vec<(oneshot::Sender<PutResult>, Vec<PutOutcome>)>,
    touched: Vec<oneshot::Sender<Result<(), String>>>,
    permits: Vec<OwnedSemaphorePermit>,
    failed: Option<Error>,
}

impl Committer {
    /// Works until it is told to stop, or nobody is left to send.
    pub async fn run(mut self, mut work: Inbox<Work>) {
        self.since_checkpoint.last = self.clock.monotonic();
        loop {
            match work.recv(IDLE_TICK).await {
                Ok(first) => {
                    if let Some(reply) = self.group(first, &mut work).await {
                        // The receiver is gone only when the process is going down anyway.
                        let _ = reply.send(self.last_checkpoint());
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.seal_if_due();
            self.checkpoint_if_due();
        }
    }

    /// Gathers a group and commits it. Returns who asked to stop, if somebody did.
    async fn group(
        &mut self,
        first: Work,
        work: &mut Inbox<Work>,
    ) -> Option<oneshot::Sender<Result<(), String>>> {
        let started = self.clock.monotonic();
        let mut group = self.new_group();
        let mut stop = self.take(&mut group, first);
        while stop.is_none() && group.bytes < self.group_bytes {
            let left = self.group_time.saturating_sub(self.clock.monotonic().saturating_sub(started));
            match work.recv(QUIET.min(left)).await {
                Ok(next) => stop = self.take(&mut group, next),
                Err(_) => break,
            }
        }
        // What waits already shares the sync: it would only wait for the next.
        while stop.is_none() && group.bytes < GROUP_BYTES_MAX {
            match work.try_recv() {
                Some(next) => stop = self.take(&mut group, next),
                None => break,
            }
        }
        let bytes = group.bytes;
        self.executor.disk_time().await;
        self.commit(group);
        metrics::group_committed(bytes, self.clock.monotonic().saturating_sub(started).as_secs_f64());
        stop
    }

    fn new_group(&self) -> Group {
        Group { failed: self.index_failed.then_some(Error::IndexFailed), ..Group::default() }
    }

    fn take(&mut self, group: &mut Group, work: Work) -> Option<oneshot::Sender<Result<(), String>>> {
        match work {
            Work::Stop { reply } => return Some(reply),
            Work::Touch { keys, epoch, reply, permit } => {
                group.touches.entry(epoch).or_default().extend(keys);
                group.touched.push(reply);
                group.permits.push(permit);
            }
            Work::Put { records, epoch, reply, permit } => {
                let outcomes = if group.failed.is_none() {
                    self.append(group, &records, epoch).unwrap_or_else(|error| {
                        group.failed = Some(error);
                        Vec::new()
                    })
                } else {
                    Vec::new()
                };
                group.puts.push((reply, outcomes));
                group.permits.push(permit);
            }
        }
        None
    }

    fn append(
        &mut self,
        group: &mut Group,
        records: &[SealedRecord],
        epoch: u64,
    ) -> Result<Vec<PutOutcome>, Error> {
        let keys: Vec<RecordKey> = records.iter().map(SealedRecord::key).collect();
        let known = self.index.get_many(&keys)?;
        let mut outcomes = Vec::with_capacity(records.len());
        for ((record, key), known) in records.iter().zip(keys).zip(known) {
            let known = known.or_else(|| group.new.get(&key).map(|(_, entry)| *entry));
            if let Some(known) = known {
                if !known.protects(epoch) {
                    group.touches.entry(epoch).or_default().push(key);
                }
                outcomes.push(PutOutcome::Exists);
                continue;
            }
            let writer = match record.segment_class() {
                SegmentClass::Tree => &mut self.tree,
                SegmentClass::Data | SegmentClass::Pin => &mut self.data,
            };
            let (class, location) = (writer.class(), writer.append(record)?);
            group.bytes += u64::from(location.len);
            let entry = IndexEntry {
                location,
                write_epoch: record.placement.write_epoch,
                touch_epoch: epoch,
                lock_floor_ms: record.placement.lock_floor_ms,
            };
            if epoch > entry.write_epoch {
                // A copy from elsewhere, which was touched since its write: the segment alone would forget that.
                group.touches.entry(epoch).or_default().push(key);
            }
            group.new.insert(key, (class, entry));
            outcomes.push(PutOutcome::Stored);
        }
        Ok(outcomes)
    }

    fn commit(&mut self, mut group: Group) {
        let has_changes = !group.new.is_empty() || !group.touches.is_empty();
        let result = match group.failed.take() {
            Some(error) => Err(error),
            None => self.make_durable(&mut group),
        };
        match result {
            Ok(()) => {
                metrics::records_stored(group.new.len() as u64, group.bytes);
                self.space.add(group.bytes);
                self.since_checkpoint.bytes += group.bytes;
                self.since_checkpoint.changed |= has_changes;
                // A receiver that is gone is a caller that hung up: what it sent is stored all the same.
                for (reply, outcomes) in group.puts {
                    let _ = reply.send(Ok(outcomes));
                }
                for reply in group.touched {
                    let _ = reply.send(Ok(()));
                }
            }
            Err(error) => self.fail(group, &error),
        }
    }

    fn make_durable(&mut self, group: &mut Group) -> Result<(), Error> {
        let mut touches = Vec::with_capacity(group.touches.len());
        for (epoch, mut keys) in mem::take(&mut group.touches) {
            keys.sort_unstable();
            keys.dedup();
            let logged = self.touches.append(epoch, &keys)?;
            touches.push((epoch, keys, logged));
        }
        self.data.sync()?;
        self.tree.sync()?;
        let mut batch = IndexBatch::default();
        let mut ends: BTreeMap<String, u64> = BTreeMap::new();
        for (key, (class, entry)) in &group.new {
            batch.inserts.push((*key, *entry));
            let Location { segment, offset, len } = entry.location;
            let file = SegmentFile::new(&self.setup.dir, *class, segment);
            if !self.reader.knows(&segment) {
                self.reader.add(&file);
            }
            let end = ends.entry(file.name()).or_default();
            *end = (*end).max(offset + u64::from(len));
        }
        batch.progress.extend(ends);
        if !batch.inserts.is_empty() {
            self.index.apply(&batch)?;
        }
        for (epoch, keys, logged) in touches {
            self.index.touch(epoch, &keys, logged)?;
        }
        Ok(())
    }

    fn fail(&mut self, group: Group, error: &Error) {
        metrics::batch_failed();
        let full = matches!(error, Error::Io { source, .. } if is_full(source));
        self.index_failed |= matches!(error, Error::Database(_));
        if full {
            self.space.note_full();
        } else if error.is_disk_failure() {
            self.space.note_failed();
        }
        if !full && !matches!(error, Error::IndexFailed) {
            tracing::error!(%error, cause = ?std::error::Error::source(error), "group commit failed: nothing of it is acknowledged");
        }
        self.data.abandon(error);
        self.tree.abandon(error);
        let reason = match self.space.stopped() {
            Some(reason) if full => reason,
            _ => format!("not stored: {error}"),
        };
        for (reply, _) in group.puts {
            let _ = reply.send(Err(reason.clone()));
        }
        for reply in group.touched {
            let _ = reply.send(Err(reason.clone()));
        }
    }

    fn last_checkpoint(&self) -> Result<(), String> {
        if !self.space.has_checkpoint_room() {
            return Err("the disk is full".to_owned());
        }
        self.index.checkpoint().map_err(|error| error.to_string())
    }

    /// Between groups, when all that the open segments hold is durable. A segment that cannot be sealed is left as it is: what
    /// it holds is served, and the next start seals it or goes on with it.
    fn seal_if_due(&mut self) {
        let Some(after) = self.seal_after else { return };
        let now = self.clock.monotonic();
        for writer in [&mut self.data, &mut self.tree] {
            // Told by the writer.
            let _ = writer.seal_if_older(now, after);
        }
    }

    fn checkpoint_if_due(&mut self) {
        let Unflushed { bytes, changed, last } = self.since_checkpoint;
        let now = self.clock.monotonic();
        if !changed || (bytes < CHECKPOINT_BYTES && now.saturating_sub(last) < CHECKPOINT_EVERY) {
            return;
        }
        if !self.space.has_checkpoint_room() {
            return;
        }
        self.since_checkpoint = Unflushed { bytes: 0, changed: false, last: now };
        if let Err(error) = self.index.checkpoint() {
            // The next start scans more; nothing is lost.
            tracing::warn!(%error, "index checkpoint failed");
        }
    }
}

#[cfg(test)]
mod tests;
