//! Takes a message as it streams in and stores it as a recipe.
//!
//! While contents are handed over, the message is put together from them again and hashed beside the original. Invariant: a
//! recipe comes out only where both are equal.

use std::sync::Arc;

use bytes::Bytes;

use super::{Content, Event, Form, LastLine, Layer, Rebuilder, Recipe, Run, Splitter};
use crate::{
    content_writer::{ContentDraft, ContentWriter, Draft, LeafDraft},
    error::Error,
    metrics,
    upload::Uploader,
};

/// What is looked at in one go.
const STEP_BYTES: usize = 64 << 10;
/// Literals are handed on in pieces of this, so that many small ones do not cost more than their bytes.
const PENDING_BYTES: usize = 32 << 10;

/// Stores one message. Dropping it forgets the message.
pub struct MimeWriter {
    uploader: Arc<Uploader>,
    splitter: Splitter,
    rebuilder: Rebuilder,
    original: Digest,
    rebuilt: Digest,
    /// The message, and the open runs within it.
    message: OpenLayer,
    open: Vec<(Form, OpenLayer)>,
}

#[derive(Default)]
struct Digest {
    hash: blake3::Hasher,
    len: u64,
}

impl Digest {
    fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
    }

    fn is_of_same(&self, other: &Self) -> bool {
        self.len == other.len && self.hash.finalize() == other.hash.finalize()
    }
}

/// A content that is being taken apart.
struct OpenLayer {
    literals: ContentWriter,
    pending: Vec<u8>,
    /// Since the last run.
    literal_len: u64,
    runs: Vec<Run<LeafDraft>>,
}

impl MimeWriter {
    pub(crate) fn new(uploader: Arc<Uploader>) -> Self {
        let message = OpenLayer::new(ContentWriter::of_item(uploader.clone()));
        Self {
            uploader,
            splitter: Splitter::new(),
            rebuilder: Rebuilder::new(),
            original: Digest::default(),
            rebuilt: Digest::default(),
            message,
            open: Vec::new(),
        }
    }

    /// Takes the next bytes; waits while too many are on their way to storage. Not cancellation-safe: a push that was
    /// dropped leaves the writer unusable.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), Error> {
        for step in bytes.chunks(STEP_BYTES) {
            self.original.update(step);
            let events = self.splitter.push(step);
            self.take(events).await?;
        }
        Ok(())
    }

    /// Ends the message. Nothing comes out where the message put together from its contents would be another one: the
    /// caller then stores it as it is, with [`crate::SnapshotWriter::content`].
    pub async fn finish(mut self) -> Result<Option<ContentDraft>, Error> {
        let events = std::mem::take(&mut self.splitter).finish();
        self.take(events).await?;
        if !self.open.is_empty() || !self.original.is_of_same(&self.rebuilt) {
            metrics::mime_fallback();
            tracing::warn!(
                bytes = self.original.len,
                "a message is not what its recipe makes: it is stored as it is"
            );
            return Ok(None);
        }
        let draft = match self.message.finish().await? {
            Content::Leaf(leaf) => Draft::Leaf(leaf),
            Content::Layer(layer) => {
                let hash = *self.original.hash.finalize().as_bytes();
                Draft::Recipe(Recipe { len: self.original.len, hash, layer })
            }
        };
        Ok(Some(ContentDraft(draft)))
    }

    async fn take(&mut self, events: Vec<Event>) -> Result<(), Error> {
        for event in events {
            self.rebuilt.update(&self.rebuilder.take(&event));
            match event {
                Event::Literal(bytes) => self.innermost().push(&bytes).await?,
                Event::Open(form) => {
                    // What is around a run waits for its end: no more of it than what a small chunk has.
                    self.innermost().pause().await?;
                    let content = OpenLayer::new(ContentWriter::of_file(self.uploader.clone()));
                    self.open.push((form, content));
                }
                Event::Close(last) => {
                    let Some((form, layer)) = self.open.pop() else { return Err(Error::Interrupted) };
                    let content = layer.finish().await?;
                    self.innermost().end_run((form, last), content);
                }
            }
        }
        Ok(())
    }

    fn innermost(&mut self) -> &mut OpenLayer {
        self.open.last_mut().map_or(&mut self.message, |(_, layer)| layer)
    }

    /// Makes the message put together differ, as a defect in taking it apart would.
    #[cfg(test)]
    pub(crate) fn spoil(&mut self) {
        self.rebuilt.update(b"x");
    }
}

impl OpenLayer {
    fn new(literals: ContentWriter) -> Self {
        Self { literals, pending: Vec::new(), literal_len: 0, runs: Vec::new() }
    }

    async fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.literal_len += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PENDING_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        // Without spare capacity: the bytes may wait for long.
        let bytes = std::mem::take(&mut self.pending).into_boxed_slice();
        self.literals.push(bytes.into()).await
    }

    async fn pause(&mut self) -> Result<(), Error> {
        self.flush().await?;
        self.literals.cut_if_large().await
    }

    fn end_run(&mut self, (form, last): (Form, LastLine), content: Content<LeafDraft>) {
        let before = std::mem::take(&mut self.literal_len);
        self.runs.push(Run { before, form, last, content });
    }

    async fn finish(mut self) -> Result<Content<LeafDraft>, Error> {
        self.flush().await?;
        let literals = self.literals.finish_leaf().await?;
        if self.runs.is_empty() {
            return Ok(Content::Leaf(literals));
        }
        Ok(Content::Layer(Layer { literals, runs: self.runs }))
    }
}
