use holdfast_graph_sim::Population;
use serde_json::json;

use crate::harness::{World, failures, outcome, population};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_is_backed_up_and_then_only_what_changed() {
    let mut world = World::new(60).await;
    let first = world.back_up().await;
    assert_eq!(first.failed, []);
    world.check_snapshot().await;
    let (n_downloads, roots) = (world.n_downloads(), world.reader().await.header().roots);

    world.back_up().await;
    assert_eq!(world.n_downloads(), n_downloads, "an untouched drive costs no content");
    assert_eq!(world.reader().await.header().roots, roots, "its trees are the same");

    world.evolve(json!({"new": 5, "edited": 5, "moved": 5, "deleted": 5, "flags": 0})).await;
    let third = world.back_up().await;
    assert_eq!(failures(&third.account), 0);
    world.check_snapshot().await;
    assert!(world.n_downloads() - n_downloads <= 12, "{}", world.n_downloads() - n_downloads);
    assert!(third.account.removed > 0, "{:?}", outcome(&third));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_every_kind_lose_nothing() {
    for seed in 1..=2 {
        let mut world = World::new(50).await;
        let faults = json!({"seed": seed, "rate-503": 0.03, "rate-504": 0.02, "rate-reset": 0.03,
            "rate-truncate": 0.05, "rate-duplicate-in-page": 0.3, "rate-empty-page": 0.2, "rate-401": 0.02,
            "rate-expired-delta": 0.1});
        world.faults(faults).await;
        world.control("options", json!({"page-size-max": 9})).await;
        let first = world.back_up().await;
        assert_eq!(first.failed, []);
        world.check_snapshot().await;
        world
            .evolve(json!({"seed": seed, "new": 6, "edited": 6, "moved": 6, "deleted": 6, "flags": 0}))
            .await;
        let second = world.back_up().await;
        assert_eq!(second.failed, []);
        world.check_snapshot().await;
        assert!(!world.counters().faults.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_delta_token_costs_no_content() {
    let mut world = World::new(40).await;
    world.back_up().await;
    let n_downloads = world.n_downloads();
    world.evolve(json!({"new": 0, "edited": 0, "moved": 0, "deleted": 4, "flags": 0})).await;
    world.expire_delta().await;
    let second = world.back_up().await;
    assert_eq!(failures(&second.account), 0);
    assert_eq!(world.n_downloads(), n_downloads);
    assert!(second.account.removed >= 4, "what was deleted meanwhile is found: {:?}", outcome(&second));
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_microsoft_refuses_is_reported_and_the_rest_is_stored() {
    let drive = Population {
        drive_malware_per_user: 2,
        drive_locked_per_user: 2,
        drive_notebooks_per_user: 1,
        drive_shortcuts_per_user: 1,
        ..population(20)
    };
    let mut world = World::with(drive).await;
    let first = world.back_up().await;
    assert_eq!(first.failed.len(), 4, "{:?}", first.failed);
    assert_eq!(failures(&first.account), 4);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_without_a_drive_has_an_empty_snapshot() {
    let mut world = World::with(Population { users_without_drive: 2, ..population(5) }).await;
    let finished = world.back_up().await;
    assert_eq!((finished.account.listed, finished.pin.items), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn earlier_versions_are_kept_as_many_as_are_asked_for() {
    let mut world = World::new(30).await;
    world.options.drive_versions = 1;
    world.back_up().await;
    let truth = world.truth_by_id().await;
    let n_versioned =
        truth.values().filter(|one| !one["versions"].as_array().is_none_or(Vec::is_empty)).count();
    let n_kept: usize = world
        .stored()
        .await
        .iter()
        .map(|file| file.meta["_holdfast"]["versions"].as_array().map_or(0, Vec::len))
        .sum();
    assert!(n_versioned > 0);
    assert_eq!(n_kept, n_versioned);
}
