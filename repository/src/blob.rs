//! Content blobs: the list of an item's parts, each inline, as a list of chunks, or as a recipe.
//!
//! Invariant: a record's clear references name every record its plaintext names, so the chunks of a long part are listed
//! on pages of their own, each within the limit of references.

use bytes::Bytes;
use holdfast_record::MAX_REFS;

use crate::{
    error::{Error, within},
    recipe::{self, Recipe},
    secret::ContentHash,
    wire::Reader,
};

/// Parts in one item.
pub const MAX_PARTS: usize = 1_000;
/// Chunks on one page of a long list.
pub(crate) const PAGE_CHUNKS: usize = 2_000;
/// Parts with more chunks list them on pages.
pub(crate) const MAX_DIRECT_CHUNKS: usize = 256;
/// References of one blob; above, every list goes to pages.
pub(crate) const MAX_BLOB_REFS: usize = MAX_REFS / 2;

const VERSION: u8 = 1;
const PIECE_BYTES: usize = 36;
const INLINE: u8 = 0;
const CHUNKS: u8 = 1;
const PAGES: u8 = 2;
/// The first byte of a part that is a recipe.
const RECIPE: u8 = 3;

/// A record and the length of its plaintext.
pub(crate) type Piece = (ContentHash, u32);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Leaf(Leaf),
    Recipe(Recipe<Leaf>),
}

/// A string of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leaf {
    Inline(Bytes),
    /// Total length, chunks.
    Chunks(u64, Vec<Piece>),
    /// Total length, pages: each a record that holds a list of chunks.
    Pages(u64, Vec<Piece>),
}

impl Leaf {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Chunks(total, _) | Self::Pages(total, _) => *total,
        }
    }

    /// `0 · length 4 · bytes` or `1|2 · total 8 · n 4 · (h 32 · length 4)×n`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Inline(bytes) => {
                out.push(INLINE);
                crate::wire::push_counted(out, bytes);
            }
            Self::Chunks(total, pieces) => push_list(out, CHUNKS, *total, pieces),
            Self::Pages(total, pieces) => push_list(out, PAGES, *total, pieces),
        }
    }

    /// Reads what follows the first byte.
    pub(crate) fn decode(tag: u8, reader: &mut Reader<'_>, bytes: &Bytes) -> Result<Self, Error> {
        Ok(match tag {
            INLINE => Self::Inline(bytes.slice_ref(reader.counted()?)),
            CHUNKS => Self::Chunks(reader.u64()?, read_pieces(reader)?),
            PAGES => Self::Pages(reader.u64()?, read_pieces(reader)?),
            _ => return Err(reader.malformed("unknown kind of part")),
        })
    }
}

/// `version 1 · n 2 · parts`: each a leaf, or `3 ·` a recipe.
pub(crate) fn encode(parts: &[Part]) -> Vec<u8> {
    let mut out = vec![VERSION];
    let count = u16::try_from(parts.len()).expect("at most MAX_PARTS parts");
    out.extend_from_slice(&count.to_le_bytes());
    for part in parts {
        match part {
            Part::Leaf(leaf) => leaf.encode(&mut out),
            Part::Recipe(recipe) => {
                out.push(RECIPE);
                recipe::encode(recipe, &mut out);
            }
        }
    }
    out
}

fn push_list(out: &mut Vec<u8>, tag: u8, total: u64, pieces: &[Piece]) {
    out.push(tag);
    out.extend_from_slice(&total.to_le_bytes());
    push_pieces(out, pieces);
}

/// `version 1 · n 4 · (h 32 · length 4)×n`
pub(crate) fn encode_page(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + pieces.len() * PIECE_BYTES);
    out.push(VERSION);
    push_pieces(&mut out, pieces);
    out
}

fn push_pieces(out: &mut Vec<u8>, pieces: &[Piece]) {
    let count = u32::try_from(pieces.len()).expect("a list is bounded by the size of its record");
    out.extend_from_slice(&count.to_le_bytes());
    for (h, len) in pieces {
        out.extend_from_slice(h.as_bytes());
        out.extend_from_slice(&len.to_le_bytes());
    }
}

pub(crate) fn decode(bytes: &Bytes) -> Result<Vec<Part>, Error> {
    let mut reader = Reader::new("content blob", bytes);
    reader.version(VERSION)?;
    let count = usize::from(reader.u16()?);
    within("content blob", count, MAX_PARTS)?;
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        parts.push(match reader.u8()? {
            RECIPE => Part::Recipe(recipe::decode(&mut reader, bytes)?),
            tag => Part::Leaf(Leaf::decode(tag, &mut reader, bytes)?),
        });
    }
    reader.end()?;
    Ok(parts)
}

pub(crate) fn decode_page(bytes: &[u8]) -> Result<Vec<Piece>, Error> {
    let mut reader = Reader::new("page of chunks", bytes);
    reader.version(VERSION)?;
    let pieces = read_pieces(&mut reader)?;
    reader.end()?;
    Ok(pieces)
}

fn read_pieces(reader: &mut Reader<'_>) -> Result<Vec<Piece>, Error> {
    let count = reader.u32()? as usize;
    if count > reader.remaining() / PIECE_BYTES {
        return Err(reader.malformed("more chunks than bytes"));
    }
    let mut pieces = Vec::with_capacity(count);
    for _ in 0..count {
        let (h, len) = (ContentHash(reader.array()?), reader.u32()?);
        if len == 0 {
            return Err(reader.malformed("a chunk is empty"));
        }
        pieces.push((h, len));
    }
    Ok(pieces)
}

/// Reads a content blob and forgets it: proves that no bytes make the reader panic.
#[doc(hidden)]
pub fn check_content_blob(bytes: &[u8]) -> Result<(), Error> {
    decode(&Bytes::copy_from_slice(bytes)).map(|_| ())
}
