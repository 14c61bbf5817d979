//! Calls other storage nodes over gRPC: one `Replicate` stream per peer and session token, pipelined.
//!
//! Invariant: what is under way to one peer is bounded in bytes and in requests; a peer that is dead or slow fails its calls
//! within a deadline, and is then left alone for a growing while.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::{ChunkId, Clock, LayoutNode, LayoutVersion, Random};
use holdfast_proto::{
    signed::{attach_layout_version, attach_token},
    status::ErrorCode,
    storage::{self, storage_node_client::StorageNodeClient, storage_repair_client::StorageRepairClient},
};
use holdfast_runtime::{
    Background, Backoff, Channels, Shutdown,
    grpc::{Connect, TracedChannel},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    peers::{PeerCall, PeerError, Peers, Presence, ReplicaOutcome, ReplicaPut},
    repair::RepairPeers,
    service::MESSAGE_BYTES_MAX,
};

/// Bytes under way to one peer.
const PEER_BYTES_MAX: usize = 64 << 20;
/// Requests under way on one stream.
const STREAM_REQUESTS_MAX: usize = 32;
/// Streams to one peer.
const STREAMS_MAX: usize = 256;
/// How long a put may wait for room and then for its answer.
const REPLICATE_DEADLINE: Duration = Duration::from_secs(20);
/// How long a question may take.
const HAVE_DEADLINE: Duration = Duration::from_secs(10);
/// A stream without work is closed after this.
const STREAM_IDLE: Duration = Duration::from_secs(30);
/// Tries of one put: the second is for a stream that had just ended.
const TRIES: u32 = 2;
/// And after this once the node is stopping.
const STREAM_IDLE_STOPPING: Duration = Duration::from_millis(200);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

type Client = StorageNodeClient<TracedChannel>;
pub(crate) type RepairClient = StorageRepairClient<TracedChannel>;
type Answer = Result<ReplicaPut, PeerError>;

/// The other storage nodes.
pub struct PeerClient {
    connect: Arc<dyn Connect>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    loops: Background,
    peers: Mutex<BTreeMap<String, Arc<Peer>>>,
}

pub(crate) struct Peer {
    client: Client,
    repair: RepairClient,
    room: Arc<Semaphore>,
    /// By token and layout version: both stand in the metadata of a stream.
    streams: Mutex<BTreeMap<(Bytes, LayoutVersion), mpsc::Sender<Sent>>>,
    health: Mutex<Health>,
}

impl Peer {
    pub(crate) fn repair_client(&self) -> RepairClient {
        self.repair.clone()
    }
}

#[derive(Default)]
struct Health {
    failures: u32,
    down_until: Duration,
}

impl Health {
    /// Lets a call through, unless the peer is left alone. When that time is over, one call tries, and the others wait for it.
    fn admit(&mut self, now: Duration) -> Result<(), PeerError> {
        let wait = self.down_until.saturating_sub(now);
        if !wait.is_zero() {
            return Err(PeerError::BackingOff {
                wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            });
        }
        if self.failures > 0 {
            self.down_until = now + REPLICATE_DEADLINE;
        }
        Ok(())
    }

    fn failed(&mut self, down_until: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.down_until = down_until;
    }
}

struct Sent {
    request: storage::ReplicateRequest,
    answer: oneshot::Sender<Answer>,
    permit: OwnedSemaphorePermit,
}

impl PeerClient {
    /// A client that connects when a peer is first called.
    pub fn new(
        connect: Arc<dyn Connect>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        loops: Background,
    ) -> Self {
        Self { connect, clock, random, loops, peers: Mutex::default() }
    }

    pub(crate) fn peer(&self, node: &LayoutNode) -> Result<Arc<Peer>, PeerError> {
        let mut peers = lock(&self.peers);
        if let Some(peer) = peers.get(&node.address) {
            return Ok(peer.clone());
        }
        let channel = self
            .connect
            .connect(&node.address)
            .map_err(|error| PeerError::Unreachable { reason: error.to_string() })?;
        let repair = StorageRepairClient::new(Channels::traced(channel.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let client = StorageNodeClient::new(Channels::traced(channel))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let peer = Arc::new(Peer {
            client,
            repair,
            room: Arc::new(Semaphore::new(PEER_BYTES_MAX)),
            streams: Mutex::default(),
            health: Mutex::default(),
        });
        peers.insert(node.address.clone(), peer.clone());
        Ok(peer)
    }

    pub(crate) fn admit(&self, peer: &Peer) -> Result<(), PeerError> {
        lock(&peer.health).admit(self.clock.monotonic())
    }

    pub(crate) fn note<T>(&self, peer: &Peer, result: &Result<T, PeerError>) {
        let mut health = lock(&peer.health);
        if matches!(result, Err(PeerError::Unreachable { .. } | PeerError::TooSlow)) {
            let backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX, 1).expect("constants are a valid policy");
            let delay = BACKOFF_FIRST + backoff.delay(health.failures, &*self.random);
            health.failed(self.clock.monotonic() + delay);
        } else {
            *health = Health::default();
        }
    }

    async fn try_replicate(&self, peer: &Arc<Peer>, call: &PeerCall, records: &[Bytes]) -> Answer {
        let bytes = records.iter().map(Bytes::len).sum::<usize>().clamp(1, PEER_BYTES_MAX);
        let permits = u32::try_from(bytes).expect("at most PEER_BYTES_MAX");
        let permit = peer.room.clone().acquire_many_owned(permits).await.map_err(|_| PeerError::TooSlow)?;
        let request = storage::ReplicateRequest { session: call.session.0, records: records.to_vec() };
        let (answer, answered) = oneshot::channel();
        let stream = self.stream(peer, call);
        let ended = || PeerError::Unreachable { reason: "the stream has ended".to_owned() };
        stream.send(Sent { request, answer, permit }).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// The peer's live stream for a token, or a new one.
    fn stream(&self, peer: &Arc<Peer>, call: &PeerCall) -> mpsc::Sender<Sent> {
        let mut streams = lock(&peer.streams);
        if let Some(stream) = streams.get(&stream_key(call)).filter(|stream| !stream.is_closed()) {
            return stream.clone();
        }
        if streams.len() >= STREAMS_MAX {
            streams.retain(|_, stream| !stream.is_closed());
        }
        if streams.len() >= STREAMS_MAX {
            // Without its sender a stream ends as soon as it has no work.
            streams.clear();
        }
        let (sender, queue) = mpsc::channel(STREAM_REQUESTS_MAX);
        streams.insert(stream_key(call), sender.clone());
        let (client, call) = (peer.client.clone(), call.clone());
        self.loops.spawn("replicate-stream", run_stream(client, call, queue, self.loops.shutdown().clone()));
        sender
    }
}

#[async_trait]
impl Peers for PeerClient {
    fn repair(&self) -> &dyn RepairPeers {
        self
    }

    async fn replicate(&self, node: &LayoutNode, call: &PeerCall, records: Vec<Bytes>) -> Answer {
        let peer = self.peer(node)?;
        self.admit(&peer)?;
        let tries = async {
            let mut result = self.try_replicate(&peer, call, &records).await;
            for _ in 1..TRIES {
                // Safe to repeat: a record that arrived is answered `exists`.
                if matches!(result, Err(PeerError::Unreachable { .. })) {
                    result = self.try_replicate(&peer, call, &records).await;
                }
            }
            result
        };
        let result = timeout(REPLICATE_DEADLINE, tries).await.unwrap_or(Err(PeerError::TooSlow));
        if matches!(result, Err(PeerError::TooSlow)) {
            // The stream is stuck: nothing more is put behind it.
            lock(&peer.streams).remove(&stream_key(call));
        }
        self.note(&peer, &result);
        result
    }

    async fn have_local(
        &self,
        node: &LayoutNode,
        call: &PeerCall,
        ids: &[ChunkId],
    ) -> Result<Vec<Presence>, PeerError> {
        let peer = self.peer(node)?;
        self.admit(&peer)?;
        let ids = ids.iter().map(|id| Bytes::copy_from_slice(&id.0)).collect();
        let mut request = tonic::Request::new(storage::HaveLocalRequest { session: call.session.0, ids });
        attach_token(&mut request, &call.token);
        attach_layout_version(&mut request, call.layout);
        let mut client = peer.client.clone();
        let result = match timeout(HAVE_DEADLINE, client.have_local(request)).await {
            Err(_) => Err(PeerError::TooSlow),
            Ok(Err(status)) => Err(refused_or_unreachable(&status)),
            Ok(Ok(answer)) => answer.into_inner().presence().map(presence).collect(),
        };
        self.note(&peer, &result);
        result
    }
}

fn stream_key(call: &PeerCall) -> (Bytes, LayoutVersion) {
    (call.token.signature.clone(), call.layout)
}

fn presence(wire: storage::Presence) -> Result<Presence, PeerError> {
    match wire {
        storage::Presence::Yes => Ok(Presence::Yes),
        storage::Presence::Absent => Ok(Presence::Absent),
        storage::Presence::Unknown => Ok(Presence::Unknown),
        storage::Presence::Unspecified => Err(PeerError::Nonsense),
    }
}

fn replica_put(wire: &storage::ReplicateResponse) -> Answer {
    Ok(ReplicaPut { outcomes: replica_outcomes(wire.outcomes())?, reason: wire.reason.clone() })
}

pub(crate) fn replica_outcomes(
    wire: impl Iterator<Item = storage::PutOutcome>,
) -> Result<Vec<ReplicaOutcome>, PeerError> {
    let outcomes = wire.map(|outcome| match outcome {
        storage::PutOutcome::Stored => Ok(ReplicaOutcome::Stored),
        storage::PutOutcome::Exists => Ok(ReplicaOutcome::Exists),
        storage::PutOutcome::Failed => Ok(ReplicaOutcome::Failed),
        storage::PutOutcome::Unspecified => Err(PeerError::Nonsense),
    });
    outcomes.collect()
}

pub(crate) fn refused_or_unreachable(status: &Status) -> PeerError {
    use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
    let reason = status.message().to_owned();
    match status.code() {
        // It is well: other calls go on.
        Unavailable if ErrorCode::is_not_yet(status) => PeerError::Refused { reason },
        Unavailable | Unknown | Cancelled | DeadlineExceeded => PeerError::Unreachable { reason },
        _ => PeerError::Refused { reason },
    }
}

/// Sends what is queued, hands the answers back in order, and ends when there is nothing to do or the peer ends it.
async fn run_stream(mut client: Client, call: PeerCall, mut queue: mpsc::Receiver<Sent>, shutdown: Shutdown) {
    let (requests, outgoing) = mpsc::channel(STREAM_REQUESTS_MAX);
    let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
    attach_token(&mut request, &call.token);
    attach_layout_version(&mut request, call.layout);
    let opened = timeout(REPLICATE_DEADLINE, client.replicate(request)).await;
    let mut answers = match opened {
        Ok(Ok(response)) => response.into_inner(),
        failed => {
            let error = match failed {
                Ok(Err(status)) => refused_or_unreachable(&status),
                _ => PeerError::TooSlow,
            };
            queue.close();
            while let Some(sent) = queue.recv().await {
                let _ = sent.answer.send(Err(error.clone()));
            }
            return;
        }
    };
    let mut waiting: VecDeque<(oneshot::Sender<Answer>, OwnedSemaphorePermit)> = VecDeque::new();
    let error = loop {
        tokio::select! {
            biased;
            sent = queue.recv(), if waiting.len() < STREAM_REQUESTS_MAX => match sent {
                // The channel holds as many as may wait, so this never blocks the answers.
                Some(sent) => match requests.try_send(sent.request) {
                    Ok(()) => waiting.push_back((sent.answer, sent.permit)),
                    Err(_) => {
                        let _ = sent.answer.send(Err(ended("the stream has ended")));
                        break ended("the stream has ended");
                    }
                },
                None if waiting.is_empty() => return,
                // Nobody can queue any more: wait for the answers only.
                None => break drain(&mut answers, &mut waiting).await,
            },
            answer = answers.message() => match answer {
                Ok(Some(answer)) => match waiting.pop_front() {
                    Some((to, _permit)) => drop(to.send(replica_put(&answer))),
                    None => break PeerError::Nonsense,
                },
                Ok(None) => break ended("the peer ended the stream"),
                Err(status) => break refused_or_unreachable(&status),
            },
            () = idle(&shutdown), if waiting.is_empty() => {
                queue.close();
                // What was queued at this very moment is told that the stream has ended, and tries again.
                return;
            }
        }
    };
    for (to, _permit) in waiting {
        let _ = to.send(Err(error.clone()));
    }
}

async fn idle(shutdown: &Shutdown) {
    tokio::select! {
        biased;
        () = tokio::time::sleep(STREAM_IDLE) => {}
        () = async { shutdown.wait().await; tokio::time::sleep(STREAM_IDLE_STOPPING).await } => {}
    }
}

async fn drain(
    answers: &mut tonic::Streaming<storage::ReplicateResponse>,
    waiting: &mut VecDeque<(oneshot::Sender<Answer>, OwnedSemaphorePermit)>,
) -> PeerError {
    while !waiting.is_empty() {
        match timeout(REPLICATE_DEADLINE, answers.message()).await {
            Ok(Ok(Some(answer))) => {
                if let Some((to, _permit)) = waiting.pop_front() {
                    let _ = to.send(replica_put(&answer));
                }
            }
            Ok(Ok(None)) => return ended("the peer ended the stream"),
            Ok(Err(status)) => return refused_or_unreachable(&status),
            Err(_) => return PeerError::TooSlow,
        }
    }
    ended("the stream is done")
}

fn ended(reason: &str) -> PeerError {
    PeerError::Unreachable { reason: reason.to_owned() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_was_down_is_tried_by_one_call_at_a_time() {
        let seconds = Duration::from_secs;
        let mut health = Health::default();
        assert!(health.admit(seconds(1)).is_ok() && health.admit(seconds(1)).is_ok());
        health.failed(seconds(3));
        assert_eq!(health.admit(seconds(2)), Err(PeerError::BackingOff { wait_ms: 1_000 }));
        assert_eq!(health.admit(seconds(3)), Ok(()));
        assert!(health.admit(seconds(4)).is_err());
        // A call that was given up without an answer does not close the door for ever.
        assert_eq!(health.admit(seconds(3) + REPLICATE_DEADLINE), Ok(()));
        health = Health::default();
        assert!(health.admit(seconds(4)).is_ok() && health.admit(seconds(4)).is_ok());
    }
}
