//! How copies heal: hints of puts that an owner missed, comparison with the other owners, the check of stored bytes, and
//! the queue that all three fill and that brings records back.
//!
//! Each part is a step of the core that takes the time: `resync_step` brings back, `compare_step` finds what is missing,
//! `scrub_step` finds what is damaged. The loops of `loops` only call them, so that a simulation can drive them too.
//! Invariant: repair only adds. A copy is verified before it is stored, and epochs and lock floors travel with it and are
//! never lowered.

mod answer;
mod client;
mod compare;
mod complete;
mod digest;
mod edge;
mod entry;
mod loops;
mod peers;
mod queue;
mod resync;
mod scrub;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use holdfast_model::{Layout, LayoutNode, Millis, NodeId, PARTITION_COUNT, PartitionId, RecordKey};

pub use digest::Digest;
pub use edge::{RepairService, into_repair_server};
pub use entry::{Entry, Protection, Why};
pub(crate) use loops::spawn_loops;
pub use peers::{Copy, Digests, KeyPage, NoRepair, RepairPeers};
pub use queue::{Backlog, RepairQueue};
pub use scrub::Pace;

use crate::{
    Error, Node, RepairOptions, Replica, metrics,
    peers::{PeerError, ReplicaOutcome, ReplicaPut},
};
use compare::Round;
use complete::Open;

/// How many damaged records came back from other nodes.
const REPAIRED: &str = "repaired";

/// What repair remembers beside its queue.
pub struct Repair {
    pub(crate) queue: Arc<RepairQueue>,
    options: RepairOptions,
    /// Nodes that could not be reached when they were last called.
    down: Mutex<BTreeSet<NodeId>>,
    /// The layout of the last look around; none before the first.
    seen: Mutex<Option<Arc<Layout>>>,
    round: Mutex<Round>,
    /// What is still to come of a move.
    open: Mutex<Open>,
    /// Pins are not asked for before.
    handover_at: Mutex<Millis>,
}

/// What an operator sees of repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepairStatus {
    /// Partitions that the layout gives to this node.
    pub partitions_owned: u64,
    /// What waits.
    pub backlog: Backlog,
    /// How long the oldest of that has been waiting.
    pub oldest_age_ms: u64,
    /// Damaged records that were brought back from other nodes.
    pub repaired_records: u64,
    /// When the last complete comparison ended; 0: not since the start.
    pub last_comparison_ms: Millis,
    /// When the last complete scrub ended; 0: never.
    pub last_scrub_ms: Millis,
    /// How far the running scrub is; 0: none is running.
    pub scrub_permille: u32,
}

impl Repair {
    pub(crate) fn new(queue: Arc<RepairQueue>, options: &RepairOptions) -> Self {
        Self {
            open: Mutex::default(),
            handover_at: Mutex::default(),
            queue,
            options: *options,
            down: Mutex::default(),
            seen: Mutex::default(),
            round: Mutex::default(),
        }
    }

    pub(crate) fn handover_not_before(&self) -> Millis {
        *lock(&self.handover_at)
    }

    pub(crate) fn handover_later(&self, at_ms: Millis) {
        *lock(&self.handover_at) = at_ms;
    }

    /// Counts records that came back.
    fn count_repaired(&self, n: u64) -> Result<(), Error> {
        let before: u64 = self.queue.note(REPAIRED)?.unwrap_or(0);
        self.queue.set_note(REPAIRED, &(before + n))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The partitions that a node owns.
fn owned(layout: &Layout, node: NodeId) -> impl Iterator<Item = PartitionId> + '_ {
    (0..PARTITION_COUNT).map(PartitionId).filter(move |partition| layout.owns(node, *partition))
}

impl Node {
    /// Remembers which peers cannot be reached.
    pub(crate) fn note_reach<T>(&self, peer: &LayoutNode, answer: &Result<T, PeerError>) {
        use PeerError::{BackingOff, TooSlow, Unreachable};
        if let Err(Unreachable { .. } | TooSlow | BackingOff { .. }) = answer {
            lock(&self.repair.down).insert(peer.id);
        }
    }

    /// Queues what an owner did not store while another did: before the answer, so that memory holds no promise.
    pub(crate) async fn hint(&self, keys: &[RecordKey], replicas: &[Replica<ReplicaPut>]) {
        let mut wanted = Vec::new();
        for (position, key) in keys.iter().enumerate() {
            let outcomes = || replicas.iter().filter_map(|replica| replica.answer.outcomes.get(position));
            let stored = outcomes()
                .filter(|one| matches!(one, ReplicaOutcome::Stored | ReplicaOutcome::Exists))
                .count();
            if stored > 0 && outcomes().any(|one| *one == ReplicaOutcome::Failed) {
                wanted.push((*key, Entry::new(Why::Hint, stored, Protection::default())));
            }
        }
        if wanted.is_empty() {
            return;
        }
        metrics::hinted(wanted.len() as u64);
        let queue = self.repair.queue.clone();
        if let Err(error) = self.executor.run(move || queue.add(&wanted)).await {
            tracing::warn!(%error, "hints could not be kept: the next comparison finds what they told");
        }
    }

    /// Sees whether peers came back and whether the layout changed: then what waits for it is due at once, and partitions
    /// that are shared with those nodes are compared.
    async fn look_around(&self, layout: &Arc<Layout>, now_ms: Millis) -> Result<(), Error> {
        let mut suspects = BTreeSet::new();
        let before = lock(&self.repair.seen).replace(layout.clone());
        // At the start everything is due, and the first round compares everything anyway.
        let mut is_news = before.is_none();
        if let Some(before) = before.filter(|before| before.version != layout.version) {
            is_news = true;
            // Who does not hold a partition any more has nothing that is missing here.
            let has_new_holder = |one: &PartitionId| {
                let held = |id: NodeId| before.holders_of(*one).any(|node| node.id == id);
                layout.holders_of(*one).any(|node| !held(node.id))
            };
            suspects.extend(owned(layout, self.id).filter(has_new_holder));
        }
        let down = lock(&self.repair.down).clone();
        for id in down {
            let Some(node) = layout.node(id) else {
                lock(&self.repair.down).remove(&id);
                continue;
            };
            let answer = self.peers.repair().digests(node, &[]).await;
            if matches!(answer, Ok(_) | Err(PeerError::Refused { .. } | PeerError::Nonsense)) {
                tracing::info!(peer = %id, "storage node is back: what it missed is brought to it");
                lock(&self.repair.down).remove(&id);
                is_news = true;
                suspects.extend(owned(layout, self.id).filter(|partition| layout.owns(id, *partition)));
            }
        }
        if !is_news {
            return Ok(());
        }
        let (queue, suspects) = (self.repair.queue.clone(), suspects.into_iter().collect::<Vec<_>>());
        let spread = move || {
            queue.release(now_ms)?;
            queue.suspect(&suspects)
        };
        self.executor.run(spread).await
    }

    /// What an operator sees of repair. Blocks on the disk.
    pub(crate) fn repair_status(&self) -> Result<RepairStatus, Error> {
        let queue = &self.repair.queue;
        let backlog = queue.backlog()?;
        let scrub = scrub::progress(queue, self.store.used_bytes())?;
        let now_ms = self.clock.now_ms();
        let oldest_age_ms = backlog.oldest_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest));
        let owned = self.layout().map_or(0, |layout| owned(&layout, self.id).count());
        let status = RepairStatus {
            partitions_owned: owned as u64,
            backlog,
            oldest_age_ms,
            repaired_records: queue.note(REPAIRED)?.unwrap_or(0),
            last_comparison_ms: lock(&self.repair.round).ended_ms,
            last_scrub_ms: scrub.0,
            scrub_permille: scrub.1,
        };
        metrics::repair_backlog(backlog.records, backlog.at_one_copy, backlog.damaged, oldest_age_ms);
        Ok(status)
    }
}
