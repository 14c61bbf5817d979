//! Reads records back, each checked against its place and its hash before anybody sees it.
//!
//! Invariant: bytes that do not verify are never returned.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use holdfast_record::{
    HEADER_PEEK_BYTES, MAX_RECORD_BYTES, RECORD_ALIGN, SUPERBLOCK_BYTES, SealedRecord, Trailer, scan_len,
};

use super::{
    DamagedRange, Location, SegmentFile, SegmentId,
    recovery::{next_valid, read_footer, read_trailer, superblock_is_good},
};
use crate::{
    Error,
    disk::{Disk, DiskFile},
};

/// Files that a node keeps open to read.
pub const OPEN_FILES_MAX: usize = 256;

/// Reads from the segments of one disk.
pub struct SegmentReader {
    disk: Arc<dyn Disk>,
    /// Files kept open. When there are more, all are closed and opened again as needed.
    open_max: usize,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    paths: BTreeMap<SegmentId, PathBuf>,
    open: BTreeMap<SegmentId, Arc<dyn DiskFile>>,
}

impl SegmentReader {
    /// A reader that knows no segment yet, and keeps so many files open.
    pub fn new(disk: Arc<dyn Disk>, open_max: usize) -> Self {
        Self { disk, open_max, files: Mutex::default() }
    }

    /// Makes a segment known.
    pub fn add(&self, segment: &SegmentFile) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.paths.insert(segment.id, segment.path());
    }

    /// Whether a segment is known.
    pub fn knows(&self, segment: &SegmentId) -> bool {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).paths.contains_key(segment)
    }

    /// Where a segment is.
    pub fn path(&self, segment: &SegmentId) -> Option<PathBuf> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).paths.get(segment).cloned()
    }

    /// Another file has a segment's name now: it is opened again at the next read.
    pub fn reopen(&self, segment: &SegmentId) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).open.remove(segment);
    }

    /// Reads a record and verifies all of it.
    pub fn read(&self, location: Location) -> Result<SealedRecord, Error> {
        let (file, path) = self.file(location.segment)?;
        read_record(&*file, location).map_err(|problem| match problem {
            ReadProblem::Io(source) => Error::Io { action: "read", path, source },
            ReadProblem::Bad(source) => Error::BadBytes { what: "stored record", source },
        })
    }

    /// Checks the records from an offset up to `end`, about `budget` bytes of them: says where to go on, and what is damaged.
    pub fn check(
        &self,
        segment: SegmentId,
        (from, end): (u64, u64),
        budget: u64,
    ) -> Result<(u64, Vec<DamagedRange>), Error> {
        let (file, path) = self.file(segment)?;
        let (mut at, mut damaged) = (from, Vec::new());
        while at < end && at - from < budget {
            let len = valid_len(&*file, segment, at, end).map_err(Error::io("read", &path))?;
            let next = match len {
                Some(len) => at + len,
                None => {
                    let next = next_valid(&*file, segment, at + RECORD_ALIGN as u64, end);
                    let next = next.map_err(Error::io("read", &path))?.unwrap_or(end);
                    damaged.push(DamagedRange { segment, offset: at, len: next - at });
                    next
                }
            };
            at = next;
        }
        Ok((at, damaged))
    }

    /// Checks what stands around the records of a segment, which end at `end`: its superblock, and its footer once it is
    /// sealed. Says which is damaged, and where.
    pub fn check_frame(
        &self,
        segment: SegmentId,
        end: u64,
    ) -> Result<Vec<(&'static str, DamagedRange)>, Error> {
        let (file, path) = match self.file(segment) {
            // Then all of its records are damaged, which says more.
            Err(Error::Io { source, .. }) if is_damage(&source) => return Ok(Vec::new()),
            other => other?,
        };
        let mut damaged = Vec::new();
        if !superblock_is_good(&*file, segment).map_err(Error::io("read", &path))? {
            let len = SUPERBLOCK_BYTES as u64;
            damaged.push(("superblock", DamagedRange { segment, offset: 0, len }));
        }
        let dir = path.parent().unwrap_or_else(|| Path::new(""));
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = SegmentFile::parse(dir, name) else { return Ok(damaged) };
        let mark = name.mark_path();
        if !self.disk.exists(&mark).map_err(Error::io("look for", &mark))? {
            let len = file.size().map_err(Error::io("measure", &path))?;
            let trailer = read_trailer(&*file, len).map_err(Error::io("read", &path))?;
            if !self.has_footer(&name, trailer)? {
                let offset = trailer.map_or(end.min(len), |trailer| trailer.footer_offset);
                damaged.push(("footer", DamagedRange { segment, offset, len: len - offset }));
            }
        }
        Ok(damaged)
    }

    fn has_footer(&self, name: &SegmentFile, trailer: Option<Trailer>) -> Result<bool, Error> {
        let Some(trailer) = trailer else { return Ok(false) };
        match read_footer(&*self.disk, name, trailer) {
            Ok(_) => Ok(true),
            Err(Error::Io { source, .. }) if is_damage(&source) => Ok(false),
            Err(Error::BadBytes { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn file(&self, segment: SegmentId) -> Result<(Arc<dyn DiskFile>, PathBuf), Error> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let path = files.paths.get(&segment).cloned().ok_or(Error::DamagedState("index entry"))?;
        if let Some(file) = files.open.get(&segment) {
            return Ok((file.clone(), path));
        }
        if files.open.len() >= self.open_max {
            files.open.clear();
        }
        let file = self.disk.open_read(&path).map_err(Error::io("open", &path))?;
        files.open.insert(segment, file.clone());
        Ok((file, path))
    }
}

/// Why a record cannot be read.
pub(super) enum ReadProblem {
    /// The disk failed, or the file is too short.
    Io(std::io::Error),
    /// The bytes are wrong.
    Bad(holdfast_record::Error),
}

/// Whether a failed read tells something about what is stored. Too many open files, or no memory, does not.
pub(crate) fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof)
        || error.raw_os_error() == Some(nix::libc::EIO)
}

/// The length of the record at a place, if it verifies.
fn valid_len(file: &dyn DiskFile, segment: SegmentId, offset: u64, end: u64) -> std::io::Result<Option<u64>> {
    let mut head = [0; HEADER_PEEK_BYTES];
    match file.read_exact_at(&mut head, offset) {
        Err(error) if is_damage(&error) => return Ok(None),
        other => other?,
    }
    let Ok(peek) = scan_len(&head) else { return Ok(None) };
    let Ok(len) = u32::try_from(peek.total_len) else { return Ok(None) };
    if offset + u64::from(len) > end {
        return Ok(None);
    }
    match read_record(file, Location { segment, offset, len }) {
        Ok(_) => Ok(Some(u64::from(len))),
        Err(ReadProblem::Io(error)) if !is_damage(&error) => Err(error),
        Err(ReadProblem::Io(_) | ReadProblem::Bad(_)) => Ok(None),
    }
}

/// Reads and verifies the record at a place.
pub(super) fn read_record(file: &dyn DiskFile, location: Location) -> Result<SealedRecord, ReadProblem> {
    let len = location.len as usize;
    if len > MAX_RECORD_BYTES {
        let (found, limit) = (u64::from(location.len), MAX_RECORD_BYTES as u64);
        return Err(ReadProblem::Bad(holdfast_record::Error::OutOfRange { field: "len", found, limit }));
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, location.offset).map_err(ReadProblem::Io)?;
    let record = SealedRecord::decode_at(Bytes::from(bytes), location.segment, location.offset)
        .map_err(ReadProblem::Bad)?;
    record.verify().map_err(ReadProblem::Bad)?;
    Ok(record)
}
