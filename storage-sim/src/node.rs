//! A storage node on a simulated machine: the real core and the real service, with everything around them passed in.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::{ChunkId, Clock as _, LayoutNode, NodeId, Role, SiteName};
use holdfast_proto::signed::Verifier;
use holdfast_runtime::{Background, Shutdown, Step};
use holdfast_storage_node::{
    DiskTime, Error, Executor, FenceRule, Node, NodeSetup, Pace, PeerCall, PeerClient, PeerError, Peers,
    Presence, RepairPeers, ReplicaPut, StorageNodeOptions, into_repair_server, into_server,
};
use tokio::time::{Instant, sleep};

use crate::{
    Planted, SimRandom,
    clock::{START_MS, SimClock},
    disk::{SimDisk, Stop},
    moves::Operator,
    net::{Net, NodeServer, Place},
};

/// Where a node keeps its data on its disk.
pub const DATA: &str = "/data";
/// How often repair is driven.
const REPAIR_EVERY: Duration = Duration::from_secs(3);
/// Steps of each kind at a time.
const REPAIR_STEPS: u32 = 4;
/// Verification begins once a day, and a world lives for minutes: for verification its time goes so much faster.
const VERIFY_HASTE: u64 = 1_500;
/// Rarer than in production: a run has many idle minutes.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(15);

/// Whether the nodes of a world repair their copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// They do, and at the end every copy must be there.
    On,
    /// They do not, so that what writing alone achieves is seen.
    Off,
}

/// What the machines of a world share.
#[derive(Clone)]
pub struct Surroundings {
    /// The network.
    pub net: Net,
    /// Checks what the coordinator signed.
    pub verifier: Verifier,
    /// The defect of this world, if any.
    pub planted: Option<Planted>,
    /// Whether they repair.
    pub repair: Repair,
    /// Whether somebody changes owners: moves take many more steps of comparison than of scrubbing.
    pub operator: Operator,
    /// The seed of this world.
    pub seed: u64,
    /// When it began.
    pub start: Instant,
}

/// One machine.
pub struct SimNode {
    /// Which node.
    pub id: NodeId,
    /// Where it stands.
    pub site: SiteName,
    /// Its address on the network.
    pub place: Place,
    /// Its disk.
    pub disk: SimDisk,
    /// Its clocks.
    pub clock: Arc<SimClock>,
    time: Arc<DiskLatency>,
    random: Arc<SimRandom>,
    options: StorageNodeOptions,
    around: Surroundings,
    running: Option<Running>,
}

struct Running {
    node: Arc<Node>,
    shutdown: Shutdown,
}

impl SimNode {
    /// A machine that is off.
    pub fn new(id: u64, site: &str, around: Surroundings) -> Self {
        let random = |stream: &str| SimRandom::new(around.seed, &format!("node {id} {stream}"));
        let options = serde_json::json!({
            "node-id": id,
            "site": site,
            "cluster": "sim",
            "listen": "unused",
            "data": DATA,
            "capacity": "1GiB",
            "tls": { "cert-file": "unused", "key-file": "unused", "ca-file": "unused" },
            "coordinator-public-key-file": "unused",
            "segment-target": "64KiB",
        });
        Self {
            id: NodeId(id),
            site: SiteName(site.to_owned()),
            place: Place(u32::try_from(id).expect("a few nodes")),
            disk: SimDisk::new(random("disk"), around.planted),
            clock: Arc::new(SimClock::new(around.start)),
            time: Arc::new(DiskLatency { random: random("latency"), us_max: AtomicU64::new(500) }),
            random: Arc::new(random("random")),
            options: serde_json::from_value(options).expect("the options of every simulated node are valid"),
            around,
            running: None,
        }
    }

    /// Starts the process; blocks on the simulated disk.
    pub fn start(&mut self) -> Result<(), Error> {
        let Surroundings { net, verifier, planted, .. } = &self.around;
        let (shutdown, random) = (Shutdown::new(), self.random.clone());
        let loops = Background::new(shutdown.clone(), random.clone());
        let connect = net.connect_from(self.place, Role::StorageNode, &format!("node-{}", self.id.0));
        let client = PeerClient::new(Arc::new(connect), self.clock.clone(), random.clone(), loops);
        let peers: Arc<dyn Peers> = match planted {
            Some(Planted::CacheStaleHave) => Arc::new(Remembering { client, yes: Mutex::default() }),
            _ => Arc::new(client),
        };
        let fence_rule = match planted {
            Some(Planted::AcceptOldFence) => FenceRule::Any,
            _ => FenceRule::Highest,
        };
        let setup = NodeSetup {
            disk: self.disk.attach(),
            executor: Executor::InPlace(self.time.clone()),
            fence_rule,
            clock: self.clock.clone(),
            random,
            peers,
        };
        let node = Arc::new(Node::open(&self.options, setup)?);
        let server = NodeServer {
            node: into_server(node.clone(), None, verifier.clone(), shutdown.clone()),
            repair: into_repair_server(node.clone()),
            hands_nothing_over: *planted == Some(Planted::ServeBeforeTakeover),
            takes_any_layout: (*planted == Some(Planted::AcceptOldLayout)).then(|| node.clone()),
        };
        net.serve(self.place, server);
        tokio::spawn(keep_house(node.clone(), shutdown.clone()));
        if self.around.repair == Repair::On {
            let n_scrubs = if self.around.operator.moves() { 1 } else { REPAIR_STEPS };
            let loops = keep_repairing(node.clone(), self.around.start, n_scrubs, shutdown.clone());
            tokio::spawn(loops);
        }
        self.running = Some(Running { node, shutdown });
        Ok(())
    }

    /// Ends the process, or the machine.
    pub fn stop(&mut self, how: Stop) {
        // First the disk and the network: what the process still does while it falls apart reaches nobody.
        self.disk.stop(how);
        self.around.net.stop(self.place);
        if let Some(running) = self.running.take() {
            running.shutdown.trigger();
        }
    }

    /// The running core.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.running.as_ref().map(|running| &running.node)
    }

    /// Whether the process runs, or did until its machine stopped by itself.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether the machine stopped by itself.
    pub fn has_failed(&self) -> bool {
        self.running.is_some() && self.disk.is_dead()
    }

    /// How long the longest disk operation takes.
    pub fn set_disk_us_max(&self, us_max: u64) {
        self.time.us_max.store(us_max, Ordering::Relaxed);
    }

    /// The folder of the segments.
    pub fn segments() -> PathBuf {
        PathBuf::from(DATA).join("segments")
    }
}

async fn keep_house(node: Arc<Node>, shutdown: Shutdown) {
    while shutdown.or(sleep(HOUSEKEEPING_EVERY)).await.is_some() {
        // A disk that has stopped says so here; everybody else is told by the calls they make.
        let _looked = node.housekeeping().await;
    }
}

/// Drives the steps of repair, as the loops do in production, without rest.
async fn keep_repairing(node: Arc<Node>, start: Instant, n_scrubs: u32, shutdown: Shutdown) {
    let clock = SimClock::new(start);
    while shutdown.or(sleep(REPAIR_EVERY)).await.is_some() {
        if shutdown.or(repair_some(&node, &clock, n_scrubs)).await.is_none() {
            return;
        }
    }
}

/// A step that fails is tried again with the next tick, and so is a kind of step that has nothing to do; what it could not do
/// stays queued.
async fn repair_some(node: &Node, clock: &SimClock, n_scrubs: u32) {
    let age_ms = clock.now_ms() - START_MS;
    let _verified = node.verify_step(START_MS + age_ms * VERIFY_HASTE).await;
    let (mut compares, mut brings_back) = (true, true);
    for step in 0..REPAIR_STEPS {
        let now_ms = clock.now_ms();
        if step < n_scrubs {
            let _scrubbed = node.scrub_step(now_ms, Pace::AtOnce).await;
        }
        compares = compares && matches!(node.compare_step(now_ms).await, Ok(Step::More));
        brings_back = brings_back && matches!(node.resync_step(now_ms).await, Ok(Step::More));
    }
}

/// The time of a disk.
struct DiskLatency {
    random: SimRandom,
    us_max: AtomicU64,
}

#[async_trait]
impl DiskTime for DiskLatency {
    async fn pass(&self) {
        let us_max = self.us_max.load(Ordering::Relaxed);
        sleep(Duration::from_micros(self.random.between(20, us_max))).await;
    }
}

/// A planted defect: what a peer once had is not asked for again.
struct Remembering {
    client: PeerClient,
    yes: Mutex<BTreeSet<(NodeId, ChunkId)>>,
}

#[async_trait]
impl Peers for Remembering {
    fn repair(&self) -> &dyn RepairPeers {
        self.client.repair()
    }

    async fn replicate(
        &self,
        peer: &LayoutNode,
        call: &PeerCall,
        records: Vec<Bytes>,
    ) -> Result<ReplicaPut, PeerError> {
        self.client.replicate(peer, call, records).await
    }

    async fn have_local(
        &self,
        peer: &LayoutNode,
        call: &PeerCall,
        ids: &[ChunkId],
    ) -> Result<Vec<Presence>, PeerError> {
        let known =
            |id: &ChunkId| self.yes.lock().unwrap_or_else(PoisonError::into_inner).contains(&(peer.id, *id));
        if ids.iter().all(known) {
            return Ok(vec![Presence::Yes; ids.len()]);
        }
        let answer = self.client.have_local(peer, call, ids).await?;
        let mut yes = self.yes.lock().unwrap_or_else(PoisonError::into_inner);
        let had = ids.iter().zip(&answer).filter(|(_, presence)| **presence == Presence::Yes);
        yes.extend(had.map(|(id, _)| (peer.id, *id)));
        Ok(answer)
    }
}
