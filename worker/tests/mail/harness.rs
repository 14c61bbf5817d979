//! One simulated tenant, one store in memory, and the ways to run a job on them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use futures::TryStreamExt as _;
use holdfast_graph_client::{
    AppCredentials, ClientCredentials, Cloud, Credential, GraphClient, GraphOptions, LocalLedger, QuotaLimits,
};
use holdfast_graph_sim::{CountersSnapshot, Sim, SimApp, SimHandle, SimOptions, SimUser, TruthMessage};
use holdfast_model::{
    Account, ChunkId, Clock, ConflictPolicy, Epoch, Fence, JobClass, Random, ResourceId, Sequence, TenantId,
    Workload,
};
use holdfast_record::Pin;
use holdfast_repository::{
    ItemEntry, JobKeys, MemoryStore, ResourceKey, SnapshotReader, StoreError, TenantKeys,
};
use holdfast_runtime::{SystemClock, SystemRandom};
use holdfast_worker::{
    CheckpointEvery, JobError,
    backup::{BackupJob, BackupOptions, CheckpointSink, Ends, FinishedBackup, Progress, Shared},
    memory::MemoryBudget,
    restore::{RestoreJob, Restored},
    workload::{
        mail::{
            meta::{AttachmentSource, stored_message},
            mime_parts::Encoding,
        },
        snapshot_folders::SnapshotFolders,
    },
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

const TENANT: TenantId = TenantId([1; 16]);
const RESOURCE: ResourceId = ResourceId([2; 16]);
/// What jobs that read hold ahead.
pub const READ_AHEAD_BYTES: usize = 8 << 20;
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
    pub sim: SimHandle,
    pub store: Arc<MemoryStore>,
    pub keys: Arc<JobKeys>,
    pub user: SimUser,
    pub base: Option<Pin>,
    pub checkpoints: Arc<Checkpoints>,
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
    pub async fn new(messages: u32) -> Self {
        Self::with(SimOptions {
            population: holdfast_graph_sim::Population {
                users: 2,
                messages_per_user: messages,
                total_bytes: u64::from(messages) * 2 * 30_000,
                max_message_bytes: 2_000_000,
                ..Default::default()
            },
            ..SimOptions::default()
        })
        .await
    }

    pub async fn with(mut options: SimOptions) -> Self {
        holdfast_runtime::install_crypto();
        options.apps = vec![SimApp {
            client_id: CLIENT.into(),
            client_secret: Some("secret".into()),
            certificate_pem: None,
            roles: vec!["Mail.ReadWrite".into(), "User.Read.All".into()],
        }];
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
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
            sim,
            store: Arc::new(MemoryStore::new()),
            keys: Arc::new(keys),
            user,
            base: None,
            checkpoints: Arc::default(),
            options: BackupOptions {
                fetches: 4,
                checkpoint_every: CheckpointEvery { items: 1_000_000, seconds: 1_000_000 },
                flags_every: 0,
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
        let url = self.sim.base_url();
        let (clock, random) = (self.shared.clock.clone(), self.shared.random.clone());
        let credentials = AppCredentials {
            client_id: CLIENT.into(),
            secret: Credential::Secret(Zeroizing::new("secret".into())),
        };
        let tenant = &self.sim_options.tenant_id;
        let tokens =
            ClientCredentials::new(&url, &url, tenant, credentials, clock.clone(), random.clone()).unwrap();
        let mut options = GraphOptions::new(Cloud::Global, tenant, CLIENT);
        options.graph_url = url;
        options.max_wait = self.patience;
        let quota = self.quota.clone();
        GraphClient::new(options, Arc::new(tokens), quota, JobClass::FirstFull, clock, random).unwrap()
    }

    pub fn job(&mut self) -> BackupJob {
        self.attempt += 1;
        BackupJob {
            tenant: TENANT,
            resource: RESOURCE,
            workload: Workload::Mail,
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

    pub async fn evolve(&self, mut changes: Value) -> Value {
        changes["users"] = json!([self.user.user_principal_name]);
        self.control("evolve", changes).await
    }

    pub async fn faults(&self, faults: Value) {
        self.control("options", json!({ "faults": faults })).await;
    }

    pub async fn truth(&self) -> BTreeMap<String, TruthMessage> {
        let all = self.sim.truth(&self.user.id).await.unwrap();
        all.into_iter().map(|message| (message.id.clone(), message)).collect()
    }

    pub fn content_requests(&self) -> u64 {
        self.sim.counters().content_requests.values().sum()
    }

    pub fn counters(&self) -> CountersSnapshot {
        self.sim.counters()
    }

    pub async fn reader(&self) -> SnapshotReader {
        let pin = self.base.as_ref().unwrap();
        SnapshotReader::open(self.store.clone(), self.keys.clone(), pin).await.unwrap()
    }

    /// Compares the newest snapshot with what the mailbox holds, to the last byte of every attachment.
    pub async fn check_snapshot(&self) {
        let truth = self.truth().await;
        let reader = self.reader().await;
        let folders = SnapshotFolders::read(&reader).await.unwrap();
        let selection = folders.select(&reader, &[]).await.unwrap();
        let stored: Vec<_> = folders.selected(&reader, &selection).try_collect().await.unwrap();
        let ids: Vec<&String> = stored.iter().map(|(_, id, _)| id).collect();
        assert_eq!(ids.len(), truth.len(), "as many messages as the mailbox holds");
        assert_eq!(self.base.as_ref().unwrap().items, truth.len() as u64);
        for (folder, id, entry) in &stored {
            let expected = truth.get(id).unwrap_or_else(|| panic!("{id} is not in the mailbox"));
            assert_eq!(folders.all()[*folder].path, expected.folder_path);
            self.check_message(&reader, entry, expected).await;
        }
    }

    async fn check_message(&self, reader: &SnapshotReader, entry: &ItemEntry, expected: &TruthMessage) {
        let meta = reader.meta(entry).await.unwrap();
        let value: Value = serde_json::from_slice(&meta).unwrap();
        assert_eq!(value["subject"], json!(expected.subject));
        assert_eq!(value["isRead"], json!(expected.is_read), "{}", expected.subject);
        assert_eq!(value["categories"], json!(expected.categories));
        assert_eq!(value["flag"]["flagStatus"], json!(expected.flag));
        let body = value["body"]["content"].as_str().unwrap_or_default();
        assert_eq!(blake3::hash(body.as_bytes()).to_hex().as_str(), expected.body_blake3);
        let stored = stored_message(&meta).unwrap();
        assert_eq!(stored.attachments.len(), expected.attachments.len(), "{}", expected.subject);
        let parts = reader.content(entry).await.unwrap();
        assert_eq!(parts[0].len, stored.mime_len);
        for expected in expected.attachments.iter().filter(|one| one.kind == "file") {
            let mut found = Vec::new();
            for one in &stored.attachments {
                let bytes = match &one.source {
                    AttachmentSource::Mime { start, len, encoding, decoded } => {
                        let raw = reader.read_range(&parts[0], *start, *len).await.unwrap();
                        let bytes = decode(*encoding, &raw);
                        assert_eq!(bytes.len() as u64, *decoded);
                        bytes
                    }
                    AttachmentSource::Part { part, len } => {
                        reader.read_range(&parts[*part as usize], 0, *len).await.unwrap().to_vec()
                    }
                    _ => continue,
                };
                found.push(blake3::hash(&bytes).to_hex().to_string());
            }
            assert!(found.contains(&expected.blake3), "attachment {} is not stored", expected.name);
        }
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
            workload: Workload::Mail,
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
}

fn decode(encoding: Encoding, raw: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Identity => raw.to_vec(),
        Encoding::Base64 => {
            let text: Vec<u8> = raw.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            base64::engine::general_purpose::STANDARD.decode(text).unwrap()
        }
        Encoding::QuotedPrintable => panic!("the simulator writes attachments as base64"),
    }
}

pub fn failures(account: &Account) -> u64 {
    account.failed_retryable + account.failed_permanent
}
