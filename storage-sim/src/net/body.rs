//! One direction of a stream: frames go into a pipe at one end and come out at the other after their time on the network.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, body::Body};

use super::{Link, Way};
use crate::SimRandom;

/// Frames between both ends: what HTTP/2's windows allow.
pub(super) const FRAMES_MAX: usize = 8;
/// The longest until a caller learns that the server's machine has stopped, when nothing there answers.
const SILENCE_MS_MAX: u64 = 40_000;

pub(super) type Piece = Result<Frame<Bytes>, Status>;

/// The end that frames come out of.
pub(super) struct PipeBody {
    frames: mpsc::Receiver<Piece>,
    /// Tells the other side when this end is dropped.
    _gone: Option<DropGuard>,
}

impl http_body::Body for PipeBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.frames.poll_recv(cx)
    }
}

impl PipeBody {
    /// As a body of tonic's.
    pub(super) fn of(frames: mpsc::Receiver<Piece>, gone: Option<DropGuard>) -> Body {
        Body::new(Self { frames, _gone: gone })
    }
}

/// Moves a body through the network, frame by frame, until it ends, the stream breaks, or the caller is gone.
pub(super) async fn pump(
    link: Link,
    way: Way,
    body: Body,
    pipe: mpsc::Sender<Piece>,
    gone: CancellationToken,
) {
    let mut body = std::pin::pin!(body);
    loop {
        let next = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx));
        let piece = tokio::select! {
            biased;
            piece = next => piece,
            () = gone.cancelled() => {
                // The news travels like a frame; until it arrives the other side goes on.
                let _broken_or_not = link.pass(Way::There).await;
                drop(pipe.try_send(Err(Status::cancelled("the caller has gone"))));
                return;
            }
            () = link.server_stopped() => {
                let random = &link.net.0.random;
                let silence_ms = if random.per_mille(800) { 5 } else { SILENCE_MS_MAX };
                sleep(Duration::from_millis(random.below(silence_ms))).await;
                drop(pipe.try_send(Err(broken(random))));
                return;
            }
        };
        let Some(piece) = piece else { return };
        if link.pass(way).await.is_err() {
            drop(pipe.send(Err(broken(&link.net.0.random))).await);
            return;
        }
        if pipe.send(piece).await.is_err() {
            return;
        }
    }
}

/// What the transport says of a broken stream: it has several words for it.
pub(super) fn broken(random: &SimRandom) -> Status {
    match random.below(4) {
        0 => Status::internal("h2 protocol error"),
        1 => Status::unknown("transport error"),
        2 => Status::cancelled("operation was cancelled"),
        _ => Status::unavailable("connection reset by peer"),
    }
}
