//! Every planted defect is found: a simulation that finds nothing could also be one that looks at nothing.

use holdfast_storage_sim::{Options, Planted, Violation, run};

/// No defect may survive so many seeds.
const SEEDS_MAX: u64 = 2_000;

/// The first seed in which a planted defect does what it is known for.
fn found(planted: Planted, does: impl Fn(&Violation) -> bool) -> u64 {
    let options = Options { planted: Some(planted), ..Options::default() };
    let shows = |seed: &u64| run(*seed, options).violations.iter().any(&does);
    (0..SEEDS_MAX).find(shows).unwrap_or_else(|| panic!("{planted} is not found in {SEEDS_MAX} seeds"))
}

/// The same seed without the defect shows nothing: it is the defect that is found.
fn is_found_by_its_own_fault(planted: Planted, does: impl Fn(&Violation) -> bool) {
    let seed = found(planted, does);
    assert_eq!(run(seed, Options::default()).violations, Vec::new(), "seed {seed}");
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    is_found_by_its_own_fault(Planted::AckBeforeFsync, |one| {
        matches!(one, Violation::AckedLost { .. } | Violation::PromiseBroken { .. })
    });
}

#[test]
fn trust_in_a_partial_listing_is_found() {
    is_found_by_its_own_fault(Planted::TrustPartialListing, |_| true);
}

#[test]
fn a_forgotten_directory_sync_is_found() {
    is_found_by_its_own_fault(Planted::ForgetDirectoryFsync, |_| true);
}

#[test]
fn a_stale_have_is_found() {
    is_found_by_its_own_fault(Planted::CacheStaleHave, |one| {
        matches!(one, Violation::PromiseBroken { .. } | Violation::AckedLost { .. })
    });
}

#[test]
fn a_deletion_before_the_index_knows_is_found() {
    is_found_by_its_own_fault(Planted::DeleteBeforeIndex, |one| {
        matches!(one, Violation::PromiseBroken { .. })
    });
}

#[test]
fn a_sync_that_is_tried_again_is_found() {
    is_found_by_its_own_fault(Planted::RetryFsync, |_| true);
}

#[test]
fn an_old_fence_that_writes_is_found() {
    is_found_by_its_own_fault(Planted::AcceptOldFence, |one| {
        matches!(one, Violation::VoidCommitted(_) | Violation::TwoPins(_))
    });
}

#[test]
fn a_minority_pin_that_travels_is_found() {
    is_found_by_its_own_fault(Planted::MinorityPinTravels, |one| {
        matches!(one, Violation::VoidCommitted(_) | Violation::TwoPins(_))
    });
}

#[test]
fn a_move_that_is_called_over_too_early_is_found() {
    is_found_by_its_own_fault(Planted::SettleEarly, |one| {
        matches!(one, Violation::AckedLost { .. } | Violation::CommitLost(_) | Violation::NotRepaired { .. })
    });
}

#[test]
fn a_new_owner_that_serves_pins_before_it_took_them_over_is_found() {
    is_found_by_its_own_fault(Planted::ServeBeforeTakeover, |one| {
        matches!(one, Violation::CommitLost(_) | Violation::VoidCommitted(_) | Violation::TwoPins(_))
    });
}

#[test]
fn a_write_by_a_layout_that_is_over_is_found() {
    is_found_by_its_own_fault(Planted::AcceptOldLayout, |one| {
        matches!(one, Violation::CommitLost(_) | Violation::VoidCommitted(_) | Violation::TwoPins(_))
    });
}
