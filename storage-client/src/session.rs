//! A worker's session: its permission to write, kept by renewals, and the [`ChunkStore`] that writes through it.
//!
//! What a session put or was told exists is protected only while a majority of pin owners has kept it without a gap. Once
//! that is no longer certain the session is lost for good, and every later call says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use holdfast_model::{
    ChunkId, Epoch, Fence, Layout, LayoutNode, NodeId, PinHash, ResourceId, SessionId, TenantId, Workload,
};
use holdfast_proto::{status::ErrorCode, storage};
use holdfast_record::SealedRecord;
use holdfast_repository::{ChunkStore, StoreError};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::Instrument as _;

use crate::{
    CommitOutcome,
    error::{CallError, combine},
    fetch::Fetcher,
    have,
    nodes::{Context, Rpc, TokenCell},
    pins::{self, CheckpointPut, PinSpace},
    put::Writer,
    quorum::{WithoutMajority, ask_owners},
};

/// Renewals per lease: two may fail before the lease is in danger.
const RENEWALS_PER_LEASE: u32 = 3;
/// The shortest pause between renewals, whatever lease a node offers.
const RENEW_EVERY_MIN: Duration = Duration::from_millis(20);

/// Whose session it is, and what it builds on.
#[derive(Debug, Clone)]
pub struct SessionParams {
    /// Chosen by the worker at random; opening is idempotent by it.
    pub session: SessionId,
    /// The tenant.
    pub tenant: TenantId,
    /// The protected resource.
    pub resource: ResourceId,
    /// The workload of it.
    pub workload: Workload,
    /// The pin the backup builds on; it stays a root until the session ends.
    pub base_pin: Option<PinHash>,
}

/// An open session; clones share it. Dropping the last clone ends its loops, [`StorageSession::close`] joins them too.
#[derive(Clone)]
pub struct StorageSession {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    writer: Writer,
    fetcher: Fetcher,
    epoch: Epoch,
    loops: TaskTracker,
    _cancel_on_drop: DropGuard,
}

/// What the renew loop needs; it must not keep the session itself alive.
struct Shared {
    context: Arc<Context>,
    token: Arc<TokenCell>,
    space: PinSpace,
    params: SessionParams,
    cancel: CancellationToken,
    lost: AtomicBool,
    /// Owners that have the session: renewed there; the others are asked to open it.
    kept_by: Mutex<BTreeSet<NodeId>>,
}

impl StorageSession {
    #[tracing::instrument(name = "open session", skip_all, fields(tenant = %params.tenant, session = params.session.0))]
    pub(crate) async fn open(
        context: Arc<Context>,
        layout: Arc<Layout>,
        token: storage::SessionToken,
        params: SessionParams,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            token: Arc::new(TokenCell::new(token, &layout)),
            space: PinSpace::new(&layout, params.tenant, params.resource),
            cancel: CancellationToken::new(),
            lost: AtomicBool::new(false),
            kept_by: Mutex::default(),
            context,
            params,
        });
        let opened = shared.open_at_majority().await?;
        // The lowest of the epochs: claiming an older one than is true only makes a commit refused sooner.
        let epoch = Epoch(opened.iter().map(|(_, answer)| answer.epoch).min().unwrap_or(0));
        let lease =
            Duration::from_millis(opened.iter().map(|(_, answer)| answer.lease_ms).min().unwrap_or(0));
        shared.kept().extend(opened.iter().map(|(node, _)| *node));
        let loops = TaskTracker::new();
        loops.spawn(renew_loop(shared.clone(), lease).in_current_span());
        let fetcher =
            Fetcher::new(shared.context.clone(), layout.clone(), shared.token.clone(), shared.params.tenant);
        let writer = Writer::new(
            shared.context.clone(),
            layout,
            shared.token.clone(),
            shared.params.session,
            (loops.clone(), shared.cancel.clone()),
        );
        let _cancel_on_drop = shared.cancel.clone().drop_guard();
        Ok(Self { inner: Arc::new(Inner { shared, writer, fetcher, epoch, loops, _cancel_on_drop }) })
    }

    /// The epoch the session started in: what its pin may claim.
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// Which session it is.
    pub fn id(&self) -> SessionId {
        self.inner.shared.params.session
    }

    /// Takes the next session token, from a heartbeat.
    pub fn set_token(&self, token: storage::SessionToken) {
        self.inner.shared.token.set(token);
    }

    /// Bytes queued, or sent and not yet answered.
    pub fn in_flight_bytes(&self) -> u64 {
        self.inner.writer.in_flight_bytes()
    }

    /// Puts a job checkpoint on a majority of pin owners. `roots` are the records it reaches.
    pub async fn put_checkpoint(
        &self,
        fence: Fence,
        revision: u64,
        body: Bytes,
        roots: &[ChunkId],
    ) -> Result<(), StoreError> {
        let shared = &self.inner.shared;
        let put = CheckpointPut { session: shared.params.session, fence, revision, body, roots };
        shared.guard(pins::put_checkpoint(&shared.context, &shared.space, &shared.token, put)).await
    }

    /// Commits a pin at a majority of its owners; idempotent. An error means that the outcome is not known.
    pub async fn commit_pin(
        &self,
        ticket: &storage::CommitTicket,
        pin: &Bytes,
    ) -> Result<CommitOutcome, StoreError> {
        let shared = &self.inner.shared;
        if shared.lost.load(Ordering::Acquire) {
            return Err(StoreError::SessionLost);
        }
        // Once begun it runs to its end: a commit is a fact, whatever becomes of the session.
        pins::commit_pin(&shared.context, &shared.space, &shared.token, ticket, pin).await
    }

    /// Ends the session: its loops are joined and the owners are told. Later calls answer that the session is lost.
    ///
    /// An owner that cannot be told lets the session lapse by itself.
    pub async fn close(&self) {
        let shared = &self.inner.shared;
        shared.lost.store(true, Ordering::Release);
        shared.cancel.cancel();
        self.inner.loops.close();
        self.inner.loops.wait().await;
        let calls = shared.space.owners.iter().map(|node| async move {
            let request =
                shared.token.request(storage::CloseSessionRequest { session: shared.params.session.0 });
            let call = |mut rpc: Rpc| async move { rpc.close_session(request).await };
            if let Err(error) = shared.context.call(node, shared.context.options.status_timeout.0, call).await {
                tracing::debug!(node = %error.node, reason = %error.message, "session was not closed there and will lapse");
            }
        });
        join_all(calls).await;
    }
}

#[async_trait]
impl ChunkStore for StorageSession {
    async fn have(&self, ids: &[ChunkId]) -> Result<Vec<bool>, StoreError> {
        let shared = &self.inner.shared;
        shared.guard(have::have(&self.inner.writer, ids)).await
    }

    async fn put(&self, records: Vec<SealedRecord>) -> Result<(), StoreError> {
        self.inner.shared.guard(self.inner.writer.put(records)).await
    }

    async fn get(&self, ids: &[ChunkId]) -> Result<Vec<SealedRecord>, StoreError> {
        self.inner.fetcher.get(ids).await
    }

    async fn get_copies(&self, id: ChunkId) -> Result<Vec<SealedRecord>, StoreError> {
        self.inner.fetcher.get_copies(id).await
    }
}

impl Shared {
    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeSet<NodeId>> {
        self.kept_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation only while the session is held: what ended after it was lost does not count as done.
    async fn guard<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if self.lost.load(Ordering::Acquire) {
            return Err(StoreError::SessionLost);
        }
        let result = tokio::select! {
            biased;
            result = operation => result,
            () = self.cancel.cancelled() => return Err(StoreError::SessionLost),
        };
        if self.lost.load(Ordering::Acquire) { Err(StoreError::SessionLost) } else { result }
    }

    async fn open_at_majority(&self) -> Result<Vec<(NodeId, storage::OpenSessionResponse)>, StoreError> {
        let options = &self.context.options;
        let terms = (options.retry_for.0, WithoutMajority::Stop);
        let open = |node| self.open_at(node, options.request_timeout.0);
        let tally = ask_owners(&self.context, &self.space, terms, |_| true, open).await;
        if tally.accepted.len() >= self.space.majority {
            return Ok(tally.accepted);
        }
        let what = format!(
            "a session opens at {} of {} pin owners, but only {} answered",
            self.space.majority,
            self.space.owners.len(),
            tally.accepted.len()
        );
        Err(combine(&what, &tally.errors))
    }

    async fn open_at(
        &self,
        node: &LayoutNode,
        limit: Duration,
    ) -> Result<storage::OpenSessionResponse, CallError> {
        let base_pin =
            self.params.base_pin.map(|pin| Bytes::copy_from_slice(pin.as_bytes())).unwrap_or_default();
        let message = storage::OpenSessionRequest { session: self.params.session.0, base_pin };
        let request = self.token.request(message);
        let call = |mut rpc: Rpc| async move { rpc.open_session(request).await };
        self.context.call(node, limit, call).await
    }

    async fn renew_at(
        &self,
        node: &LayoutNode,
        limit: Duration,
    ) -> Result<storage::RenewSessionResponse, CallError> {
        let request = self.token.request(storage::RenewSessionRequest { session: self.params.session.0 });
        self.context.call(node, limit, |mut rpc: Rpc| async move { rpc.renew_session(request).await }).await
    }

    /// Renews at every owner once, and opens where the session is not known to be.
    async fn renew_round(&self, limit: Duration) -> RenewRound {
        let kept = &self.kept().clone();
        let calls = self.space.owners.iter().map(|node| async move {
            let lease_ms = if kept.contains(&node.id) {
                self.renew_at(node, limit).await.map(|answer| answer.lease_ms)
            } else {
                self.open_at(node, limit).await.map(|answer| answer.lease_ms)
            };
            (node.id, lease_ms)
        });
        let mut round = RenewRound::default();
        for (node, answer) in join_all(calls).await {
            match answer {
                Ok(lease_ms) => {
                    round.renewed.insert(node, lease_ms);
                }
                Err(error) => {
                    tracing::warn!(%node, reason = %error.message, "session was not renewed");
                    if matches!(error.code, ErrorCode::SessionLost | ErrorCode::NotFound) {
                        round.forgotten.insert(node);
                    }
                }
            }
        }
        round
    }
}

#[derive(Default)]
struct RenewRound {
    /// Who has the session, with the lease in milliseconds.
    renewed: BTreeMap<NodeId, u64>,
    /// Who has it no longer, or does not accept the token any more.
    forgotten: BTreeSet<NodeId>,
}

/// Renews until cancelled. Ends the session when no majority has renewed it for a whole lease.
///
/// A refused renewal alone does not: the token may have expired, and a heartbeat brings the next.
async fn renew_loop(shared: Arc<Shared>, mut lease: Duration) {
    let mut renewed_at = tokio::time::Instant::now();
    loop {
        let every = (lease / RENEWALS_PER_LEASE).max(RENEW_EVERY_MIN);
        tokio::select! {
            biased;
            () = tokio::time::sleep(every) => {}
            () = shared.cancel.cancelled() => return,
        }
        let started = tokio::time::Instant::now();
        let limit = every.min(shared.context.options.request_timeout.0);
        let round = tokio::select! {
            biased;
            round = shared.renew_round(limit) => round,
            () = shared.cancel.cancelled() => return,
        };
        if round.renewed.len() >= shared.space.majority {
            // While a majority has kept it without a gap, the others may open it anew.
            let mut kept = shared.kept();
            kept.extend(round.renewed.keys());
            kept.retain(|node| !round.forgotten.contains(node));
            renewed_at = started;
            lease = round.renewed.values().min().map_or(lease, |ms| Duration::from_millis(*ms));
        } else if renewed_at.elapsed() > lease {
            tracing::warn!(
                session = shared.params.session.0,
                "session is lost: no majority of pin owners renewed it"
            );
            shared.lost.store(true, Ordering::Release);
            shared.cancel.cancel();
            return;
        }
    }
}
