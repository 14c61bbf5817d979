//! Takes one part of an item's content as it streams in.
//!
//! Invariant: uncut bytes are at most one chunk per open writer and do not count against the byte budget; what is cut does.
//! So many open writers can never block each other.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use holdfast_record::{Chunker as ChunkerId, RecordKind};
use tokio::sync::oneshot;

use crate::{
    blob::Piece,
    chunker::{AVG_CHUNK_BYTES, Chunker},
    error::Error,
    recipe::{MIN_RUN_BYTES, Recipe},
    secret::ContentHash,
    upload::{Upload, Uploader},
};

/// Content of an item up to this goes into a bundle.
pub const INLINE_MAX: usize = 64 << 10;
/// A file up to this does too. Larger ones have their own chunks, which every other copy of the file shares, be it attached
/// to a message or not.
pub const FILE_INLINE_MAX: usize = MIN_RUN_BYTES - 1;
/// Larger pushes are cut on the pool.
const CUT_INLINE_BYTES: usize = 256 << 10;

/// One part of an item, written.
#[derive(Debug, Clone)]
pub struct ContentDraft(pub(crate) Draft);

#[derive(Debug, Clone)]
pub(crate) enum Draft {
    Leaf(LeafDraft),
    Recipe(Recipe<LeafDraft>),
}

#[derive(Debug, Clone)]
pub(crate) enum LeafDraft {
    Inline(Bytes),
    Chunks(u64, Vec<Piece>),
}

impl LeafDraft {
    pub(crate) fn n_chunks(&self) -> usize {
        match self {
            Self::Inline(_) => 0,
            Self::Chunks(_, pieces) => pieces.len(),
        }
    }

    /// Length of what would stand in the content blob itself.
    pub(crate) fn inline_len(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Chunks(..) => 0,
        }
    }
}

impl ContentDraft {
    /// A part whose bytes are at hand and few.
    ///
    /// More than [`INLINE_MAX`] bytes are better pushed through a [`ContentWriter`]; they are stored all the same.
    pub fn inline(bytes: Bytes) -> Self {
        Self(Draft::Leaf(LeafDraft::Inline(bytes)))
    }

    /// Length of the content.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Draft::Leaf(LeafDraft::Inline(bytes)) => bytes.len() as u64,
            Draft::Leaf(LeafDraft::Chunks(total, _)) => *total,
            Draft::Recipe(recipe) => recipe.len,
        }
    }

    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether parts of it are stored as contents of their own.
    pub fn is_recipe(&self) -> bool {
        matches!(self.0, Draft::Recipe(_))
    }

    /// The strings of bytes it consists of, in the order in which a recipe names them.
    pub(crate) fn leaves(&self) -> Vec<&LeafDraft> {
        let mut leaves = Vec::new();
        match &self.0 {
            Draft::Leaf(leaf) => leaves.push(leaf),
            Draft::Recipe(recipe) => recipe.layer.leaves(&mut leaves),
        }
        leaves
    }
}

/// Cuts one stream into chunks and hands them over while it goes on. Dropping it forgets the stream.
pub struct ContentWriter {
    uploader: Arc<Uploader>,
    /// Absent only while it is lent to the pool.
    chunker: Option<Chunker>,
    uncut: VecDeque<Bytes>,
    total: u64,
    /// Of these, how many are handed over.
    cut: u64,
    /// Content up to this is not cut.
    inline_max: usize,
    pieces: Vec<(oneshot::Receiver<ContentHash>, u32)>,
}

impl ContentWriter {
    /// Properties, bodies, messages: what nobody else has.
    pub(crate) fn of_item(uploader: Arc<Uploader>) -> Self {
        Self::new(uploader, INLINE_MAX)
    }

    /// What others may have too.
    pub(crate) fn of_file(uploader: Arc<Uploader>) -> Self {
        Self::new(uploader, FILE_INLINE_MAX)
    }

    fn new(uploader: Arc<Uploader>, inline_max: usize) -> Self {
        let chunker = Some(Chunker::new(uploader.sealer().gear_seed()));
        Self { uploader, chunker, uncut: VecDeque::new(), total: 0, cut: 0, inline_max, pieces: Vec::new() }
    }

    /// Takes the next bytes; waits while too many are on their way to storage. Not cancellation-safe: a push that was
    /// dropped leaves the writer unusable.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.uploader.check()?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.total += bytes.len() as u64;
        let mut chunker = self.chunker.take().ok_or(Error::Interrupted)?;
        let (chunker, cuts) = if bytes.len() > CUT_INLINE_BYTES {
            let data = bytes.clone();
            let cut = move || {
                let cuts = chunker.push(&data);
                (chunker, cuts)
            };
            self.uploader.on_pool(cut).await?
        } else {
            let cuts = chunker.push(&bytes);
            (chunker, cuts)
        };
        self.uncut.push_back(bytes);
        for len in cuts {
            self.hand_over(len).await?;
        }
        self.chunker = Some(chunker);
        Ok(())
    }

    /// Cuts here if that makes no small chunk.
    pub(crate) async fn cut_if_large(&mut self) -> Result<(), Error> {
        if self.total - self.cut < AVG_CHUNK_BYTES as u64 {
            return Ok(());
        }
        let len = self.chunker.as_mut().ok_or(Error::Interrupted)?.finish();
        self.hand_over(len).await
    }

    /// Ends the stream.
    pub async fn finish(self) -> Result<ContentDraft, Error> {
        Ok(ContentDraft(Draft::Leaf(self.finish_leaf().await?)))
    }

    pub(crate) async fn finish_leaf(mut self) -> Result<LeafDraft, Error> {
        let last = self.chunker.take().ok_or(Error::Interrupted)?.finish();
        if self.total <= self.inline_max as u64 {
            return Ok(LeafDraft::Inline(self.take_uncut(last)));
        }
        if last > 0 {
            self.hand_over(last).await?;
        }
        let mut pieces = Vec::with_capacity(self.pieces.len());
        for (hash_rx, len) in self.pieces {
            pieces.push((self.uploader.named(hash_rx).await?, len));
        }
        Ok(LeafDraft::Chunks(self.total, pieces))
    }

    async fn hand_over(&mut self, len: usize) -> Result<(), Error> {
        let plain = self.take_uncut(len);
        self.cut += len as u64;
        self.uploader.count_in(len);
        let piece_len = u32::try_from(len).expect("a chunk is at most MAX_CHUNK_BYTES");
        let upload = Upload { kind: RecordKind::Data, chunker: ChunkerId::Fcdc1, refs: Vec::new(), plain };
        self.pieces.push((self.uploader.submit(upload).await?, piece_len));
        Ok(())
    }

    /// The first bytes that are not cut yet; copied only where they came in several pushes.
    fn take_uncut(&mut self, len: usize) -> Bytes {
        if let Some(first) = self.uncut.front_mut() {
            if first.len() > len {
                return first.split_to(len);
            }
            if first.len() == len {
                return self.uncut.pop_front().unwrap_or_default();
            }
        }
        let mut joined = BytesMut::with_capacity(len);
        while joined.len() < len {
            let Some(first) = self.uncut.front_mut() else { break };
            let part = first.split_to((len - joined.len()).min(first.len()));
            joined.extend_from_slice(&part);
            if first.is_empty() {
                self.uncut.pop_front();
            }
        }
        joined.freeze()
    }
}
