//! Brings records back: asks the owners who has each, fetches what is missing here, sends what is missing there.
//!
//! Invariant: a record leaves the queue only when every owner has said that it has it, or when it is not this node's to
//! repair; until then it is tried again, later and later.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join_all;
use holdfast_model::{ChunkId, Layout, LayoutNode, Millis, NodeId, PartitionId, RecordKey};
use holdfast_runtime::Step;

use super::{
    Copy, Entry, Protection, Why,
    answer::{Verified, verified},
    peers::COPY_BYTES,
};
use crate::{
    Error, Node, metrics,
    node::fitting,
    peers::{PeerError, ReplicaOutcome},
};

/// Records in one step.
const BATCH: usize = 64;

/// Whether another owner has a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Held,
    Absent,
    Unknown,
}

/// One record of a step.
struct Job {
    key: RecordKey,
    entry: Entry,
    /// Whether this node is an owner.
    is_ours: bool,
    /// Whether this node has it.
    is_here: bool,
    /// Whether it was brought here in this step.
    was_pulled: bool,
    /// The other owners: those that are to have it.
    owners: BTreeSet<NodeId>,
    /// The other holders: the other owners and those it moves away from.
    there: BTreeMap<NodeId, There>,
    /// The highest of what anybody knows.
    protection: Protection,
}

impl Job {
    fn copies(&self) -> usize {
        usize::from(self.is_here) + self.there.values().filter(|one| **one == There::Held).count()
    }

    fn is_wanted(&self) -> bool {
        self.is_ours && !self.is_here
    }

    fn is(&self, peer: NodeId, there: There) -> bool {
        self.there.get(&peer) == Some(&there)
    }

    fn is_done(&self) -> bool {
        let everywhere = self.owners.iter().all(|owner| self.is(*owner, There::Held));
        let nowhere = self.copies() == 0 && self.there.values().all(|one| *one == There::Absent);
        if nowhere {
            // Nobody was promised it, unless it was here and rotted: an owner that is not in the layout may bring it back.
            return self.entry.why != Why::Damaged;
        }
        // What is neither ours nor here, its owners settle among themselves.
        if self.is_ours { self.is_here && everywhere } else { everywhere || !self.is_here }
    }
}

/// The records of a step and the other owners of any of them.
struct Batch {
    jobs: Vec<Job>,
    peers: Vec<LayoutNode>,
}

impl Batch {
    /// The positions of records for which a peer is asked to do something.
    fn positions(&self, wanted: impl Fn(&Job) -> bool) -> Vec<usize> {
        (0..self.jobs.len()).filter(|at| wanted(&self.jobs[*at])).collect()
    }

    fn keys(&self, positions: &[usize]) -> Vec<RecordKey> {
        positions.iter().map(|at| self.jobs[*at].key).collect()
    }
}

impl Node {
    /// Brings back some of the records whose turn it is.
    pub async fn resync_step(&self, now_ms: Millis) -> Result<Step, Error> {
        let Some(layout) = self.layout() else { return Ok(Step::Idle) };
        self.look_around(&layout, now_ms).await?;
        self.handover_step(&layout, now_ms).await?;
        let queue = self.repair.queue.clone();
        let resumed = self.store.take_repair_resumed();
        let due = self.executor.run(move || {
            if resumed {
                // What waited for room is due at once.
                queue.release(now_ms)?;
            }
            let due = queue.due(now_ms, BATCH)?;
            if due.is_empty() {
                queue.flush()?;
            }
            Ok(due)
        });
        let due = due.await?;
        if due.is_empty() {
            return Ok(Step::Idle);
        }
        let mut batch = self.survey(&layout, due).await?;
        let n_pulled = self.pull(&mut batch).await?;
        let n_pushed = self.push(&mut batch).await?;
        metrics::copies_mended(n_pulled, n_pushed);
        self.settle(batch, now_ms).await?;
        Ok(Step::More)
    }

    /// Asks everybody who has what.
    async fn survey(&self, layout: &Layout, due: Vec<(RecordKey, Entry)>) -> Result<Batch, Error> {
        let keys: Vec<RecordKey> = due.iter().map(|(key, _)| *key).collect();
        let here = self.holds(keys.clone()).await?;
        let mut jobs: Vec<Job> = due
            .into_iter()
            .zip(here)
            .map(|((key, entry), here)| Job {
                key,
                entry,
                is_ours: layout.owns(self.id, PartitionId::of_chunk(key.id)),
                is_here: here.is_some(),
                was_pulled: false,
                owners: self.other_owner_ids(layout, &key),
                there: BTreeMap::new(),
                protection: Protection::higher(entry.protection, here.unwrap_or_default()),
            })
            .collect();
        let ids: Vec<ChunkId> = keys.iter().map(|key| key.id).collect();
        let asked = self.other_holders(layout, ids.into_iter());
        let answers = asked.values().map(|(peer, positions)| {
            let theirs: Vec<RecordKey> = positions.iter().map(|at| keys[*at]).collect();
            async move {
                let answer = self.peers.repair().holds(peer, &theirs).await;
                self.note_reach(peer, &answer);
                fitting(answer, theirs.len(), Vec::len)
            }
        });
        let answers = join_all(answers).await;
        for ((peer, positions), answer) in asked.values().zip(answers) {
            let held = answer.map_or_else(
                |error| {
                    tracing::debug!(peer = %peer.id, %error, "owner could not be asked what it has");
                    vec![(There::Unknown, Protection::default()); positions.len()]
                },
                |held| {
                    let known = held.into_iter();
                    known
                        .map(|one| {
                            one.map_or((There::Absent, Protection::default()), |one| (There::Held, one))
                        })
                        .collect()
                },
            );
            for (at, (there, protection)) in positions.iter().zip(held) {
                jobs[*at].there.insert(peer.id, there);
                jobs[*at].protection = Protection::higher(jobs[*at].protection, protection);
            }
        }
        Ok(Batch { jobs, peers: asked.into_values().map(|(peer, _)| peer).collect() })
    }

    fn other_owner_ids(&self, layout: &Layout, key: &RecordKey) -> BTreeSet<NodeId> {
        let owners = layout.owners_of(PartitionId::of_chunk(key.id)).map(|node| node.id);
        owners.filter(|id| *id != self.id).collect()
    }

    /// The other nodes that may have the ids, each with the positions of those it may have.
    pub(super) fn other_holders(
        &self,
        layout: &Layout,
        ids: impl Iterator<Item = ChunkId>,
    ) -> BTreeMap<NodeId, (LayoutNode, Vec<usize>)> {
        let mut holders: BTreeMap<NodeId, (LayoutNode, Vec<usize>)> = BTreeMap::new();
        for (position, id) in ids.enumerate() {
            for holder in layout.holders_of(PartitionId::of_chunk(id)).filter(|holder| holder.id != self.id) {
                holders.entry(holder.id).or_insert_with(|| (holder.clone(), Vec::new())).1.push(position);
            }
        }
        holders
    }

    /// Fetches what is missing here. What one owner cannot give, the next is asked for.
    async fn pull(&self, batch: &mut Batch) -> Result<u64, Error> {
        if self.store.repair_stopped().is_some() {
            // It would be fetched for nothing.
            return Ok(0);
        }
        let mut n = 0;
        for peer in batch.peers.clone() {
            let wanted = batch.positions(|job| job.is_wanted() && job.is(peer.id, There::Held));
            let mut left = &wanted[..];
            while !left.is_empty() {
                let answer = self.peers.repair().fetch(&peer, &batch.keys(left)).await;
                self.note_reach(&peer, &answer);
                let copies = match answer {
                    Ok(copies) if !copies.is_empty() && copies.len() <= left.len() => copies,
                    other => {
                        let error = other.err().unwrap_or(PeerError::Nonsense);
                        tracing::debug!(peer = %peer.id, %error, "copies could not be fetched");
                        break;
                    }
                };
                let (these, rest) = left.split_at(copies.len());
                n += self.store_fetched(batch, these, copies, &peer).await?;
                left = rest;
            }
        }
        Ok(n)
    }

    async fn store_fetched(
        &self,
        batch: &mut Batch,
        positions: &[usize],
        copies: Vec<Option<Copy>>,
        peer: &LayoutNode,
    ) -> Result<u64, Error> {
        let asked: Vec<_> =
            positions.iter().map(|at| (batch.jobs[*at].key, batch.jobs[*at].protection)).collect();
        let verify = move || {
            Ok(copies.into_iter().zip(asked).map(|(copy, (key, floor))| checked(copy, &key, floor)).collect())
        };
        let checked: Vec<Fetched> = self.executor.run(verify).await?;
        let (mut stored_at, mut records) = (Vec::new(), Vec::new());
        for (at, one) in positions.iter().zip(checked) {
            match one {
                Fetched::Good(record) => {
                    stored_at.push(*at);
                    records.push(*record);
                }
                Fetched::None => drop(batch.jobs[*at].there.insert(peer.id, There::Absent)),
                Fetched::Bad(problem) => {
                    metrics::bad_copy_refused();
                    tracing::warn!(peer = %peer.id, problem, "a fetched copy does not verify: it is not stored");
                    batch.jobs[*at].there.insert(peer.id, There::Unknown);
                }
            }
        }
        let (outcomes, reason) = self.take_in(records).await;
        let mut n = 0;
        for (at, outcome) in stored_at.into_iter().zip(outcomes) {
            if matches!(outcome, ReplicaOutcome::Stored | ReplicaOutcome::Exists) {
                (batch.jobs[at].is_here, batch.jobs[at].was_pulled) = (true, true);
                n += 1;
            }
        }
        if !reason.is_empty() {
            tracing::warn!(reason, "fetched copies could not be stored: they are fetched again later");
        }
        Ok(n)
    }

    /// Sends what other owners lack.
    async fn push(&self, batch: &mut Batch) -> Result<u64, Error> {
        let mut n = 0;
        for peer in batch.peers.clone() {
            let wanted = batch.positions(|job| {
                job.is_here && job.owners.contains(&peer.id) && job.is(peer.id, There::Absent)
            });
            let mut left = &wanted[..];
            while !left.is_empty() {
                let (store, keys) = (self.store.clone(), batch.keys(left));
                let copies = self.executor.run(move || store.copies(&keys, COPY_BYTES)).await?;
                let (these, rest) = left.split_at(copies.len());
                left = rest;
                let (mut sent_at, mut sent) = (Vec::new(), Vec::new());
                for (at, copy) in these.iter().zip(copies) {
                    let job = &mut batch.jobs[*at];
                    match copy {
                        Some(copy) => {
                            sent_at.push(*at);
                            sent.push(Copy {
                                touch_epoch: copy.touch_epoch.max(job.protection.touch_epoch),
                                ..copy
                            });
                        }
                        // Damaged at this very moment: it was queued for that.
                        None => job.is_here = false,
                    }
                }
                if sent.is_empty() {
                    continue;
                }
                let answer = self.peers.repair().mend(&peer, sent).await;
                self.note_reach(&peer, &answer);
                match fitting(answer, sent_at.len(), |put| put.outcomes.len()) {
                    Ok(put) => {
                        if !put.reason.is_empty() {
                            tracing::debug!(peer = %peer.id, reason = put.reason, "copies were not taken in");
                        }
                        for (at, outcome) in sent_at.into_iter().zip(put.outcomes) {
                            let is_stored =
                                matches!(outcome, ReplicaOutcome::Stored | ReplicaOutcome::Exists);
                            let there = if is_stored { There::Held } else { There::Unknown };
                            batch.jobs[at].there.insert(peer.id, there);
                            n += u64::from(is_stored);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(peer = %peer.id, %error, "copies could not be sent");
                        break;
                    }
                }
            }
        }
        Ok(n)
    }

    /// Takes out what is done and puts back the rest.
    async fn settle(&self, batch: Batch, now_ms: Millis) -> Result<(), Error> {
        let first = Duration::from_secs(self.repair.options.retry_seconds);
        let (mut done, mut later, mut n_repaired) = (Vec::new(), Vec::new(), 0);
        for job in batch.jobs {
            let Job { key, entry, .. } = job;
            if job.was_pulled && entry.why == Why::Damaged {
                n_repaired += 1;
            }
            if job.is_done() {
                done.push((key, entry));
                continue;
            }
            if entry.why == Why::Damaged && job.copies() == 0 && entry.tries == 0 {
                tracing::error!(
                    tenant = %key.tenant, chunk = %key.id,
                    "a damaged record has no copy at any owner that answers: bring the other owners back"
                );
            }
            let why = if job.is_here && entry.why == Why::Damaged { Why::Missing } else { entry.why };
            let entry = Entry { why, protection: job.protection, ..entry };
            later.push((key, entry.later(now_ms, first, job.copies())));
        }
        if n_repaired > 0 {
            metrics::repaired(n_repaired);
            tracing::warn!(n_repaired, "damaged records were brought back from other storage nodes");
        }
        let queue = self.repair.queue.clone();
        self.executor.run(move || queue.settle(&done, &later)).await?;
        if n_repaired > 0 { self.repair.count_repaired(n_repaired) } else { Ok(()) }
    }
}

/// What came for a key.
enum Fetched {
    Good(Box<Verified>),
    None,
    Bad(String),
}

/// Checks a fetched copy, and raises it to what is known of the record.
fn checked(copy: Option<Copy>, key: &RecordKey, floor: Protection) -> Fetched {
    let Some(copy) = copy else { return Fetched::None };
    match verified(copy) {
        Ok((record, _)) if record.key() != *key => Fetched::Bad("it is another record".to_owned()),
        Ok((mut record, touch_epoch)) => {
            let placement = &mut record.placement;
            placement.write_epoch = placement.write_epoch.max(floor.write_epoch);
            placement.lock_floor_ms = placement.lock_floor_ms.max(floor.lock_floor_ms);
            Fetched::Good(Box::new((record, touch_epoch.max(floor.touch_epoch))))
        }
        Err(error) => Fetched::Bad(error.to_string()),
    }
}
