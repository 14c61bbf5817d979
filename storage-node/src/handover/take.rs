//! How a new owner collects what the owners before say, and stores what was decided from it.
//!
//! Order: everything into the state, in one commit → new pins into the pin log, synced → the note that the partitions are
//! taken over. A crash in between asks again, and finds what is here already.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use holdfast_model::{Layout, Millis, PartitionId, Sequence};
use holdfast_record::Pin;

use super::{
    HandoverQuestion, SpacePage, SpacePlace, SpaceState,
    decide::{Quorum, decide},
};
use crate::{
    Error, Node,
    pin_log::PinLog,
    session::LEASE,
    state::{PinSpace, State, TakenSpace},
};

/// What one owner before knows.
pub(super) type Known = BTreeMap<PinSpace, SpaceState>;

/// Adds a page to what its node said before; says where the page ends. None: it does not fit the question.
pub(super) fn add_page(
    known: &mut Known,
    question: &HandoverQuestion,
    page: SpacePage,
) -> Option<SpacePlace> {
    let mut place = question.after;
    for (space, state) in page.spaces {
        let is_asked = question.partitions.contains(&PartitionId::of_pins(space.tenant, space.resource));
        let (last_space, last) = place.unwrap_or((space, None));
        let mut last = if last_space == space { last } else { None };
        if !is_asked || space < last_space {
            return None;
        }
        for (sequence, pin) in &state.pins {
            // One that is told twice would count twice.
            if last.is_some_and(|last| *sequence <= last) || !is_pin_of(&space, *sequence, pin) {
                return None;
            }
            last = Some(*sequence);
        }
        let all = known.entry(space).or_default();
        all.fence = all.fence.max(state.fence);
        all.pins.extend(state.pins);
        all.checkpoint = state.checkpoint.or(all.checkpoint.take());
        all.sessions = state.sessions;
        place = Some((space, last));
    }
    Some(place)
}

fn is_pin_of(space: &PinSpace, sequence: Sequence, bytes: &Bytes) -> bool {
    Pin::decode(bytes).is_ok_and(|pin| {
        (pin.tenant, pin.resource, pin.workload) == (space.tenant, space.resource, space.workload)
            && pin.sequence == sequence
    })
}

impl Node {
    /// Stores what can be decided of some partitions.
    pub(super) async fn take_over(
        &self,
        layout: &Layout,
        quorum: Quorum,
        partitions: BTreeSet<PartitionId>,
        answers: Vec<Known>,
    ) -> Result<(), Error> {
        let (state, pin_log, now_ms) = (self.state.clone(), self.pin_log.clone(), self.lease_now_ms());
        let (moved_in, version) = (layout.moved_in, layout.version);
        let store = move || {
            let (partitions, taken) = decide_all(quorum, partitions, answers);
            state.deciding(|| {
                // A newer move decides anew, by what it says of the owners before.
                let is_current = state.layout().is_some_and(|now| now.moved_in == moved_in);
                if !is_current || partitions.is_empty() {
                    return Ok(());
                }
                store_taken(&state, &pin_log, taken, now_ms)?;
                state.set_taken_over(&partitions, moved_in)?;
                tracing::info!(n_partitions = partitions.len(), layout = version.0, "pins taken over");
                Ok(())
            })
        };
        self.executor.run(store).await
    }
}

/// The partitions of which everything can be decided, with what to take of their spaces.
fn decide_all(
    quorum: Quorum,
    mut partitions: BTreeSet<PartitionId>,
    mut answers: Vec<Known>,
) -> (Vec<PartitionId>, Vec<(PinSpace, TakenSpace)>) {
    let spaces: BTreeSet<PinSpace> = answers.iter().flat_map(BTreeMap::keys).copied().collect();
    let mut taken = Vec::new();
    for space in spaces {
        let known = answers.iter_mut().filter_map(|answer| answer.remove(&space)).collect();
        match decide(quorum, known) {
            Some(one) => taken.push((space, one)),
            None => drop(partitions.remove(&PartitionId::of_pins(space.tenant, space.resource))),
        }
    }
    taken.retain(|(space, _)| partitions.contains(&PartitionId::of_pins(space.tenant, space.resource)));
    (partitions.into_iter().collect(), taken)
}

fn store_taken(
    state: &State,
    pin_log: &Mutex<PinLog>,
    mut taken: Vec<(PinSpace, TakenSpace)>,
    now_ms: Millis,
) -> Result<(), Error> {
    let lease_ms = u64::try_from(LEASE.as_millis()).expect("minutes");
    let (mut had, mut lacked) = (Vec::new(), Vec::new());
    for (space, one) in &mut taken {
        for (_, session) in &mut one.sessions {
            session.lease_end_ms = now_ms + session.lease_end_ms.min(lease_ms);
        }
        let here = state.checkpoint_id(space)?;
        one.checkpoint = one.checkpoint.take().filter(|(one, _)| here.is_none_or(|here| one.id > here));
        let own: BTreeMap<Sequence, Bytes> = state.pins(space, 0)?.into_iter().collect();
        for (sequence, pin) in std::mem::take(&mut one.pins) {
            if own.get(&sequence) == Some(&pin) {
                had.push(((*space, sequence), pin));
            } else {
                one.pins.push((sequence, pin.clone()));
                lacked.push(((*space, sequence), pin));
            }
        }
    }
    state.take_over(&taken)?;
    let mut log = pin_log.lock().unwrap_or_else(PoisonError::into_inner);
    // One that an earlier try put into the state, and no further.
    had.retain(|(place, _)| log.lacks(place));
    lacked.append(&mut had);
    log.append_all(&lacked)
}
