//! Turns plaintext into sealed records and back.
//!
//! Invariants: a chunk's key comes from its content hash, so whoever lacks the hash cannot decrypt; a nonce comes from
//! the AAD and the compressed bytes, so no (key, nonce) pair ever encrypts two different plaintexts, even when two
//! versions of zstd compress the same content differently. Trees are hashed and encrypted under the resource's key.

use std::{cell::RefCell, io::Cursor};

use bytes::Bytes;
use holdfast_model::ChunkId;
use holdfast_record::{
    Chunker, Codec, MAX_PLAINTEXT_BYTES, MAX_REFS, RECORD_ALIGN, RecordKind, SealedHeader, SealedRecord,
    hash_refs, header_len,
};

use crate::{
    aead::{self, NONCE_BYTES},
    error::SealError,
    keys::JobKeys,
    secret::{ContentHash, Key},
};

/// The compression level of content.
pub const DEFAULT_ZSTD_LEVEL: i32 = 3;
/// How much is compressed to see whether the rest is worth it.
const PROBE_BYTES: usize = 64 << 10;
/// Compression that saves less than one part in this is not worth its time.
const MIN_SAVING_PART: usize = 25;

thread_local! {
    static COMPRESSOR: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// How a plaintext is sealed.
#[derive(Debug, Clone, Copy)]
pub struct SealOptions {
    /// How the content was cut.
    pub chunker: Chunker,
    /// The zstd level.
    pub zstd_level: i32,
}

impl Default for SealOptions {
    fn default() -> Self {
        Self { chunker: Chunker::Whole, zstd_level: DEFAULT_ZSTD_LEVEL }
    }
}

/// Seals and opens with the keys of one job.
#[derive(Debug, Clone)]
pub struct Sealer {
    keys: JobKeys,
    resource_hash: Key,
}

impl Sealer {
    /// Copies what it needs of the keys; wiped when dropped.
    pub fn new(keys: &JobKeys) -> Self {
        let resource_hash = keys.tenant_keys.hash.derive(&[b"hf-resource-hash-1", &keys.resource_key.0.0]);
        Self { keys: keys.clone(), resource_hash }
    }

    /// Names a plaintext. The kind is part of it.
    pub fn hash(&self, kind: RecordKind, plaintext: &[u8]) -> ContentHash {
        let key = if kind.is_tree() { &self.resource_hash } else { &self.keys.tenant_keys.hash };
        ContentHash(key.hash(&[&[kind.code()], plaintext]))
    }

    /// What storage calls the chunk.
    pub fn id(&self, h: ContentHash) -> ChunkId {
        ChunkId(self.keys.tenant_keys.id.hash(&[&h.0]))
    }

    /// The keys it seals with.
    pub fn keys(&self) -> &JobKeys {
        &self.keys
    }

    /// Compresses and encrypts. `refs` are sorted and made distinct here.
    pub fn seal(
        &self,
        kind: RecordKind,
        h: ContentHash,
        plaintext: &[u8],
        mut refs: Vec<[u8; 16]>,
        options: SealOptions,
    ) -> Result<SealedRecord, SealError> {
        refs.sort_unstable();
        refs.dedup();
        within(plaintext.len(), MAX_PLAINTEXT_BYTES)?;
        within(refs.len(), MAX_REFS)?;
        let room = header_len(refs.len());
        let (codec, mut buffer) = match compress(plaintext, options.zstd_level, room)? {
            Some(compressed) => (Codec::Zstd, compressed),
            None => {
                let mut copy = with_room(room, plaintext.len());
                copy.extend_from_slice(plaintext);
                (Codec::None, copy)
            }
        };
        let key_epoch = if kind.is_tree() { 0 } else { self.current_epoch() };
        let header = SealedHeader {
            kind,
            codec,
            chunker: options.chunker,
            key_epoch,
            tenant: self.keys.tenant,
            id: self.id(h),
            pt_len: u32::try_from(plaintext.len()).expect("checked against the limit"),
            refs_hash: hash_refs(&refs),
        };
        let key = self.chunk_key(&header, h)?;
        let aad = header.aad();
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&self.keys.tenant_keys.nonce.hash(&[&aad, &buffer[room..]])[..NONCE_BYTES]);
        aead::seal_behind(room, &key, nonce, &aad, &mut buffer);
        Ok(SealedRecord::in_buffer(header, nonce, refs, buffer))
    }

    /// Decrypts, decompresses and proves that the content is the one with this hash.
    pub fn open(&self, record: SealedRecord, expected: ContentHash) -> Result<Bytes, SealError> {
        let header = &record.header;
        let id = header.id;
        if header.tenant != self.keys.tenant || id != self.id(expected) {
            return Err(SealError::WrongContent { id });
        }
        let key = self.chunk_key(header, expected)?;
        let opened = aead::open_in_place(&key, record.nonce, &header.aad(), record.ciphertext.into())
            .map_err(|_| SealError::NotAuthentic { id })?;
        let pt_len = header.pt_len as usize;
        let plaintext: Bytes = match header.codec {
            Codec::None => opened.freeze(),
            Codec::Zstd => decompress(&opened, pt_len).ok_or(SealError::WrongContent { id })?.into(),
        };
        if plaintext.len() != pt_len || self.hash(header.kind, &plaintext) != expected {
            return Err(SealError::WrongContent { id });
        }
        Ok(plaintext)
    }

    fn current_epoch(&self) -> u32 {
        *self.keys.tenant_keys.enc.last_key_value().expect("a tenant has an encryption key").0
    }

    fn chunk_key(&self, header: &SealedHeader, h: ContentHash) -> Result<Key, SealError> {
        let (id, epoch) = (header.id, header.key_epoch);
        let master = if header.kind.is_tree() {
            // Later keys of the resource would have the epochs from 1.
            if epoch == 0 { &self.keys.resource_key.0 } else { return Err(SealError::NoKey { id, epoch }) }
        } else {
            self.keys.tenant_keys.enc.get(&epoch).ok_or(SealError::NoKey { id, epoch })?
        };
        Ok(master.derive(&[b"hf-chunk-1", &h.0]))
    }
}

fn within(found: usize, limit: usize) -> Result<(), SealError> {
    if found > limit { Err(SealError::TooLarge { found, limit }) } else { Ok(()) }
}

/// A buffer for so many bytes behind the room of a record's header, with what comes behind them.
fn with_room(room: usize, len: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(room + len + aead::TAG_BYTES + RECORD_ALIGN);
    buffer.resize(room, 0);
    buffer
}

/// The compressed bytes behind some room, or nothing when it is not worth it. Decompressed and compared before it is trusted: a
/// compressor's bug would otherwise be found at the restore.
fn compress(plaintext: &[u8], level: i32, room: usize) -> Result<Option<Vec<u8>>, SealError> {
    let saves = |before: usize, after: usize| after <= before - before / MIN_SAVING_PART && after < before;
    if plaintext.len() > PROBE_BYTES {
        let probe = with_compressor(level, &plaintext[..PROBE_BYTES], 0)?;
        if !saves(PROBE_BYTES, probe.len()) {
            return Ok(None);
        }
    }
    let buffer = with_compressor(level, plaintext, room)?;
    let compressed = &buffer[room..];
    if !saves(plaintext.len(), compressed.len()) {
        return Ok(None);
    }
    if decompress(compressed, plaintext.len()).as_deref() != Some(plaintext) {
        return Err(SealError::Compression);
    }
    Ok(Some(buffer))
}

fn with_compressor(level: i32, data: &[u8], room: usize) -> Result<Vec<u8>, SealError> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(made_for, _)| *made_for != level) {
            let compressor = zstd::bulk::Compressor::new(level).map_err(|_| SealError::Compression)?;
            *slot = Some((level, compressor));
        }
        let (_, compressor) = slot.as_mut().expect("filled above");
        let mut out = Cursor::new(with_room(room, zstd::zstd_safe::compress_bound(data.len())));
        out.set_position(room as u64);
        compressor.compress_to_buffer(data, &mut out).map_err(|_| SealError::Compression)?;
        Ok(out.into_inner())
    })
}

/// Never more than `pt_len` bytes come out, whatever the frame says.
fn decompress(data: &[u8], pt_len: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(zstd::bulk::Decompressor::new().ok()?);
        }
        let mut out = Vec::with_capacity(pt_len);
        slot.as_mut()?.decompress_to_buffer(data, &mut out).ok()?;
        Some(out)
    })
}

impl Sealer {
    /// Seals the content hash of a snapshot object for its pin. The key is derived from the object's id, so it seals one
    /// plaintext only and the fixed nonce is safe.
    pub fn seal_root(&self, h: ContentHash) -> Bytes {
        let (key, aad) = self.root_key(self.id(h));
        let mut buffer = h.0.to_vec();
        aead::seal(&key, [0; NONCE_BYTES], &aad, &mut buffer);
        buffer.into()
    }

    /// Opens what [`Self::seal_root`] made for the object with this id.
    pub fn open_root(&self, root: ChunkId, sealed: &[u8]) -> Result<ContentHash, SealError> {
        let (key, aad) = self.root_key(root);
        let opened = aead::open(&key, [0; NONCE_BYTES], &aad, sealed);
        let bytes = opened.map_err(|_| SealError::NotAuthentic { id: root })?;
        let h = bytes.try_into().map(ContentHash).map_err(|_| SealError::WrongContent { id: root })?;
        if self.id(h) == root { Ok(h) } else { Err(SealError::WrongContent { id: root }) }
    }

    fn root_key(&self, root: ChunkId) -> (Key, Vec<u8>) {
        let key = self.keys.resource_key.0.derive(&[b"hf-root-1", &root.0]);
        (key, [&self.keys.tenant.0[..], &self.keys.resource.0].concat())
    }

    /// The seed of the tenant's gear table.
    pub(crate) fn gear_seed(&self) -> u64 {
        let hash = self.keys.tenant_keys.boundary.hash(&[b"hf-gear-1"]);
        u64::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
    }
}
