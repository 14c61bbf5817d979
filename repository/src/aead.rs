//! AES-256-GCM over whole buffers, in the shapes that the crate needs.
//!
//! Invariant: callers never use a (key, nonce) pair for two plaintexts: keys are derived per purpose, nonces come from
//! the content or from `Random`.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::{Bytes, BytesMut};

use crate::secret::Key;

pub(crate) const TAG_BYTES: usize = 16;
pub(crate) const NONCE_BYTES: usize = 12;

/// The tag does not match: wrong key, wrong context or changed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// Encrypts in place and appends the tag.
pub(crate) fn seal(key: &Key, nonce: [u8; NONCE_BYTES], aad: &[u8], buffer: &mut Vec<u8>) {
    seal_behind(0, key, nonce, aad, buffer);
}

/// The same with what stands behind some room.
pub(crate) fn seal_behind(
    room: usize,
    key: &Key,
    nonce: [u8; NONCE_BYTES],
    aad: &[u8],
    buffer: &mut Vec<u8>,
) {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = cipher(key)
        .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut buffer[room..])
        .expect("a buffer far below the limit of AES-GCM");
    buffer.extend_from_slice(tag.as_ref());
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

/// Decrypts in place where nobody else holds the buffer, else in a copy.
pub(crate) fn open_in_place(
    key: &Key,
    nonce: [u8; NONCE_BYTES],
    aad: &[u8],
    sealed: Bytes,
) -> Result<BytesMut, NotAuthentic> {
    let mut buffer = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let opened = cipher(key)
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut buffer)
        .map_err(|_| NotAuthentic)?;
    let len = opened.len();
    buffer.truncate(len);
    Ok(buffer)
}

fn cipher(key: &Key) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key.0).expect("a key of 32 bytes"))
}
