//! MIME recipes: a message without its base64. Runs of base64 lines are cut out and decoded into contents of their own, so
//! that an attachment is stored as the file it is and shares its chunks with it; what is between stays literal.
//!
//! No MIME parser is involved. A run is lines of one length in base64, all with the same line break, the last one possibly
//! shorter and possibly without; it is strict, so decoding and writing it again gives the same bytes. Decoded contents are
//! looked through in the same way, which takes attached messages apart. Invariant: a recipe is trusted only after the message
//! was put together from it and had the same length and BLAKE3; whoever reads the whole message checks that again.
//!
//! Memory while writing: a line, [`MIN_RUN_BYTES`] that may become a run and the uncut bytes of the content that is being
//! written, at most one chunk (4 MiB); of each content around it less than 1 MiB. The size of the message is no part of it.

mod encoder;
mod reader;
mod rebuild;
mod scanner;
mod splitter;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use reader::{Layered, stream};
pub use rebuild::Rebuilder;
pub use splitter::{Event, Splitter};
pub(crate) use wire::{decode, encode};
pub use writer::MimeWriter;

/// Runs that decode to less stay literal: a content of its own would cost more than it saves.
pub const MIN_RUN_BYTES: usize = 8 << 10;
/// Runs taken out of one message, at all depths together; further ones stay literal.
pub const MAX_RUNS: usize = 1_000;
/// Runs within the content of a run, and so on: this deep.
pub const MAX_DEPTH: usize = 4;
/// A cell is four characters. Lines of more are no run.
pub const MAX_CELLS: u8 = u8::MAX;

/// How lines end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eol {
    /// LF.
    Lf,
    /// CR LF.
    CrLf,
}

impl Eol {
    pub(crate) fn bytes(self) -> &'static [u8] {
        match self {
            Self::Lf => b"\n",
            Self::CrLf => b"\r\n",
        }
    }
}

/// How the lines of a run are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Characters of a full line, by four; never 0.
    pub cells: u8,
    /// What ends a line.
    pub eol: Eol,
}

impl Form {
    /// Characters of a full line.
    pub(crate) fn line_chars(self) -> usize {
        usize::from(self.cells) * 4
    }

    /// What a full line decodes to.
    pub(crate) fn line_bytes(self) -> usize {
        usize::from(self.cells) * 3
    }

    /// A full line with its end.
    pub(crate) fn line_len(self) -> usize {
        self.line_chars() + self.eol.bytes().len()
    }

    /// How long so many bytes are when they are written; none where nobody could have written so many.
    pub(crate) fn encoded_len(self, decoded: u64, last: LastLine) -> Option<u64> {
        let chars = decoded.div_ceil(3).checked_mul(4)?;
        let lines = decoded.div_ceil(self.line_bytes() as u64) - u64::from(last == LastLine::Open);
        chars.checked_add(lines.checked_mul(self.eol.bytes().len() as u64)?)
    }
}

/// Whether the last line of a run has a line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLine {
    /// It has.
    Ended,
    /// The content ends with it.
    Open,
}

/// A content taken apart: its literals, one behind the other, and the runs between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer<L> {
    pub(crate) literals: L,
    /// Never empty.
    pub(crate) runs: Vec<Run<L>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run<L> {
    /// Literal bytes since the run before.
    pub(crate) before: u64,
    pub(crate) form: Form,
    pub(crate) last: LastLine,
    pub(crate) content: Content<L>,
}

/// What a run decodes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content<L> {
    Leaf(L),
    Layer(Layer<L>),
}

/// A message taken apart, and what must come out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe<L> {
    pub(crate) len: u64,
    /// BLAKE3 of the message.
    pub(crate) hash: [u8; 32],
    pub(crate) layer: Layer<L>,
}

impl<L> Recipe<L> {
    /// The same recipe of other leaves, taken in the order of [`Layer::leaves`].
    pub(crate) fn map<M>(self, leaf: &mut dyn FnMut(L) -> M) -> Recipe<M> {
        Recipe { len: self.len, hash: self.hash, layer: self.layer.map(leaf) }
    }
}

impl<L> Layer<L> {
    pub(crate) fn map<M>(self, leaf: &mut dyn FnMut(L) -> M) -> Layer<M> {
        let literals = leaf(self.literals);
        let mut runs = Vec::with_capacity(self.runs.len());
        for Run { before, form, last, content } in self.runs {
            let content = match content {
                Content::Leaf(one) => Content::Leaf(leaf(one)),
                Content::Layer(layer) => Content::Layer(layer.map(leaf)),
            };
            runs.push(Run { before, form, last, content });
        }
        Layer { literals, runs }
    }

    /// Every leaf: the literals, then those of the runs in order.
    pub(crate) fn leaves<'a>(&'a self, into: &mut Vec<&'a L>) {
        into.push(&self.literals);
        for run in &self.runs {
            match &run.content {
                Content::Leaf(leaf) => into.push(leaf),
                Content::Layer(layer) => layer.leaves(into),
            }
        }
    }
}
