//! Everything that goes wrong, at times drawn from the seed.
//!
//! A seed draws which kinds of faults its world has at all, so that some worlds know one kind only and see it often.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    Planted, SimRandom,
    disk::{DiskFaults, Stop, Unsynced},
    moves::Moves,
    net::NetFaults,
    node::SimNode,
    world::World,
};

/// How often machines are looked after.
const TICK: Duration = Duration::from_millis(25);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Kill,
    PowerLoss,
    Fuse,
    Partition,
    OneWay,
    BadNet,
    SyncFails,
    DiskFull,
    ListFails,
    SlowDisk,
    Rot,
    ClockJump,
    Epoch,
    Generation,
}

const KINDS: &[Kind] = &[
    Kind::Kill,
    Kind::PowerLoss,
    Kind::Fuse,
    Kind::Partition,
    Kind::OneWay,
    Kind::BadNet,
    Kind::SyncFails,
    Kind::DiskFull,
    Kind::ListFails,
    Kind::SlowDisk,
    Kind::Rot,
    Kind::ClockJump,
    Kind::Epoch,
    Kind::Generation,
];

/// The source of all faults.
pub struct Chaos {
    world: Arc<World>,
    random: SimRandom,
    kinds: Vec<Kind>,
    /// When a stopped node is started again.
    down: BTreeMap<usize, Instant>,
    heal_at: Option<Instant>,
    calm_net_at: Option<Instant>,
    faults: BTreeMap<usize, DiskFaults>,
    /// Who changes owners, in worlds where somebody does.
    moves: Option<Moves>,
}

impl Chaos {
    /// Draws the kinds of faults of this world.
    pub fn new(world: Arc<World>) -> Self {
        let random = SimRandom::new(world.seed, "chaos");
        let chance = world.operator.fault_kinds();
        let kinds: Vec<Kind> = KINDS.iter().copied().filter(|_| random.per_mille(chance)).collect();
        world.log.add(format_args!("faults of this world: {kinds:?}"));
        let moves = world.operator.moves().then(|| Moves::new(world.seed));
        Self {
            world,
            random,
            kinds,
            down: BTreeMap::new(),
            heal_at: None,
            calm_net_at: None,
            faults: BTreeMap::new(),
            moves,
        }
    }

    /// Makes things go wrong for so long.
    pub async fn run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        let mut next = Instant::now() + Duration::from_millis(self.random.between(50, 2_000));
        while Instant::now() < until {
            self.look_after();
            self.with_moves(Moves::step);
            if Instant::now() >= next {
                if let Some(kind) = self.random.pick(&self.kinds).copied() {
                    self.cause(kind).await;
                }
                next = Instant::now() + Duration::from_millis(self.random.between(100, 4_000));
            }
            sleep(TICK).await;
        }
    }

    fn with_moves(&mut self, act: impl FnOnce(&mut Moves, &mut Self)) {
        if let Some(mut moves) = self.moves.take() {
            act(&mut moves, self);
            self.moves = Some(moves);
        }
    }

    /// The world it is in.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// A disk is gone. The machine comes back after a while with an empty one, or never.
    pub fn wipe(&mut self, index: usize, comes_back: bool) {
        if self.world.node(index).is_running() {
            self.stop(index, Stop::Kill);
        }
        self.world.wipe_node(index);
        if !comes_back {
            self.down.remove(&index);
            let id = self.world.node(index).id;
            self.world.set_off(id, true);
        }
    }

    /// A machine that was to stay off is started after all.
    pub fn bring_back(&mut self, index: usize) {
        let id = self.world.node(index).id;
        self.world.set_off(id, false);
        if !self.world.node(index).is_running() {
            self.down.entry(index).or_insert_with(Instant::now);
        }
    }

    fn look_after(&mut self) {
        for index in 0..self.world.n_nodes() {
            if self.world.node(index).has_failed() {
                let how = self.any_stop();
                self.stop(index, how);
            }
        }
        let due = |at: &Instant| *at <= Instant::now();
        let nodes: Vec<usize> = self.down.iter().filter(|(_, at)| due(at)).map(|(index, _)| *index).collect();
        for index in nodes {
            self.start(index);
        }
        if self.heal_at.as_ref().is_some_and(due) {
            self.heal_at = None;
            self.world.net.heal();
            self.world.log.add(format_args!("partitions heal"));
        }
        if self.calm_net_at.as_ref().is_some_and(due) {
            self.calm_net_at = None;
            self.world.net.set_faults(NetFaults::default());
            self.world.log.add(format_args!("the network is good again"));
        }
    }

    fn start(&mut self, index: usize) {
        if self.kinds.contains(&Kind::Fuse) && self.random.per_mille(200) {
            let n = self.random.below(60);
            self.world.node(index).disk.set_fuse(n);
        }
        match self.world.start_node(index) {
            Ok(()) => drop(self.down.remove(&index)),
            Err(_) => {
                let how = self.any_stop();
                self.stop(index, how);
            }
        }
    }

    fn stop(&mut self, index: usize, how: Stop) {
        self.world.stop_node(index, how);
        let after = Duration::from_millis(self.random.between(10, 12_000));
        self.down.insert(index, Instant::now() + after);
    }

    fn any_stop(&self) -> Stop {
        let may_lose = self.kinds.contains(&Kind::PowerLoss);
        if may_lose && self.random.per_mille(600) { self.power_loss() } else { Stop::Kill }
    }

    fn power_loss(&self) -> Stop {
        let ways = [Unsynced::Lost, Unsynced::Torn, Unsynced::Torn, Unsynced::Stored];
        Stop::PowerLoss(*self.random.pick(&ways).expect("there are ways"))
    }

    fn any_node(&self) -> usize {
        usize::try_from(self.random.below(self.world.n_nodes() as u64)).expect("a few nodes")
    }

    async fn cause(&mut self, kind: Kind) {
        let index = self.any_node();
        let runs = self.world.node(index).is_running();
        match kind {
            Kind::Kill if runs => self.stop(index, Stop::Kill),
            Kind::PowerLoss if runs => {
                let how = self.power_loss();
                self.stop(index, how);
            }
            Kind::Fuse if runs => {
                let n = self.random.below(120);
                self.world.node(index).disk.set_fuse(n);
            }
            Kind::Kill | Kind::PowerLoss | Kind::Fuse => {}
            Kind::Partition | Kind::OneWay => self.part(kind),
            Kind::BadNet => self.bad_net(),
            Kind::SyncFails | Kind::DiskFull | Kind::ListFails => self.bad_disk(index, kind),
            Kind::SlowDisk => {
                let us_max = *self.random.pick(&[500, 500, 20_000, 200_000]).expect("there are some");
                self.world.node(index).set_disk_us_max(us_max);
            }
            Kind::Rot => self.rot(index),
            Kind::ClockJump => {
                let hours = self.random.between(0, 4_000);
                let off_by_ms = i64::try_from(hours).expect("small") * 3_600_000 - 2_000 * 3_600_000;
                let off_by_ms = if self.random.per_mille(400) { 0 } else { off_by_ms };
                self.world.log.add(format_args!("clock of node index {index} off by {off_by_ms} ms"));
                self.world.node(index).clock.set_off_by_ms(off_by_ms);
            }
            Kind::Epoch | Kind::Generation => {
                match kind {
                    Kind::Epoch => drop(self.world.authority.next_epoch()),
                    _ => drop(self.world.authority.next_generation()),
                }
                let authority = self.world.authority.clone();
                tokio::spawn(async move { authority.apply_everywhere().await });
            }
        }
    }

    /// Parts the machines in two, or makes one direction fail.
    fn part(&mut self, kind: Kind) {
        let n = self.world.n_nodes();
        let one_side: BTreeSet<usize> = (0..n).filter(|_| self.random.per_mille(400)).collect();
        let place = |index: usize| self.world.node(index).place;
        for from in &one_side {
            for to in (0..n).filter(|to| !one_side.contains(to)) {
                self.world.net.block(place(*from), place(to));
                if kind == Kind::Partition {
                    self.world.net.block(place(to), place(*from));
                }
            }
        }
        self.world.log.add(format_args!("{kind:?} of node indexes {one_side:?} from the others"));
        let after = Duration::from_millis(self.random.between(200, 60_000));
        self.heal_at.get_or_insert(Instant::now() + after);
    }

    fn bad_net(&mut self) {
        let faults = NetFaults {
            delay_us_max: *self.random.pick(&[2_000, 20_000, 400_000]).expect("there are some"),
            retransmitted: self.random.below(60),
            broken: self.random.below(40),
        };
        self.world.net.set_faults(faults);
        self.world.log.add(format_args!("{faults:?}"));
        let after = Duration::from_millis(self.random.between(500, 15_000));
        self.calm_net_at = Some(Instant::now() + after);
    }

    fn bad_disk(&mut self, index: usize, kind: Kind) {
        let faults = self.faults.entry(index).or_default();
        match kind {
            Kind::SyncFails => {
                faults.sync_fails = if faults.sync_fails == 0 { self.random.between(10, 300) } else { 0 };
            }
            Kind::DiskFull => faults.is_full = !faults.is_full,
            _ => faults.list_fails = if faults.list_fails == 0 { 300 } else { 0 },
        }
        self.world.log.add(format_args!("disk of node index {index}: {faults:?}"));
        self.world.node(index).disk.set_faults(*faults);
    }

    /// In one site only: two rotten copies of a record are more than anybody promises to survive.
    fn rot(&self, index: usize) {
        let node = self.world.node(index);
        let bad = self.world.bad_site();
        if bad.is_some_and(|site| site != node.site) {
            return;
        }
        let mut rotten = self.world.rotten_site.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, offset)) = node.disk.rot() {
            *rotten = Some(node.site.clone());
            self.world.log.add(format_args!("{} rots at {offset} of {}", node.id, path.display()));
        }
    }

    /// Everything is good again; machines that are off stay off.
    pub fn end(&mut self) {
        self.with_moves(Moves::end);
        self.world.net.heal();
        self.world.net.set_faults(NetFaults::default());
        for index in 0..self.world.n_nodes() {
            let node = self.world.node(index);
            node.disk.set_faults(DiskFaults::default());
            node.clock.set_off_by_ms(0);
            node.set_disk_us_max(500);
        }
        self.world.log.add(format_args!("no more faults"));
    }

    /// Stops every machine at the same time and starts them all.
    pub fn restart_all(&mut self) {
        for index in 0..self.world.n_nodes() {
            let how = self.any_stop();
            self.world.stop_node(index, how);
        }
        self.carry_pins();
        for index in 0..self.world.n_nodes() {
            let node = self.world.node(index).id;
            if self.world.is_off(node) {
                continue;
            }
            if let Err(reason) = self.world.start_node(index) {
                self.world.oracle.violated(crate::Violation::DoesNotStart { node, reason });
            }
        }
        self.down.clear();
    }

    /// A planted defect: resync that takes a pin segment for a segment like any other.
    fn carry_pins(&self) {
        if self.world.planted != Some(Planted::MinorityPinTravels) {
            return;
        }
        let folder = SimNode::segments();
        let disks: Vec<_> =
            (0..self.world.n_nodes()).map(|index| self.world.node(index).disk.clone()).collect();
        for from in 0..disks.len() {
            let is_pins = |path: &std::path::PathBuf| path.to_string_lossy().contains("/pin-");
            for path in disks[from].files(&folder).into_iter().filter(is_pins) {
                for to in (0..disks.len()).filter(|to| *to != from) {
                    disks[from].copy_to(&disks[to], &path);
                }
            }
        }
    }
}
