//! The ciphertext of a record, with the buffer in which the record stands: so that encoding need not copy it.

use std::{
    fmt, mem,
    ops::{Deref, Range},
};

use bytes::{Buf as _, Bytes};

use crate::RECORD_ALIGN;

/// A ciphertext. Reads as a slice; clones share the buffer. What stands around it in the buffer is of no meaning to anybody but
/// [`SealedRecord::encode`](crate::SealedRecord::encode), which looks whether it is what it would write.
#[derive(Clone)]
pub struct Ciphertext {
    buffer: Bytes,
    range: Range<usize>,
}

impl Ciphertext {
    /// A part of a buffer.
    pub(crate) fn within(buffer: Bytes, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= buffer.len(), "a ciphertext stands in its buffer");
        Self { buffer, range }
    }

    /// Writes a header before the ciphertext, if there is room for it and nobody else sees the buffer.
    pub(crate) fn put_before(&mut self, header: &[u8]) {
        let Some(at) = self.range.start.checked_sub(header.len()) else { return };
        self.buffer = match mem::take(&mut self.buffer).try_into_mut() {
            Ok(mut buffer) => {
                buffer[at..self.range.start].copy_from_slice(header);
                buffer.freeze()
            }
            Err(shared) => shared,
        };
    }

    /// The record, if this header stands before the ciphertext and the padding behind it.
    pub(crate) fn record_behind(&self, header: &[u8]) -> Option<Bytes> {
        let at = self.range.start.checked_sub(header.len())?;
        let end = at + (header.len() + self.len()).next_multiple_of(RECORD_ALIGN);
        let padding = self.buffer.get(self.range.end..end)?;
        let is_there = self.buffer[at..self.range.start] == *header && padding.iter().all(|byte| *byte == 0);
        is_there.then(|| self.buffer.slice(at..end))
    }
}

impl Deref for Ciphertext {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

impl AsRef<[u8]> for Ciphertext {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Bytes> for Ciphertext {
    fn from(buffer: Bytes) -> Self {
        let range = 0..buffer.len();
        Self { buffer, range }
    }
}

impl From<Vec<u8>> for Ciphertext {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<Ciphertext> for Bytes {
    fn from(Ciphertext { mut buffer, range }: Ciphertext) -> Self {
        buffer.truncate(range.end);
        buffer.advance(range.start);
        buffer
    }
}

impl PartialEq for Ciphertext {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Ciphertext {}

impl fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Bytes::from(self.clone()).fmt(f)
    }
}
