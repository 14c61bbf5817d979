//! Storage nodes are killed again and again while records stream in: nothing that was acknowledged is ever missing.
//!
//! Real processes behind mTLS, three nodes in two sites, level A2. Writers remember how far they were acknowledged; a killer
//! strikes by a seed. What a writer was told is then read back through the client and from each owner by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{
    PoolOptions, StoragePool, eventually,
    process::Process,
    records::{Records, Seeded, Sizes},
    storage_pool::Writer,
};
use holdfast_model::{ChunkId, PartitionId, Replication, ResourceId, TenantId};
use holdfast_record::{Pin, SealedRecord};
use holdfast_repository::{ChunkStore as _, StoreError};
use holdfast_runtime::HumanDuration;
use holdfast_storage_client::{CommitOutcome, StorageClientOptions, StorageSession};
use tokio_util::sync::CancellationToken;

const LANES: u8 = 5;
/// Records in one put.
const BATCH_MAX: u64 = 6;
const BATCHES_PER_PIN: u64 = 10;
/// So that the disk holds the whole load.
const PACE: Duration = Duration::from_millis(25);
/// Short, so that some puts are given up and made anew.
const RETRY_FOR: HumanDuration = HumanDuration(Duration::from_secs(3));
/// About what a start takes.
const RECOVERY_MS: u64 = 90;
const GOES_ON_WITHIN: Duration = Duration::from_secs(60);
const SETTLES_WITHIN: Duration = Duration::from_secs(180);
/// Records read back at once.
const READ_BATCH: usize = 48;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_twenty_kills() {
    under_fire(20, 20_261_125).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn what_was_acknowledged_outlives_two_hundred_kills() {
    under_fire(200, 200).await;
}

async fn under_fire(kills: u64, seed: u64) {
    let folder = tempfile::tempdir().expect("a private folder");
    let started = Instant::now();
    let mut pool = StoragePool::start(folder.path(), &options()).await;
    let mut killer = Killer::new(std::mem::take(&mut pool.nodes), seed);
    let pool = Arc::new(pool);
    let (stop, acknowledged) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let lanes: Vec<_> = (1..=LANES)
        .map(|number| tokio::spawn(Lane::new(&pool, number, seed).run(stop.clone(), acknowledged.clone())))
        .collect();
    while killer.toll.kills < kills {
        goes_on(&acknowledged).await;
        killer.strike(&pool).await;
    }
    pool.nodes_are_up().await;
    goes_on(&acknowledged).await;
    stop.cancel();
    let mut written = Vec::new();
    for lane in lanes {
        written.push(lane.await.expect("a lane ends by itself"));
    }
    let under_fire = started.elapsed();
    copies_settle(&pool).await;
    let bytes = everything_acknowledged_is_there(&pool, &written).await;
    pins_are_there(&pool, &written).await;
    killer.nobody_speaks_of_damage();
    let sum = |count: fn(&Written) -> u64| written.iter().map(count).sum::<u64>();
    let toll = &killer.toll;
    println!(
        "storage under fire/seed={seed}: {} kills ({} before the node listened again, {} of two nodes at once), {} records \
         and {bytes} bytes and {} pins acknowledged, {} puts and {} commits given up and made anew, {} sessions lost, {} reads \
         deferred, {:.0} s under fire, {:.0} s in all",
        toll.kills,
        toll.while_it_recovered,
        toll.of_two_nodes,
        sum(|one| one.acknowledged),
        sum(|one| one.pins.len() as u64),
        sum(|one| one.puts_given_up),
        sum(|one| one.commits_given_up),
        sum(|one| one.sessions_lost),
        sum(|one| one.reads_deferred),
        under_fire.as_secs_f64(),
        started.elapsed().as_secs_f64(),
    );
}

fn options() -> PoolOptions {
    PoolOptions {
        sites: vec!["a", "a", "b"],
        replication: Replication { copies: 2, ack_sites: 2 },
        // Small, so that kills also fall into sealing.
        node: "segment-target = \"8MiB\"\n".to_owned(),
        client: StorageClientOptions { retry_for: RETRY_FOR, ..StorageClientOptions::default() },
    }
}

async fn goes_on(acknowledged: &AtomicU64) {
    let before = acknowledged.load(Ordering::Relaxed);
    eventually("writes are acknowledged", GOES_ON_WITHIN, || async {
        (acknowledged.load(Ordering::Relaxed) > before).then_some(())
    })
    .await;
}

// === The killer ===

struct Killer {
    nodes: Vec<Process>,
    /// How often each had begun to listen when it was last started.
    listened: Vec<usize>,
    random: Seeded,
    toll: Toll,
}

/// What the killer did.
#[derive(Default)]
struct Toll {
    kills: u64,
    while_it_recovered: u64,
    of_two_nodes: u64,
}

impl Killer {
    fn new(nodes: Vec<Process>, seed: u64) -> Self {
        Self { listened: vec![0; nodes.len()], nodes, random: Seeded::new(seed), toll: Toll::default() }
    }

    /// One or two kills, at a moment that nobody chose.
    async fn strike(&mut self, pool: &StoragePool) {
        self.pause(300).await;
        let victim = usize::try_from(self.random.below(self.nodes.len() as u64)).expect("a few nodes");
        match self.random.below(6) {
            0 | 1 => {
                self.kill(victim);
                self.restart(victim);
            }
            2 => {
                self.kill(victim);
                self.pause(1_500).await;
                self.restart(victim);
            }
            3 | 4 => {
                self.kill(victim);
                self.restart(victim);
                self.pause(RECOVERY_MS).await;
                self.kill(victim);
                self.restart(victim);
            }
            _ => {
                let other = (victim + 1) % self.nodes.len();
                self.kill(victim);
                self.kill(other);
                self.toll.of_two_nodes += 2;
                self.pause(500).await;
                self.restart(other);
                self.restart(victim);
            }
        }
        // Sometimes the next one falls while this node still brings back what it missed.
        if self.random.below(3) > 0 {
            pool.nodes_are_up().await;
        }
    }

    fn kill(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        assert!(node.is_running(), "node {} ended by itself: {}", index + 1, node.output());
        let is_recovering = lines_with(node, "listening") == self.listened[index];
        node.kill();
        self.toll.kills += 1;
        self.toll.while_it_recovered += u64::from(is_recovering);
    }

    fn restart(&mut self, index: usize) {
        self.listened[index] = lines_with(&self.nodes[index], "listening");
        self.nodes[index].restart();
    }

    async fn pause(&self, below_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.below(below_ms))).await;
    }

    fn nobody_speaks_of_damage(&self) {
        for node in &self.nodes {
            for word in ["amaged", "poisoned", "panic", " ERROR "] {
                assert_eq!(lines_with(node, word), 0, "'{word}': {}", node.output());
            }
        }
    }
}

fn lines_with(process: &Process, text: &str) -> usize {
    process.output().lines().filter(|line| line.contains(text)).count()
}

// === The load ===

/// One writer: a session of a resource of its own, one put at a time.
struct Lane {
    pool: Arc<StoragePool>,
    writer: Writer,
    records: Records,
    random: Seeded,
    sessions: u64,
}

/// What a lane was told.
struct Written {
    writer: Writer,
    records: Records,
    /// The records of all numbers below were acknowledged.
    acknowledged: u64,
    pins: Vec<Pin>,
    puts_given_up: u64,
    commits_given_up: u64,
    sessions_lost: u64,
    /// No owner that had the record could be asked.
    reads_deferred: u64,
}

impl Lane {
    fn new(pool: &Arc<StoragePool>, number: u8, seed: u64) -> Self {
        let writer = Writer { tenant: TenantId([1 + number % 2; 16]), resource: ResourceId([number; 16]) };
        let seed = seed.wrapping_mul(1_000).wrapping_add(u64::from(number));
        let records = Records { tenant: writer.tenant, seed, sizes: Sizes::Mixed };
        Self {
            pool: pool.clone(),
            writer,
            records,
            random: Seeded::new(seed),
            sessions: u64::from(number) * 1_000,
        }
    }

    /// Writes, reads and commits until it is stopped.
    async fn run(mut self, stop: CancellationToken, acknowledged: Arc<AtomicU64>) -> Written {
        let mut session = self.open().await;
        let mut written = Written {
            writer: self.writer,
            records: self.records,
            acknowledged: 0,
            pins: Vec::new(),
            puts_given_up: 0,
            commits_given_up: 0,
            sessions_lost: 0,
            reads_deferred: 0,
        };
        for batch in 1.. {
            if stop.is_cancelled() {
                break;
            }
            let next = written.acknowledged + 1 + self.random.below(BATCH_MAX);
            self.put(&mut session, written.acknowledged..next, &mut written).await;
            acknowledged.fetch_add(next - written.acknowledged, Ordering::Relaxed);
            written.acknowledged = next;
            self.read_one_back(&session, &mut written).await;
            if batch % BATCHES_PER_PIN == 0 {
                self.commit(&mut session, &mut written).await;
            }
            tokio::time::sleep(PACE).await;
        }
        session.close().await;
        written
    }

    async fn open(&mut self) -> StorageSession {
        loop {
            self.sessions += 1;
            match self.pool.open_session(self.writer, self.sessions).await {
                Ok(session) => return session,
                Err(StoreError::Unavailable { .. }) => {}
                Err(error) => panic!("no session: {error:?}"),
            }
        }
    }

    /// Until it is acknowledged.
    async fn put(
        &mut self,
        session: &mut StorageSession,
        numbers: std::ops::Range<u64>,
        written: &mut Written,
    ) {
        loop {
            let records = numbers.clone().map(|number| self.records.record(number)).collect();
            match session.put(records).await {
                Ok(()) => return,
                Err(StoreError::Unavailable { .. }) => written.puts_given_up += 1,
                Err(StoreError::SessionLost) => {
                    written.sessions_lost += 1;
                    *session = self.open().await;
                }
                Err(error) => panic!("a put was refused: {error:?}"),
            }
        }
    }

    /// Whatever is going on, what was acknowledged is never said to be missing or damaged.
    async fn read_one_back(&self, session: &StorageSession, written: &mut Written) {
        let number = self.random.below(written.acknowledged);
        match session.get(&[self.records.id(number)]).await {
            Ok(found) => assert!(self.records.is(number, &found[0]), "record {number} came back as another"),
            Err(StoreError::Unavailable { .. }) => written.reads_deferred += 1,
            Err(error) => panic!("record {number} cannot be read: {error:?}"),
        }
    }

    /// Until it is committed: the same ticket may be sent again.
    async fn commit(&mut self, session: &mut StorageSession, written: &mut Written) {
        let sequence = written.pins.len() as u64 + 1;
        let (pin, ticket) = self.pool.pin(self.writer, sequence, self.records.id(written.acknowledged - 1));
        loop {
            match session.commit_pin(&ticket, &pin.encode()).await {
                Ok(CommitOutcome::Committed { .. }) => break,
                Ok(other) => panic!("pin {sequence} is not committed: {other:?}"),
                Err(StoreError::Unavailable { .. }) => written.commits_given_up += 1,
                Err(StoreError::SessionLost) => {
                    written.sessions_lost += 1;
                    *session = self.open().await;
                }
                Err(error) => panic!("pin {sequence} was refused: {error:?}"),
            }
        }
        written.pins.push(pin);
    }
}

// === What must hold afterwards ===

/// Nobody waits for anything, and nobody has lost anything.
async fn copies_settle(pool: &StoragePool) {
    eventually("nothing waits for repair", SETTLES_WITHIN, || async {
        for status in pool.statuses().await {
            let status = status.ok()?;
            let repair = status.repair?;
            assert_eq!((status.quarantined_records, repair.damaged_waiting), (0, 0), "{status:?}");
            if repair.records_below_policy > 0 || repair.partitions_suspect > 0 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// Reads every acknowledged record through the client and from both of its owners: how many bytes that are.
async fn everything_acknowledged_is_there(pool: &StoragePool, written: &[Written]) -> u64 {
    let mut bytes = 0;
    for lane in written {
        let reader = pool.reader(lane.writer);
        let numbers: Vec<u64> = (0..lane.acknowledged).collect();
        for numbers in numbers.chunks(READ_BATCH) {
            let ids: Vec<ChunkId> = numbers.iter().map(|number| lane.records.id(*number)).collect();
            let found = reader.get(&ids).await.expect("everything acknowledged is there");
            assert!(
                numbers.iter().zip(&found).all(|(number, one)| lane.records.is(*number, one)),
                "other bytes"
            );
            bytes += found.iter().map(|record| record.ciphertext.len() as u64).sum::<u64>();
            both_sites_have(pool, lane.writer, &ids, &found).await;
        }
    }
    bytes
}

async fn both_sites_have(pool: &StoragePool, writer: Writer, ids: &[ChunkId], whole: &[SealedRecord]) {
    let mut copies = 0;
    for (index, node) in pool.layout.nodes.iter().enumerate() {
        let owned = |id: &ChunkId| pool.layout.owns(node.id, PartitionId::of_chunk(*id));
        let (ids, whole): (Vec<ChunkId>, Vec<&SealedRecord>) =
            ids.iter().copied().zip(whole).filter(|(id, _)| owned(id)).unzip();
        let found = pool.read_from(index, writer, &ids).await.expect("the node answers");
        for ((id, whole), found) in ids.iter().zip(whole).zip(found) {
            let found = found.unwrap_or_else(|| panic!("{} lacks {id}, which was acknowledged", node.id));
            assert_eq!((&found.header, &found.ciphertext), (&whole.header, &whole.ciphertext), "{id}");
            copies += 1;
        }
    }
    // The owners of a record stand in different sites.
    assert_eq!(copies, 2 * ids.len(), "two copies of each");
}

async fn pins_are_there(pool: &StoragePool, written: &[Written]) {
    for lane in written {
        let there: Vec<Pin> = pool.pins(lane.writer).await.into_iter().map(|(pin, _)| pin).collect();
        assert_eq!(there, lane.pins, "the pins that were committed");
        assert!(!there.is_empty(), "a lane that commits nothing proves nothing");
    }
}
