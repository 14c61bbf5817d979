//! The worker against a coordinator in this process, over real mTLS: claims, acknowledgements, heartbeats, giving back.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use holdfast_job_queue::{InProcessQueue, JobHint, QueueName};
use holdfast_model::{
    Fence, JobClass, JobId, Layout, LayoutNode, LayoutVersion, NodeId, Replication, ResourceId, Role,
    TenantId,
};
use holdfast_proto::{
    coordinator::{
        BackupSpec, ClaimRequest, ClaimResponse, FinishJobRequest, FinishJobResponse, GraphAccess,
        GraphToken, HeartbeatRequest, HeartbeatResponse, Keys, Lease, PrepareCommitRequest,
        PrepareCommitResponse, RecordCommitRequest, RecordCommitResponse, ReleaseJobRequest,
        ReleaseJobResponse, ReleaseReason, SyncShardsRequest, SyncShardsResponse,
        lease::Spec,
        worker_api_server::{WorkerApi, WorkerApiServer},
    },
    status::ErrorCode,
    storage::SessionToken,
};
use holdfast_repository::{JobKeys, ResourceKey, TenantKeys};
use holdfast_runtime::{HumanDuration, Pki, RoleTable, Shutdown, SystemClock, SystemRandom, grpc};
use holdfast_worker::{Parts, WorkerOptions, run};
use tonic::{Request, Response, Status};

const RPC: &[Role] = &[Role::Worker];
static TABLE: RoleTable = RoleTable(&[
    ("/holdfast.coordinator.v1.WorkerApi/Claim", RPC),
    ("/holdfast.coordinator.v1.WorkerApi/Heartbeat", RPC),
    ("/holdfast.coordinator.v1.WorkerApi/ReleaseJob", RPC),
]);

/// What a heartbeat is answered with.
#[derive(Clone, Copy, PartialEq)]
enum Beat {
    GoesOn,
    Stop,
    Fenced,
}

struct Coordinator {
    lease: Mutex<Option<Lease>>,
    beat: Beat,
    claims: AtomicU32,
    heartbeats: AtomicU32,
    released: Mutex<Vec<ReleaseJobRequest>>,
}

struct Edge(Arc<Coordinator>);

#[tonic::async_trait]
impl WorkerApi for Edge {
    async fn claim(&self, _: Request<ClaimRequest>) -> Result<Response<ClaimResponse>, Status> {
        self.0.claims.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(ClaimResponse { lease: self.0.lease.lock().unwrap().take() }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        assert!(request.into_inner().fence.is_some());
        self.0.heartbeats.fetch_add(1, Ordering::SeqCst);
        match self.0.beat {
            Beat::Fenced => Err(ErrorCode::Fenced.status("an old fence")),
            beat => {
                let stop = beat == Beat::Stop;
                Ok(Response::new(HeartbeatResponse { lease_ms: 600, stop, ..Default::default() }))
            }
        }
    }

    async fn release_job(
        &self,
        request: Request<ReleaseJobRequest>,
    ) -> Result<Response<ReleaseJobResponse>, Status> {
        self.0.released.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ReleaseJobResponse {}))
    }

    async fn prepare_commit(
        &self,
        _: Request<PrepareCommitRequest>,
    ) -> Result<Response<PrepareCommitResponse>, Status> {
        Err(ErrorCode::Internal.status("not part of this test"))
    }

    async fn record_commit(
        &self,
        _: Request<RecordCommitRequest>,
    ) -> Result<Response<RecordCommitResponse>, Status> {
        Err(ErrorCode::Internal.status("not part of this test"))
    }

    async fn finish_job(&self, _: Request<FinishJobRequest>) -> Result<Response<FinishJobResponse>, Status> {
        Err(ErrorCode::Internal.status("not part of this test"))
    }

    async fn sync_shards(
        &self,
        _: Request<SyncShardsRequest>,
    ) -> Result<Response<SyncShardsResponse>, Status> {
        Err(ErrorCode::Internal.status("not part of this test"))
    }
}

fn a_lease() -> Lease {
    let keys = JobKeys {
        tenant: TenantId([1; 16]),
        resource: ResourceId([2; 16]),
        tenant_keys: TenantKeys::generate(&SystemRandom),
        resource_key: ResourceKey::generate(&SystemRandom),
    };
    // Nobody listens on port 1: storage is away.
    let node = LayoutNode::new(NodeId(1), "a".into(), "127.0.0.1:1".into(), 1);
    let replication = Replication { copies: 1, ack_sites: 1 };
    let layout = Layout::compute(LayoutVersion(1), "p".into(), replication, vec![node]).unwrap();
    Lease {
        job: vec![3; 16].into(),
        fence: Some(Fence { attempt: 7, ..Fence::default() }.into()),
        lease_ms: 600,
        kind: "backup".into(),
        class: "first-full".into(),
        workload: "mail".into(),
        tenant: vec![1; 16].into(),
        resource: vec![2; 16].into(),
        keys: Some(Keys { job_keys: keys.to_bytes().to_vec().into() }),
        layout: Some((&layout).into()),
        session_token: Some(SessionToken::default()),
        graph: Some(GraphAccess {
            graph_url: "http://127.0.0.1:1".into(),
            cloud: "global".into(),
            microsoft_tenant: "t".into(),
            client_id: "c".into(),
            user_id: "u".into(),
            token: Some(GraphToken { access_token: "x".into(), expires_at_ms: u64::MAX }),
        }),
        spec: Some(Spec::Backup(BackupSpec { sequence: 1, ..Default::default() })),
        attempt_number: 1,
    }
}

struct Test {
    coordinator: Arc<Coordinator>,
    queue: InProcessQueue,
    name: QueueName,
    shutdown: Shutdown,
    worker: tokio::task::JoinHandle<Result<(), holdfast_worker::Error>>,
    server: Shutdown,
    _folder: tempfile::TempDir,
}

/// A worker whose first coordinator is away and whose second one answers.
async fn start(lease: Option<Lease>, beat: Beat, storage_wait: Duration) -> Test {
    holdfast_runtime::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::create(folder.path(), "c").unwrap();
    let coordinator = Arc::new(Coordinator {
        lease: Mutex::new(lease),
        beat,
        claims: AtomicU32::new(0),
        heartbeats: AtomicU32::new(0),
        released: Mutex::default(),
    });
    let tls = pki.issue(Role::Coordinator, "one", &[]).unwrap().options();
    let server = Shutdown::new();
    let routes = tonic::service::Routes::new(WorkerApiServer::new(Edge(coordinator.clone())));
    let (address, _server) =
        grpc::serve("127.0.0.1:0", &tls, "c", &TABLE, routes, server.clone()).await.unwrap();
    let worker_tls = pki.issue(Role::Worker, "w", &[]).unwrap().options();
    let mut options: WorkerOptions = serde_json::from_value(serde_json::json!({
        "cluster": "c", "name": "w", "slots": 1, "coordinators": ["127.0.0.1:1", address.to_string()],
        "tls": worker_tls,
    }))
    .unwrap();
    options.storage.retry_for = HumanDuration(storage_wait);
    options.storage.read_retry_for = HumanDuration(Duration::from_millis(50));
    let queue = InProcessQueue::new();
    let parts = Parts::in_process(&options, &queue, Arc::new(SystemClock), Arc::new(SystemRandom)).unwrap();
    let name = QueueName::new("default", JobClass::FirstFull).unwrap();
    queue.publisher().publish(&name, &JobHint::new(JobId([3; 16]), String::new())).await.unwrap();
    let shutdown = Shutdown::new();
    let worker = tokio::spawn(run(options, parts, shutdown.clone()));
    Test { coordinator, queue, name, shutdown, worker, server, _folder: folder }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..400 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never: {what}");
}

impl Test {
    async fn end(self) {
        assert_eq!(self.queue.publisher().depth(&self.name).await.unwrap(), 0, "the hint was acknowledged");
        self.shutdown.trigger();
        self.worker.await.unwrap().unwrap();
        self.server.trigger();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_claim_takes_the_hint_out_of_the_queue() {
    let test = start(None, Beat::GoesOn, Duration::from_secs(1)).await;
    eventually("claimed", || test.coordinator.claims.load(Ordering::SeqCst) == 1).await;
    assert!(test.coordinator.released.lock().unwrap().is_empty());
    test.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_storage_is_away_is_given_back_with_its_reason() {
    let test = start(Some(a_lease()), Beat::GoesOn, Duration::from_millis(300)).await;
    eventually("given back", || !test.coordinator.released.lock().unwrap().is_empty()).await;
    let released = test.coordinator.released.lock().unwrap()[0].clone();
    assert_eq!((released.reason(), released.code.as_str()), (ReleaseReason::Deferred, "storage-unavailable"));
    assert_eq!(released.fence.unwrap().attempt, 7);
    test.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_or_fenced_job_is_dropped_without_a_word() {
    for beat in [Beat::Stop, Beat::Fenced] {
        let test = start(Some(a_lease()), beat, Duration::from_secs(60)).await;
        eventually("a heartbeat", || test.coordinator.heartbeats.load(Ordering::SeqCst) >= 1).await;
        // The slot is free again: the next hint is claimed.
        test.queue
            .publisher()
            .publish(&test.name, &JobHint::new(JobId([4; 16]), String::new()))
            .await
            .unwrap();
        eventually("the next claim", || test.coordinator.claims.load(Ordering::SeqCst) == 2).await;
        assert!(test.coordinator.released.lock().unwrap().is_empty());
        test.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_gives_running_jobs_back_as_deferred() {
    let test = start(Some(a_lease()), Beat::GoesOn, Duration::from_secs(60)).await;
    eventually("a heartbeat", || test.coordinator.heartbeats.load(Ordering::SeqCst) >= 1).await;
    let coordinator = test.coordinator.clone();
    test.end().await;
    let released = coordinator.released.lock().unwrap();
    assert_eq!(released.len(), 1);
    assert_eq!((released[0].reason(), released[0].code.as_str()), (ReleaseReason::Deferred, "shutdown"));
}
