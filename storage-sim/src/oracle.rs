//! What a run must show, gathered while it runs and judged at its end.
//!
//! A fact is noted only when somebody outside the storage was told so. Facts are never taken back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use holdfast_model::{ChunkId, Fence, NodeId, PinHash, ResourceId, Sequence, SiteName};
use holdfast_record::{Pin, SealedRecord};
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
    expected: BTreeMap<ChunkId, Bytes>,
    acked: BTreeSet<ChunkId>,
    /// The highest epoch for which a session was told yes.
    promised: BTreeMap<ChunkId, u64>,
    committed: BTreeMap<(ResourceId, Sequence), Pin>,
    void: BTreeMap<(ResourceId, Sequence), BTreeSet<PinHash>>,
    seen: BTreeMap<(NodeId, ResourceId), Seen>,
    violations: Vec<Violation>,
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

    /// A session in that epoch was told that they are durable: stored, or there already.
    pub fn acked(&self, ids: impl IntoIterator<Item = ChunkId>, epoch: u64) {
        let mut facts = self.facts();
        for id in ids {
            facts.acked.insert(id);
            let promised = facts.promised.entry(id).or_default();
            *promised = epoch.max(*promised);
        }
    }

    /// Whether somebody was told that it is durable.
    pub fn is_acked(&self, id: &ChunkId) -> bool {
        self.facts().acked.contains(id)
    }

    /// Everything somebody was told is durable.
    pub fn all_acked(&self) -> Vec<ChunkId> {
        self.facts().acked.iter().copied().collect()
    }

    /// Everything that is promised to sessions of these epochs.
    pub fn promised_since(&self, epoch: u64) -> Vec<(ChunkId, u64)> {
        let facts = self.facts();
        facts.promised.iter().filter(|(_, of)| **of >= epoch).map(|(id, of)| (*id, *of)).collect()
    }

    /// Somebody was told that this pin is committed.
    pub fn committed(&self, pin: &Pin) {
        let key = (pin.resource, pin.sequence);
        let mut facts = self.facts();
        let earlier = facts.committed.insert(key, pin.clone());
        let two = earlier.is_some_and(|earlier| earlier.hash() != pin.hash());
        let void = facts.void.get(&key).is_some_and(|hashes| hashes.contains(&pin.hash()));
        drop(facts);
        if two {
            self.violated(Violation::TwoPins(pin.sequence));
        }
        if void {
            self.violated(Violation::VoidCommitted(pin.sequence));
        }
    }

    /// Somebody was told that this pin is not committed and never will be.
    pub fn void(&self, pin: &Pin) {
        let key = (pin.resource, pin.sequence);
        let mut facts = self.facts();
        facts.void.entry(key).or_default().insert(pin.hash());
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
        let void = self.facts().void.clone();
        for (sequence, hash) in shown.keys() {
            if void.get(&(resource, *sequence)).is_some_and(|hashes| hashes.contains(hash)) {
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
