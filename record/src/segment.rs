//! The frame around the records of a segment: superblock before them, footer and trailer behind.
//!
//! Invariant: a segment with a valid trailer is sealed and never changes again; one without is open, or torn, and is
//! walked record by record.

use holdfast_model::{ChunkId, Millis, PartitionId, RecordKey, TenantId};

use crate::{
    Error, FORMAT_VERSION, Features, RecordKind,
    cursor::{Cursor, check_crc, push_crc},
};

/// The first record stands behind it.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// The last bytes of a sealed segment.
pub const TRAILER_BYTES: usize = 32;
/// Entries of one footer: 4 million records would be 64 bytes each in the largest segment.
pub const MAX_FOOTER_ENTRIES: u32 = 4_000_000;

const SUPERBLOCK_MAGIC: &[u8; 8] = b"HFSEGMNT";
const FOOTER_MAGIC: &[u8; 8] = b"HFFOOTER";
const TRAILER_MAGIC: &[u8; 8] = b"HFTRAILR";
const FOOTER_FIXED_BYTES: usize = 64;
const ENTRY_BYTES: usize = 112;

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentClass {
    /// Records without references.
    Data,
    /// Records with references: what mark scans.
    Tree,
    /// Pins.
    Pin,
}

impl SegmentClass {
    /// The code in the bytes. Never reused.
    pub fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Tree => 2,
            Self::Pin => 3,
        }
    }

    /// Reads the code back.
    pub fn from_code(code: u8) -> Result<Self, Error> {
        match code {
            1 => Ok(Self::Data),
            2 => Ok(Self::Tree),
            3 => Ok(Self::Pin),
            _ => Err(Error::UnknownCode { field: "class", code: u64::from(code) }),
        }
    }
}

/// The first block: whose segment it is.
///
/// `magic 8 · version 1 · class 1 · zero 6 · cluster 16 · node 8 · disk 16 · segment 16 · generation 8 · features: read 8, write 8,
/// gc 8, check 8 · zeros · CRC32C 4`
///
/// Magic, the place of the version and the checksum over the whole block are the same in every format, so that a version is
/// believed only where the checksum agrees: a damaged block is not taken for another format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// The cluster.
    pub cluster: [u8; 16],
    /// The node that wrote it.
    pub node: u64,
    /// The disk it was written to.
    pub disk: [u8; 16],
    /// The segment's own uuid, which every record's header CRC covers.
    pub segment: [u8; 16],
    /// The node's generation.
    pub generation: u64,
    /// What it holds.
    pub class: SegmentClass,
    /// What a build must know to deal with it.
    pub features: Features,
}

impl Superblock {
    /// Writes the block.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPERBLOCK_BYTES);
        out.extend_from_slice(SUPERBLOCK_MAGIC);
        out.extend_from_slice(&[FORMAT_VERSION, self.class.code(), 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&self.cluster);
        out.extend_from_slice(&self.node.to_le_bytes());
        out.extend_from_slice(&self.disk);
        out.extend_from_slice(&self.segment);
        out.extend_from_slice(&self.generation.to_le_bytes());
        self.features.encode(&mut out);
        out.resize(SUPERBLOCK_BYTES - 4, 0);
        push_crc(&mut out);
        out
    }

    /// Reads the block from the start of a segment. One that needs read features this build does not know is refused; the other
    /// sets are the caller's to obey.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let what = "superblock";
        let block = Cursor::new(what, bytes).take(SUPERBLOCK_BYTES)?;
        let mut cursor = Cursor::new("segment", block);
        cursor.magic(SUPERBLOCK_MAGIC)?;
        check_crc(what, block)?;
        cursor.version()?;
        let class = cursor.u8()?;
        cursor.take(6)?;
        let (cluster, node, disk) = (cursor.array()?, cursor.u64()?, cursor.array()?);
        let (segment, generation) = (cursor.array()?, cursor.u64()?);
        let [read, write, gc, check] = [cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u64()?];
        let features = Features { read, write, gc, check };
        // First, because a class that is not known comes with a feature that says so.
        features.check_read("segment")?;
        let class = SegmentClass::from_code(class)?;
        Ok(Self { class, cluster, node, disk, segment, generation, features })
    }
}

/// What the index needs to know of one record, so that it is rebuilt without reading any payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FooterEntry {
    /// The index key.
    pub key: RecordKey,
    /// Where the record starts.
    pub offset: u64,
    /// Its whole length, padding included.
    pub len: u32,
    /// What it holds.
    pub kind: RecordKind,
    /// BLAKE3 of its ciphertext.
    pub ct: [u8; 32],
    /// The epoch of its write.
    pub write_epoch: u64,
    /// Locked at least until then.
    pub lock_floor_ms: Millis,
}

impl FooterEntry {
    /// The order of a footer: by partition, then id, then tenant, then offset.
    pub fn order(&self) -> (PartitionId, ChunkId, TenantId, u64) {
        (PartitionId::of_chunk(self.key.id), self.key.id, self.key.tenant, self.offset)
    }
}

/// The table of contents of a sealed segment.
///
/// `magic 8 · version 1 · zero 3 · count 4 · segment 16 · segment_hash 32 · entries 112×n · zero 4 · CRC32C 4`, each entry
/// `tenant 16 · id 32 · offset 8 · len 4 · kind 1 · zero 3 · ct 32 · write_epoch 8 · lock_floor_ms 8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The segment it closes.
    pub segment: [u8; 16],
    /// BLAKE3 over the superblock and the headers of all records in order: each header names the hash of its ciphertext.
    pub segment_hash: [u8; 32],
    /// One per record, in the order of [`FooterEntry::order`].
    pub entries: Vec<FooterEntry>,
}

impl Footer {
    /// Makes a footer, putting the entries in order.
    pub fn new(segment: [u8; 16], segment_hash: [u8; 32], mut entries: Vec<FooterEntry>) -> Self {
        entries.sort_by_key(FooterEntry::order);
        Self { segment, segment_hash, entries }
    }

    /// Writes the footer; its length is a multiple of 8.
    pub fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.entries.len()).expect("at most MAX_FOOTER_ENTRIES entries");
        let mut out = Vec::with_capacity(FOOTER_FIXED_BYTES + self.entries.len() * ENTRY_BYTES + 8);
        out.extend_from_slice(FOOTER_MAGIC);
        out.extend_from_slice(&[FORMAT_VERSION, 0, 0, 0]);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.segment);
        out.extend_from_slice(&self.segment_hash);
        for entry in &self.entries {
            out.extend_from_slice(&entry.key.tenant.0);
            out.extend_from_slice(&entry.key.id.0);
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.len.to_le_bytes());
            out.extend_from_slice(&[entry.kind.code(), 0, 0, 0]);
            out.extend_from_slice(&entry.ct);
            out.extend_from_slice(&entry.write_epoch.to_le_bytes());
            out.extend_from_slice(&entry.lock_floor_ms.to_le_bytes());
        }
        out.extend_from_slice(&[0; 4]);
        push_crc(&mut out);
        out
    }

    /// Reads a footer: exactly the bytes that the trailer names.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let what = "footer";
        let mut cursor = Cursor::new(what, bytes);
        cursor.magic(FOOTER_MAGIC)?;
        check_crc(what, bytes)?;
        cursor.version()?;
        cursor.take(3)?;
        let count = cursor.u32()?;
        let expected = FOOTER_FIXED_BYTES as u64 + u64::from(count) * ENTRY_BYTES as u64 + 8;
        if count > MAX_FOOTER_ENTRIES || bytes.len() as u64 != expected {
            let limit = u64::from(MAX_FOOTER_ENTRIES);
            return Err(Error::OutOfRange { field: "count", found: u64::from(count), limit });
        }
        let segment = cursor.array()?;
        let segment_hash = cursor.array()?;
        let entries = (0..count).map(|_| read_entry(&mut cursor)).collect::<Result<Vec<_>, _>>()?;
        if !entries.is_sorted_by_key(FooterEntry::order) {
            return Err(Error::Trailing { what });
        }
        Ok(Self { segment, segment_hash, entries })
    }
}

fn read_entry(cursor: &mut Cursor<'_>) -> Result<FooterEntry, Error> {
    let key = RecordKey { tenant: TenantId(cursor.array()?), id: ChunkId(cursor.array()?) };
    let offset = cursor.u64()?;
    let len = cursor.u32()?;
    let kind = RecordKind::from_code(cursor.u8()?)?;
    cursor.take(3)?;
    let ct = cursor.array()?;
    Ok(FooterEntry { key, offset, len, kind, ct, write_epoch: cursor.u64()?, lock_floor_ms: cursor.u64()? })
}

/// The last bytes of a sealed segment: where its footer is.
///
/// `magic 8 · version 1 · zero 3 · footer_offset 8 · footer_len 8 · CRC32C 4`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the footer starts.
    pub footer_offset: u64,
    /// How long it is.
    pub footer_len: u64,
}

impl Trailer {
    /// Writes the trailer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(TRAILER_MAGIC);
        out.extend_from_slice(&[FORMAT_VERSION, 0, 0, 0]);
        out.extend_from_slice(&self.footer_offset.to_le_bytes());
        out.extend_from_slice(&self.footer_len.to_le_bytes());
        push_crc(&mut out);
        out
    }

    /// Reads the trailer from exactly the last [`TRAILER_BYTES`] of a segment.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let what = "trailer";
        let bytes = Cursor::new(what, bytes).take(TRAILER_BYTES)?;
        let mut cursor = Cursor::new(what, bytes);
        cursor.magic(TRAILER_MAGIC)?;
        check_crc(what, bytes)?;
        cursor.version()?;
        cursor.take(3)?;
        Ok(Self { footer_offset: cursor.u64()?, footer_len: cursor.u64()? })
    }
}
