use serde_json::json;

use crate::harness::{World, failures, outcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_backup_holds_what_the_mailbox_holds() {
    let mut world = World::new(60).await;
    let finished = world.back_up().await;
    assert_eq!(outcome(&finished), (60, 60, 0, 0));
    assert_eq!((failures(&finished.account), finished.account.carried), (0, 0));
    world.check_snapshot().await;
    let counters = world.counters();
    assert!(counters.openapi_violations.is_empty(), "{:?}", counters.openapi_violations);
    assert!(counters.max_in_flight.values().all(|n| *n <= 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_asks_only_for_the_photos_of_what_changed() {
    let mut world = World::new(60).await;
    world.back_up().await;
    let before = world.n_photo_requests();
    world.evolve(json!({"seed": 5, "new": 4, "edited": 3, "moved": 4, "deleted": 3, "flags": 0})).await;
    let finished = world.back_up().await;
    assert_eq!(outcome(&finished), (11, 11, 0, 3));
    assert!(world.n_photo_requests() - before <= 11);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_and_no_photo_read_where_nothing_changed() {
    let mut world = World::new(40).await;
    let first = world.back_up().await;
    let (photos, requests) = (world.n_photo_requests(), world.requests());
    let second = world.back_up().await;
    assert_eq!(outcome(&second), (0, 0, 0, 0));
    assert_eq!(second.account.carried, 40);
    assert_eq!(world.n_photo_requests(), photos);
    let deltas = |requests: &std::collections::BTreeMap<String, u64>| requests["contact_delta"];
    // The simulator's delta shows nested folders, so that no folder is asked for by itself.
    let mut spent = world.requests();
    for (kind, n) in &requests {
        *spent.get_mut(kind).unwrap() -= n;
    }
    let n_folders = world.graph().contact_folders(&world.user.id).await.unwrap().len() as u64;
    assert_eq!(deltas(&spent), n_folders, "one call for each folder");
    assert_eq!((spent["contact_folder_delta"], spent.values().sum::<u64>()), (1, n_folders + 1));
    assert!(second.account.bytes_stored < first.account.bytes_stored / 4);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untouched_snapshot_has_the_same_trees() {
    let mut world = World::new(40).await;
    world.back_up().await;
    let first = world.reader().await.header().roots;
    world.back_up().await;
    assert_eq!(world.reader().await.header().roots, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_delta_token_costs_a_listing_and_no_photo() {
    let mut world = World::new(60).await;
    world.back_up().await;
    world.evolve(json!({"seed": 9, "new": 3, "edited": 2, "moved": 0, "deleted": 5, "flags": 0})).await;
    world.expire_delta().await;
    let before = world.n_photo_requests();
    let finished = world.back_up().await;
    assert_eq!(outcome(&finished), (58, 5, 53, 5));
    assert!(world.n_photo_requests() - before <= 5 + 1);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_gone_goes_with_its_contacts() {
    let mut world = World::new(60).await;
    world.back_up().await;
    let (graph, user) = (world.graph(), world.user.id.clone());
    let folders = graph.contact_folders(&user).await.unwrap();
    let doomed = folders.iter().find(|folder| !folder.is_default).unwrap();
    graph.delete_contact_folder(&user, &doomed.id).await.unwrap();
    let n_left = world.truth_by_id().await.len() as u64;
    assert!(n_left < 60);
    let finished = world.back_up().await;
    assert_eq!(finished.account.removed, 60 - n_left);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_every_kind_lose_nothing() {
    for seed in 1..=3 {
        World::new(60).await.assert_faults_lose_nothing(seed, (0, 6)).await;
    }
}
