//! Keeps records on one disk: opens what is there, hands appends to the committer, reads and checks.
//!
//! Invariant: after [`Store::open`] the index holds exactly the records that are readable as far as their headers tell.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_model::{Clock, PartitionId, Random, RecordKey};
use holdfast_record::{FooterEntry, MAX_RECORD_BYTES, SUPERBLOCK_BYTES, SealedRecord, SegmentClass};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    Error,
    committer::{Committer, Unflushed, Work},
    disk::Disk,
    executor::{Executor, Queue, Running},
    format::Reserved,
    index::{ChunkIndex, IndexBatch, IndexEntry, KEY_BYTES, RedbIndex, TouchedIndex},
    metrics,
    ownership::DataFolder,
    repair::{Entry, Protection, RepairQueue, Why},
    segment::{
        DamagedRange, Location, MarkFile, OpenSegment, Opened, Recovery, SegmentFile, SegmentId,
        SegmentIdentity, SegmentReader, SegmentState, SegmentWriter, WriterSetup, find_segments, is_damage,
        read_footer, recover, remove_leftovers, walk_sealed,
    },
    space::{Space, StopPercents, has_checkpoint_room},
    state::Damage,
    touch::{TouchLog, find_logs, read_log},
};

mod repair;

pub(crate) use repair::{Checked, FIRST_KEY, LAST_KEY, copy_of};

/// Bytes that wait for the committer or are being synced.
const INGEST_BUFFER_BYTES: usize = 64 << 20;
/// Index entries applied at once while rebuilding.
const REBUILD_BATCH: usize = 50_000;

/// The key in the index's progress under which it keeps which damage it was made with.
const DAMAGE_KNOWN: &str = "damage";

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// It is new here, and synced.
    Stored,
    /// A live record of that id was there; it is protected like a new one.
    Exists,
}

/// What a store needs beside its folder.
#[derive(Clone)]
pub struct StoreOptions {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Where the committer and reads run.
    pub executor: Executor,
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
    /// Segments are sealed at this age; none: only when they are full.
    pub seal_after: Option<Duration>,
    /// How much may be stored.
    pub capacity_bytes: u64,
    /// Files kept open to read.
    pub open_files: usize,
    /// When the disk counts as full.
    pub stops: StopPercents,
    /// Where damaged records wait for repair.
    pub repair_queue: Arc<RepairQueue>,
}

/// The records of one disk.
pub struct Store {
    index: Arc<TouchedIndex>,
    reader: Arc<SegmentReader>,
    space: Arc<Space>,
    damage: Damage,
    /// `None` only while it is being dropped.
    work: Option<Queue<Work>>,
    room: Arc<Semaphore>,
    executor: Executor,
    committer: Mutex<Option<Running>>,
    damaged: AtomicU64,
    /// How many records of each partition were set aside since the start.
    set_aside: Mutex<BTreeMap<PartitionId, u64>>,
    repair_queue: Arc<RepairQueue>,
    /// What this build must leave alone.
    reserved: Reserved,
    frames: repair::Frames,
}

impl Store {
    /// Opens the folder: recovers segments, brings the index up to date, starts the committer.
    pub(crate) fn open(folder: &DataFolder, damage: Damage, options: StoreOptions) -> Result<Self, Error> {
        let index = RedbIndex::open(options.disk.clone(), &folder.index)?;
        let disk = options.disk.clone();
        let found = Found::open(folder, &*disk)?;
        let new_damage = damage.add(&found.damaged)?;
        report_damage(new_damage, &found.damaged);
        let known = damage.ranges()?;
        let walked = bring_up_to_date(&index, &found, (&*disk, folder), &known, &options.repair_queue)?;
        report_damage(damage.add(&walked)?, &walked);
        index.apply(&knows_damage(&damage.ranges()?))?;
        let index = Arc::new(TouchedIndex::new(Arc::new(index)));
        let reader = Arc::new(SegmentReader::new(disk.clone(), options.open_files));
        let space = Arc::new(Space::new(
            disk.clone(),
            folder.segments.clone(),
            options.capacity_bytes,
            options.stops,
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
            touches: TouchLog::new(
                disk.clone(),
                folder.touches.clone(),
                &find_logs(&*disk, &folder.touches)?,
            ),
            index: index.clone(),
            reader: reader.clone(),
            space: space.clone(),
            setup,
            clock: options.clock,
            executor: options.executor.clone(),
            group_bytes: options.group_bytes,
            group_time: options.group_time,
            seal_after: options.seal_after,
            since_checkpoint: Unflushed::default(),
            index_failed: false,
        };
        let (work, running) = options
            .executor
            .start("committer", |inbox| committer.run(inbox))
            .map_err(Error::io("start the committer of", &folder.segments))?;
        Ok(Self {
            index,
            reader,
            space,
            room: Arc::new(Semaphore::new(INGEST_BUFFER_BYTES)),
            work: Some(work),
            executor: options.executor,
            committer: Mutex::new(Some(running)),
            damaged: AtomicU64::new(damage.n_ranges()?),
            set_aside: Mutex::default(),
            repair_queue: options.repair_queue,
            reserved: folder.reserved.clone(),
            frames: repair::Frames::new(disk, folder, options.identity),
            damage,
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
        let looked_up = self.executor.run(move || {
            let found = store.index.get_many(&keys)?;
            Ok((keys, found))
        });
        let (keys, found) = looked_up.await?;
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
        let sent = self.work.as_ref().is_some_and(|queue| queue.send(work));
        if sent { Ok(()) } else { Err(STOPPED.to_owned()) }
    }

    /// Reads a record where the index says that it is. Blocks on the disk. One that does not verify is set aside and counts as
    /// not there.
    pub(crate) fn read_verified(
        &self,
        key: &RecordKey,
        entry: &IndexEntry,
    ) -> Result<Option<SealedRecord>, Error> {
        match self.reader.read(entry.location) {
            Ok(record) if record.key() == *key => Ok(Some(record)),
            Ok(_) => self.set_aside(key, entry, "another record stands in its place").map(|()| None),
            Err(error) if says_damage(&error) => {
                self.set_aside(key, entry, &error.to_string()).map(|()| None)
            }
            Err(error) => Err(error),
        }
    }

    /// A record that cannot be served: remembered, counted, and no longer known, so that repair or a put brings it back.
    fn set_aside(&self, key: &RecordKey, entry: &IndexEntry, reason: &str) -> Result<(), Error> {
        let Location { segment, offset, len } = entry.location;
        tracing::error!(
            segment = hex::encode(segment),
            offset,
            reason,
            "stored record is damaged and not served: other copies are read, and `holdfast verify --all` tells what has none"
        );
        let new = self.damage.add(&[DamagedRange { segment, offset, len: u64::from(len) }])?;
        self.damaged.fetch_add(new, Ordering::Relaxed);
        metrics::quarantined(new);
        let wanted = Entry::new(Why::Damaged, 1, Protection::from(entry));
        self.repair_queue.add(&[(*key, wanted)])?;
        let known = knows_damage(&self.damage.ranges()?);
        self.index.apply(&IndexBatch { removals: vec![(*key, entry.location)], ..known })?;
        // After the index: who sees the new number sees the digest without the record.
        let mut set_aside = self.set_aside.lock().unwrap_or_else(PoisonError::into_inner);
        *set_aside.entry(PartitionId::of_chunk(key.id)).or_default() += 1;
        Ok(())
    }

    /// How many records of each partition were set aside since the start.
    pub(crate) fn set_aside_by_partition(&self) -> BTreeMap<PartitionId, u64> {
        self.set_aside.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many records.
    pub fn n_records(&self) -> Result<u64, Error> {
        self.index.len()
    }

    /// How many ranges are damaged.
    pub fn n_damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Whether anything in a segment may be condemned or dropped: not where it has gc features that this build does not know.
    pub fn may_condemn(&self, segment: &SegmentId) -> bool {
        self.reserved.may_condemn(segment)
    }

    /// The room on the disk.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Finishes what was sent, checkpoints the index and ends the committer.
    pub async fn close(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(committer) = committer else { return Ok(()) };
        if self.send(Work::Stop { reply }).is_ok()
            && let Ok(Err(reason)) = answer.await
        {
            // The next start scans more; nothing is lost.
            tracing::warn!(reason, "index checkpoint failed");
        }
        self.room.close();
        committer.join().await
    }
}

/// Without [`Store::close`] the index is not checkpointed, as after a kill; but the folder is free again.
impl Drop for Store {
    fn drop(&mut self) {
        self.work = None;
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if committer.is_some_and(|committer| committer.join_now().is_err()) {
            tracing::error!("the committer ended by a panic");
        }
    }
}

const STOPPED: &str = "the storage node is stopping";

/// Whether a failed read tells something about the record. Too many open files, or no memory, does not.
fn says_damage(error: &Error) -> bool {
    match error {
        Error::BadBytes { .. } | Error::DamagedState(_) => true,
        Error::Io { source, .. } => is_damage(source),
        _ => false,
    }
}

// === Opening ===

struct Found {
    segments: Vec<Opened>,
    damaged: Vec<DamagedRange>,
}

impl Found {
    fn open(folder: &DataFolder, disk: &dyn Disk) -> Result<Self, Error> {
        remove_leftovers(disk, &folder.segments)?;
        // A process that was killed while it made a file may have left a name that no power loss would leave: what is appended
        // there from now on would go with it.
        for dir in [&folder.segments, &folder.touches] {
            disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
        let context = Recovery { disk, quarantine: &folder.quarantine };
        let (names, lonely_marks) = find_segments(disk, &folder.segments)?;
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

/// What tells the index which damage it was made with. An index made with other damage may point at records that are not
/// served, and would promise them.
fn knows_damage(ranges: &[DamagedRange]) -> IndexBatch {
    let known = (DAMAGE_KNOWN.to_owned(), fingerprint(ranges));
    IndexBatch { progress: vec![known], ..IndexBatch::default() }
}

/// 0 for no damage.
fn fingerprint(ranges: &[DamagedRange]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for DamagedRange { segment, offset, len } in ranges {
        hasher.update(segment).update(&offset.to_le_bytes()).update(&len.to_le_bytes());
    }
    let first: [u8; 8] = hasher.finalize().as_bytes()[..8].try_into().expect("8 of 32 bytes");
    if ranges.is_empty() { 0 } else { u64::from_le_bytes(first) }
}

/// Tells once what a start found damaged, and what follows from it.
fn report_damage(new: u64, ranges: &[DamagedRange]) {
    let Some(first) = ranges.first().filter(|_| new > 0) else { return };
    metrics::quarantined(new);
    tracing::error!(
        n_ranges = new,
        bytes = ranges.iter().map(|range| range.len).sum::<u64>(),
        segment = hex::encode(first.segment),
        offset = first.offset,
        "damage found in segments: it is kept in quarantine/ and not served; other copies are read, and `holdfast verify --all` \
         tells what has none"
    );
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
    disk.remove(mark).map_err(Error::io("remove", mark))?;
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
    known_damage: &[DamagedRange],
    repair_queue: &RepairQueue,
) -> Result<Vec<DamagedRange>, Error> {
    let context = Recovery { disk, quarantine: &folder.quarantine };
    let names: Vec<String> = found.segments.iter().map(|opened| opened.name.name()).collect();
    let progress = index.progress()?;
    let gone = progress.iter().filter(|(file, _)| !names.contains(file)).filter_map(|(file, end)| {
        let segment = SegmentFile::parse(&folder.segments, file)?.id;
        Some(DamagedRange { segment, offset: 0, len: *end })
    });
    let mut damaged: Vec<DamagedRange> = gone.collect();
    let vanished = !damaged.is_empty();
    // Also where the damage was found before a crash that took back what the index had learnt of it.
    let new_damage = progress.get(DAMAGE_KNOWN).copied().unwrap_or(0) != fingerprint(known_damage);
    if vanished || new_damage {
        tracing::warn!(vanished, new_damage, "index is rebuilt: what it was made from has changed");
        index.clear()?;
    }
    let progress = index.progress()?;
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
    replay_touches(index, (disk, &folder.touches), &progress, repair_queue)?;
    index.apply(&knows_damage(known_damage))?;
    if has_checkpoint_room(disk, &folder.segments) {
        index.checkpoint()?;
    }
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

/// Records that a session was told are here, and that are not: they went with what was damaged, and come back with their touch.
fn broken_promises(
    index: &dyn ChunkIndex,
    touches: &[(RecordKey, u64)],
) -> Result<Vec<(RecordKey, Entry)>, Error> {
    let keys: Vec<RecordKey> = touches.iter().map(|(key, _)| *key).collect();
    let found = index.get_many(&keys)?;
    let gone =
        touches.iter().zip(found).filter(|(_, entry)| entry.is_none()).map(|((key, touch_epoch), _)| {
            let protection = Protection { touch_epoch: *touch_epoch, ..Protection::default() };
            (*key, Entry::new(Why::Damaged, 1, protection))
        });
    Ok(gone.collect())
}

fn replay_touches(
    index: &dyn ChunkIndex,
    (disk, dir): (&dyn Disk, &Path),
    progress: &BTreeMap<String, u64>,
    repair_queue: &RepairQueue,
) -> Result<(), Error> {
    for log in find_logs(disk, dir)? {
        let from = progress.get(&log.name).copied().unwrap_or(0);
        let (touches, end, damaged) = read_log(disk, &log, from)?;
        if end > from {
            // Perhaps never synced: from now on it is what a yes relies on.
            disk.write_again(&log.path).map_err(Error::io("write", &log.path))?;
        }
        if damaged {
            tracing::error!(
                file = log.name,
                offset = end,
                "touch log damaged: touches behind it are not known"
            );
        }
        for touches in touches.chunks(REBUILD_BATCH) {
            repair_queue.add(&broken_promises(index, touches)?)?;
            index.apply(&IndexBatch { touches: touches.to_vec(), ..IndexBatch::default() })?;
        }
        index.apply(&IndexBatch { progress: vec![(log.name, end)], ..IndexBatch::default() })?;
    }
    Ok(())
}
