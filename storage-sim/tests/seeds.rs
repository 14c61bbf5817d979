//! The seeds that every change must survive, and the proof that a seed is a whole run.

use std::ops::Range;

use holdfast_storage_sim::{Options, Outcome, run};

/// Seeds that once showed a defect. What a seed does changes with the simulation: the defects themselves are kept as tests in
/// `storage-node/src/crash_tests.rs` and `storage-sim/src/disk/tests.rs`.
const REGRESSIONS: &[(u64, &str)] = &[
    (62, "the name of state.redb was not synced: a power loss took highest fences and sessions with it"),
    (102, "an index older than the known damage promised a damaged record"),
    (1172, "a database whose sync had failed was trusted by the next process"),
    (2378, "a segment whose creation was cut off was appended to, and then its name was lost"),
    (
        3984,
        "not of the code: a pin that was void could be committed when a layout took any copy, which the oracle did not know",
    ),
    (10279, "a pin on a minority was called void while an owner that was never fenced could still take it"),
];

fn explained(outcome: &Outcome) -> String {
    format!(
        "seed {} (again: cargo run -p holdfast-storage-sim -- --seed {} --trace)\n{}\n{:#?}",
        outcome.seed,
        outcome.seed,
        outcome.tail.join("\n"),
        outcome.violations
    )
}

fn nothing_is_lost(seeds: Range<u64>) {
    for seed in seeds {
        let outcome = run(seed, Options::default());
        assert!(outcome.violations.is_empty(), "{}", explained(&outcome));
        assert!(outcome.n_committed > 0, "seed {seed} commits nothing, and so shows nothing");
    }
}

// Continuous integration runs these 300; `cargo run -p holdfast-storage-sim -- --seeds n` runs more.

#[test]
fn nothing_acknowledged_is_lost_in_seeds_0_to_49() {
    nothing_is_lost(0..50);
}

#[test]
fn nothing_acknowledged_is_lost_in_seeds_50_to_99() {
    nothing_is_lost(50..100);
}

#[test]
fn nothing_acknowledged_is_lost_in_seeds_100_to_149() {
    nothing_is_lost(100..150);
}

#[test]
fn nothing_acknowledged_is_lost_in_seeds_150_to_199() {
    nothing_is_lost(150..200);
}

#[test]
fn nothing_acknowledged_is_lost_in_seeds_200_to_249() {
    nothing_is_lost(200..250);
}

#[test]
fn nothing_acknowledged_is_lost_in_seeds_250_to_299() {
    nothing_is_lost(250..300);
}

#[test]
fn what_a_seed_once_found_stays_mended() {
    for (seed, defect) in REGRESSIONS {
        let outcome = run(*seed, Options::default());
        assert!(outcome.violations.is_empty(), "{defect}: {}", explained(&outcome));
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in [3, 17, 29, 40, 58, 71] {
        let (one, other) = (run(seed, Options::default()), run(seed, Options::default()));
        assert!(one.n_events > 50, "seed {seed} does nothing");
        assert_eq!((one.n_events, one.hash), (other.n_events, other.hash), "seed {seed}");
    }
    assert_ne!(run(1, Options::default()).hash, run(2, Options::default()).hash);
}

#[test]
fn owners_change_while_everything_goes_on() {
    let n_moves: usize = [29, 58, 91].iter().map(|seed| run(*seed, Options::default()).n_moves).sum();
    assert!(n_moves > 2, "{n_moves} moves of owners came to their end");
}
