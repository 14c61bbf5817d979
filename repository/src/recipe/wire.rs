//! A recipe as bytes.
//!
//! `version 1 · length 8 · BLAKE3 32 · layer`, both of the message. Layer: `literals · n 2 · runs`, n at least 1; run: `literal bytes before it 8
//! · cells 1 · form 1 · content`. Form: bit 0 CR LF instead of LF, bit 1 the last line has a break. Literals are a leaf as in a
//! content blob (first byte 0, 1 or 2), content is one too, or `3 · layer`. Invariant: a recipe that was read adds up: its literals
//! suffice and what it makes is as long as it says.

use bytes::Bytes;

use super::{Content, Eol, Form, LastLine, Layer, MAX_DEPTH, MAX_RUNS, Recipe, Run};
use crate::{blob::Leaf, error::Error, wire::Reader};

const VERSION: u8 = 1;
const LAYER: u8 = 3;
const CRLF: u8 = 1;
const ENDED: u8 = 2;

const WHAT: &str = "mime recipe";

pub(crate) fn encode(recipe: &Recipe<Leaf>, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&recipe.len.to_le_bytes());
    out.extend_from_slice(&recipe.hash);
    encode_layer(&recipe.layer, out);
}

fn encode_layer(layer: &Layer<Leaf>, out: &mut Vec<u8>) {
    layer.literals.encode(out);
    let count = u16::try_from(layer.runs.len()).expect("at most MAX_RUNS runs");
    out.extend_from_slice(&count.to_le_bytes());
    for run in &layer.runs {
        out.extend_from_slice(&run.before.to_le_bytes());
        let eol = if run.form.eol == Eol::CrLf { CRLF } else { 0 };
        let last = if run.last == LastLine::Ended { ENDED } else { 0 };
        out.extend_from_slice(&[run.form.cells, eol | last]);
        match &run.content {
            Content::Leaf(leaf) => leaf.encode(out),
            Content::Layer(layer) => {
                out.push(LAYER);
                encode_layer(layer, out);
            }
        }
    }
}

pub(crate) fn decode(reader: &mut Reader<'_>, bytes: &Bytes) -> Result<Recipe<Leaf>, Error> {
    let found = reader.u8()?;
    if found != VERSION {
        return Err(Error::UnknownVersion { what: WHAT, found, supported: VERSION });
    }
    let (len, hash) = (reader.u64()?, reader.array()?);
    let mut decoder = Decoder { reader, bytes, runs_left: MAX_RUNS };
    let (layer, made) = decoder.layer(1)?;
    if made != len {
        return Err(malformed("its parts do not add up"));
    }
    Ok(Recipe { len, hash, layer })
}

struct Decoder<'a, 'b> {
    reader: &'a mut Reader<'b>,
    bytes: &'a Bytes,
    runs_left: usize,
}

impl Decoder<'_, '_> {
    /// A layer, and the length of what it makes.
    fn layer(&mut self, depth: usize) -> Result<(Layer<Leaf>, u64), Error> {
        let tag = self.reader.u8()?;
        let literals = Leaf::decode(tag, self.reader, self.bytes)?;
        let count = usize::from(self.reader.u16()?);
        self.runs_left = self.runs_left.checked_sub(count).ok_or_else(|| malformed("too many runs"))?;
        if count == 0 {
            return Err(malformed("it has no run"));
        }
        let (mut len, mut literals_left) = (literals.len(), literals.len());
        let mut runs = Vec::with_capacity(count);
        for _ in 0..count {
            let (run, run_len) = self.run(depth)?;
            let left = literals_left.checked_sub(run.before);
            literals_left = left.ok_or_else(|| malformed("its literals do not suffice"))?;
            len = len.checked_add(run_len).ok_or_else(|| malformed("it is too long"))?;
            runs.push(run);
        }
        Ok((Layer { literals, runs }, len))
    }

    fn run(&mut self, depth: usize) -> Result<(Run<Leaf>, u64), Error> {
        let before = self.reader.u64()?;
        let [cells, form] = self.reader.array()?;
        if cells == 0 || form & !(CRLF | ENDED) != 0 {
            return Err(malformed("unknown form of a run"));
        }
        let eol = if form & CRLF == 0 { Eol::Lf } else { Eol::CrLf };
        let last = if form & ENDED == 0 { LastLine::Open } else { LastLine::Ended };
        let (content, decoded) = match self.reader.u8()? {
            LAYER if depth == MAX_DEPTH => return Err(malformed("it is too deep")),
            LAYER => {
                let (layer, len) = self.layer(depth + 1)?;
                (Content::Layer(layer), len)
            }
            tag => {
                let leaf = Leaf::decode(tag, self.reader, self.bytes)?;
                let len = leaf.len();
                (Content::Leaf(leaf), len)
            }
        };
        if decoded == 0 {
            return Err(malformed("a run is empty"));
        }
        let form = Form { cells, eol };
        let len = form.encoded_len(decoded, last).ok_or_else(|| malformed("it is too long"))?;
        Ok((Run { before, form, last, content }, len))
    }
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed { what: WHAT, reason }
}
