//! Answer bodies: streamed, cut short on purpose, and tied to the place in flight.
//!
//! Invariant: the place is given up before the last piece leaves, so a client that has read its answer is never
//! refused for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;

use crate::blob::Data;
use crate::limits::Flight;
use crate::workloads::mail::mime::{Mime, MimeReader};
use crate::world::World;

const DATA_PIECE: usize = 128 * 1024;
/// Lets what was sent reach the client before the connection breaks.
const CUT_DELAY: Duration = Duration::from_millis(20);

/// Where the bytes of an answer come from.
pub(crate) enum Reader {
    Whole(Option<Bytes>),
    Mime(Box<MimeReader>),
    Data { data: Data, next: u64, end: u64 },
}

impl Reader {
    pub(crate) fn whole(body: Vec<u8>) -> Self {
        Self::Whole(Some(body.into()))
    }

    pub(crate) fn mime(mime: Mime) -> Self {
        Self::Mime(Box::new(MimeReader::new(mime)))
    }

    pub(crate) fn data(data: Data) -> Self {
        let end = data.len();
        Self::part(data, 0..end)
    }

    pub(crate) fn part(data: Data, part: std::ops::Range<u64>) -> Self {
        Self::Data { data, next: part.start, end: part.end }
    }

    fn next(&mut self, world: &World) -> Option<Bytes> {
        match self {
            Self::Whole(body) => body.take(),
            Self::Mime(reader) => reader.next(world),
            Self::Data { data, next, end } => {
                let left = end.saturating_sub(*next);
                let mut piece = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(DATA_PIECE)];
                data.read(*next, &mut piece);
                *next += piece.len() as u64;
                (!piece.is_empty()).then(|| piece.into())
            }
        }
    }
}

/// A body on its way out.
pub(crate) struct Outgoing {
    world: Arc<World>,
    reader: Reader,
    left: u64,
    /// Bytes until the connection breaks.
    cut_in: Option<u64>,
    cutting: Option<Pin<Box<tokio::time::Sleep>>>,
    flight: Option<Flight>,
}

impl Outgoing {
    pub(crate) fn new(
        world: Arc<World>,
        reader: Reader,
        length: u64,
        cut_in: Option<u64>,
        flight: Option<Flight>,
    ) -> Self {
        Self { world, reader, left: length, cut_in, cutting: None, flight }
    }
}

impl Stream for Outgoing {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.cut_in == Some(0) {
            let cutting = this.cutting.get_or_insert_with(|| Box::pin(tokio::time::sleep(CUT_DELAY)));
            ready!(cutting.as_mut().poll(cx));
            this.flight = None;
            return Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionAborted.into())));
        }
        let Some(mut piece) = this.reader.next(&this.world) else {
            this.flight = None;
            return Poll::Ready(None);
        };
        if let Some(cut) = &mut this.cut_in {
            piece.truncate(usize::try_from(*cut).unwrap_or(usize::MAX));
            *cut -= piece.len() as u64;
        }
        this.left = this.left.saturating_sub(piece.len() as u64);
        if this.left == 0 {
            this.flight = None;
        }
        if !matches!(this.reader, Reader::Whole(_)) {
            this.world.counters.with(|all| all.content_bytes += piece.len() as u64);
        }
        Poll::Ready(Some(Ok(piece)))
    }
}
