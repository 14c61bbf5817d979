//! Reads records back, each checked against its place and its hash before anybody sees it.
//!
//! Invariant: bytes that do not verify are never returned.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use holdfast_record::{MAX_RECORD_BYTES, SealedRecord};

use super::{Location, SegmentFile, SegmentId};
use crate::{
    Error,
    disk::{Disk, DiskFile},
};

/// Files kept open to read. When there are more, all are closed and opened again as needed.
const OPEN_FILES_MAX: usize = 256;

/// Reads from the segments of one disk.
pub struct SegmentReader {
    disk: Arc<dyn Disk>,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    paths: HashMap<SegmentId, PathBuf>,
    open: HashMap<SegmentId, Arc<dyn DiskFile>>,
}

impl SegmentReader {
    /// A reader that knows no segment yet.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, files: Mutex::default() }
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

    /// Reads a record and verifies all of it.
    pub fn read(&self, location: Location) -> Result<SealedRecord, Error> {
        let (file, path) = self.file(location.segment)?;
        read_record(&*file, location).map_err(|problem| match problem {
            ReadProblem::Io(source) => Error::Io { action: "read", path, source },
            ReadProblem::Bad(source) => Error::BadBytes { what: "stored record", source },
        })
    }

    fn file(&self, segment: SegmentId) -> Result<(Arc<dyn DiskFile>, PathBuf), Error> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let path = files.paths.get(&segment).cloned().ok_or(Error::DamagedState("index entry"))?;
        if let Some(file) = files.open.get(&segment) {
            return Ok((file.clone(), path));
        }
        if files.open.len() >= OPEN_FILES_MAX {
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
