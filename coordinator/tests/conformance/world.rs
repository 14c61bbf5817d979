//! A catalog with a tenant and mailboxes, and short names for what the scenarios do with it.

use std::{sync::Mutex, time::Duration};

use async_trait::async_trait;
use holdfast_coordinator::{
    Error,
    catalog::{
        Catalog,
        audit::Actor,
        failed::FailedItem,
        job::{JobRow, NewJob},
        protection::ProtectionCounts,
        resource::ResourceRow,
        tenant::TenantRow,
        term::Leadership,
    },
    job::{
        attempt::Attempt,
        claim::{Claimed, claim},
        prepare_commit::{Prepared, prepare_commit},
        record_commit::record_commit,
        spec::JobSpec,
    },
};
use holdfast_graph_client::Cloud;
use holdfast_job_queue::{JobHint, JobPublisher, Published, QueueError, QueueName};
use holdfast_model::{
    Account, ChunkId, Epoch, JobClass, JobId, JobKind, PinHash, Random as _, ResourceId, SnapshotId,
    TenantId, Workload,
};
use holdfast_record::Pin;
use holdfast_runtime::SystemRandom;

pub const LEASE: Duration = Duration::from_secs(60);
pub const SHORT: Duration = Duration::from_millis(1);
pub const MAX_ATTEMPTS: u32 = 3;

pub struct World {
    pub url: String,
    pub catalog: Catalog,
    pub tenant: TenantId,
    pub mailboxes: Vec<ResourceId>,
}

pub fn worker() -> Actor {
    Actor("worker/w1".to_owned())
}

/// The current attempt at a job, spoken for by [`worker`].
pub fn attempt(job: &JobRow) -> Attempt {
    Attempt { job: job.id, fence: job.fence, worker: worker() }
}

pub fn actor() -> Actor {
    Actor("operator/ann".to_owned())
}

impl World {
    pub async fn open(url: &str) -> Self {
        let catalog = Catalog::open(url).await.unwrap();
        let mut world =
            Self { url: url.to_owned(), catalog, tenant: TenantId([0; 16]), mailboxes: Vec::new() };
        (world.tenant, world.mailboxes) = world.add_tenant("contoso", 3).await;
        world
    }

    pub async fn add_tenant(&self, name: &str, n_mailboxes: u8) -> (TenantId, Vec<ResourceId>) {
        let tenant = TenantId::random(&SystemRandom);
        let row = TenantRow {
            id: tenant,
            name: name.to_owned(),
            microsoft_tenant: "00000000-0000-0000-0000-000000000000".to_owned(),
            cloud: Cloud::Global,
            graph_url: "https://graph.test".to_owned(),
            login_url: "https://login.test".to_owned(),
            pool: "default".to_owned(),
            backup_client_id: "b".to_owned(),
            backup_secret: vec![0, 1, 255],
            restore_client_id: "r".to_owned(),
            restore_secret: vec![2],
            wrapped_keys: vec![3],
        };
        self.catalog.put_tenant(&actor(), &row).await.unwrap();
        let found: Vec<ResourceRow> = (0..n_mailboxes).map(|n| mailbox(tenant, n)).collect();
        self.catalog.put_discovered(None, tenant, &found).await.unwrap();
        (tenant, found.iter().map(|row| row.id).collect())
    }

    pub fn backup(&self, mailbox: usize) -> NewJob {
        new_backup(self.tenant, self.mailboxes[mailbox])
    }

    pub async fn start(&self, jobs: &[NewJob]) -> Vec<JobId> {
        self.catalog.start_run(&SystemRandom, &actor(), "test", jobs).await.unwrap().1
    }

    pub async fn queued(&self, mailbox: usize) -> JobId {
        self.start(&[self.backup(mailbox)]).await[0]
    }

    pub async fn claim(&self, job: JobId, lease: Duration) -> Option<Claimed> {
        claim(&self.catalog, job, &worker(), "w1", lease).await.unwrap()
    }

    pub async fn prepare(&self, claimed: &Claimed, pin: &Pin, failed: Vec<FailedItem>) -> Result<(), Error> {
        let prepared = Prepared {
            attempt: attempt(&claimed.job),
            pin: pin.encode(),
            account: Account { listed: 2, stored: 2, ..Account::default() },
            failed,
        };
        let ticket = prepare_commit(&self.catalog, &prepared, LEASE).await?;
        assert_eq!((ticket.pin_hash, ticket.fence, ticket.sequence), (pin.hash(), pin.fence, pin.sequence));
        Ok(())
    }

    pub async fn record(&self, claimed: &Claimed, pin: &Pin) -> Result<(), Error> {
        record_commit(&self.catalog, &attempt(&claimed.job), &pin.hash().to_string()).await
    }

    /// Commits a backup with these failed items.
    pub async fn back_up(&self, new: NewJob, failed: Vec<FailedItem>) -> Pin {
        let job = self.start(&[new]).await[0];
        let claimed = self.claim(job, LEASE).await.unwrap();
        let pin = pin_of(&claimed);
        self.prepare(&claimed, &pin, failed).await.unwrap();
        self.record(&claimed, &pin).await.unwrap();
        pin
    }

    /// How the tenant's mailboxes stand.
    pub async fn counts(&self, fresh_since_ms: i64) -> ProtectionCounts {
        let mail = [Workload::Mail];
        self.catalog.count_protection(self.tenant, &mail, fresh_since_ms).await.unwrap()
    }

    pub async fn lead(&self, holder: &str, length: Duration) -> Leadership {
        self.catalog.take_term(holder, length).await.unwrap().expect("the term is free")
    }

    /// Changes a row behind the catalog's back.
    pub async fn tamper(&self, sql: &'static str) {
        let pool = sqlx::AnyPool::connect(&self.url).await.unwrap();
        sqlx::query(sql).execute(&pool).await.unwrap();
        pool.close().await;
    }
}

pub fn mailbox(tenant: TenantId, n: u8) -> ResourceRow {
    ResourceRow {
        tenant,
        id: ResourceId::random(&SystemRandom),
        microsoft_id: format!("ms-{n}"),
        name: format!("User{n}@contoso.test"),
        display_name: format!("User {n}"),
        is_gone: false,
        wrapped_key: vec![n; 40],
    }
}

pub fn new_backup(tenant: TenantId, resource: ResourceId) -> NewJob {
    NewJob {
        tenant,
        resource,
        workload: Workload::Mail,
        kind: JobKind::Backup,
        class: JobClass::FirstFull,
        spec: JobSpec::Backup,
        snapshot: String::new(),
        parent: None,
    }
}

pub fn pin_of(claimed: &Claimed) -> Pin {
    let job = &claimed.job;
    let mut root = [0; 32];
    SystemRandom.fill(&mut root);
    Pin {
        tenant: job.tenant,
        resource: job.resource,
        workload: job.workload,
        sequence: claimed.sequence,
        fence: job.fence,
        epoch: Epoch(1),
        snapshot: SnapshotId::derive(job.tenant, job.resource, job.workload, claimed.sequence),
        root: ChunkId(root),
        sealed_root: bytes::Bytes::from_static(b"sealed"),
        previous: (!claimed.base_pin.is_empty()).then_some(PinHash([1; 32])),
        created_ms: 1_700_000_000_000 + claimed.sequence.0,
        retain_until_ms: 0,
        items: 2,
        items_missing: 0,
    }
}

pub fn failed_item(id: &str, code: &str) -> FailedItem {
    FailedItem {
        id: id.to_owned(),
        path: "/Inbox".to_owned(),
        code: code.to_owned(),
        retryable: true,
        attempts: 1,
        request_id: String::new(),
        stale: false,
        partial: false,
        parked: false,
    }
}

/// A queue that remembers what it was given.
#[derive(Default)]
pub struct RecordingQueue {
    pub hints: Mutex<Vec<(QueueName, JobId)>>,
    pub returns: bool,
    pub depth: u64,
    /// Breaks after so many; never, when there is no number.
    pub breaks_after: Option<usize>,
}

impl RecordingQueue {
    pub fn taken(&self) -> Vec<JobId> {
        std::mem::take(&mut *self.hints.lock().unwrap()).into_iter().map(|(_, job)| job).collect()
    }
}

#[async_trait]
impl JobPublisher for RecordingQueue {
    async fn publish(&self, queue: &QueueName, hint: &JobHint) -> Result<Published, QueueError> {
        let mut hints = self.hints.lock().unwrap();
        if self.breaks_after.is_some_and(|most| hints.len() >= most) {
            return Err(QueueError::Full { queue: queue.to_string() });
        }
        hints.push((queue.clone(), hint.job));
        Ok(if self.returns { Published::Returned } else { Published::Confirmed })
    }

    async fn depth(&self, _: &QueueName) -> Result<u64, QueueError> {
        Ok(self.depth)
    }

    async fn dead(&self) -> Result<u64, QueueError> {
        Ok(0)
    }
}

pub async fn eventually<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> T {
    for _ in 0..500 {
        if let Some(value) = look().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within 5 s");
}
