//! A whole segment in memory, verified as a start and the scrub would: what is damaged is never made an object that nobody can
//! delete for years.

use std::{io, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use holdfast_record::{SUPERBLOCK_BYTES, TRAILER_BYTES};

use crate::{
    disk::{Disk, DiskFile},
    segment::{SegmentFile, is_whole},
};

use super::notes::Note;

/// No segment is larger: a node that had larger ones before it was given a bucket keeps them on its disk.
pub(super) const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// A segment to upload.
pub(super) struct Loaded {
    pub bytes: Bytes,
    pub note: Note,
}

/// Reads a sealed segment. `None`: it is damaged, or too large.
pub(super) fn load(disk: &dyn Disk, name: &SegmentFile) -> io::Result<Option<Loaded>> {
    let file = disk.open_read(&name.path())?;
    let len = file.size()?;
    if len > SEGMENT_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    let bytes = Bytes::from(bytes);
    let file: Arc<dyn DiskFile> = Arc::new(InMemory(bytes.clone()));
    if !is_whole(&*file, name)? {
        return Ok(None);
    }
    let superblock = bytes[..SUPERBLOCK_BYTES].to_vec();
    let trailer = bytes[bytes.len() - TRAILER_BYTES..].to_vec();
    let note = Note { len, sha256: sha256(&bytes), superblock, trailer };
    Ok(Some(Loaded { bytes, note }))
}

/// SHA-256, which S3 computes too.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Bytes that are read like a file.
struct InMemory(Bytes);

impl DiskFile for InMemory {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|from| self.0.get(from..from.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
