//! A token that Microsoft takes back early, with the simulator as Microsoft and real mTLS to the coordinator.

use std::sync::atomic::{AtomicU32, Ordering};

use holdfast_graph_client::{
    AppCredentials, ClientCredentials, Credential, GraphClient, LocalLedger, QuotaLimits, Rejection,
    TokenFingerprint, TokenSource as _,
};
use holdfast_graph_sim::{Population, Sim, SimApp, SimHandle, SimOptions};
use holdfast_model::{
    Fence, Layout, LayoutNode, LayoutVersion, NodeId, Replication, ResourceId, Role, TenantId,
};
use holdfast_proto::{
    coordinator::{
        BackupSpec, ClaimResponse, FinishJobResponse, GraphAccess, GraphToken, HeartbeatResponse, Keys,
        Lease, PrepareCommitRequest, PrepareCommitResponse, RecordCommitRequest, RecordCommitResponse,
        ReleaseJobResponse, SyncShardsRequest, SyncShardsResponse, lease,
        worker_api_server::{WorkerApi, WorkerApiServer},
    },
    status::ErrorCode,
    storage::SessionToken,
};
use holdfast_repository::{JobKeys, ResourceKey, TenantKeys};
use holdfast_runtime::{Pki, RoleTable, SystemClock, SystemRandom, grpc};
use tonic::{Request, Response, Status};

use super::*;

const CLIENT: &str = "11111111-2222-4333-8444-555555555555";
static TABLE: RoleTable = RoleTable(&[("/holdfast.coordinator.v1.WorkerApi/Heartbeat", &[Role::Worker])]);

/// Answers heartbeats as the coordinator does, with tokens of the simulator.
struct Edge {
    app: Arc<ClientCredentials>,
    rejections: Arc<AtomicU32>,
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(ErrorCode::Internal.status("not part of this test"))
}

#[tonic::async_trait]
impl WorkerApi for Edge {
    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let mut answer = HeartbeatResponse { lease_ms: 60_000, ..Default::default() };
        if let Some(rejected) = request.into_inner().rejected {
            self.rejections.fetch_add(1, Ordering::SeqCst);
            let fingerprint = TokenFingerprint(rejected.fingerprint.as_ref().try_into().unwrap());
            let token = self.app.replace(&Rejection { fingerprint, claims: None }).await.unwrap();
            answer.token = token.map(wire);
        }
        Ok(Response::new(answer))
    }

    async fn claim(&self, _: Request<ClaimRequest>) -> Result<Response<ClaimResponse>, Status> {
        not_here()
    }

    async fn prepare_commit(
        &self,
        _: Request<PrepareCommitRequest>,
    ) -> Result<Response<PrepareCommitResponse>, Status> {
        not_here()
    }

    async fn record_commit(
        &self,
        _: Request<RecordCommitRequest>,
    ) -> Result<Response<RecordCommitResponse>, Status> {
        not_here()
    }

    async fn finish_job(&self, _: Request<FinishJobRequest>) -> Result<Response<FinishJobResponse>, Status> {
        not_here()
    }

    async fn release_job(
        &self,
        _: Request<ReleaseJobRequest>,
    ) -> Result<Response<ReleaseJobResponse>, Status> {
        not_here()
    }

    async fn sync_shards(
        &self,
        _: Request<SyncShardsRequest>,
    ) -> Result<Response<SyncShardsResponse>, Status> {
        not_here()
    }
}

fn wire(token: holdfast_graph_client::AccessToken) -> GraphToken {
    GraphToken { access_token: token.secret.to_string(), expires_at_ms: token.expires_at_ms }
}

async fn simulator() -> (SimHandle, Arc<ClientCredentials>, SimOptions) {
    let options = SimOptions {
        population: Population {
            users: 1,
            messages_per_user: 1,
            total_bytes: 10_000,
            max_message_bytes: 10_000,
            ..Population::default()
        },
        apps: vec![SimApp {
            client_id: CLIENT.into(),
            client_secret: Some("secret".into()),
            certificate_pem: None,
            roles: ["Mail.ReadWrite", "MailboxSettings.ReadWrite", "User.Read.All"].map(Into::into).into(),
        }],
        ..SimOptions::default()
    };
    let sim = Sim::start(options.clone(), Arc::new(SystemClock)).await.unwrap();
    let app =
        AppCredentials { client_id: CLIENT.into(), secret: Credential::Secret("secret".to_owned().into()) };
    let (url, tenant) = (sim.base_url(), &options.tenant_id);
    let source =
        ClientCredentials::new(&url, &url, tenant, app, Arc::new(SystemClock), Arc::new(SystemRandom));
    (sim, Arc::new(source.unwrap()), options)
}

fn a_lease(sim: &SimHandle, tenant: &str, token: GraphToken) -> Lease {
    let keys = JobKeys {
        tenant: TenantId([1; 16]),
        resource: ResourceId([2; 16]),
        tenant_keys: TenantKeys::generate(&SystemRandom),
        resource_key: ResourceKey::generate(&SystemRandom),
    };
    let node = LayoutNode::new(NodeId(1), "a".into(), "127.0.0.1:1".into(), 1);
    let replication = Replication { copies: 1, ack_sites: 1 };
    let layout = Layout::compute(LayoutVersion(1), "p".into(), replication, vec![node]).unwrap();
    Lease {
        job: vec![3; 16].into(),
        fence: Some(Fence { attempt: 1, ..Fence::default() }.into()),
        // The next heartbeat by the clock would come after 20 s.
        lease_ms: 60_000,
        kind: "backup".into(),
        class: "first-full".into(),
        workload: "mail".into(),
        tenant: vec![1; 16].into(),
        resource: vec![2; 16].into(),
        keys: Some(Keys { job_keys: keys.to_bytes().to_vec().into() }),
        layout: Some((&layout).into()),
        session_token: Some(SessionToken::default()),
        graph: Some(GraphAccess {
            graph_url: sim.base_url(),
            cloud: "global".into(),
            microsoft_tenant: tenant.to_owned(),
            client_id: CLIENT.into(),
            user_id: sim.users()[0].id.clone(),
            token: Some(token),
        }),
        spec: Some(lease::Spec::Backup(BackupSpec { sequence: 1, ..Default::default() })),
        attempt_number: 1,
    }
}

fn graph(lease: &HeldLease) -> GraphClient {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ledger = Arc::new(LocalLedger::new(QuotaLimits::default(), clock.clone()));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let random = Arc::new(SystemRandom);
    let shared = Shared { clock, random, pool: Arc::new(pool), memory: MemoryBudget::new(1 << 20) };
    lease.graph("ISV|Test|Test/1", ledger, &shared).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_revoked_early_is_replaced_long_before_the_next_heartbeat() {
    holdfast_runtime::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::create(folder.path(), "c").unwrap();
    let (sim, app, options) = simulator().await;
    let token = wire(app.token().await.unwrap());
    let rejections = Arc::new(AtomicU32::new(0));
    let server = Shutdown::new();
    let edge = Edge { app, rejections: rejections.clone() };
    let routes = tonic::service::Routes::new(WorkerApiServer::new(edge));
    let tls = pki.issue(Role::Coordinator, "one", &[]).unwrap().options();
    let (address, _server) =
        grpc::serve("127.0.0.1:0", &tls, "c", &TABLE, routes, server.clone()).await.unwrap();
    let tls = pki.issue(Role::Worker, "w", &[]).unwrap().options();
    let coordinator = CoordinatorClient::new(&[address.to_string()], &tls, Arc::new(SystemRandom)).unwrap();

    let lease = HeldLease::read(a_lease(&sim, &options.tenant_id, token), Arc::new(SystemClock)).unwrap();
    let graph = graph(&lease);
    let user = lease.user_id().unwrap().to_owned();
    let running = Arc::new(Running { lease, progress: Arc::default(), stop: CancellationToken::new() });
    let _heartbeats = AbortOnDropHandle::new(tokio::spawn(heartbeats(coordinator, running)));
    graph.mail_folder(&user, "inbox").await.unwrap();
    assert_eq!((rejections.load(Ordering::SeqCst), sim.counters().tokens_issued), (0, 1));

    let control = format!("{}/_control/expire-tokens", sim.base_url());
    reqwest::Client::new().post(control).body("{}").send().await.unwrap().error_for_status().unwrap();
    // Several calls at once find out.
    let calls = (0..4).map(|_| graph.mail_folder(&user, "inbox"));
    let answers = tokio::time::timeout(Duration::from_secs(15), futures::future::join_all(calls));
    for answer in answers.await.expect("the job waits for a heartbeat by the clock") {
        answer.unwrap();
    }
    assert!(rejections.load(Ordering::SeqCst) > 0);
    assert_eq!(sim.counters().tokens_issued, 2, "one renewal for all");
    server.trigger();
}
