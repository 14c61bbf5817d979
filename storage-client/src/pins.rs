//! What pin owners are asked: commit, checkpoint, read, raise the fence.
//!
//! A majority of the owners of the pin partition is the commit; everything else here exists so that this stays true. An owner
//! that refuses a call, because the pool has moved on or because it has not taken the pins over yet, has not answered.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use holdfast_model::{
    ChunkId, Fence, Layout, LayoutNode, LayoutVersion, NodeId, PartitionId, PinHash, ResourceId, Sequence,
    SessionId, TenantId, Workload,
};
use holdfast_proto::storage::{self, PinOutcome};
use holdfast_record::Pin;
use holdfast_repository::StoreError;

use crate::{
    error::combine,
    nodes::{Context, Rpc, TokenCell, request_by},
    options::CHECKPOINT_BYTES_MAX,
    quorum::{Tally, WithoutMajority, ask_owners},
};

/// Where the pins of one resource are.
pub(crate) struct PinSpace {
    pub(crate) tenant: TenantId,
    pub(crate) resource: ResourceId,
    pub(crate) owners: Vec<LayoutNode>,
    pub(crate) majority: usize,
    /// The layout that says so.
    pub(crate) version: LayoutVersion,
}

impl PinSpace {
    pub(crate) fn new(layout: &Layout, tenant: TenantId, resource: ResourceId) -> Self {
        let partition = PartitionId::of_pins(tenant, resource);
        let owners = layout.pin_owners_of(partition).cloned().collect();
        let majority = layout.pin_majority_of(partition);
        Self { tenant, resource, owners, majority, version: layout.version }
    }

    fn unavailable(&self, accepted: usize) -> String {
        format!("{accepted} of {} pin owners agreed, {} are needed", self.owners.len(), self.majority)
    }
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// A majority has the pin.
    Committed {
        /// Owners that said so; stragglers may add to it.
        copies: usize,
    },
    /// No majority can store it: a higher fence has been seen.
    Fenced {
        /// The highest fence seen.
        highest: Fence,
    },
    /// No majority can store it: another pin has its sequence.
    Conflict,
}

/// What owners know about a resource's pins.
#[derive(Debug, Clone)]
pub struct PinsView {
    /// Pins by ascending sequence, with the owners that showed them. When a majority answered: only those that a majority
    /// holds. Otherwise: every pin shown, committed or not.
    pub pins: Vec<(Pin, usize)>,
    /// Pins of which it cannot be told: fewer than a majority showed them, and owners that are silent, or that may have lost
    /// their state since, could make it one. Empty when no majority answered.
    pub undecided: Vec<(Pin, usize)>,
    /// Whether a majority of owners answered, so that no committed pin is missing. An owner that knows nothing of a space
    /// that others know has not answered.
    pub majority_answered: bool,
    /// The highest fence any owner has seen.
    pub highest_fence: Fence,
    /// The newest job checkpoint shown: fence, revision, sealed body.
    pub checkpoint: Option<(Fence, u64, Bytes)>,
}

/// What raising a fence found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaiseOutcome {
    /// Owners that hold the fence now: a majority.
    pub accepted_by: usize,
    /// The highest fence any of them has.
    pub highest_fence: Fence,
    /// The highest sequence any of them has a pin of, committed or not; 0 for none.
    pub highest_sequence: Sequence,
}

/// Puts a pin on all owners, waiting for a majority.
pub(crate) async fn commit_pin(
    context: &Context,
    space: &PinSpace,
    token: &TokenCell,
    ticket: &storage::CommitTicket,
    pin: &Bytes,
) -> Result<CommitOutcome, StoreError> {
    let options = &context.options;
    let terms = (options.retry_for.0, WithoutMajority::Stop);
    let stored = |answer: &storage::PutPinResponse| answer.outcome() == PinOutcome::Stored;
    let tally = ask_owners(context, space, terms, stored, |node| {
        let request =
            token.request(storage::PutPinRequest { ticket: Some(ticket.clone()), pin: pin.clone() });
        let call = |mut rpc: Rpc| async move { rpc.put_pin(request).await };
        context.call(node, options.request_timeout.0, call)
    })
    .await;
    commit_outcome(space, &tally)
}

fn commit_outcome(
    space: &PinSpace,
    tally: &Tally<storage::PutPinResponse>,
) -> Result<CommitOutcome, StoreError> {
    let copies = tally.accepted.len();
    if copies >= space.majority {
        return Ok(CommitOutcome::Committed { copies });
    }
    // Void for good only when those who declined leave no majority; owners that are away may still have stored it.
    let said_no = |outcome| tally.declined.iter().filter(|(_, a)| a.outcome() == outcome).count();
    let (fenced, conflicts) = (said_no(PinOutcome::Fenced), said_no(PinOutcome::Conflict));
    if space.owners.len() - fenced - conflicts < space.majority {
        return Ok(match fenced {
            0 => CommitOutcome::Conflict,
            _ => CommitOutcome::Fenced {
                highest: highest(tally.declined.iter().map(|(_, a)| a.highest_fence)),
            },
        });
    }
    Err(combine(&space.unavailable(copies), &tally.errors))
}

fn highest(fences: impl Iterator<Item = Option<storage::Fence>>) -> Fence {
    fences.flatten().map(Fence::from).max().unwrap_or_default()
}

/// What a job checkpoint says.
pub(crate) struct CheckpointPut<'a> {
    pub(crate) session: SessionId,
    pub(crate) fence: Fence,
    pub(crate) revision: u64,
    pub(crate) body: Bytes,
    pub(crate) roots: &'a [ChunkId],
}

/// Puts a job checkpoint on a majority of owners.
pub(crate) async fn put_checkpoint(
    context: &Context,
    space: &PinSpace,
    token: &TokenCell,
    checkpoint: CheckpointPut<'_>,
) -> Result<(), StoreError> {
    let options = &context.options;
    if checkpoint.body.len() > CHECKPOINT_BYTES_MAX {
        let reason = format!(
            "a job checkpoint of {} bytes is larger than {CHECKPOINT_BYTES_MAX}",
            checkpoint.body.len()
        );
        return Err(StoreError::Refused { reason });
    }
    let message = storage::PutCheckpointRequest {
        session: checkpoint.session.0,
        fence: Some(checkpoint.fence.into()),
        revision: checkpoint.revision,
        body: checkpoint.body,
        roots: checkpoint.roots.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
    };
    let terms = (options.retry_for.0, WithoutMajority::Stop);
    let tally = ask_owners(
        context,
        space,
        terms,
        |answer: &storage::PutCheckpointResponse| answer.accepted,
        |node| {
            let request = token.request(message.clone());
            let call = |mut rpc: Rpc| async move { rpc.put_checkpoint(request).await };
            context.call(node, options.request_timeout.0, call)
        },
    )
    .await;
    if tally.accepted.len() >= space.majority {
        Ok(())
    } else if space.owners.len() - tally.declined.len() < space.majority {
        Err(StoreError::Fenced)
    } else {
        Err(combine(&space.unavailable(tally.accepted.len()), &tally.errors))
    }
}

/// Stores a higher fence at a majority of owners.
pub(crate) async fn raise_fence(
    context: &Context,
    space: &PinSpace,
    workload: Workload,
    fence: Fence,
) -> Result<RaiseOutcome, StoreError> {
    let options = &context.options;
    let message = storage::RaiseFenceRequest {
        tenant: Bytes::copy_from_slice(space.tenant.as_bytes()),
        resource: Bytes::copy_from_slice(space.resource.as_bytes()),
        workload: workload.code().into(),
        fence: Some(fence.into()),
    };
    let terms = (options.retry_for.0, WithoutMajority::Stop);
    // An answer without a fence, or with a lower one, has not raised anything.
    let holds = |answer: &storage::RaiseFenceResponse| answer.highest_fence.map(Fence::from) == Some(fence);
    let tally = ask_owners(context, space, terms, holds, |node| {
        let request = request_by(space.version, message.clone());
        let call = |mut rpc: Rpc| async move { rpc.raise_fence(request).await };
        context.call(node, options.request_timeout.0, call)
    })
    .await;
    let answers = || tally.accepted.iter().chain(&tally.declined).map(|(_, answer)| answer);
    let outcome = RaiseOutcome {
        accepted_by: tally.accepted.len(),
        highest_fence: highest(answers().map(|answer| answer.highest_fence)),
        highest_sequence: Sequence(answers().map(|answer| answer.highest_sequence).max().unwrap_or(0)),
    };
    if outcome.accepted_by >= space.majority {
        Ok(outcome)
    } else if space.owners.len() - tally.declined.len() < space.majority {
        Err(StoreError::Fenced)
    } else {
        Err(combine(&space.unavailable(outcome.accepted_by), &tally.errors))
    }
}

/// Reads pins from every owner that answers.
pub(crate) async fn read_pins(
    context: &Context,
    space: &PinSpace,
    token: &TokenCell,
    workload: Workload,
    newest: u32,
) -> Result<PinsView, StoreError> {
    let options = &context.options;
    let message = storage::ReadPinsRequest { workload: workload.code().into(), newest };
    let terms: (Duration, _) = (options.read_retry_for.0, WithoutMajority::AskAll);
    let tally = ask_owners(
        context,
        space,
        terms,
        |_: &storage::ReadPinsResponse| true,
        |node| {
            let request = token.request(message);
            let call = |mut rpc: Rpc| async move { rpc.read_pins(request).await };
            context.call(node, options.request_timeout.0, call)
        },
    )
    .await;
    if tally.accepted.is_empty() {
        return Err(combine("no pin owner answers", &tally.errors));
    }
    Ok(view(space, workload, tally.accepted))
}

/// One owner's answer, as far as it can be believed.
struct Shown {
    pins: BTreeMap<(Sequence, PinHash), Pin>,
    highest_fence: Fence,
    has_checkpoint: bool,
}

impl Shown {
    /// An owner that knows nothing at all: it never took part, or it lost its state.
    fn is_blank(&self) -> bool {
        self.pins.is_empty() && !self.has_checkpoint && self.highest_fence == Fence::default()
    }

    /// Whether this owner can be believed not to have stored a pin, and never to store it.
    ///
    /// It stores none below the fence it has seen, and one per sequence; without either it may take the pin as soon as a
    /// forgotten worker sends it, and make a minority whole. State is lost as a whole: an owner that shows an earlier pin
    /// never had this one, while one whose pins all are later may have lost it, or was asked for the newest only.
    fn denies(&self, sequence: Sequence, hash: PinHash, pin: &Pin) -> bool {
        if self.pins.contains_key(&(sequence, hash)) {
            return false;
        }
        let has_another = self.pins.keys().any(|(other, _)| *other == sequence);
        let never_had = self.pins.first_key_value().is_none_or(|((oldest, _), _)| *oldest <= sequence);
        has_another || (never_had && self.highest_fence > pin.fence)
    }
}

fn view(space: &PinSpace, workload: Workload, answers: Vec<(NodeId, storage::ReadPinsResponse)>) -> PinsView {
    let highest_fence = highest(answers.iter().map(|(_, answer)| answer.highest_fence));
    let mut checkpoint: Option<(Fence, u64, Bytes)> = None;
    let mut owners = Vec::with_capacity(answers.len());
    for (node, answer) in answers {
        let pins = answer.pins.into_iter().filter_map(|bytes| read_pin(space, workload, node, bytes));
        let pins = pins.map(|pin| ((pin.sequence, pin.hash()), pin)).collect();
        let fence = answer.highest_fence.map(Fence::from).unwrap_or_default();
        owners.push(Shown { pins, highest_fence: fence, has_checkpoint: answer.checkpoint.is_some() });
        if let Some(found) = answer.checkpoint {
            let found = (found.fence.map(Fence::from).unwrap_or_default(), found.revision, found.body);
            if checkpoint.as_ref().is_none_or(|best| (best.0, best.1) < (found.0, found.1)) {
                checkpoint = Some(found);
            }
        }
    }
    // Blank among owners that know something has not answered; blank everywhere, the space is new.
    let n_blank = owners.iter().filter(|owner| owner.is_blank()).count();
    let answered = if n_blank == owners.len() { n_blank } else { owners.len() - n_blank };
    let majority_answered = answered >= space.majority;
    let mut copies: BTreeMap<(Sequence, PinHash), (Pin, usize)> = BTreeMap::new();
    for (key, pin) in owners.iter().flat_map(|owner| &owner.pins) {
        copies.entry(*key).or_insert_with(|| (pin.clone(), 0)).1 += 1;
    }
    let (mut pins, mut undecided) = (Vec::new(), Vec::new());
    for ((sequence, hash), (pin, copies)) in copies {
        let denied = owners.iter().filter(|owner| owner.denies(sequence, hash, &pin)).count();
        if !majority_answered || copies >= space.majority {
            pins.push((pin, copies));
        } else if space.owners.len() - denied >= space.majority {
            undecided.push((pin, copies));
        }
    }
    PinsView { pins, undecided, majority_answered, highest_fence, checkpoint }
}

/// A pin that an owner showed, if it is one of this resource. Damage is the owner's scrub to heal; here it is passed over.
fn read_pin(space: &PinSpace, workload: Workload, node: NodeId, bytes: Bytes) -> Option<Pin> {
    match Pin::decode(&bytes) {
        Ok(pin) if (pin.tenant, pin.resource, pin.workload) == (space.tenant, space.resource, workload) => {
            Some(pin)
        }
        Ok(pin) => {
            tracing::warn!(%node, sequence = %pin.sequence, "storage node showed a pin of another resource");
            None
        }
        Err(error) => {
            tracing::warn!(%node, %error, "storage node showed a pin that cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_model::{Epoch, Generation, SnapshotId};

    use super::*;

    fn pin(sequence: u64, attempt: u64) -> Pin {
        Pin {
            tenant: TenantId([1; 16]),
            resource: ResourceId([2; 16]),
            workload: Workload::Mail,
            sequence: Sequence(sequence),
            fence: Fence { generation: Generation(1), attempt },
            epoch: Epoch(1),
            snapshot: SnapshotId([3; 8]),
            root: ChunkId([4; 32]),
            sealed_root: Bytes::new(),
            previous: None,
            created_ms: 5,
            retain_until_ms: 0,
            items: 0,
            items_missing: 0,
        }
    }

    fn owner(pins: &[Pin], attempt: u64) -> Shown {
        Shown {
            pins: pins.iter().map(|pin| ((pin.sequence, pin.hash()), pin.clone())).collect(),
            highest_fence: Fence { generation: Generation(1), attempt },
            has_checkpoint: false,
        }
    }

    #[test]
    fn only_an_owner_that_can_take_it_no_more_denies_a_pin() {
        let asked = pin(2, 2);
        let denies = |owner: Shown| owner.denies(asked.sequence, asked.hash(), &asked);
        assert!(!denies(owner(std::slice::from_ref(&asked), 3)), "it has the pin");
        assert!(!denies(owner(&[pin(1, 1)], 2)), "a forgotten worker may still send it the pin");
        assert!(denies(owner(&[pin(1, 1)], 3)), "it has seen a higher fence");
        assert!(denies(owner(&[], 3)));
        assert!(denies(owner(&[pin(2, 1)], 2)), "another pin has the sequence");
        assert!(
            !denies(owner(&[pin(3, 3)], 3)),
            "it may have lost the pin, or was asked for the newest only"
        );
    }
}
