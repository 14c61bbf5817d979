//! Nodes that join, leave, are lost and replaced, and witnesses: what an operator does, at times drawn from the seed.
//!
//! Some worlds have one who waits for the worst moment: while commits are under way, every owner that has a successor is
//! replaced at once, and one of those that leave hears of it late. Writers find it and the owner that stays, each by a layout of
//! its own; together they were a majority.
//!
//! Data is lost in one site only, the one in which records may rot: two failed copies are more than anybody promises to survive.

use std::{collections::BTreeSet, time::Duration};

use holdfast_model::{Layout, LayoutChange, LayoutError, LayoutNode, NodeDuty, NodeId};
use tokio::time::Instant;

use crate::{
    SimRandom,
    chaos::Chaos,
    shape::{self, WITNESS_SITE},
    world::{COORDINATOR, World},
};

/// Of a thousand worlds, so many have an operator who does anything at any time,
const AT_ANY_TIME: u64 = 80;
/// and so many one who replaces owners amid commits.
const AMID_COMMITS: u64 = 30;

/// Whether somebody changes owners, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Nobody does.
    Absent,
    /// Anything, at any time.
    AtAnyTime,
    /// Many owners at once, while commits are under way.
    AmidCommits,
}

impl Operator {
    /// The one of a world.
    pub fn draw(seed: u64) -> Self {
        match SimRandom::new(seed, "operator world").below(1_000) {
            drawn if drawn < AT_ANY_TIME => Self::AtAnyTime,
            drawn if drawn < AT_ANY_TIME + AMID_COMMITS => Self::AmidCommits,
            _ => Self::Absent,
        }
    }

    /// Whether owners change at all.
    pub fn moves(self) -> bool {
        self != Self::Absent
    }

    /// Of a thousand kinds of faults, so many happen in its world: fewer where the moment is what counts.
    pub fn fault_kinds(self) -> u64 {
        if self == Self::AmidCommits { 150 } else { 450 }
    }
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// One machine more.
    Join,
    /// One less.
    Drain,
    /// Some leave and all others come, at once.
    Swap,
    /// A disk is gone.
    Lose,
    /// A witness comes, or goes.
    Witness,
}

/// How likely each is.
const EVENTS: &[Event] = &[
    Event::Join,
    Event::Join,
    Event::Drain,
    Event::Drain,
    Event::Swap,
    Event::Swap,
    Event::Lose,
    Event::Lose,
    Event::Witness,
];

/// A node that lost its data, before anybody says so.
struct Lost {
    index: usize,
    /// When the operator names it as lost.
    named_at: Instant,
    /// Whether the machine comes back, with an empty disk.
    comes_back: bool,
}

/// The operator.
pub struct Moves {
    random: SimRandom,
    next: Instant,
    lost: Vec<Lost>,
    /// When the coordinator reaches every node again, if it does not.
    cut_until: Option<Instant>,
}

impl Moves {
    /// Nothing has happened yet.
    pub fn new(seed: u64) -> Self {
        let random = SimRandom::new(seed, "operator");
        let next = Instant::now() + Duration::from_millis(random.between(500, 6_000));
        Self { random, next, lost: Vec::new(), cut_until: None }
    }

    /// Does what is due.
    pub fn step(&mut self, chaos: &mut Chaos) {
        self.name_lost(chaos, Instant::now());
        if self.cut_until.is_some_and(|until| until <= Instant::now()) {
            self.cut_until = None;
            chaos.world().net.heal_place(COORDINATOR);
        }
        let world = chaos.world().clone();
        let layout = world.authority.layout();
        if world.operator == Operator::AmidCommits {
            self.replace_amid_commits(&world, &layout);
            return;
        }
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + Duration::from_millis(self.random.between(1_000, 9_000));
        let may_only_lose = layout.is_moving() || !self.lost.is_empty();
        match self.random.pick(EVENTS).copied() {
            Some(Event::Lose) if self.lost.is_empty() => self.lose(chaos, &layout),
            Some(event) if !may_only_lose => {
                if let Some(nodes) = self.nodes_after(event, &world, &layout) {
                    self.cut_off_some(&world);
                    self.change(&world, event, nodes);
                }
            }
            _ => {}
        }
    }

    /// Replaces every owner that has a successor in its site, if a commit is under way.
    fn replace_amid_commits(&mut self, world: &World, layout: &Layout) {
        let is_committing = world.resources.iter().any(|one| world.authority.is_committing(*one));
        if layout.is_moving() || !is_committing || Instant::now() < self.next {
            return;
        }
        let successors = spares(world, layout);
        let leaves = |node: &&LayoutNode| successors.iter().any(|one| one.site == node.site);
        let leaving: Vec<NodeId> = layout.nodes.iter().filter(leaves).map(|node| node.id).collect();
        let stay = layout.nodes.iter().filter(|node| !leaving.contains(&node.id)).cloned();
        let nodes = stay.chain(successors.iter().cloned()).collect();
        if let Some(late) = self.random.pick(&leaving).copied() {
            let index = (0..world.n_nodes()).find(|index| world.node(*index).id == late);
            let time = Duration::from_millis(self.random.between(5_000, 25_000));
            self.cut_off(world, index.as_slice(), time);
        }
        self.change(world, Event::Swap, nodes);
        self.next = Instant::now() + Duration::from_millis(self.random.between(1_000, 9_000));
    }

    /// Whoever lost data is named at once.
    pub fn end(&mut self, chaos: &mut Chaos) {
        let all = self.lost.iter().map(|lost| lost.named_at).max();
        if let Some(all) = all {
            self.name_lost(chaos, all);
        }
    }

    fn change(&self, world: &World, event: Event, nodes: Vec<LayoutNode>) {
        let replication = world.authority.layout().replication;
        let changed = world.authority.change_layout(LayoutChange { nodes, replication, lost: [].into() });
        if let Err(error) = changed {
            world.log.add(format_args!("{event:?} is refused: {error}"));
        }
    }

    /// The nodes there are to be after an event; none when it cannot happen now.
    fn nodes_after(&self, event: Event, world: &World, layout: &Layout) -> Option<Vec<LayoutNode>> {
        let mut nodes = layout.nodes.clone();
        let spares = spares(world, layout);
        let keeps_data: Vec<NodeId> =
            nodes.iter().filter(|node| node.duty == NodeDuty::Data).map(|node| node.id).collect();
        match event {
            Event::Join => nodes.push(self.random.pick(&spares)?.clone()),
            Event::Drain => {
                let leaves = *self.random.pick(&keeps_data)?;
                nodes.retain(|node| node.id != leaves);
            }
            Event::Swap => {
                let n = self.random.between(1, 3);
                let leave: BTreeSet<NodeId> =
                    (0..n).filter_map(|_| self.random.pick(&keeps_data).copied()).collect();
                nodes.retain(|node| !leave.contains(&node.id));
                nodes.extend(spares);
            }
            Event::Witness => {
                let n = nodes.len();
                nodes.retain(|node| node.duty != NodeDuty::Witness);
                if nodes.len() == n {
                    let machine = world.witness().filter(|node| !world.is_off(node.id))?;
                    nodes.push(LayoutNode { duty: NodeDuty::Witness, ..machine });
                }
            }
            Event::Lose => return None,
        }
        Some(nodes)
    }

    /// Some nodes learn of the change late: others, and writers, reach them, but the coordinator does not.
    fn cut_off_some(&mut self, world: &World) {
        if !self.random.per_mille(500) {
            return;
        }
        let cut: Vec<usize> = (0..world.n_nodes()).filter(|_| self.random.per_mille(300)).collect();
        let time = Duration::from_millis(self.random.between(1_000, 25_000));
        self.cut_off(world, &cut, time);
    }

    /// The coordinator does not reach some nodes for so long.
    fn cut_off(&mut self, world: &World, indexes: &[usize], time: Duration) {
        for index in indexes {
            let place = world.node(*index).place;
            world.net.block(COORDINATOR, place);
            world.net.block(place, COORDINATOR);
        }
        world.log.add(format_args!("the coordinator does not reach node indexes {indexes:?}"));
        self.cut_until = Some(Instant::now() + time);
    }

    /// A disk is gone, and with it everything on it.
    fn lose(&mut self, chaos: &mut Chaos, layout: &Layout) {
        let world = chaos.world().clone();
        let may = |index: &usize| {
            let (id, site) = {
                let node = world.node(*index);
                (node.id, node.site.clone())
            };
            // Whose folder nobody has noted yet may be taken for one that has just come.
            let is_known = layout.node(id).is_some_and(|node| node.folder.is_some());
            is_known && world.bad_site().is_none_or(|bad| bad == site)
        };
        let candidates: Vec<usize> = (0..world.n_nodes()).filter(may).collect();
        let Some(index) = self.random.pick(&candidates).copied() else { return };
        let comes_back = self.random.per_mille(600);
        chaos.wipe(index, comes_back);
        let named_at = Instant::now() + Duration::from_millis(self.random.between(100, 12_000));
        self.lost.push(Lost { index, named_at, comes_back });
    }

    /// The operator names those whose time has come.
    fn name_lost(&mut self, chaos: &mut Chaos, now: Instant) {
        let (due, later) = std::mem::take(&mut self.lost).into_iter().partition(|lost| lost.named_at <= now);
        self.lost = later;
        let due: Vec<Lost> = due;
        for Lost { index, comes_back, .. } in due {
            self.cut_off_some(chaos.world());
            let world = chaos.world().clone();
            let id = world.node(index).id;
            if comes_back || name_lost(&world, id, comes_back).is_err() {
                // The pool cannot do without it.
                chaos.bring_back(index);
                if let Err(error) = name_lost(&world, id, true) {
                    world.log.add(format_args!("{id} cannot be named as lost: {error}"));
                }
            }
        }
    }
}

/// The machines that keep nothing now and may keep data.
fn spares(world: &World, layout: &Layout) -> Vec<LayoutNode> {
    (0..world.n_nodes())
        .map(|index| {
            let node = world.node(index);
            shape::node(node.id, &node.site)
        })
        .filter(|node| {
            layout.node(node.id).is_none() && node.site.0 != WITNESS_SITE && !world.is_off(node.id)
        })
        .collect()
}

/// `layout apply --lost`.
fn name_lost(world: &World, id: NodeId, comes_back: bool) -> Result<(), LayoutError> {
    let layout = world.authority.layout();
    let configured = world.authority.configured();
    let stays = |node: &&LayoutNode| configured.contains(&node.id) && (comes_back || node.id != id);
    let mut nodes: Vec<LayoutNode> = layout.nodes.iter().filter(stays).cloned().collect();
    nodes.iter_mut().filter(|node| node.id == id).for_each(|node| node.folder = None);
    let replication = layout.replication;
    world.authority.change_layout(LayoutChange { nodes, replication, lost: [id].into() })
}
