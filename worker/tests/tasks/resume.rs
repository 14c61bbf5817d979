use holdfast_worker::CheckpointEvery;
use serde_json::json;

use crate::harness::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backup_goes_on_from_its_checkpoint() {
    let mut world = World::new(120).await;
    world.control("options", json!({"page-size-max": 10})).await;
    world.options.checkpoint_every = CheckpointEvery { items: 20, seconds: 1_000 };
    world.attempt_killed_at(2).await;
    assert!(world.requests()["checklist_list"] >= 20);
    let finished = world.back_up().await;
    assert_eq!((finished.account.listed, finished.account.accounted()), (120, 120));
    assert_eq!(world.requests()["checklist_list"], 120, "nothing is fetched twice");
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_incremental_forgets_no_change() {
    let mut world = World::new(100).await;
    world.control("options", json!({"page-size-max": 5})).await;
    world.back_up().await;
    world.evolve(json!({"seed": 8, "new": 12, "edited": 8, "moved": 8, "deleted": 8, "flags": 8})).await;
    world.options.checkpoint_every = CheckpointEvery { items: 4, seconds: 1_000 };
    world.forget_checkpoints();
    world.attempt_killed_at(2).await;
    let finished = world.back_up().await;
    assert_eq!(finished.account.removed, 16);
    world.check_snapshot().await;
}
