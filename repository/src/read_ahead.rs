//! Reads the chunks of a content in order, the next ones on their way while one is used.
//!
//! Invariant: nobody ever waits for room. The chunk that a stream hands out next needs none, so streams that are open side by
//! side, or within each other, cannot block one another; what is ahead of it is fetched only where there is room, which bounds
//! the memory of all streams of a reader together. Fetching and opening go on while nobody asks the stream.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::{error::Error, fetch::Fetcher, secret::ContentHash};

/// A chunk, and what of it is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) h: ContentHash,
    /// Length of the whole chunk.
    pub(crate) len: u32,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// Room for what is read ahead; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Semaphore>);

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    fn try_take(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_many_owned(bytes).ok()
    }
}

/// What is wanted of each chunk, at most so many chunks ahead.
pub(crate) fn stream(
    fetcher: &Fetcher,
    wanted: Vec<Wanted>,
    most_ahead: usize,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let reading =
        Reading { fetcher: fetcher.clone(), wanted: wanted.into(), under_way: VecDeque::new(), most_ahead };
    stream::try_unfold(reading, |mut reading| async move {
        let bytes = reading.next().await?;
        Ok(bytes.map(|bytes| (bytes, reading)))
    })
    .boxed()
}

struct Reading {
    fetcher: Fetcher,
    wanted: VecDeque<Wanted>,
    under_way: VecDeque<UnderWay>,
    most_ahead: usize,
}

struct UnderWay {
    chunk: AbortOnDropHandle<Result<Bytes, Error>>,
    /// None of what is handed out next.
    _room: Option<OwnedSemaphorePermit>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.start();
        let Some(first) = self.under_way.front_mut() else { return Ok(None) };
        let bytes = (&mut first.chunk).await.map_err(|_| Error::Interrupted)??;
        self.under_way.pop_front();
        // Before these bytes are used, so that the next are on their way meanwhile.
        self.start();
        Ok(Some(bytes))
    }

    fn start(&mut self) {
        while self.under_way.len() < self.most_ahead
            && let Some(wanted) = self.wanted.front().copied()
        {
            let room = match self.under_way.is_empty() {
                true => None,
                false => match self.fetcher.room.try_take(wanted.len) {
                    None => return,
                    taken => taken,
                },
            };
            self.wanted.pop_front();
            let fetcher = self.fetcher.clone();
            let fetched = async move {
                let whole = fetcher.fetch_one(wanted.h).await?;
                slice_of(whole, wanted.len, wanted.from, wanted.to)
            };
            let chunk = AbortOnDropHandle::new(tokio::spawn(fetched.in_current_span()));
            self.under_way.push_back(UnderWay { chunk, _room: room });
        }
    }
}

/// A part of a chunk that has the length listed.
pub(crate) fn slice_of(chunk: Bytes, expected: u32, from: usize, to: usize) -> Result<Bytes, Error> {
    if chunk.len() != expected as usize {
        return Err(Error::Malformed { what: "chunk", reason: "its length is not the one listed" });
    }
    Ok(chunk.slice(from..to))
}
