//! What tests of every workload share: one simulated tenant, one store in memory, and the ways to run a job on them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod export;
pub mod restore;
pub mod resume;
pub mod shards;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use holdfast_graph_client::{
    AppCredentials, ClientCredentials, Cloud, Credential, GraphClient, GraphOptions, LocalLedger, QuotaLimits,
};
use holdfast_graph_sim::{CountersSnapshot, Sim, SimApp, SimHandle, SimOptions, SimUser};
use holdfast_model::{
    Account, ChunkId, Clock, ConflictPolicy, Epoch, Fence, JobClass, Millis, Random, ResourceId, Sequence,
    TenantId, Workload,
};
use holdfast_record::Pin;
use holdfast_repository::{
    ItemEntry, JobKeys, MemoryStore, ResourceKey, SnapshotReader, StoreError, TenantKeys,
};
use holdfast_runtime::{SystemClock, SystemRandom};
use holdfast_worker::{
    CheckpointEvery, JobError,
    backup::{BackupJob, BackupOptions, CheckpointSink, Ends, FinishedBackup, Progress, ShardBoard, Shared},
    memory::MemoryBudget,
    restore::{RestoreJob, Restored},
    workload::snapshot_folders::SnapshotFolders,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// What jobs that read hold ahead.
pub const READ_AHEAD_BYTES: usize = 8 << 20;
/// What the app registration may do.
const ROLES: [&str; 7] = [
    "Mail.ReadWrite",
    "MailboxSettings.ReadWrite",
    "Contacts.ReadWrite",
    "Tasks.ReadWrite.All",
    "Calendars.ReadWrite",
    "Files.ReadWrite.All",
    "User.Read.All",
];

/// The machine's clock, and some days more.
#[derive(Default)]
pub struct ShiftedClock {
    ahead_ms: AtomicU64,
}

impl ShiftedClock {
    pub fn days_pass(&self, days: u64) {
        self.ahead_ms.fetch_add(days * 86_400_000, Ordering::Relaxed);
    }
}

impl Clock for ShiftedClock {
    fn now_ms(&self) -> Millis {
        SystemClock.now_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

const TENANT: TenantId = TenantId([1; 16]);
const RESOURCE: ResourceId = ResourceId([2; 16]);
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";

/// Keeps the newest checkpoint, and may stop the job at the n-th one.
#[derive(Default)]
pub struct Checkpoints {
    pub newest: Mutex<Option<Bytes>>,
    pub stop_after: Mutex<Option<u32>>,
    pub count: Mutex<u32>,
}

#[async_trait]
impl CheckpointSink for Checkpoints {
    async fn put(&self, body: Bytes, roots: &[ChunkId]) -> Result<(), StoreError> {
        assert!(!roots.is_empty(), "a checkpoint with items reaches its trees");
        *self.newest.lock().unwrap() = Some(body);
        *self.count.lock().unwrap() += 1;
        let stop = *self.stop_after.lock().unwrap();
        if stop.is_some_and(|stop| *self.count.lock().unwrap() >= stop) {
            return Err(StoreError::SessionLost);
        }
        Ok(())
    }
}

pub struct World {
    pub workload: Workload,
    pub sim: SimHandle,
    pub time: Arc<ShiftedClock>,
    pub store: Arc<MemoryStore>,
    pub keys: Arc<JobKeys>,
    pub user: SimUser,
    pub base: Option<Pin>,
    pub checkpoints: Arc<Checkpoints>,
    /// Who helps.
    pub shards: Option<Arc<dyn ShardBoard>>,
    pub options: BackupOptions,
    pub shared: Shared,
    /// How long a request may wait before the job is deferred.
    pub patience: Duration,
    /// What the newest attempt has told.
    pub progress: Arc<Progress>,
    quota: Arc<LocalLedger>,
    sim_options: SimOptions,
    attempt: u64,
    http: reqwest::Client,
}

impl World {
    /// Starts a tenant; jobs are for this workload of its first user.
    pub async fn start(workload: Workload, mut options: SimOptions) -> Self {
        holdfast_runtime::install_crypto();
        // A test may name an app with fewer roles.
        let app = options.apps.pop().map(|app| app.roles);
        options.apps = vec![SimApp {
            client_id: CLIENT.into(),
            client_secret: Some("secret".into()),
            certificate_pem: None,
            roles: app.unwrap_or_else(|| ROLES.map(str::to_owned).to_vec()),
        }];
        let time = Arc::new(ShiftedClock::default());
        let clock: Arc<dyn Clock> = time.clone();
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let sim = Sim::start(options.clone(), clock.clone()).await.unwrap();
        let user = sim.users().into_iter().next().unwrap();
        let keys = JobKeys {
            tenant: TENANT,
            resource: RESOURCE,
            tenant_keys: TenantKeys::generate(random.as_ref()),
            resource_key: ResourceKey::generate(random.as_ref()),
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let quota = Arc::new(LocalLedger::new(QuotaLimits::default(), clock.clone()));
        let shared = Shared { clock, random, pool: Arc::new(pool), memory: MemoryBudget::new(64 << 20) };
        Self {
            workload,
            sim,
            time,
            store: Arc::new(MemoryStore::new()),
            keys: Arc::new(keys),
            user,
            base: None,
            checkpoints: Arc::default(),
            shards: None,
            options: BackupOptions {
                fetches: 4,
                checkpoint_every: CheckpointEvery { items: 1_000_000, seconds: 1_000_000 },
                flags_every: 0,
                drive_versions: 0,
                shard_files: 0,
                shard_wait: Duration::from_millis(5),
                page_buffer_bytes: 4 << 20,
                in_flight_bytes: 16 << 20,
                content_retry: Duration::from_millis(5),
                worker: "w".into(),
            },
            shared,
            patience: Duration::from_mins(1),
            progress: Arc::default(),
            quota,
            sim_options: options,
            attempt: 0,
            http: reqwest::Client::new(),
        }
    }

    pub fn graph(&self) -> GraphClient {
        self.microsoft().graph()
    }

    fn microsoft(&self) -> Microsoft {
        Microsoft {
            url: self.sim.base_url(),
            tenant: self.sim_options.tenant_id.clone(),
            patience: self.patience,
            quota: self.quota.clone(),
            clock: self.shared.clock.clone(),
            random: self.shared.random.clone(),
        }
    }

    pub fn job(&mut self) -> BackupJob {
        self.attempt += 1;
        BackupJob {
            tenant: TENANT,
            resource: RESOURCE,
            workload: self.workload,
            user: self.user.id.clone(),
            base: self.base.clone(),
            sequence: Sequence(self.base.as_ref().map_or(1, |pin| pin.sequence.0 + 1)),
            fence: Fence { attempt: self.attempt, ..Fence::default() },
            epoch: Epoch(1),
            retain_until_ms: 0,
            options: self.options.clone(),
        }
    }

    /// Runs one attempt; a checkpoint of an earlier one is used.
    pub async fn attempt(&mut self) -> Result<FinishedBackup, JobError> {
        let job = self.job();
        self.progress = Arc::default();
        let ends = Ends {
            graph: self.graph(),
            store: self.store.clone(),
            keys: self.keys.clone(),
            checkpoints: self.checkpoints.clone(),
            shards: self.shards.clone(),
            resume: self.checkpoints.newest.lock().unwrap().clone(),
            progress: self.progress.clone(),
        };
        job.run(ends, self.shared.clone()).await
    }

    /// Runs a backup to its end and makes it the base.
    pub async fn back_up(&mut self) -> FinishedBackup {
        let finished = self.attempt().await.unwrap();
        assert!(finished.account.adds_up());
        self.base = Some(finished.pin.clone());
        finished
    }

    pub async fn control(&self, name: &str, body: Value) -> Value {
        let url = format!("{}/_control/{name}", self.sim.base_url());
        let answer = self.http.post(url).body(body.to_string()).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{name}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// One request to Microsoft, below the user, that the client has no call for.
    pub async fn send(&self, method: reqwest::Method, path: &str, body: &Value) -> Value {
        let (base, tenant) = (self.sim.base_url(), &self.sim_options.tenant_id);
        let form = [
            ("client_id", CLIENT),
            ("client_secret", "secret"),
            ("grant_type", "client_credentials"),
            ("scope", "https://graph.microsoft.com/.default"),
        ];
        let form = form.map(|(name, value)| format!("{name}={value}")).join("&");
        let token = self.http.post(format!("{base}/{tenant}/oauth2/v2.0/token"));
        let token = token.header("Content-Type", "application/x-www-form-urlencoded").body(form);
        let token: Value = serde_json::from_str(&token.send().await.unwrap().text().await.unwrap()).unwrap();
        let request = self.http.request(method, format!("{base}/v1.0/users/{}{path}", self.user.id));
        let request = request
            .bearer_auth(token["access_token"].as_str().unwrap())
            .header("Content-Type", "application/json")
            .header("Prefer", "IdType=\"ImmutableId\"")
            .body(body.to_string());
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub async fn evolve(&self, mut changes: Value) -> Value {
        changes["users"] = json!([self.user.user_principal_name]);
        changes["workload"] = json!(self.sim_workload());
        self.control("evolve", changes).await
    }

    /// What the simulator calls the workload.
    pub fn sim_workload(&self) -> &'static str {
        match self.workload {
            Workload::Mail => "mail",
            Workload::Calendar => "calendar",
            Workload::Contacts => "contacts",
            Workload::Tasks => "todo",
            Workload::OneDrive => "onedrive",
        }
    }

    /// Every delta token of the workload dies.
    pub async fn expire_delta(&self) {
        self.control("expire-delta", json!({"user": self.user.id, "workload": self.sim_workload()})).await;
    }

    pub async fn faults(&self, faults: Value) {
        self.control("options", json!({ "faults": faults })).await;
    }

    /// Requests so far, refused ones too, by kind.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (kind, n) in self.sim.counters().requests.into_values().flatten() {
            *all.entry(kind).or_default() += n;
        }
        all
    }

    pub fn counters(&self) -> CountersSnapshot {
        self.sim.counters()
    }

    pub async fn reader(&self) -> SnapshotReader {
        let pin = self.base.as_ref().unwrap();
        SnapshotReader::open(self.store.clone(), self.keys.clone(), pin).await.unwrap()
    }

    pub async fn restore(&self, restore_key: &str, into: &str, conflict: ConflictPolicy) -> Restored {
        self.restore_paths(&[], (restore_key, into, conflict)).await.unwrap()
    }

    pub async fn restore_paths(
        &self,
        paths: &[&str],
        (restore_key, into, conflict): (&str, &str, ConflictPolicy),
    ) -> Result<Restored, JobError> {
        let job = RestoreJob {
            workload: self.workload,
            pin: self.base.clone().unwrap(),
            user: self.user.id.clone(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            into: into.into(),
            conflict,
            restore_key: restore_key.into(),
            writes: 4,
            read_ahead_bytes: READ_AHEAD_BYTES,
        };
        let progress = Arc::new(Progress::default());
        job.run(self.graph(), self.store.clone(), self.keys.clone(), self.shared.clone(), progress).await
    }

    /// Every item of the newest snapshot.
    pub async fn stored(&self) -> Vec<Stored> {
        let reader = self.reader().await;
        let folders = SnapshotFolders::read(&reader).await.unwrap();
        let selection = folders.select(&reader, &[]).await.unwrap();
        let selected: Vec<_> = folders.selected(&reader, &selection).try_collect().await.unwrap();
        let mut all = Vec::with_capacity(selected.len());
        for (folder, id, entry) in selected {
            let meta = reader.meta(&entry).await.unwrap();
            let mut parts = Vec::new();
            let content = reader.content(&entry).await.unwrap();
            holdfast_worker::workload::of(self.workload).check(&meta, &content).unwrap();
            for part in &content {
                parts.push(reader.read_range(part, 0, part.len).await.unwrap().to_vec());
            }
            let meta = serde_json::from_slice(&meta).unwrap();
            all.push(Stored { path: folders.all()[folder].path.clone(), id, entry, meta, parts });
        }
        // The folders of a drive are items, and are not among these.
        if self.workload != Workload::OneDrive {
            assert_eq!(self.base.as_ref().unwrap().items, all.len() as u64);
        }
        all
    }

    /// What the simulator holds, by id.
    pub async fn truth_by_id(&self) -> BTreeMap<String, Value> {
        let all = self.sim.truth_of(self.sim_workload(), &self.user.id).await.unwrap();
        all.into_iter().map(|one| (one["id"].as_str().unwrap().to_owned(), one)).collect()
    }

    /// Has the next attempt start from its base, whatever earlier ones left.
    pub fn forget_checkpoints(&self) {
        *self.checkpoints.newest.lock().unwrap() = None;
        *self.checkpoints.count.lock().unwrap() = 0;
        *self.checkpoints.stop_after.lock().unwrap() = None;
    }

    /// Runs an attempt that is killed at its n-th job checkpoint.
    pub async fn attempt_killed_at(&mut self, n: u32) {
        *self.checkpoints.stop_after.lock().unwrap() = Some(n);
        let killed = self.attempt().await;
        assert!(matches!(killed, Err(JobError::Store(_))), "{:?}", killed.map(|finished| finished.account));
        *self.checkpoints.stop_after.lock().unwrap() = None;
    }
}

/// What a client of the simulator is made from.
struct Microsoft {
    url: String,
    tenant: String,
    patience: Duration,
    quota: Arc<LocalLedger>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Microsoft {
    fn graph(&self) -> GraphClient {
        let (clock, random) = (self.clock.clone(), self.random.clone());
        let credentials = AppCredentials {
            client_id: CLIENT.into(),
            secret: Credential::Secret(Zeroizing::new("secret".into())),
        };
        let (url, tenant) = (&self.url, &self.tenant);
        let tokens =
            ClientCredentials::new(url, url, tenant, credentials, clock.clone(), random.clone()).unwrap();
        let mut options = GraphOptions::new(Cloud::Global, tenant, CLIENT);
        options.graph_url.clone_from(url);
        options.max_wait = self.patience;
        let quota = self.quota.clone();
        GraphClient::new(options, Arc::new(tokens), quota, JobClass::FirstFull, clock, random).unwrap()
    }
}

/// One item as a snapshot has it.
pub struct Stored {
    pub path: String,
    pub id: String,
    pub entry: ItemEntry,
    pub meta: Value,
    pub parts: Vec<Vec<u8>>,
}

impl Stored {
    /// Compares the properties that a truth has, but for those that are compared by other means.
    pub fn assert_properties(&self, truth: &Value, except: &[&str]) {
        assert_same(&self.meta, truth, except);
    }
}

/// Compares the properties that a truth has.
pub fn assert_same(stored: &Value, truth: &Value, except: &[&str]) {
    for (name, expected) in truth.as_object().unwrap() {
        if !except.contains(&name.as_str()) {
            assert_eq!(stored[name], *expected, "{name} of {}", truth["identity"]);
        }
    }
}

pub fn blake3_hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// (listed, stored, unchanged, removed).
pub fn outcome(finished: &FinishedBackup) -> (u64, u64, u64, u64) {
    let account = &finished.account;
    (account.listed, account.stored, account.unchanged, account.removed)
}

pub fn failures(account: &Account) -> u64 {
    account.failed_retryable + account.failed_permanent
}
