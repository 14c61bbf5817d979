//! A storage node in memory behind real mTLS sockets, with faults that a test switches. It forwards like a real one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use holdfast_model::{ChunkId, Fence, Layout, NodeId, PartitionId};
use holdfast_proto::{
    signed::{read_layout_version, read_token},
    status::ErrorCode,
    storage::{self, storage_node_server::StorageNode, *},
};
use holdfast_record::{Pin, SealedRecord};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

/// What a test may break.
#[derive(Default, Clone)]
pub struct Faults {
    /// Has nothing, whatever it has.
    pub absent: bool,
    /// Shows damaged copies.
    pub corrupt: bool,
    /// Stores nothing, neither from clients nor forwarded.
    pub fails_puts: bool,
    /// Cannot forward to other nodes.
    pub isolated: bool,
    /// Every call fails so.
    pub refuse: Option<ErrorCode>,
    /// The next put stream breaks after so many frames were stored but before the last was answered.
    pub cut_put_after: Option<usize>,
    /// Every put fails so.
    pub refuse_puts: Option<ErrorCode>,
    /// Forgets sessions.
    pub forgets_sessions: bool,
    /// Accepts no other token.
    pub only_token: Option<Bytes>,
    /// Works by a layout whose owners changed in this version: refuses what is done by an older one.
    pub moved_in: u64,
    /// Works by an older layout than its callers: refuses until it has the new one.
    pub is_behind: bool,
    /// Has not taken over its pins yet.
    pub not_ready: bool,
    /// Waits before it answers reads.
    pub slow: Duration,
}

#[derive(Default)]
pub struct State {
    pub records: HashMap<ChunkId, Bytes>,
    /// Ids in the order clients put them here.
    pub put_order: Vec<ChunkId>,
    pub sessions: BTreeSet<u64>,
    pub opened: usize,
    pub renewed: usize,
    pub closed: usize,
    pub pins: BTreeMap<u64, Bytes>,
    pub fence: Fence,
    pub checkpoint: Option<Checkpoint>,
    pub layout_version: u64,
}

pub struct Fake {
    pub id: NodeId,
    pub site: String,
    pub state: Mutex<State>,
    pub faults: Mutex<Faults>,
    pub peers: Arc<OnceLock<(Layout, Vec<Arc<Fake>>)>>,
    pub lease_ms: u64,
    /// Puts are answered only while this is true.
    pub gate: watch::Sender<bool>,
    pub put_streams: AtomicUsize,
    pub gets: AtomicUsize,
    /// Calls refused for their token.
    pub refused: AtomicUsize,
    /// Layout versions of the calls that came.
    pub versions: Mutex<BTreeSet<u64>>,
    pub outstanding: AtomicUsize,
    pub outstanding_bytes: AtomicUsize,
    pub outstanding_max: AtomicUsize,
    pub outstanding_bytes_max: AtomicUsize,
}

impl Fake {
    pub fn new(id: u64, site: &str, peers: Arc<OnceLock<(Layout, Vec<Arc<Fake>>)>>) -> Self {
        Self {
            id: NodeId(id),
            site: site.to_owned(),
            state: Mutex::default(),
            faults: Mutex::default(),
            peers,
            lease_ms: 600,
            gate: watch::Sender::new(true),
            put_streams: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            versions: Mutex::default(),
            outstanding: AtomicUsize::new(0),
            outstanding_bytes: AtomicUsize::new(0),
            outstanding_max: AtomicUsize::new(0),
            outstanding_bytes_max: AtomicUsize::new(0),
        }
    }

    /// Lets puts be answered, or holds them back.
    pub fn open_gate(&self, open: bool) {
        self.gate.send_replace(open);
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap());
    }

    fn faults(&self) -> Faults {
        self.faults.lock().unwrap().clone()
    }

    fn admit(&self, metadata: Option<&MetadataMap>) -> Result<(), Status> {
        let faults = self.faults();
        if let Some(code) = faults.refuse {
            return Err(code.status("switched off by the test"));
        }
        if let Some(metadata) = metadata {
            let token = read_token(metadata).map_err(|e| ErrorCode::SessionLost.status(e.to_string()))?;
            if faults.only_token.is_some_and(|only| only != token.body) {
                self.refused.fetch_add(1, Ordering::SeqCst);
                return Err(ErrorCode::SessionLost.status("the token has expired"));
            }
        }
        Ok(())
    }

    /// Refuses what is done by a layout that is over.
    fn by_layout(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let (offered, moved_in) = (read_layout_version(metadata).0, self.faults().moved_in);
        self.versions.lock().unwrap().insert(offered);
        if offered < moved_in {
            let reason = format!("it works by layout {offered}, the pool moved in layout {moved_in}");
            return Err(ErrorCode::outdated(reason));
        }
        if self.faults().is_behind {
            return Err(ErrorCode::not_yet("it does not know that layout yet"));
        }
        Ok(())
    }

    /// Refuses what is asked of the pins while they are not here.
    fn pins_by_layout(&self, metadata: &MetadataMap) -> Result<(), Status> {
        self.by_layout(metadata)?;
        if self.faults().not_ready {
            return Err(ErrorCode::not_yet("partition 1 is not taken over yet"));
        }
        Ok(())
    }

    fn owners(&self, id: ChunkId) -> Vec<Arc<Fake>> {
        let (layout, fakes) = self.peers.get().unwrap();
        let find =
            |node: &holdfast_model::LayoutNode| fakes.iter().find(|f| f.id == node.id).unwrap().clone();
        layout.owners_of(PartitionId::of_chunk(id)).map(find).collect()
    }

    fn store(&self, id: ChunkId, record: &Bytes) -> PutOutcome {
        let faults = self.faults();
        if faults.fails_puts || faults.refuse.is_some() {
            return PutOutcome::Failed;
        }
        match self.state().records.insert(id, record.clone()) {
            None => PutOutcome::Stored,
            Some(_) => PutOutcome::Exists,
        }
    }

    fn put_records(&self, request: &PutRequest) -> PutResponse {
        let isolated = self.faults().isolated;
        let n = request.records.len();
        let mut replicas: BTreeMap<(bool, u64), PutReplica> = BTreeMap::new();
        for (index, bytes) in request.records.iter().enumerate() {
            let id = SealedRecord::decode(bytes.clone()).unwrap().header.id;
            self.state().put_order.push(id);
            for owner in self.owners(id) {
                let own = owner.id == self.id;
                let outcome = if own || !isolated { owner.store(id, bytes) } else { PutOutcome::Failed };
                let replica = replicas.entry((!own, owner.id.0)).or_insert_with(|| PutReplica {
                    node_id: owner.id.0,
                    site: owner.site.clone(),
                    outcomes: vec![PutOutcome::Unspecified as i32; n],
                    reason: String::new(),
                });
                replica.outcomes[index] = outcome as i32;
                if outcome == PutOutcome::Failed {
                    replica.reason = "the replica did not store it".to_owned();
                }
            }
        }
        PutResponse { replicas: replicas.into_values().collect() }
    }

    fn presence(&self, id: ChunkId) -> Presence {
        let faults = self.faults();
        match (faults.refuse, faults.absent, self.state().records.contains_key(&id)) {
            (Some(_), ..) => Presence::Unknown,
            (None, false, true) => Presence::Yes,
            _ => Presence::Absent,
        }
    }

    fn copy(&self, id: ChunkId) -> Bytes {
        let faults = self.faults();
        let mut bytes = match self.state().records.get(&id) {
            Some(bytes) if !faults.absent => bytes.to_vec(),
            _ => return Bytes::new(),
        };
        if faults.corrupt {
            let middle = bytes.len() - 16;
            bytes[middle] ^= 1;
        }
        bytes.into()
    }

    fn arrived(&self, request: &PutRequest) -> usize {
        let bytes = request.records.iter().map(Bytes::len).sum();
        let now = self.outstanding.fetch_add(1, Ordering::SeqCst) + 1;
        self.outstanding_max.fetch_max(now, Ordering::SeqCst);
        let now = self.outstanding_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.outstanding_bytes_max.fetch_max(now, Ordering::SeqCst);
        bytes
    }
}

/// The service: a handle on a fake.
#[derive(Clone)]
pub struct Service(pub Arc<Fake>);

type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl StorageNode for Service {
    type HaveStream = Answers<HaveResponse>;
    type PutStream = Answers<PutResponse>;
    type GetStream = Answers<GetResponse>;
    type ReplicateStream = Answers<ReplicateResponse>;

    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        self.0.admit(None)?;
        Ok(Response::new(HelloResponse {
            protocol: 1,
            node_id: self.0.id.0,
            site: self.0.site.clone(),
            ..Default::default()
        }))
    }

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        self.0.admit(Some(request.metadata()))?;
        self.0.pins_by_layout(request.metadata())?;
        let mut state = self.0.state();
        state.opened += 1;
        state.sessions.insert(request.get_ref().session);
        Ok(Response::new(OpenSessionResponse { epoch: 6 + self.0.id.0, lease_ms: self.0.lease_ms }))
    }

    async fn renew_session(
        &self,
        request: Request<RenewSessionRequest>,
    ) -> Result<Response<RenewSessionResponse>, Status> {
        self.0.admit(Some(request.metadata()))?;
        self.0.pins_by_layout(request.metadata())?;
        let forgets = self.0.faults().forgets_sessions;
        let mut state = self.0.state();
        if forgets || !state.sessions.contains(&request.get_ref().session) {
            return Err(ErrorCode::SessionLost.status("no such session"));
        }
        state.renewed += 1;
        Ok(Response::new(RenewSessionResponse { lease_ms: self.0.lease_ms }))
    }

    async fn close_session(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        self.0.admit(Some(request.metadata()))?;
        let mut state = self.0.state();
        state.closed += usize::from(state.sessions.remove(&request.get_ref().session));
        Ok(Response::new(CloseSessionResponse {}))
    }

    async fn have(
        &self,
        request: Request<Streaming<HaveRequest>>,
    ) -> Result<Response<Self::HaveStream>, Status> {
        self.0.admit(Some(request.metadata()))?;
        self.0.by_layout(request.metadata())?;
        let fake = self.0.clone();
        let answers = request.into_inner().map(move |request| {
            let ids: Vec<ChunkId> = request?.ids.iter().map(|id| ChunkId::from_slice(id).unwrap()).collect();
            let (_, fakes) = fake.peers.get().unwrap();
            let replicas = fakes
                .iter()
                .map(|peer| ReplicaPresence {
                    node_id: peer.id.0,
                    site: peer.site.clone(),
                    presence: ids.iter().map(|id| peer.presence(*id) as i32).collect(),
                })
                .collect();
            Ok(HaveResponse { replicas })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn put(
        &self,
        request: Request<Streaming<PutRequest>>,
    ) -> Result<Response<Self::PutStream>, Status> {
        self.0.admit(Some(request.metadata()))?;
        self.0.by_layout(request.metadata())?;
        if let Some(code) = self.0.faults().refuse_puts {
            return Err(code.status("switched off by the test"));
        }
        self.0.put_streams.fetch_add(1, Ordering::SeqCst);
        let (arrived_tx, mut arrived_rx) = mpsc::unbounded_channel();
        let (answer_tx, answer_rx) = mpsc::unbounded_channel();
        let fake = self.0.clone();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let bytes = fake.arrived(&request);
                if arrived_tx.send((request, bytes)).is_err() {
                    return;
                }
            }
        });
        let fake = self.0.clone();
        tokio::spawn(async move {
            let mut gate = fake.gate.subscribe();
            let mut n_frames = 0;
            while let Some((request, bytes)) = arrived_rx.recv().await {
                let _ = gate.wait_for(|open| *open).await;
                let answer = fake.put_records(&request);
                fake.outstanding.fetch_sub(1, Ordering::SeqCst);
                fake.outstanding_bytes.fetch_sub(bytes, Ordering::SeqCst);
                n_frames += 1;
                let cut = fake.faults().cut_put_after.is_some_and(|after| n_frames > after);
                if cut {
                    fake.set(|faults| faults.cut_put_after = None);
                    let _ = answer_tx.send(Err(ErrorCode::Unavailable.status("cut by the test")));
                    return;
                }
                if answer_tx.send(Ok(answer)).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(answer_rx))))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        self.0.admit(Some(request.metadata()))?;
        self.0.gets.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.0.faults().slow).await;
        let (tx, rx) = mpsc::channel(4);
        let fake = self.0.clone();
        tokio::spawn(async move {
            for ids in request.into_inner().ids.chunks(3) {
                let records = ids.iter().map(|id| fake.copy(ChunkId::from_slice(id).unwrap())).collect();
                if tx.send(Ok(GetResponse { records })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn put_pin(&self, request: Request<PutPinRequest>) -> Result<Response<PutPinResponse>, Status> {
        self.0.admit(Some(request.metadata()))?;
        self.0.pins_by_layout(request.metadata())?;
        let bytes = request.into_inner().pin;
        let pin = Pin::decode(&bytes).unwrap();
        let mut state = self.0.state();
        let outcome = match state.pins.get(&pin.sequence.0) {
            Some(stored) if *stored == bytes => PinOutcome::Stored,
            _ if pin.fence < state.fence => PinOutcome::Fenced,
            Some(_) => PinOutcome::Conflict,
            None => {
                state.fence = state.fence.max(pin.fence);
                state.pins.insert(pin.sequence.0, bytes);
                PinOutcome::Stored
            }
        };
        Ok(Response::new(PutPinResponse { outcome: outcome as i32, highest_fence: Some(state.fence.into()) }))
    }

    async fn put_checkpoint(
        &self,
        request: Request<PutCheckpointRequest>,
    ) -> Result<Response<PutCheckpointResponse>, Status> {
        self.0.admit(Some(request.metadata()))?;
        self.0.pins_by_layout(request.metadata())?;
        let request = request.into_inner();
        let fence: Fence = request.fence.unwrap().into();
        let mut state = self.0.state();
        let accepted = fence >= state.fence;
        if accepted {
            let (fence, revision, body) = (request.fence, request.revision, request.body);
            state.checkpoint = Some(Checkpoint { fence, revision, body });
        }
        Ok(Response::new(PutCheckpointResponse { accepted }))
    }

    async fn read_pins(
        &self,
        request: Request<ReadPinsRequest>,
    ) -> Result<Response<ReadPinsResponse>, Status> {
        self.0.admit(Some(request.metadata()))?;
        self.0.pins_by_layout(request.metadata())?;
        let state = self.0.state();
        Ok(Response::new(ReadPinsResponse {
            pins: state.pins.values().cloned().collect(),
            highest_fence: Some(state.fence.into()),
            checkpoint: state.checkpoint.clone(),
        }))
    }

    async fn raise_fence(
        &self,
        request: Request<RaiseFenceRequest>,
    ) -> Result<Response<RaiseFenceResponse>, Status> {
        self.0.admit(None)?;
        self.0.pins_by_layout(request.metadata())?;
        let mut state = self.0.state();
        state.fence = state.fence.max(request.into_inner().fence.unwrap().into());
        let highest_sequence = state.pins.keys().last().copied().unwrap_or(0);
        Ok(Response::new(RaiseFenceResponse { highest_fence: Some(state.fence.into()), highest_sequence }))
    }

    async fn apply_layout(
        &self,
        request: Request<ApplyLayoutRequest>,
    ) -> Result<Response<ApplyLayoutResponse>, Status> {
        self.0.admit(None)?;
        let request = request.into_inner();
        let layout = request.layout.unwrap();
        let mut state = self.0.state();
        if layout.version < state.layout_version {
            return Err(ErrorCode::Fenced.status("a newer layout has been seen"));
        }
        state.layout_version = layout.version;
        let (generation, epoch) = (request.generation, request.epoch);
        Ok(Response::new(ApplyLayoutResponse { generation, epoch, layout_version: layout.version }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.0.admit(None)?;
        let records = self.0.state().records.len() as u64;
        Ok(Response::new(StatusResponse { node_id: self.0.id.0, records, ..Default::default() }))
    }

    async fn replicate(
        &self,
        _: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        Err(ErrorCode::BadRequest.status("the fake forwards in memory"))
    }

    async fn have_local(
        &self,
        _: Request<storage::HaveLocalRequest>,
    ) -> Result<Response<HaveLocalResponse>, Status> {
        Err(ErrorCode::BadRequest.status("the fake forwards in memory"))
    }
}
