//! The gRPC edge: requests to typed calls of the core, answers back. Nothing is decided here.
//!
//! Invariant: answers of a stream come in the order of its requests, while several are worked on; what waits is bounded in
//! bytes over all streams and in requests per stream.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use holdfast_model::{ChunkId, Epoch, Generation, Role, SessionId};
use holdfast_proto::{
    PROTOCOL_MAX, PROTOCOL_MIN,
    convert::{self, id, required},
    signed::{SignedError, Verifier, read_layout_version, read_token},
    status::ErrorCode,
    storage::{self, storage_node_server},
};
use holdfast_runtime::{PeerIdentity, Shutdown};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use crate::{
    Caller, Error, Node,
    object::{UploadStatus, Uploader},
    peers::{Presence, ReplicaOutcome},
    pin::PinOutcome,
    repair::RepairStatus,
    state::{Authority, PinSpace},
    tokens::Tokens,
};

/// The largest message: a record or a checkpoint of the largest size beside as many pins as one answer holds.
pub(crate) const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Requests of one stream that are worked on at a time.
const STREAM_REQUESTS_MAX: usize = 32;
/// Bytes of requests that are worked on at a time, over all streams; puts and their copies from other owners each have as
/// much. With one room for both, two nodes whose puts wait for each other's copies would leave none for these.
const PUT_BYTES_MAX: usize = 128 << 20;
/// Bytes of records in one frame, unless a single record is larger.
const FRAME_BYTES: usize = 1 << 20;
/// What this node can read and write beside the base format.
const FORMAT_FEATURES: &[&str] = &["format-1"];

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service over a node.
pub struct Service {
    node: Arc<Node>,
    uploader: Option<Arc<Uploader>>,
    tokens: Tokens,
    verifier: Verifier,
    put_room: Arc<Semaphore>,
    replicate_room: Arc<Semaphore>,
    shutdown: Shutdown,
}

/// Makes the service, with what uploads the node's segments where they have a bucket. The only place where message limits are
/// set.
pub fn into_server(
    node: Arc<Node>,
    uploader: Option<Arc<Uploader>>,
    verifier: Verifier,
    shutdown: Shutdown,
) -> storage_node_server::StorageNodeServer<Service> {
    let room = || Arc::new(Semaphore::new(PUT_BYTES_MAX));
    let (put_room, replicate_room) = (room(), room());
    let tokens = Tokens::new(verifier.clone());
    let service = Service { node, uploader, tokens, verifier, put_room, replicate_room, shutdown };
    storage_node_server::StorageNodeServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            // This node's layout is old, or it is taking pins over: that changes by itself.
            Error::NotOwner(_) | Error::NotReady(_) => return ErrorCode::not_yet(error.to_string()),
            Error::StaleLayout { .. } => return ErrorCode::outdated(error.to_string()),
            _ => {}
        }
        let code = code_of(&error);
        if code == ErrorCode::Internal {
            tracing::error!(%error, cause = ?std::error::Error::source(&error), "request failed");
        }
        code.status(error.to_string())
    }
}

fn code_of(error: &Error) -> ErrorCode {
    match error {
        Error::NoLayout | Error::Stopping | Error::NotProtected { .. } | Error::DiskFailed(_) => {
            ErrorCode::Unavailable
        }
        Error::NotOwner(_) | Error::StaleLayout { .. } | Error::NotReady(_) => ErrorCode::Unavailable,
        Error::NotYours(_)
        | Error::VerbMissing(_)
        | Error::TokenNeeded(_)
        | Error::NotHanded { .. }
        | Error::NotANode => ErrorCode::Forbidden,
        Error::Fenced { .. } | Error::StaleAuthority { .. } => ErrorCode::Fenced,
        Error::StaleEpoch { .. } | Error::SessionUnknown => ErrorCode::SessionLost,
        Error::SessionTaken | Error::LayoutRefused { .. } => ErrorCode::Conflict,
        Error::BasePinUnknown | Error::BasePinExpired => ErrorCode::NotFound,
        Error::TooMany { .. } => ErrorCode::Exhausted,
        Error::TicketMismatch(_) | Error::BadBytes { .. } | Error::Wire(_) => ErrorCode::BadRequest,
        Error::Signed(SignedError::Expired) => ErrorCode::SessionLost,
        Error::Signed(SignedError::Malformed(_)) => ErrorCode::BadRequest,
        Error::Signed(_) => ErrorCode::Forbidden,
        Error::ForeignData { .. }
        | Error::Format { .. }
        | Error::DataInUse(_)
        | Error::DiskTwice { .. }
        | Error::DataFolder { .. }
        | Error::AddressInUse { .. }
        | Error::Io { .. }
        | Error::Database(_)
        | Error::IndexFailed
        | Error::StateFailed
        | Error::DamagedState(_)
        | Error::Objects(_)
        | Error::Option { .. }
        | Error::Grpc(_) => ErrorCode::Internal,
    }
}

impl Service {
    fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Error> {
        let token = read_token(metadata)?;
        let claims = self.tokens.claims(&token, self.node.clock.now_ms())?;
        Ok(Caller { claims, token })
    }

    /// Runs a call of the core that waits for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Node) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let node = self.node.clone();
        Ok(self.node.executor.run(move || call(&node)).await?)
    }

    /// Works on a stream of put-like requests: in order, several at a time, bounded in bytes. When the node stops, what was
    /// taken is still answered, and then the caller is told.
    fn pipeline<Q, A, F>(
        &self,
        room: &Arc<Semaphore>,
        requests: Streaming<Q>,
        records: fn(&Q) -> &[Bytes],
        work: impl Fn(Q) -> F + Send + Sync + 'static,
    ) -> Answers<A>
    where
        Q: Send + 'static,
        A: Send + 'static,
        F: Future<Output = Result<A, Error>> + Send + 'static,
    {
        let room = room.clone();
        let (stopping, stopped) = (self.shutdown.clone(), self.shutdown.clone());
        let until_stopped = requests.take_until(async move { stopping.wait().await });
        let farewell = futures::stream::once(async move { stopped.is_triggered() })
            .filter_map(|stopped| async move { stopped.then(|| Err(Status::from(Error::Stopping))) });
        let admitted = until_stopped.chain(farewell).then(move |request| {
            let room = room.clone();
            async move {
                let request = request?;
                let bytes = records(&request).iter().map(Bytes::len).sum::<usize>().clamp(1, PUT_BYTES_MAX);
                let permits = u32::try_from(bytes).expect("at most PUT_BYTES_MAX");
                let permit = room.acquire_many_owned(permits).await.map_err(|_| Error::Stopping)?;
                Ok::<_, Status>((request, permit))
            }
        });
        let answers = admitted.map(move |admitted| {
            let work = admitted.map(|(request, permit)| (work(request), permit));
            async move {
                let (work, _permit) = work?;
                Ok(work.await?)
            }
        });
        Box::pin(answers.buffered(STREAM_REQUESTS_MAX))
    }
}

#[tonic::async_trait]
impl storage_node_server::StorageNode for Service {
    async fn hello(
        &self,
        request: Request<storage::HelloRequest>,
    ) -> Result<Response<storage::HelloResponse>, Status> {
        let asked = request.into_inner();
        let protocol = asked.protocol_max.min(PROTOCOL_MAX);
        if protocol < asked.protocol_min.max(PROTOCOL_MIN) {
            let text = format!(
                "no common protocol: this node speaks {PROTOCOL_MIN} to {PROTOCOL_MAX}, the caller {} to {}",
                asked.protocol_min, asked.protocol_max
            );
            return Err(ErrorCode::BadRequest.status(text));
        }
        let Authority { generation, epoch, layout } = self.node.authority();
        Ok(Response::new(storage::HelloResponse {
            protocol,
            format_features: FORMAT_FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
            node_id: self.node.id().0,
            site: self.node.site().0.clone(),
            generation: generation.0,
            epoch: epoch.0,
            layout_version: layout.map_or(0, |layout| layout.version.0),
        }))
    }

    async fn open_session(
        &self,
        request: Request<storage::OpenSessionRequest>,
    ) -> Result<Response<storage::OpenSessionResponse>, Status> {
        let caller = self.caller(request.metadata())?;
        let _admitted = self.node.admit(read_layout_version(request.metadata()))?;
        let asked = request.into_inner();
        let base = if asked.base_pin.is_empty() { None } else { Some(id("base_pin", &asked.base_pin)?) };
        let (epoch, lease) =
            self.on_disk(move |node| node.open_session(&caller, SessionId(asked.session), base)).await?;
        Ok(Response::new(storage::OpenSessionResponse { epoch: epoch.0, lease_ms: millis(lease) }))
    }

    async fn renew_session(
        &self,
        request: Request<storage::RenewSessionRequest>,
    ) -> Result<Response<storage::RenewSessionResponse>, Status> {
        let caller = self.caller(request.metadata())?;
        let _admitted = self.node.admit(read_layout_version(request.metadata()))?;
        let session = SessionId(request.into_inner().session);
        let lease = self.on_disk(move |node| node.renew_session(&caller, session)).await?;
        Ok(Response::new(storage::RenewSessionResponse { lease_ms: millis(lease) }))
    }

    async fn close_session(
        &self,
        request: Request<storage::CloseSessionRequest>,
    ) -> Result<Response<storage::CloseSessionResponse>, Status> {
        let caller = self.caller(request.metadata())?;
        let _admitted = self.node.admit(read_layout_version(request.metadata()))?;
        let session = SessionId(request.into_inner().session);
        self.on_disk(move |node| node.close_session(&caller, session)).await?;
        Ok(Response::new(storage::CloseSessionResponse {}))
    }

    type HaveStream = Answers<storage::HaveResponse>;

    async fn have(
        &self,
        request: Request<Streaming<storage::HaveRequest>>,
    ) -> Result<Response<Self::HaveStream>, Status> {
        let caller = self.caller(request.metadata())?;
        let layout = read_layout_version(request.metadata());
        let node = self.node.clone();
        let work = move |asked: storage::HaveRequest| {
            let (node, caller) = (node.clone(), caller.clone());
            async move {
                let _admitted = node.admit(layout)?;
                let replicas = node.have(&caller, SessionId(asked.session), chunk_ids(&asked.ids)?).await?;
                let replicas = replicas.into_iter().map(|replica| storage::ReplicaPresence {
                    node_id: replica.node.0,
                    site: replica.site.0,
                    presence: wire_presence(replica.answer),
                });
                Ok(storage::HaveResponse { replicas: replicas.collect() })
            }
        };
        Ok(Response::new(self.pipeline(&self.put_room, request.into_inner(), |asked| &asked.ids, work)))
    }

    type PutStream = Answers<storage::PutResponse>;

    async fn put(
        &self,
        request: Request<Streaming<storage::PutRequest>>,
    ) -> Result<Response<Self::PutStream>, Status> {
        let caller = self.caller(request.metadata())?;
        let layout = read_layout_version(request.metadata());
        let node = self.node.clone();
        let work = move |asked: storage::PutRequest| {
            let (node, caller) = (node.clone(), caller.clone());
            async move {
                let _admitted = node.admit(layout)?;
                let replicas = node.put(&caller, SessionId(asked.session), asked.records).await?;
                let replicas = replicas.into_iter().map(|replica| storage::PutReplica {
                    node_id: replica.node.0,
                    site: replica.site.0,
                    outcomes: wire_outcomes(replica.answer.outcomes),
                    reason: replica.answer.reason,
                });
                Ok(storage::PutResponse { replicas: replicas.collect() })
            }
        };
        Ok(Response::new(self.pipeline(&self.put_room, request.into_inner(), |asked| &asked.records, work)))
    }

    type GetStream = Answers<storage::GetResponse>;

    async fn get(&self, request: Request<storage::GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let caller = self.caller(request.metadata())?;
        let ids = chunk_ids(&request.into_inner().ids)?;
        // One frame is read ahead while the transport takes the one before.
        let frames = futures::stream::try_unfold((self.node.clone(), caller, ids, 0), |state| async move {
            let (node, caller, ids, at) = state;
            if at >= ids.len() {
                return Ok(None);
            }
            let read = node.get(&caller, &ids[at..], FRAME_BYTES).await?;
            let at = at + read.len();
            let records = read.into_iter().map(Option::unwrap_or_default).collect();
            Ok::<_, Status>(Some((storage::GetResponse { records }, (node, caller, ids, at))))
        });
        Ok(Response::new(Box::pin(frames)))
    }

    async fn put_pin(
        &self,
        request: Request<storage::PutPinRequest>,
    ) -> Result<Response<storage::PutPinResponse>, Status> {
        let _admitted = self.node.admit(read_layout_version(request.metadata()))?;
        let role = request.extensions().get::<PeerIdentity>().map(|peer| peer.role);
        let caller = match (self.caller(request.metadata()), role) {
            (Ok(caller), _) => Some(caller),
            // The coordinator's ticket is its own authority: it sends it again for a worker that vanished.
            (Err(_), Some(Role::Coordinator)) => None,
            (Err(error), _) => return Err(error.into()),
        };
        let asked = request.into_inner();
        let ticket = self.verifier.ticket(&required("ticket", asked.ticket)?).map_err(Error::from)?;
        if let Some(caller) = caller {
            caller.may_commit(&ticket)?;
        }
        let (outcome, highest) = self.on_disk(move |node| node.put_pin(&ticket, &asked.pin)).await?;
        let outcome = match outcome {
            PinOutcome::Stored => storage::PinOutcome::Stored,
            PinOutcome::Fenced => storage::PinOutcome::Fenced,
            PinOutcome::Conflict => storage::PinOutcome::Conflict,
        };
        Ok(Response::new(storage::PutPinResponse {
            outcome: outcome.into(),
            highest_fence: Some(highest.into()),
        }))
    }

    async fn put_checkpoint(
        &self,
        request: Request<storage::PutCheckpointRequest>,
    ) -> Result<Response<storage::PutCheckpointResponse>, Status> {
        let caller = self.caller(request.metadata())?;
        let _admitted = self.node.admit(read_layout_version(request.metadata()))?;
        let asked = request.into_inner();
        if required("fence", asked.fence)? != caller.claims.fence.into() {
            return Err(Error::NotYours("fence").into());
        }
        let roots = chunk_ids(&asked.roots)?;
        let (session, revision, body) = (SessionId(asked.session), asked.revision, asked.body);
        let accepted =
            self.on_disk(move |node| node.put_checkpoint(&caller, session, revision, (body, &roots))).await?;
        Ok(Response::new(storage::PutCheckpointResponse { accepted }))
    }

    async fn read_pins(
        &self,
        request: Request<storage::ReadPinsRequest>,
    ) -> Result<Response<storage::ReadPinsResponse>, Status> {
        let caller = self.caller(request.metadata())?;
        let _admitted = self.node.admit(read_layout_version(request.metadata()))?;
        let asked = request.into_inner();
        if convert::workload(asked.workload)? != caller.claims.workload {
            return Err(Error::NotYours("workload").into());
        }
        let newest = usize::try_from(asked.newest).unwrap_or(usize::MAX);
        let read = self.on_disk(move |node| node.read_pins(&caller, newest)).await?;
        Ok(Response::new(storage::ReadPinsResponse {
            pins: read.pins,
            highest_fence: Some(read.highest_fence.into()),
            checkpoint: read.checkpoint.map(|checkpoint| storage::Checkpoint {
                fence: Some(checkpoint.id.fence.into()),
                revision: checkpoint.id.revision,
                body: checkpoint.body,
            }),
        }))
    }

    async fn raise_fence(
        &self,
        request: Request<storage::RaiseFenceRequest>,
    ) -> Result<Response<storage::RaiseFenceResponse>, Status> {
        let _admitted = self.node.admit(read_layout_version(request.metadata()))?;
        let asked = request.into_inner();
        let space = PinSpace {
            tenant: id("tenant", &asked.tenant)?,
            resource: id("resource", &asked.resource)?,
            workload: convert::workload(asked.workload)?,
        };
        let fence = required("fence", asked.fence)?.into();
        let (highest, sequence) = self.on_disk(move |node| node.raise_fence(&space, fence)).await?;
        Ok(Response::new(storage::RaiseFenceResponse {
            highest_fence: Some(highest.into()),
            highest_sequence: sequence.0,
        }))
    }

    async fn apply_layout(
        &self,
        request: Request<storage::ApplyLayoutRequest>,
    ) -> Result<Response<storage::ApplyLayoutResponse>, Status> {
        let asked = request.into_inner();
        let layout = asked.layout.map(holdfast_model::Layout::try_from).transpose()?;
        let offered = Authority {
            generation: Generation(asked.generation),
            epoch: Epoch(asked.epoch),
            layout: layout.map(Arc::new),
        };
        let now = self.on_disk(move |node| node.apply(offered)).await?;
        Ok(Response::new(storage::ApplyLayoutResponse {
            generation: now.generation.0,
            epoch: now.epoch.0,
            layout_version: now.layout.map_or(0, |layout| layout.version.0),
        }))
    }

    async fn status(
        &self,
        _request: Request<storage::StatusRequest>,
    ) -> Result<Response<storage::StatusResponse>, Status> {
        let status = self.on_disk(Node::status).await?;
        let Authority { generation, epoch, layout } = self.node.authority();
        Ok(Response::new(storage::StatusResponse {
            node_id: self.node.id().0,
            site: self.node.site().0.clone(),
            bytes_used: status.bytes_used,
            bytes_free: status.bytes_free,
            records: status.records,
            pins: status.pins,
            sessions: status.sessions,
            layout_version: layout.map_or(0, |layout| layout.version.0),
            generation: generation.0,
            epoch: epoch.0,
            ingest_stopped: status.ingest_stopped,
            quarantined_records: status.quarantined_records,
            repair: Some(wire_repair(&status.repair)),
            folder: Bytes::copy_from_slice(&status.folder.0),
            layout_complete: status.layout_complete.0,
            partitions_incomplete: status.partitions_incomplete,
            uploads: self.uploader.as_ref().map(|uploader| wire_uploads(&uploader.status())),
            repair_stopped: status.repair_stopped,
            disks: status.n_disks,
            disks_lost: status.n_disks_lost,
        }))
    }

    type ReplicateStream = Answers<storage::ReplicateResponse>;

    async fn replicate(
        &self,
        request: Request<Streaming<storage::ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let caller = self.caller(request.metadata())?;
        let layout = read_layout_version(request.metadata());
        let node = self.node.clone();
        let work = move |asked: storage::ReplicateRequest| {
            let (node, caller) = (node.clone(), caller.clone());
            async move {
                let _admitted = node.admit(layout)?;
                let put = node.replicate(&caller, SessionId(asked.session), asked.records).await?;
                Ok(storage::ReplicateResponse { outcomes: wire_outcomes(put.outcomes), reason: put.reason })
            }
        };
        let requests = request.into_inner();
        Ok(Response::new(self.pipeline(&self.replicate_room, requests, |asked| &asked.records, work)))
    }

    async fn have_local(
        &self,
        request: Request<storage::HaveLocalRequest>,
    ) -> Result<Response<storage::HaveLocalResponse>, Status> {
        let caller = self.caller(request.metadata())?;
        let _admitted = self.node.admit(read_layout_version(request.metadata()))?;
        let presence = self.node.have_local(&caller, chunk_ids(&request.into_inner().ids)?).await?;
        Ok(Response::new(storage::HaveLocalResponse { presence: wire_presence(presence) }))
    }
}

fn wire_repair(status: &RepairStatus) -> storage::RepairStatus {
    storage::RepairStatus {
        partitions_owned: status.partitions_owned,
        records_below_policy: status.backlog.records,
        records_at_one_copy: status.backlog.at_one_copy,
        damaged_waiting: status.backlog.damaged,
        oldest_age_ms: status.oldest_age_ms,
        partitions_suspect: status.backlog.suspects,
        repaired_records: status.repaired_records,
        last_comparison_ms: status.last_comparison_ms,
        last_scrub_ms: status.last_scrub_ms,
        scrub_permille: status.scrub_permille,
    }
}

fn wire_uploads(status: &UploadStatus) -> storage::UploadStatus {
    storage::UploadStatus {
        waiting_segments: status.waiting_segments,
        waiting_bytes: status.waiting_bytes,
        held_segments: status.held_segments,
        oldest_age_ms: millis(status.oldest_age),
        failing_ms: status.failing_for.map_or(0, |failing| millis(failing).max(1)),
        last_error_class: status.last_error.as_ref().map_or("", |error| error.class).to_owned(),
    }
}

fn chunk_ids(wire: &[Bytes]) -> Result<Vec<ChunkId>, Error> {
    wire.iter().map(|bytes| id("ids", bytes).map_err(Error::from)).collect()
}

fn wire_presence(presence: Vec<Presence>) -> Vec<i32> {
    let wire = presence.into_iter().map(|presence| match presence {
        Presence::Yes => storage::Presence::Yes,
        Presence::Absent => storage::Presence::Absent,
        Presence::Unknown => storage::Presence::Unknown,
        Presence::NotOwner => storage::Presence::Unspecified,
    });
    wire.map(i32::from).collect()
}

pub(crate) fn wire_outcomes(outcomes: Vec<ReplicaOutcome>) -> Vec<i32> {
    let wire = outcomes.into_iter().map(|outcome| match outcome {
        ReplicaOutcome::Stored => storage::PutOutcome::Stored,
        ReplicaOutcome::Exists => storage::PutOutcome::Exists,
        ReplicaOutcome::Failed => storage::PutOutcome::Failed,
        ReplicaOutcome::NotOwner => storage::PutOutcome::Unspecified,
    });
    wire.map(i32::from).collect()
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
