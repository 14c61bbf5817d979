//! Anti-entropy: compares what this node has of its partitions with what their other owners have, and queues what is
//! missing here. What is missing there, that node finds when it compares.
//!
//! A round goes over all partitions of this node: one at every start, then one per period. Suspect partitions come first.
//! Invariant: one step compares a bounded number of partitions and holds one page of keys.

use holdfast_model::{Layout, LayoutNode, LayoutVersion, Millis, PARTITION_COUNT, PartitionId, RecordKey};
use holdfast_runtime::Step;

use super::{
    Digests, Entry, Protection, Why,
    digest::{self, Digest, LEAVES},
    lock,
    peers::KEYS_MAX,
};
use crate::{Error, Node, metrics, node::fitting, peers::PeerError};

/// Partitions compared in one step.
const BATCH: usize = 16;
/// Pages of keys read of one leaf in one comparison; what lies behind is found in the next.
const LEAF_PAGES_MAX: usize = 256;
const MINUTE_MS: u64 = 60_000;
/// While partitions are moving, a round begins this long after the last one.
const MOVING_ROUND_MS: u64 = 5_000;

/// Where the running round is.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// When it began; none before the first.
    started_ms: Option<Millis>,
    /// The next partition to compare; none when no round is running.
    next: Option<u16>,
    /// An owner could not be asked.
    has_holes: bool,
    /// Something was missing here, or a write may still bring more by an older layout.
    has_gaps: bool,
    /// The layout it began under.
    version: LayoutVersion,
    /// When the last complete round ended.
    pub(super) ended_ms: Millis,
}

/// What a comparison says.
struct Found {
    all_asked: bool,
    has_gaps: bool,
}

/// The partitions of one step.
struct Chosen {
    partitions: Vec<PartitionId>,
    /// The round goes on there, or ends.
    of_round: Option<Option<u16>>,
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
        let Some(suspects) = waiting.await? else { return Ok(Step::Idle) };
        let chosen = if suspects.is_empty() {
            match self.next_of_round(&layout, now_ms) {
                Some(chosen) => chosen,
                None => return Ok(Step::Idle),
            }
        } else {
            let partitions = suspects.into_iter().filter(|one| layout.owns(self.id, *one)).collect();
            Chosen { partitions, of_round: None }
        };
        let found = self.compare(&layout, &chosen.partitions).await?;
        let mut is_complete = false;
        if let Some(next) = chosen.of_round {
            let mut round = lock(&self.repair.round);
            round.has_holes |= !found.all_asked;
            round.has_gaps |= found.has_gaps || round.version != layout.version;
            round.next = next;
            if next.is_none() && !round.has_holes {
                round.ended_ms = now_ms;
                is_complete = !round.has_gaps;
            }
        }
        if is_complete {
            self.note_complete(&layout).await?;
        }
        Ok(Step::More)
    }

    fn next_of_round(&self, layout: &Layout, now_ms: Millis) -> Option<Chosen> {
        let period_ms = match self.owes_comparison(layout) {
            true => MOVING_ROUND_MS,
            false => self.repair.options.compare_minutes.saturating_mul(MINUTE_MS),
        };
        let mut round = lock(&self.repair.round);
        let is_due = round.started_ms.is_none_or(|started| now_ms >= started.saturating_add(period_ms));
        if round.next.is_none() && is_due {
            (round.started_ms, round.next, round.has_holes) = (Some(now_ms), Some(0), false);
            (round.has_gaps, round.version) = (false, layout.version);
        }
        let from = round.next?;
        let owned = (from..PARTITION_COUNT).map(PartitionId).filter(|one| layout.owns(self.id, *one));
        let partitions: Vec<_> = owned.take(BATCH).collect();
        let next = partitions.last().filter(|_| partitions.len() == BATCH).map(|last| last.0 + 1);
        Some(Chosen { partitions, of_round: Some(next) })
    }

    /// Says whether every other holder answered, and whether anything may be missing here.
    async fn compare(&self, layout: &Layout, partitions: &[PartitionId]) -> Result<Found, Error> {
        let store = self.store.clone();
        let own = partitions.to_vec();
        let digest = move || -> Result<Vec<_>, Error> {
            own.iter().map(|one| Ok((*one, digest::leaves(store.index(), *one)?))).collect()
        };
        let own = self.executor.run(digest).await?;
        let (mut all_asked, mut n_missing, mut has_gaps) = (true, 0, false);
        for peer in layout.nodes.iter().filter(|node| node.id != self.id) {
            let holds = |one| layout.holders_of(one).any(|node| node.id == peer.id);
            let shared: Vec<_> = own.iter().filter(|(one, _)| holds(*one)).collect();
            if shared.is_empty() {
                continue;
            }
            match self.compare_with(peer, layout, &shared).await? {
                Ok((n, layout_in_use)) => {
                    n_missing += n;
                    has_gaps |= n > 0 || layout_in_use < layout.moved_in;
                }
                Err(error) => {
                    // When it comes back, what is shared with it becomes suspect.
                    tracing::debug!(peer = %peer.id, %error, "partitions could not be compared");
                    all_asked = false;
                }
            }
        }
        metrics::partitions_compared(partitions.len() as u64, n_missing);
        Ok(Found { all_asked, has_gaps })
    }

    async fn compare_with(
        &self,
        peer: &LayoutNode,
        layout: &Layout,
        shared: &[&(PartitionId, Vec<Digest>)],
    ) -> Result<Result<(u64, LayoutVersion), PeerError>, Error> {
        let partitions: Vec<_> = shared.iter().map(|(one, _)| *one).collect();
        let answer = self.peers.repair().digests(peer, &partitions).await;
        self.note_reach(peer, &answer);
        let Digests { digests: theirs, layout_in_use } =
            match fitting(answer, partitions.len(), |one| one.digests.len()) {
                Ok(theirs) => theirs,
                Err(error) => return Ok(Err(error)),
            };
        let mut n_missing = 0;
        for ((partition, own), theirs) in shared.iter().copied().zip(theirs) {
            if digest::root(own) == theirs {
                continue;
            }
            let answer = self.peers.repair().leaves(peer, *partition).await;
            self.note_reach(peer, &answer);
            let leaves = match fitting(answer, LEAVES, Vec::len) {
                Ok(leaves) => leaves,
                Err(error) => return Ok(Err(error)),
            };
            // At least one owner has what is found, and this one has not.
            let copies = layout.owners_of(*partition).count().saturating_sub(1).max(1);
            for (leaf, (own, theirs)) in (0..=u8::MAX).zip(own.iter().zip(leaves)) {
                if *own == theirs || theirs == [0; 32] {
                    continue;
                }
                match self.compare_leaf(peer, (*partition, leaf), copies).await? {
                    Ok(n) => n_missing += n,
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
        Ok(Ok((n_missing, layout_in_use)))
    }

    /// Queues what the peer has of a leaf and this node has not.
    async fn compare_leaf(
        &self,
        peer: &LayoutNode,
        leaf: (PartitionId, u8),
        copies: usize,
    ) -> Result<Result<u64, PeerError>, Error> {
        let (mut after, mut n_missing) = (None, 0);
        for _ in 0..LEAF_PAGES_MAX {
            let answer = self.peers.repair().keys(peer, leaf, after).await;
            self.note_reach(peer, &answer);
            let page = match answer {
                Ok(page) if makes_sense(&page.keys, leaf, after) => page,
                Ok(_) => return Ok(Err(PeerError::Nonsense)),
                Err(error) => return Ok(Err(error)),
            };
            let last = page.keys.last().copied();
            n_missing += self.queue_missing(page.keys, copies).await?;
            match last {
                Some(last) if page.more => after = Some(last),
                _ => break,
            }
        }
        Ok(Ok(n_missing))
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

/// Keys come in order, behind the last page, and are of the leaf that was asked for.
fn makes_sense(keys: &[RecordKey], (partition, leaf): (PartitionId, u8), after: Option<RecordKey>) -> bool {
    keys.len() <= KEYS_MAX
        && keys
            .iter()
            .all(|key| PartitionId::of_chunk(key.id) == partition && digest::leaf_of(&key.id) == leaf)
        && keys.is_sorted_by(|a, b| a < b)
        && keys.first().is_none_or(|first| after.is_none_or(|after| *first > after))
}
