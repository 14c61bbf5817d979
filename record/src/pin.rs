//! The pin: the small record that commits a snapshot and locks what it reaches.
//!
//! ```text
//! magic 8 · version 1 · workload 1 · flags 2 (bit 0: has a previous pin) · tenant 16 · resource 16 · sequence 8
//! fence generation 8 · fence attempt 8 · epoch 8 · snapshot 8 · root 32 · previous 32 · created_ms 8
//! retain_until_ms 8 · items 8 · items_missing 8 · sealed_root length 2 · sealed_root · CRC32C 4
//! ```
//!
//! Invariant: a pin is its bytes. [`Pin::hash`] names them, the commit ticket signs that hash, and the next pin's
//! `previous` chains it.

use bytes::Bytes;
use holdfast_model::{
    ChunkId, Epoch, Fence, Generation, Millis, PinHash, ResourceId, Sequence, SnapshotId, TenantId, Workload,
};

use crate::{
    Error, FORMAT_VERSION,
    cursor::{Cursor, check_crc, push_crc},
};

/// The sealed content hash of the root never takes more.
pub const MAX_SEALED_ROOT_BYTES: usize = 512;
/// No pin is larger.
pub const MAX_PIN_BYTES: usize = fixed_len() + MAX_SEALED_ROOT_BYTES;

const MAGIC: &[u8; 8] = b"HFPINPIN";
const HAS_PREVIOUS: u16 = 1;
/// Behind the fixed fields come the length of the sealed root, 2, and the CRC, 4.
const SEALED_LEN_FROM_END: usize = 6;

/// A committed snapshot as storage knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Whose it is.
    pub tenant: TenantId,
    /// The resource, by its pseudonym.
    pub resource: ResourceId,
    /// What of it.
    pub workload: Workload,
    /// The position among the snapshots of (resource, workload).
    pub sequence: Sequence,
    /// The attempt that made it.
    pub fence: Fence,
    /// The epoch its session was in.
    pub epoch: Epoch,
    /// What the operator calls it.
    pub snapshot: SnapshotId,
    /// The storage id of the snapshot object.
    pub root: ChunkId,
    /// The content hash of the snapshot object, sealed with the resource's key.
    pub sealed_root: Bytes,
    /// The pin before it.
    pub previous: Option<PinHash>,
    /// When it was made.
    pub created_ms: Millis,
    /// Not deleted before; only later pins of an extension raise it. 0: no term was set, the pin does not expire.
    pub retain_until_ms: Millis,
    /// Items in the snapshot.
    pub items: u64,
    /// Items listed as missing.
    pub items_missing: u64,
}

impl Pin {
    /// Writes the pin.
    pub fn encode(&self) -> Bytes {
        let sealed_len =
            u16::try_from(self.sealed_root.len()).expect("a sealed root is at most MAX_SEALED_ROOT_BYTES");
        let flags = if self.previous.is_some() { HAS_PREVIOUS } else { 0 };
        let mut out = Vec::with_capacity(fixed_len() + self.sealed_root.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[FORMAT_VERSION, self.workload.code()]);
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.tenant.0);
        out.extend_from_slice(&self.resource.0);
        for number in [self.sequence.0, self.fence.generation.0, self.fence.attempt, self.epoch.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.snapshot.0);
        out.extend_from_slice(&self.root.0);
        out.extend_from_slice(&self.previous.map_or([0; 32], |hash| hash.0));
        for number in [self.created_ms, self.retain_until_ms, self.items, self.items_missing] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&sealed_len.to_le_bytes());
        out.extend_from_slice(&self.sealed_root);
        push_crc(&mut out);
        out.into()
    }

    /// Reads a pin: exactly its bytes, nothing behind.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let what = "pin";
        let mut cursor = Cursor::new(what, bytes);
        cursor.magic_and_version(MAGIC)?;
        let body = check_crc(what, bytes)?;
        let code = cursor.u8()?;
        let workload = Workload::from_code(code)
            .ok_or(Error::UnknownCode { field: "workload", code: u64::from(code) })?;
        let flags = cursor.u16()?;
        if flags & !HAS_PREVIOUS != 0 {
            return Err(Error::UnknownCode { field: "flags", code: u64::from(flags) });
        }
        let pin = read_fields(&mut cursor, workload, flags)?;
        if body.len() + 4 != fixed_len() + pin.sealed_root.len() {
            return Err(Error::Trailing { what });
        }
        Ok(pin)
    }

    /// Reads the pin that starts `bytes`, and says how long it is: what follows it is ignored.
    pub fn decode_first(bytes: &[u8]) -> Result<(Self, usize), Error> {
        let mut cursor = Cursor::new("pin", bytes);
        cursor.magic_and_version(MAGIC)?;
        let mut cursor = Cursor::new("pin", bytes);
        cursor.take(fixed_len() - SEALED_LEN_FROM_END)?;
        let len = fixed_len() + usize::from(cursor.u16()?);
        let whole = Cursor::new("pin", bytes).take(len)?;
        Ok((Self::decode(whole)?, len))
    }

    /// The name of these bytes.
    pub fn hash(&self) -> PinHash {
        PinHash(*blake3::hash(&self.encode()).as_bytes())
    }
}

const fn fixed_len() -> usize {
    8 + 1 + 1 + 2 + 16 + 16 + 4 * 8 + 8 + 32 + 32 + 4 * 8 + 2 + 4
}

fn read_fields(cursor: &mut Cursor<'_>, workload: Workload, flags: u16) -> Result<Pin, Error> {
    let tenant = TenantId(cursor.array()?);
    let resource = ResourceId(cursor.array()?);
    let sequence = Sequence(cursor.u64()?);
    let fence = Fence { generation: Generation(cursor.u64()?), attempt: cursor.u64()? };
    let epoch = Epoch(cursor.u64()?);
    let snapshot = SnapshotId(cursor.array()?);
    let root = ChunkId(cursor.array()?);
    let previous = PinHash(cursor.array()?);
    let (created_ms, retain_until_ms) = (cursor.u64()?, cursor.u64()?);
    let (items, items_missing) = (cursor.u64()?, cursor.u64()?);
    let sealed_len = usize::from(cursor.u16()?);
    if sealed_len > MAX_SEALED_ROOT_BYTES {
        let limit = MAX_SEALED_ROOT_BYTES as u64;
        return Err(Error::OutOfRange { field: "sealed_root", found: sealed_len as u64, limit });
    }
    Ok(Pin {
        tenant,
        resource,
        workload,
        sequence,
        fence,
        epoch,
        snapshot,
        root,
        sealed_root: Bytes::copy_from_slice(cursor.take(sealed_len)?),
        previous: (flags & HAS_PREVIOUS != 0).then_some(previous),
        created_ms,
        retain_until_ms,
        items,
        items_missing,
    })
}
