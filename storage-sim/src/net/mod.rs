//! A simulated network below gRPC: requests go from a generated client to a generated server in the same process, with real
//! encoding, but without HTTP/2 and TLS.
//!
//! Like TCP it keeps the order within a stream and loses nothing silently: a frame that cannot pass waits, and when it waits
//! too long, or one end is gone, the stream breaks. Between streams there is no order. What a caller gives up goes on at the
//! server until the news arrives there.

mod body;
mod channel;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_model::Role;
use holdfast_proto::storage::{
    storage_node_server::StorageNodeServer, storage_repair_server::StorageRepairServer,
};
use holdfast_storage_node::{Node, RepairService, Service};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

pub use channel::{SimConnect, address_of};

use crate::SimRandom;

/// The services of a node.
#[derive(Clone)]
pub struct NodeServer {
    /// For everybody.
    pub node: StorageNodeServer<Service>,
    /// For other nodes.
    pub repair: StorageRepairServer<RepairService>,
    /// A planted defect: this node takes every caller to work by its own layout.
    pub takes_any_layout: Option<Arc<Node>>,
    /// A planted defect: whoever asks this node for the pins of what moved is told that there are none.
    pub hands_nothing_over: bool,
}

/// A frame that cannot pass for so long breaks its stream, as HTTP/2 keep-alive does.
const KEEPALIVE: Duration = Duration::from_secs(40);
/// A connection that cannot be made for so long fails.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub u32);

/// How slow and how bad the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetFaults {
    /// The longest a frame usually takes.
    pub delay_us_max: u64,
    /// Of a thousand frames, so many take much longer: lost, and sent again.
    pub retransmitted: u64,
    /// Of a thousand frames, so many break their stream.
    pub broken: u64,
}

impl Default for NetFaults {
    fn default() -> Self {
        Self { delay_us_max: 2_000, retransmitted: 0, broken: 0 }
    }
}

/// The network of one world.
#[derive(Clone)]
pub struct Net(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    random: SimRandom,
    /// Told of everything that may let a frame pass or break a stream. Wakes who waits in the order in which they came: not
    /// every way to wait does.
    changed: Notify,
}

#[derive(Default)]
struct State {
    faults: NetFaults,
    servers: BTreeMap<Place, NodeServer>,
    /// From there to there nothing passes.
    blocked: BTreeSet<(Place, Place)>,
    /// Grows when a machine stops: streams of an earlier life are broken.
    lives: BTreeMap<Place, u64>,
}

/// The stream broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// One caller's connection to one server.
#[derive(Clone)]
pub(crate) struct Link {
    net: Net,
    caller: Place,
    server: Place,
    /// Of both, when it was made.
    lives: (u64, u64),
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    There,
    Back,
}

impl Net {
    /// A network that works.
    pub fn new(random: SimRandom) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), random, changed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.0.changed.notify_waiters();
        result
    }

    /// A way for a machine to call others.
    pub fn connect_from(&self, place: Place, role: Role, name: &str) -> SimConnect {
        SimConnect::new(self.clone(), place, role, name)
    }

    /// A node serves from now on.
    pub fn serve(&self, place: Place, server: NodeServer) {
        self.change(|state| state.servers.insert(place, server));
    }

    /// A machine stops: nothing that it sent or would have got passes any more.
    pub fn stop(&self, place: Place) {
        self.change(|state| {
            state.servers.remove(&place);
            *state.lives.entry(place).or_default() += 1;
        });
    }

    /// The world is over: nobody serves any more. A node has its way to the others, and would keep itself alive for ever.
    pub fn end(&self) {
        self.change(|state| state.servers.clear());
    }

    /// Nothing passes from there to there.
    pub fn block(&self, from: Place, to: Place) {
        self.change(|state| state.blocked.insert((from, to)));
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.change(|state| state.blocked.clear());
    }

    /// From and to one machine everything passes again.
    pub fn heal_place(&self, place: Place) {
        self.change(|state| state.blocked.retain(|(from, to)| *from != place && *to != place));
    }

    /// How bad it is from now on.
    pub fn set_faults(&self, faults: NetFaults) {
        self.change(|state| state.faults = faults);
    }

    fn life(&self, place: Place) -> u64 {
        self.state().lives.get(&place).copied().unwrap_or_default()
    }
}

impl Link {
    /// Connects, as TCP and TLS do: frames must pass both ways.
    async fn open(net: &Net, caller: Place, server: Place) -> Result<(Self, NodeServer), Broken> {
        let link = Self { net: net.clone(), caller, server, lives: (net.life(caller), net.life(server)) };
        let until = Instant::now() + CONNECT_TIMEOUT;
        link.pass_until(Way::There, until).await?;
        link.pass_until(Way::Back, until).await?;
        let served = net.state().servers.get(&server).cloned();
        served.map(|service| (link, service)).ok_or(Broken)
    }

    /// Lets the time of one frame go by, and waits where it cannot pass.
    async fn pass(&self, way: Way) -> Result<(), Broken> {
        self.pass_until(way, Instant::now() + KEEPALIVE).await
    }

    async fn pass_until(&self, way: Way, until: Instant) -> Result<(), Broken> {
        let random = &self.net.0.random;
        let faults = self.net.state().faults;
        let mut delay_us = random.between(50, faults.delay_us_max);
        if random.per_mille(faults.retransmitted) {
            delay_us += random.between(200_000, 3_000_000);
        }
        let breaks = random.per_mille(faults.broken);
        sleep(Duration::from_micros(delay_us)).await;
        loop {
            // Made first: what changes after it is not missed.
            let changed = self.net.0.changed.notified();
            if breaks || self.is_dead() {
                return Err(Broken);
            }
            if !self.is_blocked(way) {
                return Ok(());
            }
            if timeout_at(until, changed).await.is_err() {
                return Err(Broken);
            }
        }
    }

    fn is_blocked(&self, way: Way) -> bool {
        let pair = match way {
            Way::There => (self.caller, self.server),
            Way::Back => (self.server, self.caller),
        };
        self.net.state().blocked.contains(&pair)
    }

    fn is_dead(&self) -> bool {
        self.lives != (self.net.life(self.caller), self.net.life(self.server))
    }

    /// Waits for the server's machine to stop.
    async fn server_stopped(&self) {
        loop {
            let changed = self.net.0.changed.notified();
            if self.net.life(self.server) != self.lives.1 {
                return;
            }
            changed.await;
        }
    }
}
