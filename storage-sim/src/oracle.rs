//! What a run must show, gathered while it runs and judged at its end.
//!
//! A fact is noted only when somebody outside the storage was told so. Facts are never taken back.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use holdfast_model::{ChunkId, Fence, LayoutVersion, NodeId, PinHash, ResourceId, Sequence, SiteName};
use holdfast_record::{Ciphertext, Pin, SealedRecord};
use holdfast_repository::StoreError;

use crate::event_log::EventLog;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Other bytes than were stored.
    WrongBytes(ChunkId),
    /// It was acknowledged, and cannot be read.
    AckedLost {
        /// The chunk.
        id: ChunkId,
        /// The site that was away when it was read, if one was.
        without: Option<SiteName>,
        /// What the reader says.
        reason: String,
    },
    /// A session was told that a record is there and protected, and now it is not.
    PromiseBroken {
        /// The chunk.
        id: ChunkId,
        /// The session's epoch.
        epoch: u64,
        /// Sites that keep the promise.
        n_sites: usize,
    },
    /// After repair an owner still lacks it.
    NotRepaired {
        /// The chunk.
        id: ChunkId,
        /// Who lacks it.
        node: NodeId,
    },
    /// A commit that somebody was told of is not there.
    CommitLost(Sequence),
    /// A commit that was found void is there.
    VoidCommitted(Sequence),
    /// Two pins were committed at one sequence.
    TwoPins(Sequence),
    /// A node's highest fence is lower than it was.
    FenceWentBack {
        /// The node.
        node: NodeId,
        /// What it was.
        from: Fence,
        /// What it is.
        to: Fence,
    },
    /// A node had a pin and has it no longer, or another.
    PinVanished {
        /// The node.
        node: NodeId,
        /// Which.
        sequence: Sequence,
    },
    /// A node does not come up again.
    DoesNotStart {
        /// The node.
        node: NodeId,
        /// What it says.
        reason: String,
    },
    /// Code under test panicked: what a disk or a network gives never may.
    Panicked(String),
    /// Although nothing is wrong any more, something does not go on.
    Stuck(String),
}

/// What a node was seen to hold for one resource.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The highest fence.
    pub fence: Fence,
    /// Its pins.
    pub pins: BTreeMap<Sequence, PinHash>,
}

/// The facts of one run.
pub struct Oracle {
    log: Arc<EventLog>,
    facts: Mutex<Facts>,
}

#[derive(Default)]
struct Facts {
    expected: BTreeMap<ChunkId, Ciphertext>,
    /// The lowest layout version by which it was told.
    acked: BTreeMap<ChunkId, LayoutVersion>,
    /// By layout version the highest epoch for which a session was told yes.
    promised: BTreeMap<ChunkId, BTreeMap<LayoutVersion, u64>>,
    committed: BTreeMap<(ResourceId, Sequence), Pin>,
    /// With the layout version by which it was found.
    void: BTreeMap<(ResourceId, Sequence), BTreeMap<PinHash, LayoutVersion>>,
    /// Layouts whose new owners took over every pin they saw: what was void before one of them may be committed since.
    any_copy_in: BTreeSet<LayoutVersion>,
    seen: BTreeMap<(NodeId, ResourceId), Seen>,
    violations: Vec<Violation>,
}

impl Facts {
    /// Whether a pin was found void, and by the layout of a version still must be.
    fn is_void(&self, key: (ResourceId, Sequence), hash: PinHash, version: LayoutVersion) -> bool {
        let void_by = self.void.get(&key).and_then(|hashes| hashes.get(&hash));
        void_by.is_some_and(|void_by| {
            let since = (Bound::Excluded(*void_by), Bound::Included(version.max(*void_by)));
            self.any_copy_in.range(since).next().is_none()
        })
    }
}

impl Oracle {
    /// Knows nothing yet.
    pub fn new(log: Arc<EventLog>) -> Self {
        Self { log, facts: Mutex::default() }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a violation.
    pub fn violated(&self, violation: Violation) {
        self.log.add(format_args!("VIOLATION {violation:?}"));
        self.facts().violations.push(violation);
    }

    /// Everything that must not have been.
    pub fn violations(&self) -> Vec<Violation> {
        self.facts().violations.clone()
    }

    // === Facts ===

    /// These records will be offered.
    pub fn expect(&self, records: &[SealedRecord]) {
        let mut facts = self.facts();
        facts.expected.extend(records.iter().map(|record| (record.header.id, record.ciphertext.clone())));
    }

    /// A session in that epoch, by that layout, was told that they are durable: stored, or there already.
    pub fn acked(&self, ids: impl IntoIterator<Item = ChunkId>, (epoch, version): (u64, LayoutVersion)) {
        let mut facts = self.facts();
        for id in ids {
            let first = facts.acked.entry(id).or_insert(version);
            *first = version.min(*first);
            let promised = facts.promised.entry(id).or_default().entry(version).or_default();
            *promised = epoch.max(*promised);
        }
    }

    /// Whether somebody was told that it is durable.
    pub fn is_acked(&self, id: &ChunkId) -> bool {
        self.facts().acked.contains_key(id)
    }

    /// Everything somebody was told is durable.
    pub fn all_acked(&self) -> Vec<ChunkId> {
        self.facts().acked.keys().copied().collect()
    }

    /// What somebody who works by that layout can know to be durable.
    pub fn acked_by(&self, version: LayoutVersion) -> Vec<ChunkId> {
        let facts = self.facts();
        facts.acked.iter().filter(|(_, first)| **first <= version).map(|(id, _)| *id).collect()
    }

    /// Everything that is promised to sessions of these epochs that may still commit, by a layout at least so new.
    pub fn promised_since(&self, epoch: u64, version: LayoutVersion) -> Vec<(ChunkId, u64)> {
        let newest = |by: &BTreeMap<LayoutVersion, u64>| by.range(version..).map(|(_, of)| *of).max();
        let facts = self.facts();
        let promised = facts.promised.iter().filter_map(|(id, by)| Some((*id, newest(by)?)));
        promised.filter(|(_, of)| *of >= epoch).collect()
    }

    /// A node lost all it had, and what it knew with it.
    pub fn forget(&self, node: NodeId) {
        self.facts().seen.retain(|(other, _), _| *other != node);
    }

    /// In this layout a node is named as lost: new owners take over every pin that the others have.
    pub fn takes_any_copy(&self, version: LayoutVersion) {
        self.facts().any_copy_in.insert(version);
    }

    /// Somebody who works by that layout was told that this pin is committed.
    pub fn committed(&self, pin: &Pin, version: LayoutVersion) {
        let key = (pin.resource, pin.sequence);
        let mut facts = self.facts();
        let earlier = facts.committed.insert(key, pin.clone());
        let two = earlier.is_some_and(|earlier| earlier.hash() != pin.hash());
        let void = facts.is_void(key, pin.hash(), version);
        drop(facts);
        if two {
            self.violated(Violation::TwoPins(pin.sequence));
        }
        if void {
            self.violated(Violation::VoidCommitted(pin.sequence));
        }
    }

    /// Somebody who works by that layout was told that this pin is not committed and never will be.
    pub fn void(&self, pin: &Pin, version: LayoutVersion) {
        let key = (pin.resource, pin.sequence);
        let mut facts = self.facts();
        let found = facts.void.entry(key).or_default().entry(pin.hash()).or_insert(version);
        *found = version.max(*found);
        let committed = facts.committed.get(&key).is_some_and(|other| other.hash() == pin.hash());
        drop(facts);
        if committed {
            self.violated(Violation::VoidCommitted(pin.sequence));
        }
    }

    /// Every pin somebody was told is committed.
    pub fn all_committed(&self) -> Vec<Pin> {
        self.facts().committed.values().cloned().collect()
    }

    // === Judgements ===

    /// Looks at what a read gave. `asked` were acknowledged before it began.
    pub fn read(
        &self,
        asked: &[ChunkId],
        without: Option<&SiteName>,
        result: &Result<Vec<SealedRecord>, StoreError>,
    ) {
        let lost =
            |id: ChunkId, reason: String| Violation::AckedLost { id, without: without.cloned(), reason };
        match result {
            Ok(records) => {
                for (id, record) in asked.iter().zip(records) {
                    let expected = self.facts().expected.get(id).cloned();
                    if record.header.id != *id || expected.as_ref() != Some(&record.ciphertext) {
                        self.violated(Violation::WrongBytes(*id));
                    }
                }
                if records.len() != asked.len() {
                    self.violated(Violation::Stuck("a read gave another number of records".to_owned()));
                }
            }
            Err(StoreError::Missing { id } | StoreError::Corrupt { id }) if self.is_acked(id) => {
                self.violated(lost(*id, result.as_ref().err().map(ToString::to_string).unwrap_or_default()));
            }
            Err(_) => {}
        }
    }

    /// Like [`Self::read`], at a time when nothing keeps the reader from its answer.
    pub fn read_must_succeed(
        &self,
        asked: &[ChunkId],
        without: Option<&SiteName>,
        result: &Result<Vec<SealedRecord>, StoreError>,
    ) {
        self.read(asked, without, result);
        if let Err(error) = result
            && !matches!(error, StoreError::Missing { .. } | StoreError::Corrupt { .. })
        {
            let (id, reason) = (asked[0], error.to_string());
            self.violated(Violation::AckedLost { id, without: without.cloned(), reason });
        }
    }

    /// Compares the pins that a majority of owners shows with what somebody was told.
    pub fn final_pins(&self, resource: ResourceId, pins: &[Pin]) {
        let shown: BTreeMap<(Sequence, PinHash), &Pin> =
            pins.iter().map(|pin| ((pin.sequence, pin.hash()), pin)).collect();
        let committed: Vec<Pin> =
            self.all_committed().into_iter().filter(|pin| pin.resource == resource).collect();
        for pin in committed.iter().filter(|pin| !shown.contains_key(&(pin.sequence, pin.hash()))) {
            self.violated(Violation::CommitLost(pin.sequence));
        }
        for (sequence, hash) in shown.keys() {
            let is_void = self.facts().is_void((resource, *sequence), *hash, LayoutVersion(u64::MAX));
            if is_void {
                self.violated(Violation::VoidCommitted(*sequence));
            }
        }
        let mut at: BTreeMap<Sequence, usize> = BTreeMap::new();
        shown.keys().for_each(|(sequence, _)| *at.entry(*sequence).or_default() += 1);
        for (sequence, _) in at.into_iter().filter(|(_, n)| *n > 1) {
            self.violated(Violation::TwoPins(sequence));
        }
    }

    /// Compares what a node holds with what it held.
    pub fn saw(&self, node: NodeId, resource: ResourceId, now: Seen) {
        let before = self.facts().seen.insert((node, resource), now.clone()).unwrap_or_default();
        if now.fence < before.fence {
            self.violated(Violation::FenceWentBack { node, from: before.fence, to: now.fence });
        }
        for (sequence, hash) in before.pins {
            if now.pins.get(&sequence) != Some(&hash) {
                self.violated(Violation::PinVanished { node, sequence });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holdfast_model::{Epoch, SnapshotId};
    use tokio::time::Instant;

    use super::*;
    use crate::{Trace, authority::WORKLOAD, content::TENANT};

    fn pin() -> Pin {
        Pin {
            tenant: TENANT,
            resource: ResourceId([1; 16]),
            workload: WORKLOAD,
            sequence: Sequence(1),
            fence: Fence::default(),
            epoch: Epoch(5),
            snapshot: SnapshotId([2; 8]),
            root: ChunkId([3; 32]),
            sealed_root: Bytes::new(),
            previous: None,
            created_ms: 1,
            retain_until_ms: 0,
            items: 1,
            items_missing: 0,
        }
    }

    /// What is said of a pin that was void by layout 2, with layouts that took any copy, and then committed by a layout.
    fn said(any_copy_in: &[u64], committed_by: u64) -> Vec<Violation> {
        let oracle = Oracle::new(Arc::new(EventLog::new(Instant::now(), Trace::Off)));
        oracle.void(&pin(), LayoutVersion(2));
        any_copy_in.iter().for_each(|version| oracle.takes_any_copy(LayoutVersion(*version)));
        oracle.committed(&pin(), LayoutVersion(committed_by));
        oracle.violations()
    }

    #[test]
    fn a_void_pin_stays_void_until_a_layout_takes_any_copy() {
        let violated = vec![Violation::VoidCommitted(Sequence(1))];
        for (any_copy_in, committed_by) in
            [(&[][..], 2), (&[], 9), (&[2], 9), (&[1], 2), (&[5], 1), (&[5], 4), (&[1, 7], 6)]
        {
            assert_eq!(said(any_copy_in, committed_by), violated, "{any_copy_in:?} {committed_by}");
        }
        for (any_copy_in, committed_by) in [(&[3][..], 3), (&[5], 6), (&[1, 5], 5), (&[5, 9], 7)] {
            assert_eq!(said(any_copy_in, committed_by), Vec::new(), "{any_copy_in:?} {committed_by}");
        }
    }

    #[test]
    fn what_a_majority_shows_at_the_end_is_judged_alike() {
        for (any_copy_in, n_violations) in [(None, 1), (Some(2), 1), (Some(3), 0)] {
            let oracle = Oracle::new(Arc::new(EventLog::new(Instant::now(), Trace::Off)));
            oracle.void(&pin(), LayoutVersion(2));
            any_copy_in.into_iter().for_each(|version| oracle.takes_any_copy(LayoutVersion(version)));
            oracle.final_pins(pin().resource, &[pin()]);
            assert_eq!(oracle.violations().len(), n_violations, "{any_copy_in:?}");
        }
    }
}
