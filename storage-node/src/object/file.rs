//! A segment that is read: from the local file while it is there, then from its object, by ranges.

use std::{
    io::{self, ErrorKind},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use bytes::Bytes;
use holdfast_record::{SUPERBLOCK_BYTES, TRAILER_BYTES};

use super::{disk::Shared, notes::Note};
use crate::disk::DiskFile;

/// Who reads a segment from front to back, as the scrub does, gets this much at a time. Kept per open file.
const AHEAD_BYTES: u64 = 256 << 10;

/// A segment opened to read.
pub(super) struct ReadFile {
    shared: Arc<Shared>,
    name: String,
    /// `None` once the object is all there is.
    local: RwLock<Option<Arc<dyn DiskFile>>>,
    ahead: Mutex<Ahead>,
}

/// What was read beyond the last read.
#[derive(Default)]
struct Ahead {
    at: u64,
    bytes: Bytes,
    /// Where the last read began and ended.
    last: Range<u64>,
}

impl ReadFile {
    pub fn new(shared: Arc<Shared>, name: String, local: Option<Arc<dyn DiskFile>>) -> Self {
        Self { shared, name, local: RwLock::new(local), ahead: Mutex::default() }
    }

    /// The local file is removed: its room is free only when nobody holds it open.
    pub fn let_go(&self) {
        *self.local.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn local(&self) -> Option<Arc<dyn DiskFile>> {
        self.local.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn len(&self) -> io::Result<u64> {
        self.shared.object_len(&self.name).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// A part of the frame, as it is noted: only while the node opens, so that the scrub sees what is really there.
    fn noted(&self, range: &Range<u64>, len: u64) -> io::Result<Option<Vec<u8>>> {
        let is_superblock = range.end <= SUPERBLOCK_BYTES as u64;
        let is_trailer = range.start == len.saturating_sub(TRAILER_BYTES as u64) && range.end == len;
        if self.shared.is_serving() || !(is_superblock || is_trailer) {
            return Ok(None);
        }
        let note = match self.shared.note(&self.name)?.filter(|note| note.len == len) {
            Some(note) => note,
            None if len >= (SUPERBLOCK_BYTES + TRAILER_BYTES) as u64 => self.adopt(len)?,
            None => return Ok(None),
        };
        if is_trailer {
            return Ok(Some(note.trailer));
        }
        let range = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        Ok(range.and_then(|(start, end)| note.superblock.get(start..end).map(<[u8]>::to_vec)))
    }

    /// Notes the frame of an object that is only known from the listing, so that the next start need not ask for it.
    fn adopt(&self, len: u64) -> io::Result<Note> {
        let mut superblock = vec![0; SUPERBLOCK_BYTES];
        let mut trailer = vec![0; TRAILER_BYTES];
        self.read_object(&mut superblock, 0..SUPERBLOCK_BYTES as u64, len)?;
        self.read_object(&mut trailer, len - TRAILER_BYTES as u64..len, len)?;
        let note = Note { len, sha256: [0; 32], superblock, trailer };
        self.shared.keep(&self.name, &note).map_err(io::Error::other)?;
        Ok(note)
    }

    fn read_object(&self, buffer: &mut [u8], range: Range<u64>, len: u64) -> io::Result<()> {
        let goes_on = {
            let mut ahead = self.ahead();
            if let Some(found) = ahead.part(&range) {
                buffer.copy_from_slice(&found);
                ahead.last = range;
                return Ok(());
            }
            // The next record, or the rest of one whose header was looked at.
            !ahead.last.is_empty() && (range.start == ahead.last.end || range.start == ahead.last.start)
        };
        let end = if goes_on { range.end.max((range.start + AHEAD_BYTES).min(len)) } else { range.end };
        let (store, key) = (self.shared.store.clone(), self.shared.key(&self.name));
        let wanted = range.start..end;
        let bytes = self.shared.wait(async move { store.get_range(&key, wanted).await })?;
        let found = bytes.get(..buffer.len()).ok_or(ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        let rest = if goes_on { bytes } else { Bytes::new() };
        // Not held during the call: readers of one segment do not wait for each other.
        *self.ahead() = Ahead { at: range.start, bytes: rest, last: range };
        Ok(())
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ahead {
    fn part(&self, range: &Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(range.start.checked_sub(self.at)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.at)?).ok()?;
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

impl DiskFile for ReadFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(local) = self.local() {
            return local.read_exact_at(buffer, offset);
        }
        let len = self.len()?;
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= len);
        let range = offset..end.ok_or(ErrorKind::UnexpectedEof)?;
        if range.is_empty() {
            return Ok(());
        }
        match self.noted(&range, len)?.filter(|noted| noted.len() == buffer.len()) {
            Some(noted) => buffer.copy_from_slice(&noted),
            None => self.read_object(buffer, range, len)?,
        }
        Ok(())
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn size(&self) -> io::Result<u64> {
        match self.local() {
            Some(local) => local.size(),
            None => self.len(),
        }
    }
}

fn read_only() -> io::Error {
    io::Error::new(ErrorKind::Unsupported, "the segment is opened to read")
}
