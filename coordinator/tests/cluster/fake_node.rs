//! A storage node in memory, over real mTLS: the coordinator's side of it, with switchable faults.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    pin::Pin as Pinned,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{Stream, stream};
use holdfast_model::{Fence, Role};
use holdfast_proto::{
    signed::{Verifier, read_token},
    storage::{
        storage_node_server::{StorageNode, StorageNodeServer},
        *,
    },
};
use holdfast_record::Pin;
use holdfast_runtime::{Pki, RoleTable, Shutdown, grpc};
use tokio::sync::Notify;
use tonic::{Request, Response, Status, Streaming};

static ROLES: RoleTable = RoleTable(&[
    ("/holdfast.storage.v1.StorageNode/Get", &[Role::Coordinator]),
    ("/holdfast.storage.v1.StorageNode/PutPin", &[Role::Coordinator]),
    ("/holdfast.storage.v1.StorageNode/ReadPins", &[Role::Coordinator]),
    ("/holdfast.storage.v1.StorageNode/RaiseFence", &[Role::Coordinator]),
    ("/holdfast.storage.v1.StorageNode/ApplyLayout", &[Role::Coordinator]),
    ("/holdfast.storage.v1.StorageNode/Status", &[Role::Coordinator]),
]);

#[derive(Default)]
pub struct State {
    pub generation: u64,
    pub epoch: u64,
    pub layout_version: u64,
    pub highest: Fence,
    pub pins: BTreeMap<u64, Bytes>,
    pub records: HashMap<Vec<u8>, Bytes>,
    /// Records that are not answered with until they are released.
    pub withheld: HashSet<Vec<u8>>,
    /// Does not tell its pins.
    pub hides_pins: bool,
    /// Refuses pins without storing anything.
    pub refuses_pins: bool,
    /// Takes in no more copies from other nodes.
    pub repair_stopped: bool,
    /// How its uploads stand, if it has a bucket.
    pub uploads: Option<UploadStatus>,
}

#[derive(Clone)]
pub struct FakeNode {
    pub id: u64,
    pub site: String,
    pub addr: SocketAddr,
    pub state: Arc<Mutex<State>>,
    released: Arc<Notify>,
    verifier: Verifier,
}

type Answers<T> = Pinned<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl FakeNode {
    pub async fn start(pki: &Pki, verifier: Verifier, id: u64, site: &str, shutdown: Shutdown) -> Self {
        let tls = pki.issue(Role::StorageNode, &format!("node-{id}"), &[]).unwrap().options();
        let mut node = Self {
            id,
            site: site.to_owned(),
            addr: "127.0.0.1:0".parse().unwrap(),
            state: Arc::default(),
            released: Arc::default(),
            verifier,
        };
        let routes = tonic::service::Routes::new(StorageNodeServer::new(node.clone()));
        let (addr, _) =
            grpc::serve("127.0.0.1:0", &tls, pki.cluster(), &ROLES, routes, shutdown).await.unwrap();
        node.addr = addr;
        node
    }

    /// Answers with everything again.
    pub fn release(&self) {
        self.state.lock().unwrap().withheld.clear();
        self.released.notify_waiters();
    }

    async fn released(&self, ids: &[Bytes]) {
        loop {
            let released = self.released.notified();
            let withheld = self.state.lock().unwrap().withheld.clone();
            if !ids.iter().any(|id| withheld.contains(&id[..])) {
                return;
            }
            released.await;
        }
    }

    fn claims<T>(&self, request: &Request<T>) -> Result<holdfast_model::SessionClaims, Status> {
        let token =
            read_token(request.metadata()).map_err(|error| Status::unauthenticated(error.to_string()))?;
        self.verifier.token(&token, 0).map_err(|error| Status::unauthenticated(error.to_string()))
    }
}

#[tonic::async_trait]
impl StorageNode for FakeNode {
    type HaveStream = Answers<HaveResponse>;
    type PutStream = Answers<PutResponse>;
    type GetStream = Answers<GetResponse>;
    type ReplicateStream = Answers<ReplicateResponse>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let state = self.state.lock().unwrap();
        Ok(Response::new(StatusResponse {
            node_id: self.id,
            site: self.site.clone(),
            layout_version: state.layout_version,
            generation: state.generation,
            epoch: state.epoch,
            pins: state.pins.len() as u64,
            repair_stopped: state.repair_stopped,
            uploads: state.uploads.clone(),
            ..Default::default()
        }))
    }

    async fn apply_layout(
        &self,
        request: Request<ApplyLayoutRequest>,
    ) -> Result<Response<ApplyLayoutResponse>, Status> {
        let request = request.into_inner();
        let version = request.layout.unwrap().version;
        let mut state = self.state.lock().unwrap();
        if request.generation < state.generation
            || request.epoch < state.epoch
            || version < state.layout_version
        {
            return Err(Status::aborted("lower than seen"));
        }
        (state.generation, state.epoch, state.layout_version) = (request.generation, request.epoch, version);
        Ok(Response::new(ApplyLayoutResponse {
            generation: state.generation,
            epoch: state.epoch,
            layout_version: version,
        }))
    }

    async fn put_pin(&self, request: Request<PutPinRequest>) -> Result<Response<PutPinResponse>, Status> {
        self.claims(&request)?;
        let request = request.into_inner();
        let ticket = self
            .verifier
            .ticket(&request.ticket.unwrap())
            .map_err(|e| Status::unauthenticated(e.to_string()))?;
        let pin = Pin::decode(&request.pin).unwrap();
        assert_eq!(ticket.pin_hash, pin.hash());
        let mut state = self.state.lock().unwrap();
        let outcome = match state.pins.get(&pin.sequence.0) {
            _ if pin.fence < state.highest => PinOutcome::Fenced,
            _ if state.refuses_pins => return Err(Status::invalid_argument("not now, not ever")),
            Some(other) if *other != request.pin => PinOutcome::Conflict,
            _ => {
                state.highest = pin.fence;
                state.pins.insert(pin.sequence.0, request.pin);
                PinOutcome::Stored
            }
        };
        let highest_fence = Some(state.highest.into());
        Ok(Response::new(PutPinResponse { outcome: outcome.into(), highest_fence }))
    }

    async fn raise_fence(
        &self,
        request: Request<RaiseFenceRequest>,
    ) -> Result<Response<RaiseFenceResponse>, Status> {
        let fence = request.into_inner().fence.unwrap().into();
        let mut state = self.state.lock().unwrap();
        state.highest = state.highest.max(fence);
        let highest_sequence = state.pins.keys().next_back().copied().unwrap_or(0);
        Ok(Response::new(RaiseFenceResponse { highest_fence: Some(state.highest.into()), highest_sequence }))
    }

    async fn read_pins(
        &self,
        request: Request<ReadPinsRequest>,
    ) -> Result<Response<ReadPinsResponse>, Status> {
        let claims = self.claims(&request)?;
        let state = self.state.lock().unwrap();
        if state.hides_pins {
            return Err(Status::unavailable("starting"));
        }
        let pins = state.pins.values().filter(|pin| Pin::decode(pin).unwrap().resource == claims.resource);
        let (pins, highest_fence) = (pins.cloned().collect(), Some(state.highest.into()));
        Ok(Response::new(ReadPinsResponse { pins, highest_fence, checkpoint: None }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        self.claims(&request)?;
        self.released(&request.get_ref().ids).await;
        let state = self.state.lock().unwrap();
        let record = |id: &Bytes| state.records.get(&id[..]).cloned().unwrap_or_default();
        let answers: Vec<_> =
            request.get_ref().ids.iter().map(|id| Ok(GetResponse { records: vec![record(id)] })).collect();
        Ok(Response::new(Box::pin(stream::iter(answers))))
    }

    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn open_session(
        &self,
        _: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn renew_session(
        &self,
        _: Request<RenewSessionRequest>,
    ) -> Result<Response<RenewSessionResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn close_session(
        &self,
        _: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn have(&self, _: Request<Streaming<HaveRequest>>) -> Result<Response<Self::HaveStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn put(&self, _: Request<Streaming<PutRequest>>) -> Result<Response<Self::PutStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn put_checkpoint(
        &self,
        _: Request<PutCheckpointRequest>,
    ) -> Result<Response<PutCheckpointResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn replicate(
        &self,
        _: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn have_local(&self, _: Request<HaveLocalRequest>) -> Result<Response<HaveLocalResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
