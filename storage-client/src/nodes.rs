//! The nodes as seen from here: one channel per address, who is left aside as down, who answers fast.
//!
//! Being marked down only changes the order of nodes, never whether one is asked: it cannot make data unreachable.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_model::{Clock, Layout, LayoutNode, LayoutVersion, NodeId, PartitionId, Random};
use holdfast_proto::{
    signed::{attach_layout_version, attach_token},
    status::ErrorCode,
    storage::{SessionToken, storage_node_client::StorageNodeClient},
};
use holdfast_runtime::{
    Backoff,
    grpc::{Channels, Connect, TracedChannel},
    retry::ATTEMPTS_MAX,
};
use tonic::{Request, Response, Status};

use crate::{StorageClientOptions, error::CallError, metrics, options::MESSAGE_BYTES_MAX};

/// Channels kept; more addresses than any cluster has means that layouts changed a lot, and the cache starts again.
const CHANNELS_MAX: usize = 4096;
/// How long a measured latency decides the order of owners.
const LATENCY_FRESH_MS: u64 = 60_000;
/// Pauses between attempts; how many attempts there are, the deadline of each operation decides.
const PAUSES: Backoff = match Backoff::new(Duration::from_millis(100), Duration::from_secs(5), ATTEMPTS_MAX) {
    Ok(pauses) => pauses,
    Err(_) => panic!("the constants make a policy"),
};

/// The generated client over a channel that carries the trace.
pub(crate) type Rpc = StorageNodeClient<TracedChannel>;

/// What every part of the client shares.
pub(crate) struct Context {
    pub(crate) options: StorageClientOptions,
    pub(crate) random: Arc<dyn Random>,
    clock: Arc<dyn Clock>,
    connect: Arc<dyn Connect>,
    peers: Mutex<BTreeMap<String, Arc<Peer>>>,
}

/// One address.
#[derive(Default)]
struct Peer {
    channel: Mutex<Option<TracedChannel>>,
    /// Monotonic milliseconds until which the node comes last; 0 when it is up.
    down_until_ms: AtomicU64,
    /// Smoothed time to the first byte of a read; 0 when not measured.
    latency_us: AtomicU64,
    /// Monotonic milliseconds of the last measurement.
    measured_ms: AtomicU64,
}

impl Context {
    pub(crate) fn new(
        options: StorageClientOptions,
        connect: Arc<dyn Connect>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let options = options.clamped();
        Self { options, random, clock, connect, peers: Mutex::default() }
    }

    fn peer(&self, address: &str) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= CHANNELS_MAX && !peers.contains_key(address) {
            peers.clear();
        }
        peers.entry(address.to_owned()).or_default().clone()
    }

    /// A client of a node; the connection is made when it is first used.
    pub(crate) fn rpc(&self, node: NodeId, address: &str) -> Result<Rpc, CallError> {
        let peer = self.peer(address);
        let mut cached = peer.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match &*cached {
            Some(channel) => channel.clone(),
            None => {
                let channel = self
                    .connect
                    .connect(address)
                    .map_err(|error| CallError::new(node, ErrorCode::Forbidden, error.to_string()))?;
                cached.insert(Channels::traced(channel)).clone()
            }
        };
        Ok(StorageNodeClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// Makes one call to a node, bounded in time; remembers whether the node answered.
    pub(crate) async fn call<T, F>(
        &self,
        node: &LayoutNode,
        limit: Duration,
        make: impl FnOnce(Rpc) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let rpc = self.rpc(node.id, &node.address)?;
        let result = match tokio::time::timeout(limit, make(rpc)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CallError::of(node.id, &status)),
            Err(_) => Err(CallError::timeout(node.id)),
        };
        self.note(node, result.as_ref().err());
        result
    }

    /// Remembers how a call to a node ended.
    pub(crate) fn note(&self, node: &LayoutNode, error: Option<&CallError>) {
        let peer = self.peer(&node.address);
        match error {
            Some(error) if error.is_unreachable() => {
                let down_for_ms = u64::try_from(self.options.down_for.0.as_millis()).unwrap_or(u64::MAX);
                let until_ms = self.now_ms().saturating_add(down_for_ms).max(1);
                // The next call makes a new channel, which reads the certificate files again: they may have been renewed.
                peer.channel.lock().unwrap_or_else(PoisonError::into_inner).take();
                if peer.down_until_ms.swap(until_ms, Ordering::Relaxed) == 0 {
                    metrics::node_marked_down();
                    tracing::warn!(node = %node.id, site = %node.site, reason = %error.message, "storage node does not answer");
                }
            }
            _ => {
                if peer.down_until_ms.swap(0, Ordering::Relaxed) != 0 {
                    tracing::info!(node = %node.id, site = %node.site, "storage node answers again");
                }
            }
        }
    }

    fn is_down(&self, node: &LayoutNode) -> bool {
        let until_ms = self.peer(&node.address).down_until_ms.load(Ordering::Relaxed);
        self.now_ms() < until_ms
    }

    /// The owners of a partition to write to: live ones first, otherwise in the layout's order; and how many are live.
    pub(crate) fn owners_for_write<'a>(
        &self,
        layout: &'a Layout,
        partition: PartitionId,
    ) -> (Vec<&'a LayoutNode>, usize) {
        let (mut live, down): (Vec<&LayoutNode>, Vec<_>) =
            layout.owners_of(partition).partition(|node| !self.is_down(node));
        let n_live = live.len();
        live.extend(down);
        (live, n_live)
    }

    /// Who may have a record of a partition: live ones first, then its owners before those it is moving away from, then those
    /// that answer clearly faster.
    pub(crate) fn holders_for_read<'a>(
        &self,
        layout: &'a Layout,
        partition: PartitionId,
    ) -> Vec<&'a LayoutNode> {
        let mut holders: Vec<&LayoutNode> = layout.holders_of(partition).collect();
        holders.sort_by_key(|node| {
            let latency_us = self.latency_us(node);
            // By factors of four, so that noise does not spread neighbouring reads over all holders.
            let slowness = (latency_us / 1000 + 1).ilog2() / 2;
            (self.is_down(node), !layout.owns(node.id, partition), slowness)
        });
        holders
    }

    /// What a node took lately; 0, so that it is tried again, when that is long ago.
    fn latency_us(&self, node: &LayoutNode) -> u64 {
        let peer = self.peer(&node.address);
        let age_ms = self.now_ms().saturating_sub(peer.measured_ms.load(Ordering::Relaxed));
        if age_ms > LATENCY_FRESH_MS { 0 } else { peer.latency_us.load(Ordering::Relaxed) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// Time since an arbitrary start.
    pub(crate) fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Remembers how long a node took to the first byte of a read.
    pub(crate) fn note_latency(&self, node: &LayoutNode, took: Duration) {
        metrics::read_latency(took.as_secs_f64());
        let sample = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let peer = self.peer(&node.address);
        peer.measured_ms.store(self.now_ms(), Ordering::Relaxed);
        let latency = &peer.latency_us;
        let old = latency.load(Ordering::Relaxed);
        latency.store(if old == 0 { sample } else { old - old / 8 + sample / 8 }, Ordering::Relaxed);
    }

    /// How long to wait before attempt `attempt + 1`: exponential with full jitter.
    pub(crate) fn pause(&self, attempt: u32) -> Duration {
        PAUSES.delay(attempt, &*self.random)
    }
}

/// What every request of a job carries: its session token, of which heartbeats bring new ones while calls are running, and
/// the version of the layout it works by, which stays the same.
pub(crate) struct TokenCell {
    version: LayoutVersion,
    newest: Mutex<(u64, SessionToken)>,
}

impl TokenCell {
    pub(crate) fn new(token: SessionToken, layout: &Layout) -> Self {
        Self { version: layout.version, newest: Mutex::new((0, token)) }
    }

    pub(crate) fn set(&self, token: SessionToken) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = (newest.0 + 1, token);
    }

    /// Grows with every new token.
    pub(crate) fn revision(&self) -> u64 {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// A request with the newest token.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = request_by(self.version, message);
        attach_token(&mut request, &self.newest.lock().unwrap_or_else(PoisonError::into_inner).1);
        request
    }
}

/// A request that says by which layout it is made: a node refuses it when owners have changed since.
pub(crate) fn request_by<T>(version: LayoutVersion, message: T) -> Request<T> {
    let mut request = Request::new(message);
    attach_layout_version(&mut request, version);
    request
}
