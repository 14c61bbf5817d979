//! Reads the parts of an item's content back, whole or a range.
//!
//! Invariant: a stream hands out exactly the bytes of its range, or an error; it never ends early.

use std::sync::Arc;

use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use crate::{
    blob::{self, Leaf, Part, Piece},
    error::Error,
    fetch::Fetcher,
    read_ahead::{self, Wanted, slice_of},
    recipe::{self, Layered, Recipe},
};

/// Chunks of one content under way at one time; all contents of a reader share its room.
pub(crate) const CHUNK_READ_AHEAD: usize = 4;

/// One part of an item's content.
#[derive(Debug, Clone)]
pub struct ContentPart {
    /// Its length.
    pub len: u64,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Stored(Stored),
    /// What makes the message, and its BLAKE3.
    Recipe(Arc<Layered>, [u8; 32]),
}

/// A string of bytes in storage, or at hand.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) len: u64,
    bytes: StoredBytes,
}

#[derive(Debug, Clone)]
enum StoredBytes {
    Inline(Bytes),
    Chunks(Arc<Vec<Piece>>),
}

impl ContentPart {
    /// Reads the pages that the part lists its chunks on.
    pub(crate) async fn of(fetcher: &Fetcher, part: Part) -> Result<Self, Error> {
        match part {
            Part::Leaf(leaf) => {
                let stored = Stored::of(fetcher, leaf).await?;
                Ok(Self { len: stored.len, source: Source::Stored(stored) })
            }
            Part::Recipe(recipe) => {
                let mut leaves = Vec::new();
                let shape = recipe.map(&mut |leaf| leaves.push(leaf));
                let mut stored = Vec::with_capacity(leaves.len());
                for leaf in leaves {
                    stored.push(Stored::of(fetcher, leaf).await?);
                }
                let mut stored = stored.into_iter();
                let Recipe { len, hash, layer } =
                    shape.map(&mut |()| stored.next().expect("as many as were taken out"));
                Ok(Self { len, source: Source::Recipe(Arc::new(Layered::of(&layer)?), hash) })
            }
        }
    }

    /// Whether it is put together from several contents.
    pub fn is_recipe(&self) -> bool {
        matches!(self.source, Source::Recipe(..))
    }

    /// A range, cut at the part's end.
    pub(crate) fn stream(
        &self,
        fetcher: &Fetcher,
        offset: u64,
        len: u64,
    ) -> BoxStream<'static, Result<Bytes, Error>> {
        let end = offset.saturating_add(len).min(self.len);
        let offset = offset.min(end);
        match &self.source {
            Source::Stored(stored) => stored.stream(fetcher, (offset, end), CHUNK_READ_AHEAD),
            Source::Recipe(layered, hash) => {
                let pieces = recipe::stream(layered, fetcher, (offset, end));
                if (offset, end) == (0, self.len) { proved(pieces, *hash) } else { pieces }
            }
        }
    }
}

/// Passes a whole message on, and fails at its end where it is not the one that was stored.
fn proved(
    pieces: BoxStream<'static, Result<Bytes, Error>>,
    expected: [u8; 32],
) -> BoxStream<'static, Result<Bytes, Error>> {
    let start = (pieces, blake3::Hasher::new());
    stream::unfold(Some(start), move |state| async move {
        let (mut pieces, mut hasher) = state?;
        match pieces.next().await {
            Some(Ok(bytes)) => {
                hasher.update(&bytes);
                Some((Ok(bytes), Some((pieces, hasher))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None if *hasher.finalize().as_bytes() == expected => None,
            None => {
                let error = Error::Malformed { what: "mime recipe", reason: "it makes another message" };
                Some((Err(error), None))
            }
        }
    })
    .boxed()
}

impl Stored {
    async fn of(fetcher: &Fetcher, leaf: Leaf) -> Result<Self, Error> {
        match leaf {
            Leaf::Inline(bytes) => Ok(Self { len: bytes.len() as u64, bytes: StoredBytes::Inline(bytes) }),
            Leaf::Chunks(len, pieces) => Self::chunked(len, pieces),
            Leaf::Pages(len, pages) => {
                let mut pieces = Vec::new();
                for (page, len) in pages {
                    let page = fetcher.fetch_one(page).await?;
                    pieces.extend(blob::decode_page(&slice_of(page, len, 0, len as usize)?)?);
                }
                Self::chunked(len, pieces)
            }
        }
    }

    fn chunked(len: u64, pieces: Vec<Piece>) -> Result<Self, Error> {
        if pieces.iter().map(|(_, piece)| u64::from(*piece)).sum::<u64>() != len {
            return Err(Error::Malformed { what: "content blob", reason: "its chunks do not add up" });
        }
        Ok(Self { len, bytes: StoredBytes::Chunks(Arc::new(pieces)) })
    }

    /// The bytes from one offset to another, both within it.
    pub(crate) fn stream(
        &self,
        fetcher: &Fetcher,
        (offset, end): (u64, u64),
        read_ahead: usize,
    ) -> BoxStream<'static, Result<Bytes, Error>> {
        match &self.bytes {
            StoredBytes::Inline(bytes) => {
                // Both ends are within the bytes, whose length is a usize.
                #[allow(clippy::cast_possible_truncation)]
                let slice = bytes.slice(offset as usize..end as usize);
                stream::iter((!slice.is_empty()).then_some(Ok(slice))).boxed()
            }
            StoredBytes::Chunks(pieces) => {
                read_ahead::stream(fetcher, wanted(pieces, offset, end), read_ahead)
            }
        }
    }
}

/// The chunks of a range.
fn wanted(pieces: &[Piece], offset: u64, end: u64) -> Vec<Wanted> {
    let mut at = 0;
    let mut wanted = Vec::new();
    for (h, len) in pieces {
        let (start, stop) = (at, at + u64::from(*len));
        at = stop;
        if start < end && stop > offset {
            // Both lie within one chunk.
            #[allow(clippy::cast_possible_truncation)]
            let (from, to) = ((offset.max(start) - start) as usize, (end.min(stop) - start) as usize);
            wanted.push(Wanted { h: *h, len: *len, from, to });
        }
    }
    wanted
}
