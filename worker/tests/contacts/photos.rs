use holdfast_worker::backup::FinishedBackup;
use serde_json::json;

use crate::harness::{World, failures, outcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_photo_is_found_within_a_week_and_a_day_costs_a_share() {
    let mut world = World::new(70).await;
    world.back_up().await;
    world.evolve(json!({"seed": 3, "new": 0, "edited": 0, "moved": 0, "deleted": 0, "flags": 30})).await;
    let before = world.n_photo_requests();
    world.back_up().await;
    assert_eq!(world.n_photo_requests(), before, "nothing is due on the same day");
    let mut most = 0;
    for _day in 0..7 {
        let before = world.n_photo_requests();
        world.time.days_pass(1);
        assert_eq!(outcome(&world.back_up().await), (0, 0, 0, 0));
        most = most.max(world.n_photo_requests() - before);
    }
    assert!(most < 35, "a share, not all: {most}");
    world.check_snapshot().await;
    let before = world.n_photo_requests();
    world.time.days_pass(30);
    world.back_up().await;
    assert_eq!(world.n_photo_requests() - before, 70);
}

fn codes(finished: &FinishedBackup) -> Vec<&str> {
    finished.failed.iter().map(|failed| failed.code.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contact_whose_photo_cannot_be_read_is_stored_without_it_and_said_to_be() {
    let mut world = World::new(60).await;
    world.faults(json!({"seed": 4, "rate-corrupt-item": 0.2})).await;
    let first = world.back_up().await;
    let n_incomplete = first.account.incomplete;
    assert!(n_incomplete > 0);
    assert_eq!((first.account.stored, failures(&first.account)), (60, 0));
    assert_eq!(first.pin.items_missing, n_incomplete);
    assert!(codes(&first).iter().all(|code| *code == "PhotoMissing:ErrorCorruptData"), "{:?}", codes(&first));
    let lacks = |photos: &std::collections::BTreeMap<String, serde_json::Value>,
                 truth: &std::collections::BTreeMap<String, serde_json::Value>| {
        photos.iter().filter(|(id, photo)| **photo != truth[*id]["photoBlake3"]).count() as u64
    };
    let truth = world.truth_by_id().await;
    let photos = world.check_properties(&truth).await;
    assert!(lacks(&photos, &truth) <= n_incomplete);

    // Looked at again in the course of a week, it is whole, and no longer on the list.
    world.faults(json!({"rate-corrupt-item": 0.0})).await;
    let second = world.back_up().await;
    assert_eq!(second.failed.len() as u64, n_incomplete, "it is not forgotten meanwhile");
    world.time.days_pass(7);
    let third = world.back_up().await;
    assert_eq!(codes(&third), Vec::<&str>::new());
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_photo_that_is_merely_not_found_once_stays() {
    let mut world = World::new(60).await;
    world.back_up().await;
    world.time.days_pass(7);
    world.faults(json!({"seed": 8, "rate-404": 0.1})).await;
    world.back_up().await;
    assert!(world.counters().faults.get("404").is_some_and(|n| *n > 0));
    let truth = world.truth_by_id().await;
    let photos = world.check_properties(&truth).await;
    // Both answers were wrong for hardly any; the next week mends these.
    let lost = photos.iter().filter(|(id, photo)| **photo != truth[*id]["photoBlake3"]).count();
    assert!(lost <= 2, "{lost}");
    world.faults(json!({"rate-404": 0.0})).await;
    world.time.days_pass(7);
    world.back_up().await;
    world.check_snapshot().await;
}
