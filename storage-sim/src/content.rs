//! What is backed up: chunks whose bytes follow from their number, and snapshots that name chunks.

use bytes::Bytes;
use holdfast_model::{ChunkId, TenantId};
use holdfast_record::{
    Chunker, Codec, Placement, RecordKind, SealedHeader, SealedRecord, hash_refs, short_ref,
};

/// The only tenant: tenants apart are the subject of other tests.
pub const TENANT: TenantId = TenantId([7; 16]);

/// A chunk by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkNumber(pub u64);

impl ChunkNumber {
    fn seeded(self, context: &str, bytes: &mut [u8]) {
        blake3::Hasher::new_derive_key(context).update(&self.0.to_le_bytes()).finalize_xof().fill(bytes);
    }

    /// Its id.
    pub fn id(self) -> ChunkId {
        let mut id = [0; 32];
        self.seeded("holdfast simulation chunk id", &mut id);
        ChunkId(id)
    }

    /// What is stored under its id, and must come back.
    pub fn ciphertext(self) -> Bytes {
        let mut len = [0; 8];
        self.seeded("holdfast simulation chunk length", &mut len);
        let len = u64::from_le_bytes(len);
        // Most are small, some cross the segments' staging, some a page.
        let len = if len % 16 == 0 { 4_096 + len / 16 % 20_000 } else { 64 + len / 16 % 2_000 };
        let mut bytes = vec![0; usize::try_from(len).expect("a few thousand")];
        self.seeded("holdfast simulation chunk", &mut bytes);
        bytes.into()
    }

    /// As a record.
    pub fn record(self) -> SealedRecord {
        record(self.id(), RecordKind::Data, self.ciphertext(), &[])
    }
}

/// A record of the tenant.
fn record(id: ChunkId, kind: RecordKind, ciphertext: Bytes, needs: &[ChunkId]) -> SealedRecord {
    let mut refs: Vec<[u8; 16]> = needs.iter().map(short_ref).collect();
    refs.sort_unstable();
    refs.dedup();
    let header = SealedHeader {
        kind,
        codec: Codec::None,
        chunker: Chunker::Whole,
        key_epoch: 1,
        tenant: TENANT,
        id,
        pt_len: u32::try_from(ciphertext.len()).expect("small"),
        refs_hash: hash_refs(&refs),
    };
    SealedRecord {
        header,
        nonce: [0; 12],
        ct: *blake3::hash(&ciphertext).as_bytes(),
        refs,
        placement: Placement::default(),
        ciphertext: ciphertext.into(),
    }
}

/// A snapshot object: it names its chunks.
pub fn snapshot(unique: u64, chunks: &[ChunkNumber]) -> SealedRecord {
    let mut bytes = unique.to_le_bytes().to_vec();
    bytes.extend(chunks.iter().flat_map(|chunk| chunk.0.to_le_bytes()));
    let id = ChunkId(
        *blake3::Hasher::new_derive_key("holdfast simulation snapshot").update(&bytes).finalize().as_bytes(),
    );
    let needs: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id()).collect();
    record(id, RecordKind::Snapshot, bytes.into(), &needs)
}

/// The chunks that a snapshot object names.
pub fn chunks_of(snapshot: &SealedRecord) -> Vec<ChunkNumber> {
    let numbers = snapshot.ciphertext.chunks_exact(8).skip(1);
    numbers.map(|bytes| ChunkNumber(u64::from_le_bytes(bytes.try_into().expect("8 bytes")))).collect()
}
