//! Other workers, in this process: a board that runs shards itself, and does to them what a test wants.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use holdfast_model::{Account, JobId, Workload};
use holdfast_repository::{ChunkStore, JobKeys};
use holdfast_worker::{
    JobError,
    backup::{
        BackupOptions, Progress, ShardBoard, ShardEnds, ShardJob, ShardStanding, ShardState, Shared,
        WantedShard,
    },
};
use tokio::task::AbortHandle;

use super::{Microsoft, World};

/// So often a shard is tried before it is given up.
const ATTEMPTS: u32 = 5;
const IDLE_WITHIN: Duration = Duration::from_secs(60);

/// Called with each call of the board, after what is wanted was taken note of and the answer was made.
pub type Hook = Box<dyn Fn(Call) -> BoxFuture<'static, Result<(), JobError>> + Send + Sync>;

/// One call of the board.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// From 1.
    pub number: usize,
    /// Shards that it named.
    pub wanted: usize,
}

/// Other workers. They outlive an attempt of the parent, as the coordinator's rows do.
pub struct Helpers {
    microsoft: Microsoft,
    store: Arc<dyn ChunkStore>,
    keys: Arc<JobKeys>,
    shared: Shared,
    workload: Workload,
    user: String,
    options: BackupOptions,
    /// Shards that run at once.
    pub slots: AtomicUsize,
    /// Results that are told in one answer at most; the others seem to run.
    pub told: AtomicUsize,
    /// So many shards, the first ones, are given up at once.
    pub given_up: AtomicUsize,
    pub hook: Mutex<Option<Hook>>,
    calls: AtomicUsize,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    shards: BTreeMap<JobId, Row>,
    /// In the order in which they were wanted first.
    order: Vec<JobId>,
}

struct Row {
    input: bytes::Bytes,
    standing: ShardStanding,
    progress: Arc<Progress>,
    attempts: u32,
    task: Option<AbortHandle>,
}

impl Helpers {
    /// As many workers as these, for the world as it is now.
    pub fn new(world: &World, slots: usize) -> Arc<Self> {
        Arc::new(Self {
            microsoft: world.microsoft(),
            store: world.store.clone(),
            keys: world.keys.clone(),
            shared: world.shared.clone(),
            workload: world.workload,
            user: world.user.id.clone(),
            options: world.options.clone(),
            slots: AtomicUsize::new(slots),
            told: AtomicUsize::new(usize::MAX),
            given_up: AtomicUsize::new(0),
            hook: Mutex::new(None),
            calls: AtomicUsize::new(0),
            rows: Mutex::default(),
        })
    }

    /// Shards that were ever wanted.
    pub fn n_made(&self) -> usize {
        self.rows.lock().unwrap().order.len()
    }

    /// How those stand that are wanted now.
    pub fn standings(&self) -> Vec<ShardStanding> {
        self.rows.lock().unwrap().shards.values().map(|row| row.standing.clone()).collect()
    }

    pub fn n_done(&self) -> usize {
        self.standings().iter().filter(|standing| matches!(standing, ShardStanding::Done { .. })).count()
    }

    /// Waits until nothing runs and nothing could.
    pub async fn idle(&self) {
        let is_busy = |standing: &ShardStanding| match standing {
            ShardStanding::Running => true,
            ShardStanding::Queued => self.slots.load(Ordering::SeqCst) > 0,
            ShardStanding::Done { .. } | ShardStanding::Failed => false,
        };
        let wait = async {
            while self.standings().iter().any(is_busy) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(IDLE_WITHIN, wait).await.expect("the helpers end");
    }

    fn make_it_so(self: &Arc<Self>, wanted: &[WantedShard]) {
        let mut rows = self.rows.lock().unwrap();
        rows.shards.retain(|id, row| {
            let is_wanted = wanted.iter().any(|wanted| wanted.id == *id);
            if !is_wanted && let Some(task) = row.task.take() {
                task.abort();
            }
            is_wanted
        });
        for shard in wanted {
            if rows.shards.contains_key(&shard.id) {
                continue;
            }
            let is_given_up = rows.order.len() < self.given_up.load(Ordering::SeqCst);
            let standing = if is_given_up { ShardStanding::Failed } else { ShardStanding::Queued };
            let (progress, input) = (Arc::default(), shard.input.clone());
            rows.order.push(shard.id);
            rows.shards.insert(shard.id, Row { input, standing, progress, attempts: 0, task: None });
        }
        self.start_some(&mut rows);
    }

    fn start_some(self: &Arc<Self>, rows: &mut Rows) {
        let is_running = |row: &Row| row.standing == ShardStanding::Running;
        let mut free = self.slots.load(Ordering::SeqCst);
        free = free.saturating_sub(rows.shards.values().filter(|row| is_running(row)).count());
        let queued = rows
            .order
            .iter()
            .filter(|id| rows.shards.get(id).is_some_and(|row| row.standing == ShardStanding::Queued));
        for id in queued.copied().take(free).collect::<Vec<_>>() {
            let row = rows.shards.get_mut(&id).unwrap();
            row.standing = ShardStanding::Running;
            row.attempts += 1;
            let (helpers, input, progress) = (self.clone(), row.input.clone(), row.progress.clone());
            row.task =
                Some(tokio::spawn(async move { helpers.run(id, input, progress).await }).abort_handle());
        }
    }

    async fn run(self: Arc<Self>, id: JobId, input: bytes::Bytes, progress: Arc<Progress>) {
        let options = self.options.clone();
        let job = ShardJob { workload: self.workload, user: self.user.clone(), input, options };
        let (store, keys) = (self.store.clone(), self.keys.clone());
        let ends = ShardEnds { graph: self.microsoft.graph(), store, keys, progress };
        let ended = job.run(ends, self.shared.clone()).await;
        let mut rows = self.rows.lock().unwrap();
        if let Some(row) = rows.shards.get_mut(&id) {
            row.standing = match ended {
                Ok(finished) => ShardStanding::Done { result: finished.result },
                Err(_) if row.attempts < ATTEMPTS => ShardStanding::Queued,
                Err(_) => ShardStanding::Failed,
            };
            row.task = None;
        }
        self.start_some(&mut rows);
    }

    fn answer(&self, wanted: &[WantedShard]) -> Vec<ShardState> {
        let rows = self.rows.lock().unwrap();
        let mut room = self.told.load(Ordering::SeqCst);
        let state = |shard: &WantedShard| {
            let row = rows.shards.get(&shard.id).unwrap();
            let standing = match &row.standing {
                ShardStanding::Done { .. } if room == 0 => ShardStanding::Running,
                standing => standing.clone(),
            };
            room -= usize::from(matches!(standing, ShardStanding::Done { .. }));
            ShardState { id: shard.id, standing, progress: row.progress.account() }
        };
        wanted.iter().map(state).collect()
    }
}

/// The board as one attempt of the parent sees it.
pub struct Board(pub Arc<Helpers>);

#[async_trait]
impl ShardBoard for Board {
    async fn sync(&self, wanted: &[WantedShard]) -> Result<Vec<ShardState>, JobError> {
        let helpers = &self.0;
        let number = helpers.calls.fetch_add(1, Ordering::SeqCst) + 1;
        helpers.make_it_so(wanted);
        let answer = helpers.answer(wanted);
        let hooked =
            helpers.hook.lock().unwrap().as_ref().map(|hook| hook(Call { number, wanted: wanted.len() }));
        match hooked {
            Some(hooked) => hooked.await.map(|()| answer),
            None => Ok(answer),
        }
    }
}

impl World {
    /// Splits drives into shards of so many files, and has so many workers help.
    pub fn split(&mut self, shard_files: usize, slots: usize) -> Arc<Helpers> {
        self.options.shard_files = shard_files;
        let helpers = Helpers::new(self, slots);
        self.shards = Some(Arc::new(Board(helpers.clone())));
        helpers
    }
}

/// The account without what another way to the same costs.
pub fn outcomes(account: &Account) -> Account {
    Account { bytes_stored: 0, requests: 0, ..*account }
}
