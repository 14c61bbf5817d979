//! The sealed header: what the AEAD authenticates beside the ciphertext.
//!
//! Invariant: the bytes of [`SealedHeader::aad`] are a function of the sealed fields alone, never of where or by whom a
//! record is stored, so every replica of a record opens with the same key.

use holdfast_model::{ChunkId, TenantId};

use crate::Error;

/// The version of everything this crate writes and reads. Version 0 was a preview and is refused.
pub const FORMAT_VERSION: u8 = 1;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident, $field:literal { $($(#[$vdoc:meta])* $variant:ident = $code:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code in the bytes. Never reused.
            pub fn code(self) -> u8 {
                match self { $(Self::$variant => $code),+ }
            }

            /// Reads the code back.
            pub fn from_code(code: u8) -> Result<Self, Error> {
                match code {
                    $($code => Ok(Self::$variant),)+
                    _ => Err(Error::UnknownCode { field: $field, code: u64::from(code) }),
                }
            }
        }
    };
}

codes!(
    /// What a record holds. Its code is also the domain byte of the content hash.
    RecordKind, "kind" {
        /// A piece of a file, an attachment or a large item.
        Data = 1,
        /// Many small things of one resource together.
        Bundle = 2,
        /// The lowest level of a manifest tree.
        ManifestLeaf = 3,
        /// The levels above.
        ManifestInner = 4,
        /// The object a pin names: the roots and the state of the workload.
        Snapshot = 5,
        /// Wrapped keys, for the recovery without a catalog.
        KeyObject = 6,
        /// An encrypted export of the catalog.
        CatalogExport = 7,
    }
);

impl RecordKind {
    /// Whether the record belongs to a manifest rather than to content.
    pub fn is_tree(self) -> bool {
        matches!(self, Self::ManifestLeaf | Self::ManifestInner | Self::Snapshot)
    }
}

codes!(
    /// How the plaintext was compressed.
    Codec, "codec" {
        /// Not at all.
        None = 0,
        /// zstd, one frame.
        Zstd = 1,
    }
);

codes!(
    /// How the content was cut. Changing it never breaks a restore.
    Chunker, "chunker" {
        /// Not cut: a bundle, a manifest node, a snapshot.
        Whole = 0,
        /// FastCDC v2020, 256 KiB / 1 MiB / 4 MiB, normalisation 1, seeded gear.
        Fcdc1 = 1,
        /// The same with 1, 4 and 16 MiB, for files above 4 GiB. Read, and not written yet.
        Fcdc1Large = 2,
    }
);

/// The fields that the AEAD authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedHeader {
    /// What the record holds.
    pub kind: RecordKind,
    /// How the plaintext was compressed.
    pub codec: Codec,
    /// How the content was cut.
    pub chunker: Chunker,
    /// Which of the tenant's encryption keys; 0 for records under the resource's key, whose later keys would be 1, 2 and so on.
    pub key_epoch: u32,
    /// The dedup domain.
    pub tenant: TenantId,
    /// The name of the chunk.
    pub id: ChunkId,
    /// Length of the plaintext before compression.
    pub pt_len: u32,
    /// [`hash_refs`] of the clear references.
    pub refs_hash: [u8; 32],
}

impl SealedHeader {
    /// The additional authenticated data, in the order of the header: version, kind, flags, key epoch, codec, chunker, tenant,
    /// plaintext length, id, refs hash. No flag is defined, but a later one must not be open to change.
    pub fn aad(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(94);
        out.extend_from_slice(&[FORMAT_VERSION, self.kind.code(), 0, 0]);
        out.extend_from_slice(&self.key_epoch.to_le_bytes());
        out.extend_from_slice(&[self.codec.code(), self.chunker.code()]);
        out.extend_from_slice(&self.tenant.0);
        out.extend_from_slice(&self.pt_len.to_le_bytes());
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.refs_hash);
        out
    }
}

/// BLAKE3 over the references, one after the other.
pub fn hash_refs(refs: &[[u8; 16]]) -> [u8; 32] {
    *blake3::hash(refs.as_flattened()).as_bytes()
}

/// The clear reference to a chunk: the first half of its id.
pub fn short_ref(id: &ChunkId) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&id.0[..16]);
    short
}
