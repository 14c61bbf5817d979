//! Bodies: small ones read whole under a limit, large ones streamed.
//!
//! The one invariant to know: a body that ended early is never taken for a whole one.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::Response;

use crate::{GraphError, Permit, metrics};

/// A body that is read piece by piece. The quota slot is held until it is read to the end or dropped.
pub struct MimeStream {
    /// The announced length, where there is one: none when the body was compressed on the way.
    pub content_length: Option<u64>,
    response: Response,
    permit: Option<Permit>,
    timeout: Duration,
    got: u64,
    is_done: bool,
}

impl fmt::Debug for MimeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MimeStream")
            .field("content_length", &self.content_length)
            .field("got", &self.got)
            .finish_non_exhaustive()
    }
}

impl MimeStream {
    pub(crate) fn new(response: Response, permit: Permit, timeout: Duration) -> Self {
        let content_length = response.content_length();
        Self { content_length, response, permit: Some(permit), timeout, got: 0, is_done: false }
    }

    /// The next piece; `None` at the true end. After an error start again from the beginning with a new call.
    pub async fn next(&mut self) -> Result<Option<Bytes>, GraphError> {
        if self.is_done {
            return Ok(None);
        }
        let piece = match next_chunk(&mut self.response, self.timeout, self.content_length, self.got).await {
            Ok(piece) => piece,
            Err(error) => {
                self.permit = None;
                return Err(error);
            }
        };
        if let Some(piece) = piece {
            if let Some(permit) = &self.permit {
                permit.renew();
            }
            self.got += piece.len() as u64;
            return Ok(Some(piece));
        }
        self.permit = None;
        if self.content_length.is_some_and(|expected| expected != self.got) {
            return Err(GraphError::Truncated { expected: self.content_length, got: self.got });
        }
        self.is_done = true;
        Ok(None)
    }

    /// Reads to the end, at most `limit` bytes.
    pub async fn read_all(mut self, limit: usize) -> Result<Bytes, GraphError> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if all.len() + piece.len() > limit {
                return Err(GraphError::TooLarge { limit: limit as u64 });
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

/// Reads a whole body under a limit; `alive` is called with the length of each piece.
pub(crate) async fn read_bounded(
    mut response: Response,
    limit: usize,
    timeout: Duration,
    alive: impl Fn(usize),
) -> Result<Bytes, GraphError> {
    let expected = response.content_length();
    let mut all = BytesMut::new();
    while let Some(piece) = next_chunk(&mut response, timeout, expected, all.len() as u64).await? {
        if all.len() + piece.len() > limit {
            return Err(GraphError::TooLarge { limit: limit as u64 });
        }
        alive(piece.len());
        all.extend_from_slice(&piece);
    }
    match expected {
        Some(expected) if expected != all.len() as u64 => {
            Err(GraphError::Truncated { expected: Some(expected), got: all.len() as u64 })
        }
        _ => Ok(all.freeze()),
    }
}

/// Whatever breaks once the headers were good has cut the body.
async fn next_chunk(
    response: &mut Response,
    timeout: Duration,
    expected: Option<u64>,
    got: u64,
) -> Result<Option<Bytes>, GraphError> {
    let Ok(piece) = tokio::time::timeout(timeout, response.chunk()).await else {
        return Err(GraphError::Timeout { after: timeout });
    };
    match piece {
        Ok(piece) => {
            metrics::received(piece.as_ref().map_or(0, Bytes::len));
            Ok(piece)
        }
        Err(error) => {
            tracing::debug!(error = %error.without_url(), got, "body ended early");
            Err(GraphError::Truncated { expected, got })
        }
    }
}
