//! One node as bytes.
//!
//! `version 1 · tree 1 · level 1 · n 2 · entries`, each `key length 2 · value length 2 · key · value`. In a leaf (level 0) values are
//! the tree's own; above, the key is the last one of the child and the value the child's content hash.

use bytes::Bytes;

use crate::{error::Error, secret::ContentHash, wire::Reader};

const VERSION: u8 = 1;

/// Which of a snapshot's trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreeKind {
    Items,
    Children,
}

impl TreeKind {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Items => 0,
            Self::Children => 1,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) level: u8,
    /// Never empty, keys ascending.
    pub(crate) entries: Vec<(Bytes, Bytes)>,
}

impl Node {
    pub(crate) fn encode(&self, kind: TreeKind) -> Bytes {
        let size: usize = self.entries.iter().map(|(key, value)| 4 + key.len() + value.len()).sum();
        let mut out = Vec::with_capacity(5 + size);
        out.extend_from_slice(&[VERSION, kind.code(), self.level]);
        let len16 =
            |len: usize| u16::try_from(len).expect("keys, values and nodes are bounded").to_le_bytes();
        out.extend_from_slice(&len16(self.entries.len()));
        for (key, value) in &self.entries {
            out.extend_from_slice(&len16(key.len()));
            out.extend_from_slice(&len16(value.len()));
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
        out.into()
    }

    /// Keys and values share the buffer.
    pub(crate) fn decode(bytes: &Bytes, kind: TreeKind) -> Result<Self, Error> {
        let mut reader = Reader::new("manifest node", bytes);
        reader.version(VERSION)?;
        if reader.u8()? != kind.code() {
            return Err(reader.malformed("it belongs to the other tree"));
        }
        let level = reader.u8()?;
        let count = reader.u16()?;
        let mut entries = Vec::with_capacity(usize::from(count).min(256));
        for _ in 0..count {
            let (key_len, value_len) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
            let key = bytes.slice_ref(reader.take(key_len)?);
            let value = bytes.slice_ref(reader.take(value_len)?);
            if level > 0 && value.len() != 32 {
                return Err(reader.malformed("a child is not a hash"));
            }
            entries.push((key, value));
        }
        reader.end()?;
        if entries.is_empty() || !entries.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(reader.malformed("its keys are not in order"));
        }
        Ok(Self { level, entries })
    }

    pub(crate) fn last_key(&self) -> &Bytes {
        &self.entries.last().expect("a node has entries").0
    }

    /// The child at an index of a node above the leaves.
    pub(crate) fn child(&self, index: usize) -> ContentHash {
        hash_of(&self.entries[index].1)
    }

    /// The first entry whose key is not below this one; the last where all are.
    pub(crate) fn route(&self, key: &[u8]) -> usize {
        self.entries.partition_point(|(entry, _)| entry[..] < *key).min(self.entries.len() - 1)
    }
}

/// The content hash in the value of an entry above the leaves, whose length was checked when it was read.
pub(crate) fn hash_of(value: &[u8]) -> ContentHash {
    let mut h = [0; 32];
    h.copy_from_slice(value);
    ContentHash(h)
}
