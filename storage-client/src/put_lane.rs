//! One node's put stream of one session: frames go out in order, answers come back in order.
//!
//! When the stream breaks, unanswered frames go out again on a new one; storing twice is harmless. A frame whose stream broke
//! twice, or whose node cannot be reached or stays silent, is handed back, so that the writer can turn to another owner.

use std::{collections::VecDeque, pin::pin, sync::Arc};

use bytes::Bytes;
use holdfast_model::{LayoutNode, SessionId};
use holdfast_proto::{status::ErrorCode, storage};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};

use crate::{
    error::CallError,
    metrics,
    nodes::{Context, TokenCell},
    options::LANE_FRAMES_MAX,
};

/// Streams a frame may go out on before it is handed back.
const SENDS_MAX: u32 = 2;

/// A share of the session's byte budget, given back when dropped.
pub(crate) struct BudgetShare {
    _permit: OwnedSemaphorePermit,
    bytes: u32,
}

impl BudgetShare {
    pub(crate) fn new(permit: OwnedSemaphorePermit, bytes: u32) -> Self {
        metrics::in_flight(i64::from(bytes));
        Self { _permit: permit, bytes }
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        metrics::in_flight(-i64::from(self.bytes));
    }
}

/// Records that travel together.
pub(crate) struct Frame {
    pub(crate) records: Vec<Bytes>,
    pub(crate) share: BudgetShare,
    pub(crate) reply: oneshot::Sender<Result<storage::PutResponse, CallError>>,
    /// Streams it went out on.
    pub(crate) sends: u32,
}

/// What a lane needs; runs as one loop of the session.
pub(crate) struct PutLane {
    pub(crate) context: Arc<Context>,
    pub(crate) token: Arc<TokenCell>,
    pub(crate) session: SessionId,
    pub(crate) node: LayoutNode,
}

enum StreamEnd {
    /// The session is gone.
    Closed,
    /// The stream ended while nothing was on it.
    Idle,
    /// The stream broke, or did not open.
    Broken { error: CallError, resend: bool, token_revision: u64 },
}

impl PutLane {
    /// Runs until cancelled or until the session is dropped. Frames that are dropped then answer nothing.
    pub(crate) async fn run(self, mut inbox: mpsc::Receiver<Frame>, cancel: CancellationToken) {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = self.serve(&mut inbox) => {}
        }
    }

    async fn serve(&self, inbox: &mut mpsc::Receiver<Frame>) {
        let mut unanswered = VecDeque::new();
        loop {
            if unanswered.is_empty() {
                match inbox.recv().await {
                    Some(frame) => unanswered.push_back(frame),
                    None => return,
                }
            }
            match self.stream(&mut unanswered, inbox).await {
                StreamEnd::Closed => return,
                StreamEnd::Idle => {}
                StreamEnd::Broken { error, resend, token_revision } => {
                    self.context.note(&self.node, Some(&error));
                    let new_token =
                        error.code == ErrorCode::SessionLost && self.token.revision() > token_revision;
                    let again = new_token || (resend && error.is_retryable());
                    hand_back(&mut unanswered, &error, again);
                    metrics::frames_resent(unanswered.len());
                }
            }
        }
    }

    /// Runs one stream until it ends.
    async fn stream(&self, unanswered: &mut VecDeque<Frame>, inbox: &mut mpsc::Receiver<Frame>) -> StreamEnd {
        let token_revision = self.token.revision();
        let broken = |error, resend| StreamEnd::Broken { error, resend, token_revision };
        let mut rpc = match self.context.rpc(self.node.id, &self.node.address) {
            Ok(rpc) => rpc,
            Err(error) => return broken(error, false),
        };
        let (outgoing, requests) = mpsc::channel(LANE_FRAMES_MAX);
        let request = self.token.request(ReceiverStream::new(requests));
        let mut open = pin!(async move { rpc.put(request).await.map(Response::into_inner) });
        let mut answers: Option<Streaming<storage::PutResponse>> = None;
        let mut sent = 0;
        let mut progress = Instant::now();
        loop {
            tokio::select! {
                // None starves another: each ends in a bound that only the others lift.
                biased;
                Ok(slot) = outgoing.reserve(), if sent < unanswered.len() => {
                    slot.send(self.next_request(&mut unanswered[sent]));
                    sent += 1;
                }
                frame = inbox.recv(), if sent == unanswered.len() && sent < LANE_FRAMES_MAX => {
                    let Some(frame) = frame else { return StreamEnd::Closed };
                    if unanswered.is_empty() {
                        progress = Instant::now();
                    }
                    unanswered.push_back(frame);
                }
                opened = &mut open, if answers.is_none() => match opened {
                    Ok(stream) => answers = Some(stream),
                    Err(status) => return broken(CallError::of(self.node.id, &status), false),
                },
                answer = next_answer(&mut answers), if answers.is_some() => match answer {
                    Ok(Some(answer)) if sent > 0 => {
                        progress = Instant::now();
                        sent -= 1;
                        self.answer(unanswered, answer);
                    }
                    _ if unanswered.is_empty() => return StreamEnd::Idle,
                    Ok(_) => return broken(self.ended(), true),
                    Err(status) => return broken(CallError::of(self.node.id, &status), true),
                },
                () = sleep_until(progress + self.context.options.request_timeout.0), if !unanswered.is_empty() => {
                    // Another owner may be faster; waiting here once more would only double the delay.
                    return broken(CallError::timeout(self.node.id), false);
                }
            }
        }
    }

    fn next_request(&self, frame: &mut Frame) -> storage::PutRequest {
        frame.sends += 1;
        storage::PutRequest { session: self.session.0, records: frame.records.clone() }
    }

    fn answer(&self, unanswered: &mut VecDeque<Frame>, answer: storage::PutResponse) {
        self.context.note(&self.node, None);
        if let Some(frame) = unanswered.pop_front() {
            metrics::frame_answered(frame.share.bytes.into());
            // Nobody waits any more when the put was cancelled.
            let _ = frame.reply.send(Ok(answer));
        }
    }

    fn ended(&self) -> CallError {
        CallError::new(self.node.id, ErrorCode::Unavailable, "the node ended the put stream")
    }
}

async fn next_answer(
    answers: &mut Option<Streaming<storage::PutResponse>>,
) -> Result<Option<storage::PutResponse>, Status> {
    match answers {
        Some(answers) => answers.message().await,
        None => std::future::pending().await,
    }
}

/// Keeps the frames that may go out again and answers the others with the error.
fn hand_back(unanswered: &mut VecDeque<Frame>, error: &CallError, again: bool) {
    for frame in std::mem::take(unanswered) {
        if again && frame.sends < SENDS_MAX {
            unanswered.push_back(frame);
        } else {
            // Nobody waits any more when the put was cancelled.
            let _ = frame.reply.send(Err(error.clone()));
        }
    }
}
