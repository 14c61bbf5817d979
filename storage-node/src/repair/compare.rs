//! Anti-entropy: compares what this node has of its partitions with what their other owners have, and queues what is
//! missing here. What is missing there, that node finds when it compares.
//!
//! A round goes over all partitions of this node: one at every start, then one per period. Between them, while partitions are
//! moving, shorter ones go over those of them that were not found clean yet. Suspect partitions come before any round.
//! Invariant: one step compares a bounded number of partitions and holds one page of keys.

use std::collections::BTreeSet;

use holdfast_model::{Layout, LayoutNode, Millis, PARTITION_COUNT, PartitionId, RecordKey};
use holdfast_runtime::Step;

use super::{
    Digests, Entry, KeyPage, Protection, Why,
    digest::{self, Digest, LEAVES, Slices},
    lock,
    peers::KEYS_MAX,
};
use crate::{Error, Node, metrics, node::fitting, peers::PeerError};

/// Partitions compared in one step.
const BATCH: usize = 16;
/// Pages of keys read of one leaf in one comparison. No pool is so large that a leaf has more: it bounds what a peer may send.
const LEAF_PAGES_MAX: usize = 256;
const MINUTE_MS: u64 = 60_000;
/// A round over what moves begins this long after the last one.
const MOVING_ROUND_MS: u64 = 5_000;

/// Where the rounds are.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// When the last one over all partitions began; none before the first.
    started_ms: Option<Millis>,
    /// When the last one over what moves began.
    moving_started_ms: Option<Millis>,
    running: Option<Running>,
    /// When the last complete one over all partitions ended.
    pub(super) ended_ms: Millis,
}

/// What a round goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Moving,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    scope: Scope,
    next: PartitionId,
    /// An owner could not be asked.
    has_holes: bool,
}

impl Round {
    /// What is to begin now. All partitions come first, so that a long move does not keep the others from their turn.
    fn due(&self, now_ms: Millis, period_ms: u64, owes_moving: bool) -> Option<Scope> {
        let is_due = |started: Option<Millis>, every_ms: u64| {
            started.is_none_or(|started| now_ms >= started.saturating_add(every_ms))
        };
        if is_due(self.started_ms, period_ms) {
            return Some(Scope::All);
        }
        (owes_moving && is_due(self.moving_started_ms, MOVING_ROUND_MS)).then_some(Scope::Moving)
    }

    fn begin(&mut self, scope: Scope, now_ms: Millis) {
        match scope {
            Scope::All => self.started_ms = Some(now_ms),
            Scope::Moving => self.moving_started_ms = Some(now_ms),
        }
        self.running = Some(Running { scope, next: PartitionId(0), has_holes: false });
    }

    /// A step of the running one is over; it goes on with a partition, or ends.
    fn advance(&mut self, next: Option<PartitionId>, all_asked: bool, now_ms: Millis) {
        let Some(mut running) = self.running.take() else { return };
        running.has_holes |= !all_asked;
        match next {
            Some(next) => self.running = Some(Running { next, ..running }),
            None if running.scope == Scope::All && !running.has_holes => self.ended_ms = now_ms,
            None => {}
        }
    }
}

/// What this node has of a partition.
struct Own {
    partition: PartitionId,
    leaves: Vec<Digest>,
    /// How many records of it had been set aside before.
    n_set_aside: u64,
}

/// What a comparison with one peer found.
#[derive(Default)]
struct Found {
    n_missing: u64,
    /// Partitions of which something may be missing here.
    doubtful: BTreeSet<PartitionId>,
}

/// What a comparison of a partition, or of one leaf of it, found.
struct FoundPart {
    n_missing: u64,
    /// Every key of the peer was looked at.
    is_whole: bool,
}

impl Node {
    /// Compares some partitions with their other owners.
    pub async fn compare_step(&self, now_ms: Millis) -> Result<Step, Error> {
        let Some(layout) = self.layout() else { return Ok(Step::Idle) };
        let queue = self.repair.queue.clone();
        let waiting = self.executor.run(move || {
            // What would be found could not be kept.
            if queue.is_full()? {
                return Ok(None);
            }
            let suspects = queue.suspects(BATCH)?;
            queue.unsuspect(&suspects)?;
            Ok(Some(suspects))
        });
        let Some(mut suspects) = waiting.await? else { return Ok(Step::Idle) };
        if !suspects.is_empty() {
            suspects.retain(|one| layout.owns(self.id, *one));
            self.compare(&layout, &suspects).await?;
            return Ok(Step::More);
        }
        let Some(partitions) = self.next_of_round(&layout, now_ms) else { return Ok(Step::Idle) };
        let all_asked = self.compare(&layout, &partitions).await?;
        let next =
            partitions.last().filter(|_| partitions.len() == BATCH).map(|last| PartitionId(last.0 + 1));
        lock(&self.repair.round).advance(next, all_asked, now_ms);
        Ok(Step::More)
    }

    /// The next partitions of the running round, or of one that is to begin: a full batch, unless it is the last.
    fn next_of_round(&self, layout: &Layout, now_ms: Millis) -> Option<Vec<PartitionId>> {
        let owes_moving = !self.owed_comparisons(layout, PartitionId(0), 1).is_empty();
        let period_ms = self.repair.options.compare_minutes.saturating_mul(MINUTE_MS);
        let Running { scope, next, .. } = {
            let mut round = lock(&self.repair.round);
            if round.running.is_none()
                && let Some(scope) = round.due(now_ms, period_ms, owes_moving)
            {
                round.begin(scope, now_ms);
            }
            round.running?
        };
        Some(match scope {
            Scope::All => {
                let owned = (next.0..PARTITION_COUNT).map(PartitionId);
                owned.filter(|one| layout.owns(self.id, *one)).take(BATCH).collect()
            }
            Scope::Moving => self.owed_comparisons(layout, next, BATCH),
        })
    }

    /// Queues what is missing here, notes what is clean, and says whether every other holder answered.
    async fn compare(&self, layout: &Layout, partitions: &[PartitionId]) -> Result<bool, Error> {
        let own = self.own_digests(partitions.to_vec()).await?;
        let (mut all_asked, mut found) = (true, Found::default());
        for peer in layout.nodes.iter().filter(|node| node.id != self.id) {
            let holds = |one| layout.holders_of(one).any(|node| node.id == peer.id);
            let shared: Vec<_> = own.iter().filter(|own| holds(own.partition)).collect();
            if shared.is_empty() {
                continue;
            }
            match self.compare_with(peer, layout, &shared).await? {
                Ok(with_peer) => {
                    found.n_missing += with_peer.n_missing;
                    found.doubtful.extend(with_peer.doubtful);
                }
                Err(error) => {
                    // When it comes back, what is shared with it becomes suspect.
                    tracing::debug!(peer = %peer.id, %error, "partitions could not be compared");
                    found.doubtful.extend(shared.iter().map(|own| own.partition));
                    all_asked = false;
                }
            }
        }
        metrics::partitions_compared(partitions.len() as u64, found.n_missing);
        let clean = own.iter().filter(|own| !found.doubtful.contains(&own.partition));
        self.note_clean(layout, clean.map(|own| (own.partition, own.n_set_aside)));
        Ok(all_asked)
    }

    async fn own_digests(&self, partitions: Vec<PartitionId>) -> Result<Vec<Own>, Error> {
        let store = self.store.clone();
        let digest = move || {
            // First: what is set aside while digests are taken counts against them.
            let set_aside = store.set_aside_by_partition();
            let slices = Slices::of(store.index())?;
            let all = partitions.into_iter().map(|partition| {
                let n_set_aside = set_aside.get(&partition).copied().unwrap_or_default();
                Ok(Own { partition, leaves: slices.leaves(partition)?, n_set_aside })
            });
            all.collect()
        };
        self.executor.run(digest).await
    }

    async fn compare_with(
        &self,
        peer: &LayoutNode,
        layout: &Layout,
        shared: &[&Own],
    ) -> Result<Result<Found, PeerError>, Error> {
        let partitions: Vec<_> = shared.iter().map(|own| own.partition).collect();
        let answer = self.peers.repair().digests(peer, &partitions).await;
        self.note_reach(peer, &answer);
        let Digests { digests: theirs, layout_in_use } =
            match fitting(answer, partitions.len(), |one| one.digests.len()) {
                Ok(theirs) => theirs,
                Err(error) => return Ok(Err(error)),
            };
        let mut found = Found::default();
        if layout_in_use < layout.moved_in {
            // A write may still bring more there by an older layout.
            found.doubtful.extend(partitions);
        }
        for (own, theirs) in shared.iter().copied().zip(theirs) {
            if digest::root(&own.leaves) == theirs {
                continue;
            }
            match self.compare_partition(peer, layout, own).await? {
                Ok(FoundPart { n_missing, is_whole }) => {
                    found.n_missing += n_missing;
                    if n_missing > 0 || !is_whole {
                        found.doubtful.insert(own.partition);
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(found))
    }

    async fn compare_partition(
        &self,
        peer: &LayoutNode,
        layout: &Layout,
        own: &Own,
    ) -> Result<Result<FoundPart, PeerError>, Error> {
        let answer = self.peers.repair().leaves(peer, own.partition).await;
        self.note_reach(peer, &answer);
        let leaves = match fitting(answer, LEAVES, Vec::len) {
            Ok(leaves) => leaves,
            Err(error) => return Ok(Err(error)),
        };
        // At least one owner has what is found, and this one has not.
        let copies = layout.owners_of(own.partition).count().saturating_sub(1).max(1);
        let mut found = FoundPart { n_missing: 0, is_whole: true };
        for (leaf, (own_leaf, theirs)) in (0..=u8::MAX).zip(own.leaves.iter().zip(leaves)) {
            if *own_leaf == theirs || theirs == digest::EMPTY_LEAF {
                continue;
            }
            match self.compare_leaf(peer, (own.partition, leaf), copies).await? {
                Ok(one) => {
                    found.n_missing += one.n_missing;
                    found.is_whole &= one.is_whole;
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(found))
    }

    /// Queues what the peer has of a leaf and this node has not.
    async fn compare_leaf(
        &self,
        peer: &LayoutNode,
        leaf: (PartitionId, u8),
        copies: usize,
    ) -> Result<Result<FoundPart, PeerError>, Error> {
        let (mut after, mut n_missing) = (None, 0);
        for _ in 0..LEAF_PAGES_MAX {
            let answer = self.peers.repair().keys(peer, leaf, after).await;
            self.note_reach(peer, &answer);
            let page = match answer {
                Ok(page) if makes_sense(&page, leaf, after) => page,
                Ok(_) => return Ok(Err(PeerError::Nonsense)),
                Err(error) => return Ok(Err(error)),
            };
            let last = page.keys.last().copied();
            n_missing += self.queue_missing(page.keys, copies).await?;
            match last {
                Some(last) if page.more => after = Some(last),
                _ => return Ok(Ok(FoundPart { n_missing, is_whole: true })),
            }
        }
        Ok(Ok(FoundPart { n_missing, is_whole: false }))
    }

    async fn queue_missing(&self, keys: Vec<RecordKey>, copies: usize) -> Result<u64, Error> {
        let (store, queue) = (self.store.clone(), self.repair.queue.clone());
        let find = move || {
            let here = store.protection(&keys)?;
            let missing = keys.into_iter().zip(here).filter(|(_, here)| here.is_none());
            let entry = Entry::new(Why::Missing, copies, Protection::default());
            let missing: Vec<_> = missing.map(|(key, _)| (key, entry)).collect();
            queue.add(&missing)?;
            Ok(missing.len() as u64)
        };
        self.executor.run(find).await
    }
}

/// Keys come in order, behind the last page, and are of the leaf that was asked for; only the last page may be empty.
fn makes_sense(page: &KeyPage, (partition, leaf): (PartitionId, u8), after: Option<RecordKey>) -> bool {
    let KeyPage { keys, more } = page;
    keys.len() <= KEYS_MAX
        && keys
            .iter()
            .all(|key| PartitionId::of_chunk(key.id) == partition && digest::leaf_of(&key.id) == leaf)
        && keys.is_sorted_by(|a, b| a < b)
        && keys.first().map_or(!more, |first| after.is_none_or(|after| *first > after))
}
