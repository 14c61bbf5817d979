//! AES-256-GCM, in the two shapes that the crate needs: whole buffers, out of place when opening.
//!
//! Invariant: callers never use a (key, nonce) pair for two plaintexts: keys are derived per purpose, nonces come from
//! the content or from `Random`.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::secret::Key;

pub(crate) const TAG_BYTES: usize = 16;
pub(crate) const NONCE_BYTES: usize = 12;

/// The tag does not match: wrong key, wrong context or changed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// Encrypts in place and appends the tag.
pub(crate) fn seal(key: &Key, nonce: [u8; NONCE_BYTES], aad: &[u8], buffer: &mut Vec<u8>) {
    cipher(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), buffer)
        .expect("a buffer far below the limit of AES-GCM");
}

/// Decrypts into a new buffer.
pub(crate) fn open(
    key: &Key,
    nonce: [u8; NONCE_BYTES],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, NotAuthentic> {
    let split = sealed.len().checked_sub(TAG_BYTES).ok_or(NotAuthentic)?;
    let (ciphertext, tag) = sealed.split_at(split);
    let mut plain = vec![0; ciphertext.len()];
    cipher(key)
        .open_separate_gather(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(aad),
            ciphertext,
            tag,
            &mut plain,
        )
        .map_err(|_| NotAuthentic)?;
    Ok(plain)
}

fn cipher(key: &Key) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key.0).expect("a key of 32 bytes"))
}
