//! Everything of one run: machines, network, authority, and what is known of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_model::{
    Clock as _, Fence, Layout, LayoutNode, Millis, NodeId, PartitionId, ResourceId, Role, SiteName, Verb,
};
use holdfast_proto::signed::Signer;
use holdfast_record::Pin;
use holdfast_runtime::{ByteSize, HumanDuration};
use holdfast_storage_client::{StorageClient, StorageClientOptions};
use holdfast_storage_node::{Caller, Node};
use tokio::time::Instant;

use crate::{
    Planted, SimRandom,
    authority::Authority,
    clock::SimClock,
    content::TENANT,
    disk::Stop,
    event_log::{EventLog, Trace},
    moves::Operator,
    net::{Net, Place},
    node::{Repair, SimNode, Surroundings},
    oracle::{Oracle, Seen, Violation},
    shape::{self, Shape, WITNESS_SITE},
};

/// The coordinator's machine.
pub const COORDINATOR: Place = Place(500);
/// The machine that judges at the end.
const JUDGE: Place = Place(501);
/// Of a thousand worlds, so many have nodes that repair.
const REPAIR_WORLDS: u64 = 150;
/// The first of the writers' machines: each attempt is a process of its own.
const FIRST_WRITER: u32 = 1_000;
/// PKCS#8 around a raw Ed25519 private key.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// One world.
pub struct World {
    /// When it began.
    pub start: Instant,
    /// Its seed.
    pub seed: u64,
    /// What happens.
    pub log: Arc<EventLog>,
    /// What must be.
    pub oracle: Arc<Oracle>,
    /// The network.
    pub net: Net,
    /// The coordinator.
    pub authority: Arc<Authority>,
    /// What is backed up.
    pub resources: Vec<ResourceId>,
    /// The defect that was planted, if any.
    pub planted: Option<Planted>,
    /// Whether its nodes repair.
    pub repair: Repair,
    /// Whether somebody changes who owns what.
    pub operator: Operator,
    /// The only site in which records rot, once one did.
    pub rotten_site: Mutex<Option<SiteName>>,
    lost_site: Mutex<Option<SiteName>>,
    off: Mutex<BTreeSet<NodeId>>,
    /// The next chunk that nobody has yet.
    pub next_chunk: AtomicU64,
    nodes: Vec<Mutex<SimNode>>,
    next_writer: AtomicU32,
}

/// The options of every client: waits are short, so that a run sees many of them end.
fn client_options() -> StorageClientOptions {
    let seconds = HumanDuration::seconds;
    StorageClientOptions {
        put_frame_bytes: ByteSize::kib(16),
        have_batch: 16,
        get_batch: 48,
        retry_for: seconds(20),
        read_retry_for: seconds(2),
        request_timeout: seconds(6),
        status_timeout: seconds(3),
        down_for: seconds(5),
        straggler_wait: seconds(1),
        ..StorageClientOptions::default()
    }
}

impl World {
    /// A world whose machines are all off.
    pub fn new(seed: u64, planted: Option<Planted>, trace: Trace) -> Self {
        let start = Instant::now();
        let log = Arc::new(EventLog::new(start, trace));
        let oracle = Arc::new(Oracle::new(log.clone()));
        let random = SimRandom::new(seed, "shape");
        let net = Net::new(SimRandom::new(seed, "net"));
        let signer = signer(&random);
        let operator = Operator::draw(seed);
        let (shape, layout) = shape::draw(&random, operator);
        // Without repair no move would end.
        let repairs = random.per_mille(REPAIR_WORLDS) || operator.moves();
        let repair = if repairs { Repair::On } else { Repair::Off };
        let verifier = signer.verifier();
        let around = Surroundings { net: net.clone(), verifier, planted, repair, operator, seed, start };
        let machine = |(site, id): (&&str, u64)| Mutex::new(SimNode::new(id, site, around.clone()));
        let nodes: Vec<Mutex<SimNode>> = machines(shape, operator).zip(1..).map(machine).collect();
        let clock = Arc::new(SimClock::new(start));
        let client = client(&net, COORDINATOR, Role::Coordinator, clock.clone(), seed);
        let facts = (log.clone(), oracle.clone());
        let decisions = (SimRandom::new(seed, "authority"), planted);
        let authority = Authority::new(signer, client, clock, layout.clone(), facts, decisions);
        let resources =
            (0..random.between(2, 4)).map(|n| ResourceId([u8::try_from(n).expect("few") + 1; 16]));
        log.add(format_args!(
            "seed {seed}: nodes {:?}, {} copies, operator {operator:?}, repair {repair:?}, planted {planted:?}",
            layout.nodes.iter().map(|node| format!("{} in {}", node.id, node.site)).collect::<Vec<_>>(),
            layout.replication.copies
        ));
        Self {
            start,
            seed,
            log,
            oracle,
            net,
            authority: Arc::new(authority),
            resources: resources.collect(),
            planted,
            repair,
            operator,
            rotten_site: Mutex::default(),
            lost_site: Mutex::default(),
            off: Mutex::default(),
            next_chunk: AtomicU64::new(0),
            nodes,
            next_writer: AtomicU32::new(FIRST_WRITER),
        }
    }

    /// How many nodes there are.
    pub fn n_nodes(&self) -> usize {
        self.nodes.len()
    }

    /// One of the nodes.
    pub fn node(&self, index: usize) -> MutexGuard<'_, SimNode> {
        self.nodes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who owns what.
    pub fn layout(&self) -> Arc<Layout> {
        self.authority.layout()
    }

    /// The machine that may become a witness.
    pub fn witness(&self) -> Option<LayoutNode> {
        (0..self.n_nodes())
            .map(|index| self.node(index))
            .find(|node| node.site.0 == WITNESS_SITE)
            .map(|node| shape::node(node.id, &node.site))
    }

    /// The only site in which anything may still go bad for good, once something did.
    pub fn bad_site(&self) -> Option<SiteName> {
        let site = |of: &Mutex<Option<SiteName>>| of.lock().unwrap_or_else(PoisonError::into_inner).clone();
        site(&self.rotten_site).or_else(|| site(&self.lost_site))
    }

    fn off(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.off.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a machine stays off.
    pub fn is_off(&self, node: NodeId) -> bool {
        self.off().contains(&node)
    }

    /// Whether a machine stays off from now on.
    pub fn set_off(&self, node: NodeId, off: bool) {
        if off {
            self.off().insert(node);
        } else {
            self.off().remove(&node);
        }
    }

    /// The sites, in order.
    pub fn sites(&self) -> Vec<SiteName> {
        let mut sites: Vec<SiteName> = self.layout().nodes.iter().map(|node| node.site.clone()).collect();
        sites.sort();
        sites.dedup();
        sites
    }

    /// Where the nodes of a site are.
    pub fn places_in(&self, site: &SiteName) -> Vec<Place> {
        let here = |index: &usize| self.node(*index).site == *site;
        (0..self.n_nodes()).filter(here).map(|index| self.node(index).place).collect()
    }

    /// A writer's process on a machine of its own.
    pub fn writer(&self) -> (Place, StorageClient) {
        let place = Place(self.next_writer.fetch_add(1, Ordering::Relaxed));
        let clock = Arc::new(SimClock::new(self.start));
        (place, client(&self.net, place, Role::Worker, clock, self.seed))
    }

    /// The process that judges at the end.
    pub fn judge(&self) -> (Place, StorageClient) {
        let clock = Arc::new(SimClock::new(self.start));
        (JUDGE, client(&self.net, JUDGE, Role::Coordinator, clock, self.seed))
    }

    // === Machines ===

    /// Starts a node; says whether it runs.
    pub fn start_node(&self, index: usize) -> Result<(), String> {
        let mut node = self.node(index);
        let started = node.start();
        if started.is_ok() && !node.has_failed() {
            self.log.add(format_args!("{} runs", node.id));
            drop(node);
            self.look_at(index);
            return Ok(());
        }
        let reason = match started {
            Ok(()) => "its machine stopped".to_owned(),
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                format!("{error} ({})", source.unwrap_or_default())
            }
        };
        self.log.add(format_args!("{} does not start: {reason}", node.id));
        Err(reason)
    }

    /// Stops a node.
    pub fn stop_node(&self, index: usize, how: Stop) {
        self.look_at(index);
        let mut node = self.node(index);
        self.log.add(format_args!("{} stops: {how:?}", node.id));
        node.stop(how);
    }

    /// Everything on the disk of a stopped node is gone.
    pub fn wipe_node(&self, index: usize) {
        let node = self.node(index);
        node.disk.wipe();
        self.oracle.forget(node.id);
        *self.lost_site.lock().unwrap_or_else(PoisonError::into_inner) = Some(node.site.clone());
        self.log.add(format_args!("{} loses its disk", node.id));
    }

    /// Compares what a running node holds with what it held.
    pub fn look_at(&self, index: usize) {
        let (id, running) = {
            let node = self.node(index);
            (node.id, node.node().cloned())
        };
        let Some(running) = running else { return };
        for resource in &self.resources {
            if let Some(seen) = self.seen(&running, *resource) {
                self.oracle.saw(id, *resource, seen);
            }
        }
    }

    fn seen(&self, node: &Node, resource: ResourceId) -> Option<Seen> {
        let partition = PartitionId::of_pins(TENANT, resource);
        node.layout().filter(|layout| layout.owns_pins(node.id(), partition))?;
        let claims = self.authority.claims(resource, Fence::default(), &[Verb::Read]);
        let token = self.authority.token(resource, Fence::default(), &[Verb::Read]);
        // A disk that has just stopped cannot be read: then there is nothing to compare.
        let read = node.read_pins(&Caller { claims, token }, 0).ok()?;
        let mut pins = BTreeMap::new();
        for bytes in &read.pins {
            match Pin::decode(bytes) {
                Ok(pin) => drop(pins.insert(pin.sequence, pin.hash())),
                Err(_) => self.oracle.violated(Violation::Stuck("a stored pin does not decode".to_owned())),
            }
        }
        Some(Seen { fence: read.highest_fence, pins })
    }

    /// What a right clock shows.
    pub fn now_ms(&self) -> Millis {
        SimClock::new(self.start).now_ms()
    }

    /// How long the world has lived.
    pub fn age(&self) -> Duration {
        self.start.elapsed()
    }
}

fn client(net: &Net, place: Place, role: Role, clock: Arc<SimClock>, seed: u64) -> StorageClient {
    let connect = Arc::new(net.connect_from(place, role, "sim"));
    let random = Arc::new(SimRandom::new(seed, &format!("client {}", place.0)));
    StorageClient::with_connect(client_options(), connect, clock, random)
}

fn signer(random: &SimRandom) -> Signer {
    let mut key = PKCS8_PREFIX.to_vec();
    (0..4).for_each(|_| key.extend_from_slice(&random.draw().to_le_bytes()));
    Signer::from_pkcs8(&key).expect("32 bytes are an Ed25519 private key")
}

/// The sites of all machines.
fn machines(shape: &'static Shape, operator: Operator) -> impl Iterator<Item = &'static &'static str> {
    shape.sites.iter().chain(shape.spares.iter().filter(move |_| operator.moves()))
}
