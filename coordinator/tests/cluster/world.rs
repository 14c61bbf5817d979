//! A coordinator with two fake nodes and a fake Microsoft, over real sockets.

use std::{sync::Arc, time::Duration};

use holdfast_coordinator::{
    ConfiguredDuty, CoordinatorHandle, CoordinatorOptions, NodeOptions, Parts, PoolOptions, QueueOptions,
    catalog::Catalog,
};
use holdfast_graph_client::QuotaLimits;
use holdfast_job_queue::{InProcessConsumer, InProcessQueue, JobConsumer as _};
use holdfast_model::{JobClass, JobId, Role};
use holdfast_proto::{
    coordinator::{operator_api_client::OperatorApiClient, worker_api_client::WorkerApiClient, *},
    signed::Verifier,
};
use holdfast_repository::KeyFile;
use holdfast_runtime::{
    ByteSize, Channels, Pki, Shutdown, SystemClock, SystemRandom, TelemetryOptions, TraceInjector,
    pki::issue_signing_key,
};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use crate::{
    fake_microsoft::{ALL_ROLES, FakeMicrosoft, SECRET},
    fake_node::FakeNode,
};

pub type Wire = InterceptedService<Channel, TraceInjector>;

pub struct World {
    _dir: tempfile::TempDir,
    pub options: CoordinatorOptions,
    pub nodes: Vec<FakeNode>,
    pub microsoft: FakeMicrosoft,
    pub verifier: Verifier,
    pub queue: InProcessQueue,
    pub consumer: InProcessConsumer,
    pub pki: Pki,
    pub shutdown: Shutdown,
    coordinators: Vec<(CoordinatorHandle, Shutdown)>,
}

impl World {
    pub async fn start(prepare: impl FnOnce(&[FakeNode])) -> Self {
        Self::start_with(prepare, |_| ()).await
    }

    pub async fn start_with(
        prepare: impl FnOnce(&[FakeNode]),
        change: impl FnOnce(&mut CoordinatorOptions),
    ) -> Self {
        // Shown when a test fails.
        let _already_set = tracing_subscriber::fmt().with_test_writer().try_init();
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(&dir.path().join("pki"), "test").unwrap();
        let signing = issue_signing_key(dir.path()).unwrap();
        let verifier = Verifier::from_public_key(&std::fs::read(&signing.public).unwrap()).unwrap();
        let shutdown = Shutdown::new();
        let mut nodes = Vec::new();
        for (id, site) in [(1, "a"), (2, "b")] {
            nodes.push(FakeNode::start(&pki, verifier.clone(), id, site, shutdown.clone()).await);
        }
        prepare(&nodes);
        let key_file = dir.path().join("key.toml");
        KeyFile::generate(&SystemRandom).save(&key_file).unwrap();
        let mut options = CoordinatorOptions {
            cluster: "test".to_owned(),
            name: "c1".to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            admin_listen: Some("127.0.0.1:0".to_owned()),
            catalog_url: Some(format!("sqlite://{}", dir.path().join("catalog.db").display())),
            catalog_url_file: None,
            key_file,
            signing_key_file: signing.private,
            tls: pki.issue(Role::Coordinator, "c1", &[]).unwrap().options(),
            region: "default".to_owned(),
            queue: QueueOptions::default(),
            redis_url: None,
            quota: QuotaLimits::default(),
            pool: PoolOptions {
                name: "default".to_owned(),
                copies: 2,
                ack_sites: 2,
                nodes: nodes.iter().map(node_options).collect(),
            },
            lease_seconds: 2,
            term_seconds: 3,
            dispatch_interval_millis: 20,
            republish_after_seconds: 1,
            max_attempts: 3,
            discovery_interval_seconds: 3600,
            layout_interval_millis: 100,
            fresh_hours: 48,
            worker_slots: 4,
            telemetry: TelemetryOptions::default(),
        };
        change(&mut options);
        let queue = InProcessQueue::new();
        let consumer = queue.consumer("default", JobClass::ALL, 8).unwrap();
        let microsoft = FakeMicrosoft::start().await;
        microsoft.directory.lock().unwrap().roles = ALL_ROLES.to_vec();
        let mut world = Self {
            _dir: dir,
            options,
            nodes,
            microsoft,
            verifier,
            queue,
            consumer,
            pki,
            shutdown,
            coordinators: Vec::new(),
        };
        world.add_coordinator("c1").await;
        world
    }

    /// Starts one more on the same catalog; calls go to the oldest that runs.
    pub async fn add_coordinator(&mut self, name: &str) {
        let parts = Parts {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            queue: self.queue.publisher(),
            ledger: None,
        };
        let options = CoordinatorOptions { name: name.to_owned(), ..self.options.clone() };
        let shutdown = self.shutdown.child();
        let handle = holdfast_coordinator::start(options, parts, shutdown.clone()).await.unwrap();
        self.coordinators.push((handle, shutdown));
    }

    pub async fn stop_first_coordinator(&mut self) {
        let (handle, shutdown) = self.coordinators.remove(0);
        shutdown.trigger();
        handle.join().await.unwrap();
    }

    fn channel(&self, role: Role) -> Wire {
        InterceptedService::new(self.bare_channel(role), TraceInjector)
    }

    pub fn bare_channel(&self, role: Role) -> Channel {
        self.channel_of(role, "tester")
    }

    fn channel_of(&self, role: Role, name: &str) -> Channel {
        let tls = self.pki.issue(role, name, &[]).unwrap().options();
        let address = self.coordinators[0].0.addr.to_string();
        Channels::connect(&address, &tls, Role::Coordinator).unwrap()
    }

    pub fn operator(&self) -> OperatorApiClient<Wire> {
        OperatorApiClient::new(self.channel(Role::Operator))
    }

    /// A worker with another certificate than [`Self::worker`]'s.
    pub fn other_worker(&self) -> WorkerApiClient<Wire> {
        let channel = self.channel_of(Role::Worker, "other");
        WorkerApiClient::new(InterceptedService::new(channel, TraceInjector))
    }

    pub fn worker(&self) -> WorkerApiClient<Wire> {
        WorkerApiClient::new(self.channel(Role::Worker))
    }

    /// A second look at the catalog.
    pub async fn catalog(&self) -> Catalog {
        Catalog::open(self.options.catalog_url.as_deref().unwrap()).await.unwrap()
    }

    pub fn connect_request(&self, secret: &str) -> ConnectTenantRequest {
        ConnectTenantRequest {
            name: "contoso".to_owned(),
            microsoft_tenant: "contoso.test".to_owned(),
            backup_app: Some(AppRegistration {
                client_id: "app".to_owned(),
                client_secret: secret.to_owned(),
                certificate_pem: String::new(),
            }),
            restore_app: None,
            cloud: String::new(),
            graph_url: self.microsoft.url(),
            login_url: self.microsoft.url(),
        }
    }

    pub async fn connect(&self) -> ConnectTenantResponse {
        self.operator().connect_tenant(self.connect_request(SECRET)).await.unwrap().into_inner()
    }

    pub async fn start_backup(&self, resource: &str) -> StartRunResponse {
        let request = StartBackupRequest {
            tenant: "contoso".to_owned(),
            resources: vec![resource.to_owned()],
            workloads: vec!["mail".to_owned()],
        };
        self.operator().start_backup(request).await.unwrap().into_inner()
    }

    /// Waits for a hint and claims the job it names.
    pub async fn claim_next(&mut self) -> Lease {
        loop {
            let delivery =
                tokio::time::timeout(Duration::from_secs(20), self.consumer.next()).await.unwrap().unwrap();
            let job = delivery.hint.job;
            delivery.ack().await.unwrap();
            let claimed = self.claim(job).await;
            if let Some(lease) = claimed {
                return lease;
            }
        }
    }

    pub async fn claim(&self, job: JobId) -> Option<Lease> {
        let request = ClaimRequest { job: job.0.to_vec().into(), worker: "w1".to_owned() };
        self.worker().claim(request).await.unwrap().into_inner().lease
    }

    pub async fn job(&self, job: &[u8]) -> Job {
        let request = GetJobRequest { job: hex::encode(job) };
        self.operator().get_job(request).await.unwrap().into_inner().job.unwrap()
    }

    pub async fn stop(self) {
        self.shutdown.trigger();
        for (handle, _) in self.coordinators {
            handle.join().await.unwrap();
        }
    }
}

fn node_options(node: &FakeNode) -> NodeOptions {
    NodeOptions {
        id: node.id,
        site: node.site.clone(),
        address: node.addr.to_string(),
        capacity: ByteSize::gib(1),
        duty: ConfiguredDuty::Data,
    }
}

pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("within 20 s it did not happen that {what}");
}
