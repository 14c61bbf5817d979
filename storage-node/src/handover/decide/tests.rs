//! What is decided from which answers.

use holdfast_model::{Fence, SessionId};

use super::*;
use crate::{
    state::{PinSpace, Session},
    testing::{caller, fence, pin},
};

fn knows(pins: &[(u64, u64)], attempt: u64) -> SpaceState {
    let pins = pins.iter().map(|(sequence, by)| (Sequence(*sequence), pin(*sequence, *by, 5, 0).encode()));
    SpaceState { fence: fence(attempt), pins: pins.collect(), ..SpaceState::default() }
}

fn quorum(rule: PinHandover, n_previous: usize, n_answers: usize) -> Quorum {
    Quorum { rule, n_previous, n_answers }
}

fn sequences(taken: &TakenSpace) -> Vec<u64> {
    taken.pins.iter().map(|(sequence, _)| sequence.0).collect()
}

#[test]
fn a_minority_pin_does_not_travel() {
    let known = vec![knows(&[(1, 1), (2, 2)], 2), knows(&[(1, 1)], 1), knows(&[(1, 1)], 1)];
    let taken = decide(quorum(PinHandover::Committed, 3, 3), known).unwrap();
    assert_eq!((sequences(&taken), taken.fence), (vec![1], fence(2)));
}

#[test]
fn a_pin_that_the_silent_may_have_is_waited_for() {
    let known = || vec![knows(&[(1, 1), (2, 2)], 2), knows(&[(1, 1)], 1)];
    assert!(decide(quorum(PinHandover::Committed, 3, 2), known()).is_none());
    let mut known = known();
    known.push(knows(&[(1, 1), (2, 2)], 2));
    assert_eq!(sequences(&decide(quorum(PinHandover::Committed, 3, 3), known).unwrap()), [1, 2]);
}

#[test]
fn of_two_pins_with_one_sequence_only_the_committed_one_travels() {
    let known = vec![knows(&[(7, 3)], 3), knows(&[(7, 4)], 4), knows(&[(7, 4)], 4)];
    let taken = decide(quorum(PinHandover::Committed, 3, 3), known).unwrap();
    assert_eq!(taken.pins, [(Sequence(7), pin(7, 4, 5, 0).encode())]);
}

#[test]
fn any_copy_takes_every_pin_and_of_two_the_one_of_the_higher_fence() {
    let known = vec![knows(&[(1, 1), (7, 4)], 4), knows(&[(7, 3)], 9)];
    let taken = decide(quorum(PinHandover::AnyCopy, 2, 2), known).unwrap();
    let wanted = [(Sequence(1), pin(1, 1, 5, 0).encode()), (Sequence(7), pin(7, 4, 5, 0).encode())];
    assert_eq!((&taken.pins[..], taken.fence), (&wanted[..], fence(9)));
}

#[test]
fn committed_needs_a_majority_and_any_copy_needs_everybody() {
    assert!(!quorum(PinHandover::Committed, 3, 1).is_reached());
    assert!(quorum(PinHandover::Committed, 3, 2).is_reached());
    assert!(!quorum(PinHandover::AnyCopy, 3, 2).is_reached());
    assert!(quorum(PinHandover::AnyCopy, 3, 3).is_reached());
}

#[test]
fn a_session_goes_on_where_a_majority_may_have_it() {
    let PinSpace { .. } = caller(1).space();
    let session = |attempt, left| Session {
        space: caller(1).space(),
        fence: fence(attempt),
        base: None,
        epoch: holdfast_model::Epoch(5),
        lease_end_ms: left,
    };
    let has = |sessions| SpaceState { sessions, ..SpaceState::default() };
    let (one, two) = (SessionId(1), SessionId(2));
    let known = vec![
        has(vec![(one, session(1, 10)), (two, session(1, 5))]),
        has(vec![(one, session(1, 20))]),
        has(vec![]),
    ];
    let taken = decide(quorum(PinHandover::Committed, 3, 3), known).unwrap();
    assert_eq!(taken.sessions, [(one, session(1, 20))]);
    assert_eq!(taken.fence, Fence::default());
}
