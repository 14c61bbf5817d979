//! Bytes that must not be seen: keys and content hashes. Neither prints itself.

use std::fmt;

use holdfast_model::Random;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The keyed hash of a plaintext: whoever has it and the tenant's keys can decrypt the chunk. Appears only inside
/// encrypted manifests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub(crate) [u8; 32]);

impl ContentHash {
    /// Takes the bytes that an encrypted structure held.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to go into an encrypted structure and nowhere else.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentHash(redacted)")
    }
}

/// A key of 256 bits, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key(pub(crate) [u8; 32]);

impl Key {
    /// Makes a fresh key.
    pub fn generate(random: &dyn Random) -> Self {
        let mut key = Self([0; 32]);
        random.fill(&mut key.0);
        key
    }

    /// Derives a key for one purpose.
    pub(crate) fn derive(&self, parts: &[&[u8]]) -> Self {
        Self(self.hash(parts))
    }

    /// BLAKE3 keyed with this key.
    pub(crate) fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}
