//! The durable mark of an open segment: how much of it was synced before anybody was told so.
//!
//! Two slots take turns, so that a torn write of one leaves the other. Slot: magic 8 · segment 16 · turn 8 · durable 8 ·
//! CRC32C 4. Invariant: the mark is written after the bytes it speaks of are synced, and synced before the acknowledgement.

use std::{path::Path, sync::Arc};

use crate::{
    Error,
    disk::{Disk, DiskFile},
};

use super::SegmentId;

const MAGIC: &[u8; 8] = b"HFMARK01";
const SLOT_BYTES: usize = 44;
/// Slots lie in different blocks of the disk.
const SLOT_STRIDE: u64 = 4096;

/// The open mark file of one segment.
pub struct MarkFile {
    file: Arc<dyn DiskFile>,
    segment: SegmentId,
    turn: u64,
    durable: u64,
}

impl MarkFile {
    /// Creates the file with both slots allocated, so that later writes change no metadata.
    pub fn create(disk: &dyn Disk, path: &Path, segment: SegmentId, durable: u64) -> Result<Self, Error> {
        let file = disk.create(path).map_err(Error::io("create", path))?;
        file.write_all_at(&[0; 2 * SLOT_STRIDE as usize], 0).map_err(Error::io("write", path))?;
        let mut mark = Self { file, segment, turn: 0, durable };
        mark.advance(durable).map_err(Error::io("write", path))?;
        Ok(mark)
    }

    /// Opens the file and reads the newest valid slot. Without one, nothing is known to be durable but `floor`.
    pub fn open(disk: &dyn Disk, path: &Path, segment: SegmentId, floor: u64) -> Result<Self, Error> {
        let file = disk.open(path).map_err(Error::io("open", path))?;
        let newest = (0..2).filter_map(|slot| read_slot(&*file, slot, segment)).max().unwrap_or((0, floor));
        Ok(Self { file, segment, turn: newest.0, durable: newest.1 })
    }

    /// How much is known to be durable.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Writes and syncs a new mark. After an error the file must not be used again.
    pub fn advance(&mut self, durable: u64) -> std::io::Result<()> {
        let turn = self.turn + 1;
        let mut slot = Vec::with_capacity(SLOT_BYTES);
        slot.extend_from_slice(MAGIC);
        slot.extend_from_slice(&self.segment);
        slot.extend_from_slice(&turn.to_le_bytes());
        slot.extend_from_slice(&durable.to_le_bytes());
        slot.extend_from_slice(&crc32c::crc32c(&slot).to_le_bytes());
        self.file.write_all_at(&slot, (turn % 2) * SLOT_STRIDE)?;
        self.file.sync()?;
        (self.turn, self.durable) = (turn, durable);
        Ok(())
    }
}

fn read_slot(file: &dyn DiskFile, slot: u64, segment: SegmentId) -> Option<(u64, u64)> {
    let mut bytes = [0; SLOT_BYTES];
    file.read_exact_at(&mut bytes, slot * SLOT_STRIDE).ok()?;
    let (body, crc) = bytes.split_at(SLOT_BYTES - 4);
    let number = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
    let valid = crc == crc32c::crc32c(body).to_le_bytes() && &body[..8] == MAGIC && body[8..24] == segment;
    if valid { Some((number(24)?, number(32)?)) } else { None }
}
