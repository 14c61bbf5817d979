//! The coordinator's part: who may write and by which layout, who commits, and how a commit ended whose writer vanished.
//!
//! It decides as the coordinator does (`coordinator/src/commit_recovery.rs`), with a catalog that is one map and never lost.

mod moves;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use holdfast_model::{
    Clock as _, Epoch, Fence, Generation, JobId, Layout, LayoutVersion, NodeId, PinHash, PoolId, ResourceId,
    Sequence, SessionClaims, Verb, Workload,
};
use holdfast_proto::{
    convert::Ticket,
    signed::Signer,
    storage::{CommitTicket, SessionToken},
};
use holdfast_record::Pin;
use holdfast_repository::StoreError;
use holdfast_storage_client::{CommitOutcome, StorageClient};

use crate::{Planted, SimRandom, clock::SimClock, content::TENANT, event_log::EventLog, oracle::Oracle};

/// The pool of every world.
pub const POOL: &str = "pool";
/// The workload of every world.
pub const WORKLOAD: Workload = Workload::Mail;
/// Pins read back, as the coordinator does.
const PINS_READ: u32 = 8;
/// A token outlives any run, unless a clock jumps far.
const TOKEN_LIFE_MS: u64 = 30 * 24 * 3_600_000;

/// A right to write.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Whose backup.
    pub resource: ResourceId,
    /// The attempt.
    pub fence: Fence,
    /// The layout it works by, to its end.
    pub layout: Arc<Layout>,
    /// The epoch of its token.
    pub epoch: Epoch,
    /// Its pin gets this sequence.
    pub sequence: Sequence,
    /// The pin it builds on.
    pub base: Option<PinHash>,
    /// What the nodes check.
    pub token: SessionToken,
}

/// The coordinator of one world.
pub struct Authority {
    signer: Signer,
    client: StorageClient,
    clock: Arc<SimClock>,
    log: Arc<EventLog>,
    oracle: Arc<Oracle>,
    random: SimRandom,
    planted: Option<Planted>,
    catalog: Mutex<Catalog>,
}

struct Catalog {
    generation: Generation,
    epoch: Epoch,
    layout: Arc<Layout>,
    /// The nodes there are to be.
    configured: BTreeSet<NodeId>,
    /// Moves that came to their end.
    n_moves: usize,
    resources: BTreeMap<ResourceId, Row>,
}

#[derive(Default, Clone)]
struct Row {
    attempt: u64,
    next_sequence: u64,
    base: Option<PinHash>,
    committing: Option<(Pin, Bytes)>,
}

impl Authority {
    /// A catalog without backups, in the first generation and an early epoch.
    pub fn new(
        signer: Signer,
        client: StorageClient,
        clock: Arc<SimClock>,
        layout: Arc<Layout>,
        (log, oracle): (Arc<EventLog>, Arc<Oracle>),
        (random, planted): (SimRandom, Option<Planted>),
    ) -> Self {
        let catalog = Catalog {
            generation: Generation(1),
            epoch: Epoch(5),
            configured: layout.nodes.iter().map(|node| node.id).collect(),
            layout,
            n_moves: 0,
            resources: BTreeMap::new(),
        };
        Self { signer, client, clock, log, oracle, random, planted, catalog: Mutex::new(catalog) }
    }

    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.catalog().epoch
    }

    /// Starts the next epoch; nodes learn of it by [`Self::apply_everywhere`].
    pub fn next_epoch(&self) -> Epoch {
        let mut catalog = self.catalog();
        catalog.epoch = catalog.epoch.next();
        catalog.epoch
    }

    /// Raises the generation, as a coordinator on a restored catalog does.
    pub fn next_generation(&self) -> Generation {
        let mut catalog = self.catalog();
        catalog.generation.0 += 1;
        catalog.generation
    }

    /// Installs layout, generation and epoch; says how many nodes took them.
    pub async fn apply_everywhere(&self) -> usize {
        let (generation, epoch, layout) = {
            let catalog = self.catalog();
            (catalog.generation, catalog.epoch, catalog.layout.clone())
        };
        let applied = self.client.apply_layout(&layout, generation, epoch).await;
        let n = applied.iter().filter(|(_, answer)| answer.is_ok()).count();
        self.log.add(format_args!("{generation:?} {epoch:?} applied on {n} of {} nodes", applied.len()));
        n
    }

    /// A token for reading, or for a job.
    pub fn token(&self, resource: ResourceId, fence: Fence, verbs: &[Verb]) -> SessionToken {
        self.signer.token(&self.claims(resource, fence, verbs))
    }

    /// What a token says.
    pub fn claims(&self, resource: ResourceId, fence: Fence, verbs: &[Verb]) -> SessionClaims {
        SessionClaims {
            tenant: TENANT,
            pool: PoolId(POOL.to_owned()),
            resource,
            workload: WORKLOAD,
            job: JobId([9; 16]),
            fence,
            epoch: self.epoch(),
            verbs: verbs.to_vec(),
            expires_at_ms: self.clock.now_ms() + TOKEN_LIFE_MS,
        }
    }

    // === Jobs ===

    /// The next attempt, unless it is not known how the commit before it ended.
    pub fn claim(&self, resource: ResourceId) -> Option<Lease> {
        let mut catalog = self.catalog();
        let (generation, epoch, layout) = (catalog.generation, catalog.epoch, catalog.layout.clone());
        let row = catalog.resources.entry(resource).or_default();
        if row.committing.is_some() {
            return None;
        }
        row.attempt += 1;
        let fence = Fence { generation, attempt: row.attempt };
        let (sequence, base) = (Sequence(row.next_sequence.max(1)), row.base);
        drop(catalog);
        let token = self.token(resource, fence, &[Verb::Read, Verb::Write, Verb::Commit]);
        Some(Lease { resource, fence, layout, epoch, sequence, base, token })
    }

    /// Signs the ticket of a pin, if its attempt is still the newest.
    pub fn prepare_commit(&self, pin: &Pin, bytes: &Bytes) -> Option<CommitTicket> {
        let mut catalog = self.catalog();
        let row = catalog.resources.entry(pin.resource).or_default();
        let may = row.attempt == pin.fence.attempt
            && row.committing.is_none()
            && row.next_sequence.max(1) == pin.sequence.0;
        if !may {
            return None;
        }
        row.committing = Some((pin.clone(), bytes.clone()));
        drop(catalog);
        Some(self.ticket(pin))
    }

    fn ticket(&self, pin: &Pin) -> CommitTicket {
        self.signer.ticket(&Ticket {
            tenant: pin.tenant,
            resource: pin.resource,
            workload: pin.workload,
            sequence: pin.sequence,
            fence: pin.fence,
            pin_hash: pin.hash(),
        })
    }

    /// Somebody who works by that layout says that a pin is committed.
    pub fn record_commit(&self, pin: &Pin, version: LayoutVersion) {
        self.oracle.committed(pin, version);
        self.end_commit(pin, |row| {
            row.base = Some(pin.hash());
            row.next_sequence = pin.sequence.0 + 1;
        });
    }

    /// Only while that pin is the one under way: a late report changes nothing.
    fn end_commit(&self, pin: &Pin, change: impl FnOnce(&mut Row)) {
        let mut catalog = self.catalog();
        let row = catalog.resources.entry(pin.resource).or_default();
        if row.committing.as_ref().is_some_and(|(under_way, _)| under_way.hash() == pin.hash()) {
            row.committing = None;
            change(row);
        }
    }

    /// Whether it is not known how a commit ended.
    pub fn is_committing(&self, resource: ResourceId) -> bool {
        self.catalog().resources.get(&resource).is_some_and(|row| row.committing.is_some())
    }

    /// Finds out how a commit ended whose writer vanished.
    pub async fn recover(&self, resource: ResourceId) -> Result<(), StoreError> {
        let under_way = self.catalog().resources.get(&resource).and_then(|row| row.committing.clone());
        let Some((pin, bytes)) = under_way else { return Ok(()) };
        let token = self.token(resource, pin.fence, &[Verb::Read, Verb::Commit]);
        let (client, layout) = (&self.client, self.layout());
        // Both ways are allowed: the ticket again, or a higher fence at once.
        if self.random.per_mille(500) {
            let ticket = self.ticket(&pin);
            let sent =
                client.commit_pin(layout.clone(), token.clone(), TENANT, resource, &ticket, &bytes).await;
            self.log.add(format_args!("ticket of {} sent again: {}", pin.sequence, outcome_word(&sent)));
            match sent {
                Ok(CommitOutcome::Committed { .. }) => {
                    self.record_commit(&pin, layout.version);
                    return Ok(());
                }
                Ok(CommitOutcome::Fenced { .. } | CommitOutcome::Conflict) => {
                    self.oracle.void(&pin, layout.version);
                }
                Err(_) => {}
            }
        }
        let fence = self.take_fence(resource);
        let raised = client.raise_fence(layout.clone(), TENANT, resource, WORKLOAD, fence).await?;
        let view = client.read_pins(layout.clone(), token, TENANT, resource, WORKLOAD, PINS_READ).await?;
        let is_ours = |(other, _): &(Pin, usize)| other.hash() == pin.hash();
        if !view.majority_answered || view.undecided.iter().any(is_ours) {
            return Err(StoreError::Unavailable { reason: "too few pin owners answer".to_owned() });
        }
        if view.pins.iter().any(is_ours) {
            self.log.add(format_args!("commit of {} found", pin.sequence));
            self.record_commit(&pin, layout.version);
        } else {
            self.log.add(format_args!("commit of {} is void", pin.sequence));
            self.oracle.void(&pin, layout.version);
            let used = raised.highest_sequence.max(pin.sequence);
            self.end_commit(&pin, |row| row.next_sequence = used.0 + 1);
        }
        Ok(())
    }

    fn take_fence(&self, resource: ResourceId) -> Fence {
        let mut catalog = self.catalog();
        let generation = catalog.generation;
        let row = catalog.resources.entry(resource).or_default();
        row.attempt += 1;
        Fence { generation, attempt: row.attempt }
    }
}

/// One word for an outcome.
pub fn outcome_word(outcome: &Result<CommitOutcome, StoreError>) -> String {
    match outcome {
        Ok(CommitOutcome::Committed { copies }) => format!("committed by {copies}"),
        Ok(CommitOutcome::Fenced { highest }) => format!("fenced by {highest}"),
        Ok(CommitOutcome::Conflict) => "conflict".to_owned(),
        Err(error) => format!("not known: {error}"),
    }
}
