//! What a new owner takes over, given what the owners before said. No clock, no disk.
//!
//! Invariant: a pin on a minority of the owners before never travels, and none is given up that may be on a majority.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_model::{PinHandover, Sequence};
use holdfast_record::Pin;

use super::SpaceState;
use crate::state::TakenSpace;

/// How many were owners before, and how many of them answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quorum {
    pub rule: PinHandover,
    pub n_previous: usize,
    pub n_answers: usize,
}

impl Quorum {
    fn majority(self) -> usize {
        self.n_previous / 2 + 1
    }

    fn n_silent(self) -> usize {
        self.n_previous.saturating_sub(self.n_answers)
    }

    /// Whether enough of them answered to decide anything.
    pub fn is_reached(self) -> bool {
        match self.rule {
            PinHandover::Committed => self.n_answers >= self.majority(),
            PinHandover::AnyCopy => self.n_answers >= self.n_previous,
        }
    }
}

/// What to take of a space, by what each that knows it said; none while a pin of it is undecided.
pub(super) fn decide(quorum: Quorum, known: Vec<SpaceState>) -> Option<TakenSpace> {
    let mut taken = TakenSpace::default();
    let mut copies: BTreeMap<(Sequence, Bytes), usize> = BTreeMap::new();
    let mut sessions = BTreeMap::new();
    for state in known {
        taken.fence = taken.fence.max(state.fence);
        for pin in state.pins {
            *copies.entry(pin).or_default() += 1;
        }
        let newer = |(now, _): &(crate::state::Checkpoint, Bytes)| {
            taken.checkpoint.as_ref().is_none_or(|(before, _)| now.id > before.id)
        };
        if let Some(checkpoint) = state.checkpoint.filter(newer) {
            taken.checkpoint = Some(checkpoint);
        }
        for (id, session) in state.sessions {
            let (n, kept) = sessions.entry(id).or_insert((0, session.clone()));
            *n += 1;
            if (session.fence, session.lease_end_ms) > (kept.fence, kept.lease_end_ms) {
                *kept = session;
            }
        }
    }
    taken.pins = match quorum.rule {
        PinHandover::Committed => committed(quorum, copies)?,
        PinHandover::AnyCopy => any(copies),
    };
    // One that may be on a majority is kept open: that costs nothing and its lease ends it.
    let may_be_open =
        |n: usize| quorum.rule == PinHandover::AnyCopy || n + quorum.n_silent() >= quorum.majority();
    let open = sessions.into_iter().filter(|(_, (n, _))| may_be_open(*n));
    taken.sessions = open.map(|(id, (_, session))| (id, session)).collect();
    Some(taken)
}

fn committed(quorum: Quorum, copies: BTreeMap<(Sequence, Bytes), usize>) -> Option<Vec<(Sequence, Bytes)>> {
    let mut pins = Vec::new();
    for (pin, n) in copies {
        if n >= quorum.majority() {
            pins.push(pin);
        } else if n + quorum.n_silent() >= quorum.majority() {
            return None;
        }
    }
    Some(pins)
}

/// The one of the highest fence where several have one sequence.
fn any(copies: BTreeMap<(Sequence, Bytes), usize>) -> Vec<(Sequence, Bytes)> {
    let mut best: BTreeMap<Sequence, Bytes> = BTreeMap::new();
    let fence = |pin: &Bytes| Pin::decode(pin).map(|pin| pin.fence).ok();
    for ((sequence, pin), _) in copies {
        if best.get(&sequence).is_none_or(|before| fence(before) < fence(&pin)) {
            best.insert(sequence, pin);
        }
    }
    best.into_iter().collect()
}

#[cfg(test)]
mod tests;
