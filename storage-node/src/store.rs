//! Keeps records on one disk: opens what is there, hands appends to the committer, reads and checks.
//!
//! Invariant: after [`Store::open`] the index holds exactly the records that are readable as far as their headers tell.

use std::{
    collections::HashMap,
    fs,
    io::ErrorKind,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use holdfast_model::{Clock, Random, RecordKey};
use holdfast_record::{FooterEntry, MAX_RECORD_BYTES, SUPERBLOCK_BYTES, SealedRecord, SegmentClass};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    Error,
    committer::{Committer, Unflushed, Work},
    disk::Disk,
    index::{ChunkIndex, IndexBatch, IndexEntry, KEY_BYTES, RedbIndex},
    metrics,
    ownership::DataFolder,
    segment::{
        DamagedRange, Location, MarkFile, OpenSegment, Opened, Recovery, SegmentFile, SegmentIdentity,
        SegmentReader, SegmentState, SegmentWriter, WriterSetup, find_segments, read_footer, recover,
        walk_sealed,
    },
    space::Space,
    state::State,
    touch::{TouchLog, find_logs, read_log},
};

/// Bytes that wait for the committer or are being synced.
const INGEST_BUFFER_BYTES: usize = 64 << 20;
/// Index entries applied at once while rebuilding.
const REBUILD_BATCH: usize = 50_000;

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// It is new here, and synced.
    Stored,
    /// A live record of that id was there; it is protected like a new one.
    Exists,
}

/// What a store needs beside its folder.
pub struct StoreOptions {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Time, for group commit and checkpoints.
    pub clock: Arc<dyn Clock>,
    /// Names segments.
    pub random: Arc<dyn Random>,
    /// Whose segments.
    pub identity: SegmentIdentity,
    /// When a segment is sealed.
    pub segment_target_bytes: u64,
    /// When a group is synced: bytes.
    pub group_bytes: u64,
    /// When a group is synced: time.
    pub group_time: Duration,
    /// How much may be stored.
    pub capacity_bytes: u64,
    /// When ingest stops.
    pub stop_percent: u8,
}

/// The records of one disk.
pub struct Store {
    index: Arc<dyn ChunkIndex>,
    reader: Arc<SegmentReader>,
    space: Arc<Space>,
    state: Arc<State>,
    /// `None` only while it is being dropped.
    work: Option<mpsc::Sender<Work>>,
    room: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
    damaged: AtomicU64,
}

impl Store {
    /// Opens the folder: recovers segments, brings the index up to date, starts the committer.
    pub(crate) fn open(folder: &DataFolder, state: Arc<State>, options: StoreOptions) -> Result<Self, Error> {
        let index: Arc<dyn ChunkIndex> = Arc::new(RedbIndex::open(&folder.index)?);
        let disk = options.disk.clone();
        let found = Found::open(folder, &*disk)?;
        let new_damage = state.add_damaged(&found.damaged)?;
        if new_damage > 0 {
            metrics::quarantined(new_damage);
            tracing::error!(
                n_ranges = new_damage,
                "damaged ranges found in segments: they are kept in quarantine/ and not served"
            );
        }
        let known = state.damaged()?;
        let walked = bring_up_to_date(&*index, &found, (&*disk, folder), (&known, new_damage))?;
        metrics::quarantined(state.add_damaged(&walked)?);
        let reader = Arc::new(SegmentReader::new(disk.clone()));
        let space = Arc::new(Space::new(
            disk.clone(),
            folder.segments.clone(),
            options.capacity_bytes,
            options.stop_percent,
        ));
        for opened in &found.segments {
            reader.add(&opened.name);
            space.add(opened.end);
        }
        space.refresh();
        let setup = WriterSetup {
            disk: disk.clone(),
            dir: folder.segments.clone(),
            identity: options.identity,
            target_bytes: options.segment_target_bytes,
            random: options.random,
        };
        let (mut data, mut tree) = resume(found.segments, &setup)?;
        let committer = Committer {
            data: SegmentWriter::new(setup.clone(), SegmentClass::Data, data.take()),
            tree: SegmentWriter::new(setup.clone(), SegmentClass::Tree, tree.take()),
            touches: TouchLog::new(disk, folder.touches.clone(), &find_logs(&folder.touches)?),
            index: index.clone(),
            reader: reader.clone(),
            space: space.clone(),
            setup,
            clock: options.clock,
            group_bytes: options.group_bytes,
            group_time: options.group_time,
            since_checkpoint: Unflushed::default(),
        };
        let (work, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || committer.run(&queue))
            .map_err(Error::io("start the committer of", &folder.segments))?;
        Ok(Self {
            index,
            reader,
            space,
            room: Arc::new(Semaphore::new(INGEST_BUFFER_BYTES)),
            work: Some(work),
            thread: Mutex::new(Some(thread)),
            damaged: AtomicU64::new(state.n_damaged()?),
            state,
        })
    }

    /// Stores verified records, or says why none of them is stored.
    pub async fn put(&self, records: Vec<SealedRecord>, epoch: u64) -> Result<Vec<PutOutcome>, String> {
        if let Some(reason) = self.space.stopped() {
            return Err(reason);
        }
        let bytes = records.iter().map(SealedRecord::encoded_len).sum();
        let permit = self.room(bytes).await?;
        let (reply, answer) = oneshot::channel();
        self.send(Work::Put { records, epoch, reply, permit })?;
        answer.await.map_err(|_| STOPPED.to_owned())?
    }

    /// Says which records are there. Those that are, are protected in that epoch before this returns.
    pub async fn have(self: &Arc<Self>, keys: Vec<RecordKey>, epoch: u64) -> Result<Vec<bool>, Error> {
        let store = self.clone();
        let (keys, found) = blocking(move || {
            let found = store.index.get_many(&keys)?;
            Ok((keys, found))
        })
        .await?;
        let untouched: Vec<RecordKey> = keys
            .iter()
            .zip(&found)
            .filter(|(_, entry)| entry.is_some_and(|entry| !entry.protects(epoch)))
            .map(|(key, _)| *key)
            .collect();
        metrics::ids_asked(keys.len(), untouched.len());
        if !untouched.is_empty() {
            self.touch(untouched, epoch).await.map_err(|reason| Error::NotProtected { reason })?;
        }
        Ok(found.iter().map(Option::is_some).collect())
    }

    async fn touch(&self, keys: Vec<RecordKey>, epoch: u64) -> Result<(), String> {
        let permit = self.room(keys.len() * KEY_BYTES).await?;
        let (reply, answer) = oneshot::channel();
        self.send(Work::Touch { keys, epoch, reply, permit })?;
        answer.await.map_err(|_| STOPPED.to_owned())?
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, String> {
        let permits = u32::try_from(bytes.clamp(1, INGEST_BUFFER_BYTES)).expect("at most the buffer");
        self.room.clone().acquire_many_owned(permits).await.map_err(|_| STOPPED.to_owned())
    }

    fn send(&self, work: Work) -> Result<(), String> {
        self.work.as_ref().and_then(|queue| queue.send(work).ok()).ok_or_else(|| STOPPED.to_owned())
    }

    /// Reads records in order, up to about `budget` bytes but at least one key: what was read, and how many keys that was.
    ///
    /// Blocks on the disk. A record that does not verify counts as not there and is reported.
    pub fn read(&self, keys: &[RecordKey], budget: usize) -> Result<Vec<Option<Bytes>>, Error> {
        let entries = self.index.get_many(keys)?;
        let (mut out, mut bytes, mut n) = (Vec::new(), 0, 0);
        for (key, entry) in keys.iter().zip(entries) {
            let len = entry.map_or(0, |entry| entry.location.len as usize);
            if !out.is_empty() && bytes + len > budget {
                break;
            }
            let record = match entry {
                Some(entry) => self.read_verified(key, &entry)?,
                None => None,
            };
            bytes += len;
            n += u64::from(record.is_some());
            out.push(record);
        }
        metrics::records_read(n, bytes as u64);
        Ok(out)
    }

    fn read_verified(&self, key: &RecordKey, entry: &IndexEntry) -> Result<Option<Bytes>, Error> {
        match self.reader.read(entry.location) {
            Ok(record) if record.key() == *key => Ok(Some(record.encode())),
            Ok(_) => self.set_aside(key, entry, "another record stands in its place").map(|()| None),
            Err(error) if says_damage(&error) => {
                self.set_aside(key, entry, &error.to_string()).map(|()| None)
            }
            Err(error) => Err(error),
        }
    }

    /// A record that cannot be served: remembered, counted, and no longer known, so that a put brings it back.
    fn set_aside(&self, key: &RecordKey, entry: &IndexEntry, reason: &str) -> Result<(), Error> {
        let Location { segment, offset, len } = entry.location;
        tracing::error!(
            segment = hex::encode(segment),
            offset,
            reason,
            "stored record is damaged and not served"
        );
        let new = self.state.add_damaged(&[DamagedRange { segment, offset, len: u64::from(len) }])?;
        self.damaged.fetch_add(new, Ordering::Relaxed);
        metrics::quarantined(new);
        self.index.apply(&IndexBatch { removals: vec![(*key, entry.location)], ..IndexBatch::default() })
    }

    /// How many records.
    pub fn n_records(&self) -> Result<u64, Error> {
        self.index.len()
    }

    /// How many ranges are damaged.
    pub fn n_damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// The room on the disk.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Finishes what was sent, checkpoints the index and ends the committer.
    pub async fn close(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        if self.send(Work::Stop { reply }).is_ok()
            && let Ok(Err(reason)) = answer.await
        {
            // The next start scans more; nothing is lost.
            tracing::warn!(reason, "index checkpoint failed");
        }
        self.room.close();
        blocking(move || thread.join().map_err(|_| Error::Stopping)).await
    }
}

/// Without [`Store::close`] the index is not checkpointed, as after a kill; but the folder is free again.
impl Drop for Store {
    fn drop(&mut self) {
        self.work = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the committer ended by a panic");
        }
    }
}

const STOPPED: &str = "the storage node is stopping";

/// Whether a failed read tells something about the record. Too many open files, or no memory, does not.
fn says_damage(error: &Error) -> bool {
    match error {
        Error::BadBytes { .. } | Error::DamagedState(_) => true,
        Error::Io { source, .. } => {
            matches!(source.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof)
                || source.raw_os_error() == Some(nix::libc::EIO)
        }
        _ => false,
    }
}

/// Runs something that waits for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)?
}

// === Opening ===

struct Found {
    segments: Vec<Opened>,
    damaged: Vec<DamagedRange>,
}

impl Found {
    fn open(folder: &DataFolder, disk: &dyn Disk) -> Result<Self, Error> {
        let context = Recovery { disk, quarantine: &folder.quarantine };
        let (names, lonely_marks) = find_segments(&folder.segments)?;
        let mut found = Self { segments: Vec::new(), damaged: Vec::new() };
        for name in names {
            let Some(opened) = recover(&context, name)? else { continue };
            if opened.torn_bytes > 0 {
                tracing::warn!(
                    segment = opened.name.name(),
                    bytes = opened.torn_bytes,
                    "torn tail cut off: nobody was told that it is stored"
                );
            }
            found.damaged.extend(&opened.damaged);
            found.segments.push(opened);
        }
        for mark in lonely_marks {
            found.damaged.extend(lost_segment(disk, &mark)?);
        }
        Ok(found)
    }
}

/// A mark without a segment: left by an interrupted creation, or all that remains of a segment.
fn lost_segment(disk: &dyn Disk, mark: &Path) -> Result<Option<DamagedRange>, Error> {
    let mut segment = [0; 16];
    let stem = mark.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let durable = match hex::decode_to_slice(stem, &mut segment) {
        Ok(()) => MarkFile::open(disk, mark, segment, 0)?.durable(),
        Err(_) => 0,
    };
    if durable > SUPERBLOCK_BYTES as u64 {
        return Ok(Some(DamagedRange { segment, offset: 0, len: durable }));
    }
    fs::remove_file(mark).map_err(Error::io("remove", mark))?;
    Ok(None)
}

/// Hands the open segments to the writers. Of two of one class, the smaller is sealed.
fn resume(
    segments: Vec<Opened>,
    setup: &WriterSetup,
) -> Result<(Option<OpenSegment>, Option<OpenSegment>), Error> {
    let (mut data, mut tree): (Option<OpenSegment>, Option<OpenSegment>) = (None, None);
    for opened in segments {
        let SegmentState::Open(open) = opened.state else { continue };
        let slot = if opened.name.class == SegmentClass::Tree { &mut tree } else { &mut data };
        if let Some(other) = slot.replace(*open) {
            SegmentWriter::new(setup.clone(), opened.name.class, Some(other)).seal()?;
        }
    }
    Ok((data, tree))
}

/// Feeds the index with everything it does not know yet: records, then touches. Returns damage found on the way.
fn bring_up_to_date(
    index: &dyn ChunkIndex,
    found: &Found,
    (disk, folder): (&dyn Disk, &DataFolder),
    (known_damage, new_damage): (&[DamagedRange], u64),
) -> Result<Vec<DamagedRange>, Error> {
    let context = Recovery { disk, quarantine: &folder.quarantine };
    let names: Vec<String> = found.segments.iter().map(|opened| opened.name.name()).collect();
    let vanished = index.progress()?.keys().any(|file| file.ends_with(".seg") && !names.contains(file));
    if vanished || new_damage > 0 {
        tracing::warn!(vanished, new_damage, "index is rebuilt: what it was made from has changed");
        index.clear()?;
    }
    let progress = index.progress()?;
    let mut damaged = Vec::new();
    for (opened, name) in found.segments.iter().zip(&names) {
        let from = progress.get(name).copied().unwrap_or(0);
        if from >= opened.end {
            continue;
        }
        let entries = match &opened.state {
            SegmentState::Sealed(trailer) => match read_footer(disk, &opened.name, *trailer) {
                Ok(footer) => footer.entries,
                Err(error) => {
                    tracing::error!(segment = name, %error, "footer damaged: the segment is walked");
                    let (entries, ranges) = walk_sealed(&context, &opened.name, opened.end)?;
                    damaged.extend(ranges);
                    entries
                }
            },
            SegmentState::Open(open) => open.entries().to_vec(),
            SegmentState::Walked(entries) => entries.clone(),
        };
        feed(index, &opened.name, entries.into_iter().filter(|entry| entry.offset >= from), known_damage)?;
        index.apply(&IndexBatch { progress: vec![(name.clone(), opened.end)], ..IndexBatch::default() })?;
    }
    replay_touches(index, &folder.touches, &progress)?;
    index.checkpoint()?;
    Ok(damaged)
}

fn feed(
    index: &dyn ChunkIndex,
    name: &SegmentFile,
    entries: impl Iterator<Item = FooterEntry>,
    known_damage: &[DamagedRange],
) -> Result<(), Error> {
    let damage: HashMap<u64, u64> = known_damage
        .iter()
        .filter(|range| range.segment == name.id)
        .map(|range| (range.offset, range.len))
        .collect();
    let mut batch = IndexBatch::default();
    for entry in entries {
        let overlaps = damage.iter().any(|(offset, len)| (*offset..offset + len).contains(&entry.offset));
        if overlaps || entry.len as usize > MAX_RECORD_BYTES {
            continue;
        }
        let location = Location { segment: name.id, offset: entry.offset, len: entry.len };
        let FooterEntry { key, write_epoch, lock_floor_ms, .. } = entry;
        batch
            .inserts
            .push((key, IndexEntry { location, write_epoch, touch_epoch: write_epoch, lock_floor_ms }));
        if batch.inserts.len() >= REBUILD_BATCH {
            index.apply(&std::mem::take(&mut batch))?;
        }
    }
    index.apply(&batch)
}

fn replay_touches(
    index: &dyn ChunkIndex,
    dir: &Path,
    progress: &std::collections::BTreeMap<String, u64>,
) -> Result<(), Error> {
    for log in find_logs(dir)? {
        let from = progress.get(&log.name).copied().unwrap_or(0);
        let (touches, end, damaged) = read_log(&log, from)?;
        if damaged {
            tracing::error!(
                file = log.name,
                offset = end,
                "touch log damaged: touches behind it are not known"
            );
        }
        for touches in touches.chunks(REBUILD_BATCH) {
            index.apply(&IndexBatch { touches: touches.to_vec(), ..IndexBatch::default() })?;
        }
        index.apply(&IndexBatch { progress: vec![(log.name, end)], ..IndexBatch::default() })?;
    }
    Ok(())
}
