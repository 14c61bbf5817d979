//! Puts a message, or a range of it, together from its recipe.
//!
//! Memory: of each content on the way down a chunk at most, of the innermost a few read ahead. Every chunk of a range is fetched
//! once, the literals' too, because they are read in order.

use std::sync::Arc;

use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};

use super::{Content, Form, LastLine, Layer, Run, encoder::LineEncoder};
use crate::{
    content_reader::{CHUNK_READ_AHEAD, Stored},
    error::Error,
    fetch::Fetcher,
};

/// Literals of a chunk at a time: while a run is read, what was fetched of them waits.
const LITERAL_READ_AHEAD: usize = 1;
/// Decoded bytes written as base64 in one go.
const STEP_BYTES: usize = 192 << 10;

/// A layer with everything in its place.
#[derive(Debug)]
pub(crate) struct Layered {
    literals: Stored,
    spans: Vec<Span>,
    len: u64,
}

/// Literal bytes, then a run; the last span has none.
#[derive(Debug)]
struct Span {
    /// Where it starts in what the layer makes, and in the literals.
    start: u64,
    literal_start: u64,
    literal_len: u64,
    /// With its length as it is written.
    run: Option<(u64, PlacedRun)>,
}

#[derive(Debug, Clone)]
struct PlacedRun {
    form: Form,
    last: LastLine,
    content: PlacedContent,
}

#[derive(Debug, Clone)]
enum PlacedContent {
    Stored(Stored),
    Layered(Arc<Layered>),
}

impl PlacedContent {
    fn len(&self) -> u64 {
        match self {
            Self::Stored(stored) => stored.len,
            Self::Layered(layered) => layered.len,
        }
    }

    fn stream(&self, fetcher: &Fetcher, range: (u64, u64)) -> BoxStream<'static, Result<Bytes, Error>> {
        match self {
            Self::Stored(stored) => stored.stream(fetcher, range, CHUNK_READ_AHEAD),
            Self::Layered(layered) => stream(layered, fetcher, range),
        }
    }
}

impl Layered {
    /// Places the parts of a layer that was read, whose depth is limited.
    pub(crate) fn of(layer: &Layer<Stored>) -> Result<Self, Error> {
        let wrong = || Error::Malformed { what: "mime recipe", reason: "its parts do not add up" };
        let (mut spans, mut at, mut literals_at) = (Vec::with_capacity(layer.runs.len() + 1), 0_u64, 0_u64);
        for Run { before, form, last, content } in &layer.runs {
            let content = match content {
                Content::Leaf(stored) => PlacedContent::Stored(stored.clone()),
                Content::Layer(layer) => PlacedContent::Layered(Arc::new(Self::of(layer)?)),
            };
            let run_len = form.encoded_len(content.len(), *last).ok_or_else(wrong)?;
            let run = Some((run_len, PlacedRun { form: *form, last: *last, content }));
            spans.push(Span { start: at, literal_start: literals_at, literal_len: *before, run });
            literals_at = literals_at.checked_add(*before).ok_or_else(wrong)?;
            at = at.checked_add(*before).and_then(|at| at.checked_add(run_len)).ok_or_else(wrong)?;
        }
        let literal_len = layer.literals.len.checked_sub(literals_at).ok_or_else(wrong)?;
        spans.push(Span { start: at, literal_start: literals_at, literal_len, run: None });
        let len = at.checked_add(literal_len).ok_or_else(wrong)?;
        Ok(Self { literals: layer.literals.clone(), spans, len })
    }

    /// The last span that starts at or before a position.
    fn span_at(&self, at: u64) -> usize {
        self.spans.partition_point(|span| span.start <= at).saturating_sub(1)
    }

    /// How many literal bytes there are before a position.
    fn literals_before(&self, at: u64) -> u64 {
        let span = &self.spans[self.span_at(at)];
        span.literal_start + (at - span.start).min(span.literal_len)
    }
}

/// What a layer makes, from one offset to another, both within it.
pub(crate) fn stream(
    layered: &Arc<Layered>,
    fetcher: &Fetcher,
    (from, to): (u64, u64),
) -> BoxStream<'static, Result<Bytes, Error>> {
    let range = (layered.literals_before(from), layered.literals_before(to));
    let reading = Reading {
        literals: layered.literals.stream(fetcher, range, LITERAL_READ_AHEAD),
        rest: Bytes::new(),
        run: None,
        layered: layered.clone(),
        fetcher: fetcher.clone(),
        at: from,
        to,
    };
    stream::try_unfold(reading, |mut reading| async move {
        let bytes = reading.next().await?;
        Ok(bytes.map(|bytes| (bytes, reading)))
    })
    .boxed()
}

struct Reading {
    layered: Arc<Layered>,
    fetcher: Fetcher,
    literals: BoxStream<'static, Result<Bytes, Error>>,
    /// Literals that were fetched and not handed out.
    rest: Bytes,
    run: Option<RunReading>,
    at: u64,
    to: u64,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(run) = &mut self.run {
                if let Some(bytes) = run.next().await? {
                    return Ok(Some(bytes));
                }
                self.run = None;
            }
            if self.at >= self.to {
                return Ok(None);
            }
            let span = &self.layered.spans[self.layered.span_at(self.at)];
            let literal_end = span.start + span.literal_len;
            if self.at < literal_end {
                return self.literal(literal_end.min(self.to) - self.at).await.map(Some);
            }
            // Only the last span has none, and what it makes ends with its literals.
            let Some((run_len, run)) = &span.run else { return Err(cut_off()) };
            let end = (literal_end + run_len).min(self.to);
            let range = (self.at - literal_end, end - literal_end);
            self.run = Some(RunReading::start(run, &self.fetcher, range));
            self.at = end;
        }
    }

    /// At most so many of the literals that come next, at least one.
    async fn literal(&mut self, max: u64) -> Result<Bytes, Error> {
        while self.rest.is_empty() {
            self.rest = self.literals.try_next().await?.ok_or_else(cut_off)?;
        }
        let len = usize::try_from(max).unwrap_or(usize::MAX).min(self.rest.len());
        self.at += len as u64;
        Ok(self.rest.split_to(len))
    }
}

/// A range of a run: whole lines are decoded, written, and cut to it.
struct RunReading {
    decoded: BoxStream<'static, Result<Bytes, Error>>,
    rest: Bytes,
    /// None when all is written.
    encoder: Option<LineEncoder>,
    last: LastLine,
    skip: u64,
    left: u64,
}

impl RunReading {
    fn start(run: &PlacedRun, fetcher: &Fetcher, (from, to): (u64, u64)) -> Self {
        let (line_len, line_bytes) = (run.form.line_len() as u64, run.form.line_bytes() as u64);
        let (first_line, len) = (from / line_len, run.content.len());
        let decoded_to = (to.div_ceil(line_len) * line_bytes).min(len);
        let decoded_from = (first_line * line_bytes).min(decoded_to);
        Self {
            decoded: run.content.stream(fetcher, (decoded_from, decoded_to)),
            rest: Bytes::new(),
            encoder: Some(LineEncoder::new(run.form)),
            // Where lines follow that are not read, the last one read has its break.
            last: if decoded_to < len { LastLine::Ended } else { run.last },
            skip: from - first_line * line_len,
            left: to - from,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.left > 0 {
            if self.rest.is_empty() {
                self.rest = self.decoded.try_next().await?.unwrap_or_default();
            }
            let step = self.rest.split_to(self.rest.len().min(STEP_BYTES));
            let written = match &mut self.encoder {
                Some(encoder) if !step.is_empty() => encoder.push(&step),
                encoder => encoder.take().ok_or_else(cut_off)?.finish(self.last),
            };
            let mut written = Bytes::from(written);
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(written.len());
            self.skip -= skipped as u64;
            let _ = written.split_to(skipped);
            written.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            if !written.is_empty() {
                self.left -= written.len() as u64;
                return Ok(Some(written));
            }
        }
        Ok(None)
    }
}

fn cut_off() -> Error {
    Error::Malformed { what: "mime recipe", reason: "its contents end early" }
}
