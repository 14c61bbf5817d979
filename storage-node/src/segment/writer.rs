//! Appends records to the open segment of one class and seals it when it is full.
//!
//! Invariant: after a failed sync the segment is poisoned: nothing more is written to it, nothing of the batch is
//! acknowledged, and a new segment is opened. What its mark covers stays served.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use holdfast_model::Random;
use holdfast_record::{
    Features, Footer, FooterEntry, RECORD_ALIGN, SUPERBLOCK_BYTES, SealedRecord, SegmentClass, Superblock,
    Trailer,
};

use super::{Location, MarkFile, SegmentFile, SegmentId};
use crate::{
    Error,
    disk::{Disk, DiskFile},
    metrics,
};

/// Smaller pieces are gathered and written together.
const STAGING_BYTES: usize = 256 << 10;
static PADDING: [u8; RECORD_ALIGN] = [0; RECORD_ALIGN];
/// A sealed segment's footer never has more entries, so that it decodes again.
const MAX_ENTRIES: usize = 1 << 20;

/// Whose segments these are.
#[derive(Debug, Clone, Copy)]
pub struct SegmentIdentity {
    /// BLAKE3 of the cluster's name, its first half.
    pub cluster: [u8; 16],
    /// The node.
    pub node: u64,
    /// This data folder's random id.
    pub disk: [u8; 16],
    /// The generation when the node started.
    pub generation: u64,
}

/// What every writer of a node shares.
#[derive(Clone)]
pub struct WriterSetup {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The folder of the segments.
    pub dir: PathBuf,
    /// Goes into each superblock.
    pub identity: SegmentIdentity,
    /// A segment is sealed when it reaches this.
    pub target_bytes: u64,
    /// Names segments.
    pub random: Arc<dyn Random>,
}

/// The writer of one class.
pub struct SegmentWriter {
    setup: WriterSetup,
    class: SegmentClass,
    open: Option<OpenSegment>,
    /// When the open segment was first seen to hold records: its age counts from then.
    records_since: Option<Duration>,
}

/// A segment that takes appends: made by [`SegmentWriter`] or by recovery.
pub struct OpenSegment {
    pub(super) name: SegmentFile,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) mark: MarkFile,
    pub(super) entries: Vec<FooterEntry>,
    /// Over the superblock and the header of every record: each header names the hash of its ciphertext.
    pub(super) hasher: blake3::Hasher,
    pub(super) end: u64,
    pub(super) staged: Vec<u8>,
    /// What to return to when a batch cannot be written.
    pub(super) durable_entries: usize,
    /// And the hash over it.
    pub(super) durable_hasher: blake3::Hasher,
}

impl SegmentWriter {
    /// A writer that goes on with a recovered segment, or opens one at the first append.
    pub fn new(setup: WriterSetup, class: SegmentClass, resume: Option<OpenSegment>) -> Self {
        Self { setup, class, open: resume, records_since: None }
    }

    /// Appends a record; it is durable after [`Self::sync`]. An error means that the batch must fail: see [`Self::abandon`].
    pub fn append(&mut self, record: &SealedRecord) -> Result<Location, Error> {
        let len = record.encoded_len() as u64;
        let full = self.open.as_ref().is_some_and(|open| {
            open.entries.len() >= MAX_ENTRIES
                || (!open.entries.is_empty() && open.end + len > self.setup.target_bytes)
        });
        if full {
            self.seal()?;
        }
        if self.open.is_none() {
            let mut id: SegmentId = [0; 16];
            self.setup.random.fill(&mut id);
            let name = SegmentFile::new(&self.setup.dir, self.class, id);
            let created = create(&self.setup, name.clone());
            if created.is_err() {
                // It holds nothing; what cannot be removed now is removed at the next start.
                let _ = self.setup.disk.remove(&name.path());
                let _ = self.setup.disk.remove(&name.mark_path());
            }
            self.open = Some(created?);
        }
        let open = self.open.as_mut().expect("opened above");
        open.append(record).map_err(Error::io("append to", open.name.path()))
    }

    /// What it writes.
    pub fn class(&self) -> SegmentClass {
        self.class
    }

    /// Makes everything appended durable and moves the mark.
    pub fn sync(&mut self) -> Result<(), Error> {
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        if open.end == open.mark.durable() {
            return Ok(());
        }
        // A disk that has no room for what was staged has failed no sync: the segment goes on.
        open.flush().map_err(Error::io("append to", open.name.path()))?;
        open.sync().map_err(Error::io("sync", open.name.path()))
    }

    /// Gives up what was appended since the last sync. A full disk cuts the file back; anything else poisons the segment.
    pub fn abandon(&mut self, cause: &Error) {
        let Some(open) = self.open.as_mut().filter(|open| open.end > open.mark.durable()) else { return };
        let full = matches!(cause, Error::Io { source, action: "append to", .. } if is_full(source));
        let path = open.name.path();
        if full && open.roll_back().is_ok() {
            return;
        }
        metrics::segment_poisoned();
        tracing::error!(segment = %path.display(), error = %cause, "segment poisoned: a new one is opened");
        self.open = None;
        self.records_since = None;
    }

    /// Seals the open segment if it has held records for so long; what it holds must be durable. `now` is of a monotonic clock.
    /// A restart begins to count again.
    pub fn seal_if_older(&mut self, now: Duration, than: Duration) -> Result<(), Error> {
        if self.open.as_ref().is_none_or(|open| open.entries.is_empty()) {
            self.records_since = None;
            return Ok(());
        }
        let since = *self.records_since.get_or_insert(now);
        if now.saturating_sub(since) < than { Ok(()) } else { self.seal() }
    }

    /// Seals the open segment: footer, trailer, sync, read-only. What it holds is durable then.
    pub fn seal(&mut self) -> Result<(), Error> {
        let Some(open) = self.open.take() else { return Ok(()) };
        self.records_since = None;
        let path = open.name.path();
        if let Err(error) = open.seal(&*self.setup.disk) {
            metrics::segment_poisoned();
            tracing::error!(segment = %path.display(), %error, "segment could not be sealed: a new one is opened");
            return Err(Error::Io { action: "seal", path, source: error });
        }
        Ok(())
    }
}

/// Whether the disk or the quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The mark comes first: a segment without a mark is always one that was sealed.
fn create(setup: &WriterSetup, name: SegmentFile) -> Result<OpenSegment, Error> {
    let (id, class) = (name.id, name.class);
    let disk = &*setup.disk;
    let mark = MarkFile::create(disk, &name.mark_path(), id, SUPERBLOCK_BYTES as u64)?;
    let SegmentIdentity { cluster, node, disk: disk_id, generation } = setup.identity;
    let features = Features::default();
    let superblock =
        Superblock { cluster, node, disk: disk_id, segment: id, generation, class, features }.encode();
    let path = name.path();
    let file = disk.create(&path).map_err(Error::io("create", &path))?;
    file.write_all_at(&superblock, 0).map_err(Error::io("write", &path))?;
    file.sync().map_err(Error::io("sync", &path))?;
    disk.sync_dir(&setup.dir).map_err(Error::io("sync", &setup.dir))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&superblock);
    Ok(OpenSegment {
        name,
        file,
        mark,
        entries: Vec::new(),
        durable_hasher: hasher.clone(),
        hasher,
        end: SUPERBLOCK_BYTES as u64,
        staged: Vec::new(),
        durable_entries: 0,
    })
}

impl OpenSegment {
    /// Its records so far.
    pub fn entries(&self) -> &[FooterEntry] {
        &self.entries
    }

    fn append(&mut self, record: &SealedRecord) -> io::Result<Location> {
        let (offset, len) = (self.end, record.encoded_len());
        let header = record.encode_header_at(self.name.id, offset);
        let padding = &PADDING[..len - header.len() - record.ciphertext.len()];
        self.hasher.update(&header);
        self.stage(&header)?;
        if record.ciphertext.len() >= STAGING_BYTES {
            self.flush()?;
            self.file.write_all_at(&record.ciphertext, self.end)?;
            self.end += record.ciphertext.len() as u64;
        } else {
            self.stage(&record.ciphertext)?;
        }
        self.stage(padding)?;
        let len = u32::try_from(len).expect("at most MAX_RECORD_BYTES");
        self.entries.push(FooterEntry {
            key: record.key(),
            offset,
            len,
            kind: record.header.kind,
            ct: record.ct,
            write_epoch: record.placement.write_epoch,
            lock_floor_ms: record.placement.lock_floor_ms,
        });
        Ok(Location { segment: self.name.id, offset, len })
    }

    /// `end` counts staged bytes too.
    fn stage(&mut self, piece: &[u8]) -> io::Result<()> {
        self.staged.extend_from_slice(piece);
        self.end += piece.len() as u64;
        if self.staged.len() >= STAGING_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.staged.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(&self.staged, self.end - self.staged.len() as u64)?;
        self.staged.clear();
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync()?;
        self.mark.advance(self.end)?;
        self.durable_entries = self.entries.len();
        self.durable_hasher.clone_from(&self.hasher);
        Ok(())
    }

    fn roll_back(&mut self) -> io::Result<()> {
        self.staged.clear();
        self.file.truncate(self.mark.durable())?;
        self.end = self.mark.durable();
        self.entries.truncate(self.durable_entries);
        self.hasher.clone_from(&self.durable_hasher);
        Ok(())
    }

    pub(super) fn seal(mut self, disk: &dyn Disk) -> io::Result<()> {
        self.flush()?;
        let footer = Footer::new(self.name.id, *self.hasher.finalize().as_bytes(), self.entries).encode();
        let trailer = Trailer { footer_offset: self.end, footer_len: footer.len() as u64 }.encode();
        self.file.write_all_at(&footer, self.end)?;
        self.file.write_all_at(&trailer, self.end + footer.len() as u64)?;
        self.file.sync()?;
        disk.sync_dir(self.name.dir())?;
        disk.remove(&self.name.mark_path())?;
        disk.sync_dir(self.name.dir())?;
        disk.protect(&self.name.path())
    }
}
