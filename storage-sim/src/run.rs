//! One run: a world comes to life, things go wrong, things are good again, and then everything is judged.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError},
    time::Duration,
};

use holdfast_model::{ChunkId, Fence, Millis, PartitionId, RecordKey, ResourceId, SiteName, Verb};
use holdfast_repository::ChunkStore as _;
use holdfast_storage_client::{ReadStore, StorageClient};
use holdfast_storage_node::Node;
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Planted, SimRandom, Trace, Violation,
    authority::WORKLOAD,
    chaos::Chaos,
    content::{TENANT, chunks_of},
    disk::Stop,
    node::Repair,
    panics,
    supervisor::{attempt, supervise},
    world::World,
    writer::Pause,
};

/// Ids read in one call by the judge.
const READ_AT_ONCE: usize = 96;
/// No attempt is waited for longer at the end.
const LAST_WAIT: Duration = Duration::from_secs(3_600);
/// Time given to repair before it is looked at again.
const REPAIR_ROUND: Duration = Duration::from_secs(20);
/// How often it is looked at.
const REPAIR_ROUNDS: u32 = 120;
/// Time given to a move before it is looked at again.
const MOVE_ROUND: Duration = Duration::from_secs(20);
/// How often it is looked at.
const MOVE_ROUNDS: u32 = 120;
/// Tries of what must succeed when nothing is wrong.
const TRIES: u32 = 8;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The defect to plant, if any.
    pub planted: Option<Planted>,
    /// Whether events are written out as they happen.
    pub trace: Trace,
}

impl Default for Options {
    fn default() -> Self {
        Self { planted: None, trace: Trace::Off }
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What must not have been; empty for a good run.
    pub violations: Vec<Violation>,
    /// How many events there were.
    pub n_events: u64,
    /// The hash over all events: the same for every run of the seed.
    pub hash: String,
    /// Records that were acknowledged.
    pub n_acked: usize,
    /// Pins that were committed.
    pub n_committed: usize,
    /// Moves of owners that came to their end.
    pub n_moves: usize,
    /// Simulated time.
    pub time: Duration,
    /// The last events.
    pub tail: Vec<String>,
}

/// Runs the world of a seed.
pub fn run(seed: u64, options: Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O always builds");
    panics::forget();
    // Also of tasks, whose panics the runtime keeps to itself.
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(seed, options))));
    let panicked = panics::all().into_iter().map(Violation::Panicked);
    let mut outcome = ended.unwrap_or_else(|_| Outcome::cut_short(seed));
    outcome.violations.extend(panicked);
    outcome
}

impl Outcome {
    /// Of a run that ended in a panic: what it was is lost with it.
    fn cut_short(seed: u64) -> Self {
        let (violations, tail) = (Vec::new(), Vec::new());
        let (n_events, n_acked, n_committed, n_moves) = (0, 0, 0, 0);
        Self {
            seed,
            violations,
            n_events,
            hash: String::new(),
            n_acked,
            n_committed,
            n_moves,
            time: Duration::ZERO,
            tail,
        }
    }
}

async fn live(seed: u64, options: Options) -> Outcome {
    let world = Arc::new(World::new(seed, options.planted, options.trace));
    for index in 0..world.n_nodes() {
        if let Err(reason) = world.start_node(index) {
            let node = world.node(index).id;
            world.oracle.violated(Violation::DoesNotStart { node, reason });
        }
    }
    world.authority.apply_everywhere().await;
    let shape = SimRandom::new(seed, "run");
    let (active, stop) = (Duration::from_secs(shape.between(15, 60)), CancellationToken::new());
    let writers = TaskTracker::new();
    for resource in world.resources.clone() {
        writers.spawn(supervise(world.clone(), resource, writers.clone(), stop.clone()));
    }
    let tending = CancellationToken::new();
    if world.operator.moves() {
        tokio::spawn(world.authority.clone().keep_tending(tending.clone()));
    }
    let mut chaos = Chaos::new(world.clone());
    chaos.run(active).await;
    chaos.end();
    stop.cancel();
    settle(&world, &mut chaos, &writers).await;
    tending.cancel();
    judge(&world, &mut chaos).await;
    world.net.end();
    let (n_events, hash) = world.log.summary();
    Outcome {
        seed,
        violations: world.oracle.violations(),
        n_events,
        hash,
        n_acked: world.oracle.all_acked().len(),
        n_committed: world.oracle.all_committed().len(),
        n_moves: world.authority.n_moves(),
        time: world.age(),
        tail: world.log.tail(),
    }
}

/// Everything runs again, and what is under way comes to its end.
async fn settle(world: &Arc<World>, chaos: &mut Chaos, writers: &TaskTracker) {
    chaos.restart_all();
    world.authority.apply_everywhere().await;
    writers.close();
    if timeout(LAST_WAIT, writers.wait()).await.is_err() {
        world.oracle.violated(Violation::Stuck("a writer does not come to its end".to_owned()));
    }
    for resource in &world.resources {
        let mut decided = world.authority.recover(*resource).await;
        for _ in 1..TRIES {
            if decided.is_err() {
                sleep(Duration::from_secs(1)).await;
                decided = world.authority.recover(*resource).await;
            }
        }
        if let Err(error) = decided {
            world.oracle.violated(Violation::Stuck(format!("a commit is not decided: {error}")));
        }
    }
    if world.operator.moves() {
        end_moves(world).await;
    }
    world.log.add(format_args!("settled"));
}

/// A move that has begun comes to its end, and then those that own nothing any more are switched off.
async fn end_moves(world: &World) {
    let mut rounds = 0;
    while !world.authority.is_at_rest().await {
        if rounds == MOVE_ROUNDS {
            let layout = world.layout();
            let n = layout.previous.len();
            let reason = format!("layout {} is not complete: {n} partitions still move", layout.version);
            world.oracle.violated(Violation::Stuck(reason));
            break;
        }
        rounds += 1;
        sleep(MOVE_ROUND).await;
    }
    let layout = world.layout();
    for index in 0..world.n_nodes() {
        let id = world.node(index).id;
        if layout.node(id).is_none() && !world.is_off(id) {
            world.stop_node(index, Stop::Kill);
            world.set_off(id, true);
        }
    }
}

async fn judge(world: &Arc<World>, chaos: &mut Chaos) {
    one_more_backup(world).await;
    chaos.restart_all();
    judge_promises(world);
    let (place, client) = world.judge();
    for resource in &world.resources {
        judge_pins(world, &client, *resource).await;
    }
    let token = world.authority.token(world.resources[0], Fence::default(), &[Verb::Read]);
    let reader = client.reader(world.layout(), token, TENANT);
    judge_snapshots(world, &reader).await;
    let acked = world.oracle.all_acked();
    read_all(world, &reader, &acked, None).await;
    if world.repair == Repair::On {
        repaired(world, &acked).await;
    }
    let rotten = world.rotten_site.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let rotten = rotten.filter(|_| world.repair == Repair::Off);
    for site in world.sites() {
        // A rotten copy and a lost site are two failures, unless they are the same.
        if rotten.as_ref().is_some_and(|rotten| *rotten != site) {
            continue;
        }
        for node in world.places_in(&site) {
            world.net.block(place, node);
            world.net.block(node, place);
        }
        world.log.add(format_args!("{} records are read without site {site}", acked.len()));
        read_all(world, &reader, &acked, Some(&site)).await;
        world.net.heal();
    }
}

/// Lets repair go on until every owner has everything that was acknowledged; reports what is missing then.
async fn repaired(world: &World, acked: &[ChunkId]) {
    let (layout, mut lacking, since_ms) = (world.layout(), Vec::new(), world.now_ms());
    for round in 0..REPAIR_ROUNDS {
        lacking.clear();
        let mut all_looked = true;
        for index in 0..world.n_nodes() {
            let node = world.node(index);
            let Some(core) = node.node() else { continue };
            all_looked &= has_looked(core, since_ms);
            let owned = acked.iter().filter(|id| layout.owns(node.id, PartitionId::of_chunk(**id)));
            let lacks = |id: &&ChunkId| {
                let found = core.store().protected_epoch(&RecordKey { tenant: TENANT, id: **id });
                !matches!(found, Ok(Some(_)))
            };
            lacking.extend(owned.filter(lacks).map(|id| Violation::NotRepaired { id: *id, node: node.id }));
        }
        // At least once over everything: what has rotted is found by reading it.
        if lacking.is_empty() && all_looked {
            world.log.add(format_args!("no copy is missing in round {round} of repair"));
            return;
        }
        sleep(REPAIR_ROUND).await;
    }
    world.log.add(format_args!("{} copies are missing after repair", lacking.len()));
    lacking.into_iter().for_each(|one| world.oracle.violated(one));
}

/// Whether a node that keeps data has read and compared all of it since.
fn has_looked(node: &Node, since_ms: Millis) -> bool {
    node.status().is_ok_and(|status| {
        let repair = status.repair;
        repair.partitions_owned == 0
            || repair.last_comparison_ms >= since_ms && repair.last_scrub_ms >= since_ms
    })
}

/// When nothing is wrong any more, a backup of every resource must succeed.
async fn one_more_backup(world: &Arc<World>) {
    for resource in &world.resources {
        let random = SimRandom::new(world.seed, &format!("last {}", resource.0[0]));
        let mut committed = false;
        for _ in 0..TRIES {
            if world.authority.recover(*resource).await.is_ok()
                && let Some(mut attempt) = attempt(world, *resource, &random)
            {
                attempt.pause = Pause::Never;
                committed = attempt.run().await;
            }
            if committed {
                break;
            }
            sleep(Duration::from_secs(5)).await;
        }
        if !committed {
            world.oracle.violated(Violation::Stuck("no backup succeeds any more".to_owned()));
        }
    }
}

/// Sessions of the last two epochs may still commit: what they were told is there must be protected.
fn judge_promises(world: &World) {
    let (since, layout) = (world.authority.epoch().0.saturating_sub(1), world.layout());
    let rotten = world.rotten_site.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (id, epoch) in world.oracle.promised_since(since, layout.moved_in) {
        let mut sites: BTreeMap<SiteName, ()> = BTreeMap::new();
        for index in 0..world.n_nodes() {
            let node = world.node(index);
            let Some(core) = node.node() else { continue };
            let protected = core.store().protected_epoch(&RecordKey { tenant: TENANT, id });
            let keeps = matches!(protected, Ok(Some(protected)) if protected >= epoch);
            if keeps || rotten.as_ref() == Some(&node.site) {
                sites.insert(node.site.clone(), ());
            }
        }
        let n_sites = sites.len();
        if n_sites < usize::from(layout.replication.ack_sites) {
            world.oracle.violated(Violation::PromiseBroken { id, epoch, n_sites });
        }
    }
}

async fn judge_pins(world: &World, client: &StorageClient, resource: ResourceId) {
    let token = world.authority.token(resource, Fence::default(), &[Verb::Read]);
    let view = client.read_pins(world.layout(), token, TENANT, resource, WORKLOAD, 0).await;
    match view {
        Ok(view) if view.majority_answered => {
            let pins: Vec<_> = view.pins.into_iter().map(|(pin, _)| pin).collect();
            world.oracle.final_pins(resource, &pins);
        }
        Ok(_) => world.oracle.violated(Violation::Stuck("no majority of pin owners answers".to_owned())),
        Err(error) => world.oracle.violated(Violation::Stuck(format!("pins cannot be read: {error}"))),
    }
}

/// Restores every committed pin: its snapshot object, and everything that names.
async fn judge_snapshots(world: &World, reader: &ReadStore) {
    let mut n_chunks = 0;
    for pin in world.oracle.all_committed() {
        let root = [pin.root];
        let read = reader.get(&root).await;
        world.oracle.read_must_succeed(&root, None, &read);
        let Ok(objects) = read else { continue };
        let ids: Vec<ChunkId> = chunks_of(&objects[0]).into_iter().map(|chunk| chunk.id()).collect();
        n_chunks += ids.len();
        read_all(world, reader, &ids, None).await;
    }
    world.log.add(format_args!("every committed snapshot was read: {n_chunks} chunks"));
}

async fn read_all(world: &World, reader: &ReadStore, ids: &[ChunkId], without: Option<&SiteName>) {
    for ids in ids.chunks(READ_AT_ONCE) {
        let read = reader.get(ids).await;
        world.oracle.read_must_succeed(ids, without, &read);
    }
}
