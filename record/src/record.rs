//! A sealed record as bytes: on the wire, and at its place in a segment.
//!
//! ```text
//! magic 8 · version 1 · kind 1 · flags 2 (sealed too) · header_len 2
//! key_epoch 4 · codec 1 · chunker 1 · tenant 16 · pt_len 4 · id 32 · nonce 12 · refs_hash 32        (sealed)
//! ct_len 4 · ct 32 · writer 8 · session 8 · write_epoch 8 · lock_floor_ms 8 · ref_count 2 · refs 16×n  (placement)
//! header CRC32C 4 · ciphertext · zeros to a multiple of 8
//! ```
//!
//! Invariant: the header CRC covers (segment uuid, own offset, header), so a record that a disk wrote to the wrong place
//! does not decode there. The wire form uses a zero uuid and offset 0.

use bytes::Bytes;
use holdfast_model::{ChunkId, Millis, RecordKey, TenantId};

use crate::{
    Chunker, Ciphertext, Codec, Error, FORMAT_VERSION, RecordKind, SealedHeader, SegmentClass,
    cursor::Cursor, hash_refs,
};

/// No record is larger, header and padding included.
pub const MAX_RECORD_BYTES: usize = 17 << 20;
/// No plaintext is larger.
pub const MAX_PLAINTEXT_BYTES: usize = 16 << 20;
/// References in one record: what a 16-bit header length leaves room for.
pub const MAX_REFS: usize = 4_000;
/// Records start at multiples of this.
pub const RECORD_ALIGN: usize = 8;
/// How many bytes [`scan_len`] wants: the header up to the references.
pub const HEADER_PEEK_BYTES: usize = 186;

const MAGIC: &[u8; 8] = b"HFRECORD";
const CRC_BYTES: usize = 4;
const REF_BYTES: usize = 16;
const WIRE_SEGMENT: [u8; 16] = [0; 16];

/// Who wrote a record, when by the epochs, and how long it is locked at least. Outside the AAD: replicas may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placement {
    /// The worker that sent it first.
    pub writer: u64,
    /// The session it was sent in.
    pub session: u64,
    /// `max(node epoch, session start epoch)`; only raised.
    pub write_epoch: u64,
    /// Not deleted before this time; only raised.
    pub lock_floor_ms: Millis,
}

/// A record as storage sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRecord {
    /// What the AEAD authenticates.
    pub header: SealedHeader,
    /// The AEAD nonce.
    pub nonce: [u8; 12],
    /// BLAKE3 of the ciphertext.
    pub ct: [u8; 32],
    /// Truncated ids of what this record needs, ascending and distinct.
    pub refs: Vec<[u8; 16]>,
    /// Where and when it was written.
    pub placement: Placement,
    /// The compressed and encrypted plaintext, with the AEAD tag.
    pub ciphertext: Ciphertext,
}

/// What the fixed part of a header says, for walking a segment. Not authenticated until the header is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeaderPeek {
    /// From the start of this record to the start of the next.
    pub total_len: usize,
    /// From the start of the record to its ciphertext.
    pub header_len: usize,
    /// The index key.
    pub key: RecordKey,
    /// What it holds.
    pub kind: RecordKind,
    /// Length of the ciphertext.
    pub ct_len: u32,
    /// BLAKE3 of the ciphertext.
    pub ct: [u8; 32],
    /// The epoch of its write.
    pub write_epoch: u64,
    /// Locked at least until then.
    pub lock_floor: Millis,
    /// How many references it carries.
    pub ref_count: usize,
}

/// Reads the fixed part of a header from at least [`HEADER_PEEK_BYTES`] bytes and checks its lengths and limits.
pub fn scan_len(prefix: &[u8]) -> Result<RecordHeaderPeek, Error> {
    Ok(read_fixed(prefix)?.peek())
}

/// Checks a whole header (`header_len` bytes) at its place, without the ciphertext.
pub fn check_header_at(bytes: &[u8], segment: [u8; 16], offset: u64) -> Result<RecordHeaderPeek, Error> {
    let peek = scan_len(bytes)?;
    let header = Cursor::new("record header", bytes).take(peek.header_len)?;
    check_header_crc(header, segment, offset)?;
    Ok(peek)
}

impl SealedRecord {
    /// A record whose ciphertext stands in a buffer behind room for its header, of [`header_len`] bytes. The header is written there:
    /// [`Self::encode`] copies nothing as long as the placement stays the default.
    pub fn in_buffer(
        header: SealedHeader,
        nonce: [u8; 12],
        refs: Vec<[u8; 16]>,
        mut buffer: Vec<u8>,
    ) -> Self {
        let range = header_len(refs.len())..buffer.len();
        let ct = *blake3::hash(&buffer[range.clone()]).as_bytes();
        buffer.resize(buffer.len().next_multiple_of(RECORD_ALIGN), 0);
        let ciphertext = Ciphertext::within(buffer.into(), range);
        let mut record = Self { header, nonce, ct, refs, placement: Placement::default(), ciphertext };
        record.ciphertext.put_before(&record.encode_header_at(WIRE_SEGMENT, 0));
        record
    }

    /// The index key.
    pub fn key(&self) -> RecordKey {
        RecordKey { tenant: self.header.tenant, id: self.header.id }
    }

    /// The class of segment it belongs to: whatever carries references is scanned by mark, so it counts as tree.
    pub fn segment_class(&self) -> SegmentClass {
        if self.header.kind.is_tree() || !self.refs.is_empty() {
            SegmentClass::Tree
        } else {
            SegmentClass::Data
        }
    }

    /// Length of the encoded record, padding included.
    pub fn encoded_len(&self) -> usize {
        (header_len(self.refs.len()) + self.ciphertext.len()).next_multiple_of(RECORD_ALIGN)
    }

    /// The position-independent form that travels between workers and nodes. Shares the buffer where it stands there already.
    pub fn encode(&self) -> Bytes {
        self.encode_at(WIRE_SEGMENT, 0)
    }

    /// The same; a record that was read from a segment, and that nobody else holds, becomes it in its own buffer.
    pub fn into_encoded(mut self) -> Bytes {
        let header = self.encode_header_at(WIRE_SEGMENT, 0);
        self.ciphertext.put_before(&header);
        self.encode()
    }

    /// The form that stands at `offset` of a segment.
    pub fn encode_at(&self, segment: [u8; 16], offset: u64) -> Bytes {
        let header = self.encode_header_at(segment, offset);
        self.ciphertext.record_behind(&header).unwrap_or_else(|| {
            let mut out = Vec::with_capacity(self.encoded_len());
            out.extend_from_slice(&header);
            out.extend_from_slice(&self.ciphertext);
            out.resize(self.encoded_len(), 0);
            out.into()
        })
    }

    /// The header alone, for vectored writes: header, then [`Self::ciphertext`], then zeros up to [`Self::encoded_len`].
    pub fn encode_header_at(&self, segment: [u8; 16], offset: u64) -> Vec<u8> {
        let header_len = header_len(self.refs.len());
        let mut out = Vec::with_capacity(header_len);
        self.write_fields(&mut out, u16::try_from(header_len).expect("at most MAX_REFS references"));
        let crc = header_crc(&out, segment, offset);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the wire form. The ciphertext shares the buffer. Call [`Self::verify`] before trusting the content.
    pub fn decode(bytes: Bytes) -> Result<Self, Error> {
        let len = bytes.len();
        let record = Self::decode_at(bytes, WIRE_SEGMENT, 0)?;
        if record.encoded_len() != len {
            return Err(Error::Trailing { what: "record" });
        }
        Ok(record)
    }

    /// Reads the record that starts `bytes`, which were read at `offset` of a segment; what follows it is ignored.
    pub fn decode_at(bytes: Bytes, segment: [u8; 16], offset: u64) -> Result<Self, Error> {
        let fixed = read_fixed(&bytes)?;
        let peek = fixed.peek();
        let have = bytes.len();
        let short = Error::TooShort { what: "record", need: peek.total_len, have };
        let whole = bytes.get(..peek.total_len).ok_or(short)?;
        let (header, rest) = whole.split_at(peek.header_len);
        check_header_crc(header, segment, offset)?;
        let ct_len = peek.ct_len as usize;
        if rest[ct_len..].iter().any(|byte| *byte != 0) {
            return Err(Error::Trailing { what: "padding" });
        }
        let refs = header[HEADER_PEEK_BYTES..peek.header_len - CRC_BYTES].as_chunks::<REF_BYTES>().0.to_vec();
        Ok(Self {
            header: fixed.header,
            nonce: fixed.nonce,
            ct: fixed.ct,
            refs,
            placement: fixed.placement,
            ciphertext: Ciphertext::within(bytes, peek.header_len..peek.header_len + ct_len),
        })
    }

    /// Whether ciphertext and references are the ones the header names. Needs no key: this is what scrub does.
    pub fn verify(&self) -> Result<(), Error> {
        if *blake3::hash(&self.ciphertext).as_bytes() != self.ct {
            return Err(Error::CiphertextMismatch);
        }
        let ordered = self.refs.is_sorted_by(|a, b| a < b);
        if !ordered || hash_refs(&self.refs) != self.header.refs_hash {
            return Err(Error::RefsMismatch);
        }
        Ok(())
    }

    fn write_fields(&self, out: &mut Vec<u8>, header_len: u16) {
        let ct_len = u32::try_from(self.ciphertext.len()).expect("at most MAX_RECORD_BYTES of ciphertext");
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[FORMAT_VERSION, self.header.kind.code(), 0, 0]);
        out.extend_from_slice(&header_len.to_le_bytes());
        out.extend_from_slice(&self.header.key_epoch.to_le_bytes());
        out.extend_from_slice(&[self.header.codec.code(), self.header.chunker.code()]);
        out.extend_from_slice(&self.header.tenant.0);
        out.extend_from_slice(&self.header.pt_len.to_le_bytes());
        out.extend_from_slice(&self.header.id.0);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.header.refs_hash);
        out.extend_from_slice(&ct_len.to_le_bytes());
        out.extend_from_slice(&self.ct);
        for number in [
            self.placement.writer,
            self.placement.session,
            self.placement.write_epoch,
            self.placement.lock_floor_ms,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let n_refs = u16::try_from(self.refs.len()).expect("at most MAX_REFS references");
        out.extend_from_slice(&n_refs.to_le_bytes());
        out.extend_from_slice(self.refs.as_flattened());
    }
}

struct Fixed {
    header: SealedHeader,
    nonce: [u8; 12],
    ct: [u8; 32],
    ct_len: u32,
    placement: Placement,
    header_len: usize,
    ref_count: usize,
}

impl Fixed {
    fn peek(&self) -> RecordHeaderPeek {
        RecordHeaderPeek {
            total_len: (self.header_len + self.ct_len as usize).next_multiple_of(RECORD_ALIGN),
            header_len: self.header_len,
            key: RecordKey { tenant: self.header.tenant, id: self.header.id },
            kind: self.header.kind,
            ct_len: self.ct_len,
            ct: self.ct,
            write_epoch: self.placement.write_epoch,
            lock_floor: self.placement.lock_floor_ms,
            ref_count: self.ref_count,
        }
    }
}

fn read_fixed(bytes: &[u8]) -> Result<Fixed, Error> {
    let mut cursor = Cursor::new("record", bytes);
    cursor.magic_and_version(MAGIC)?;
    let kind = RecordKind::from_code(cursor.u8()?)?;
    let flags = cursor.u16()?;
    if flags != 0 {
        return Err(Error::UnknownCode { field: "flags", code: u64::from(flags) });
    }
    let found_header_len = cursor.u16()?;
    let key_epoch = cursor.u32()?;
    let codec = Codec::from_code(cursor.u8()?)?;
    let chunker = Chunker::from_code(cursor.u8()?)?;
    let tenant = TenantId(cursor.array()?);
    let pt_len = at_most("pt_len", cursor.u32()?, MAX_PLAINTEXT_BYTES)?;
    let id = ChunkId(cursor.array()?);
    let nonce = cursor.array()?;
    let refs_hash = cursor.array()?;
    let ct_len = cursor.u32()?;
    let ct = cursor.array()?;
    let placement = Placement {
        writer: cursor.u64()?,
        session: cursor.u64()?,
        write_epoch: cursor.u64()?,
        lock_floor_ms: cursor.u64()?,
    };
    let ref_count = at_most("ref_count", u32::from(cursor.u16()?), MAX_REFS)? as usize;
    let header_len = header_len(ref_count);
    if usize::from(found_header_len) != header_len {
        let found = u64::from(found_header_len);
        return Err(Error::OutOfRange { field: "header_len", found, limit: header_len as u64 });
    }
    at_most("ct_len", ct_len, MAX_RECORD_BYTES - header_len - RECORD_ALIGN)?;
    let header = SealedHeader { kind, codec, chunker, key_epoch, tenant, id, pt_len, refs_hash };
    Ok(Fixed { header, nonce, ct, ct_len, placement, header_len, ref_count })
}

fn at_most(field: &'static str, found: u32, limit: usize) -> Result<u32, Error> {
    if found as usize > limit {
        return Err(Error::OutOfRange { field, found: u64::from(found), limit: limit as u64 });
    }
    Ok(found)
}

/// How many bytes stand before the ciphertext of a record with so many references.
pub fn header_len(n_refs: usize) -> usize {
    HEADER_PEEK_BYTES + n_refs * REF_BYTES + CRC_BYTES
}

fn header_crc(header: &[u8], segment: [u8; 16], offset: u64) -> u32 {
    let crc = crc32c::crc32c(&segment);
    let crc = crc32c::crc32c_append(crc, &offset.to_le_bytes());
    crc32c::crc32c_append(crc, header)
}

fn check_header_crc(header: &[u8], segment: [u8; 16], offset: u64) -> Result<(), Error> {
    let what = "record header";
    let (body, crc) =
        header.split_last_chunk::<CRC_BYTES>().ok_or(Error::TooShort { what, need: CRC_BYTES, have: 0 })?;
    if header_crc(body, segment, offset) != u32::from_le_bytes(*crc) {
        return Err(Error::BadChecksum { what });
    }
    Ok(())
}
