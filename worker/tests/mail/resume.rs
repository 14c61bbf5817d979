use holdfast_worker::{CheckpointEvery, JobError};
use serde_json::json;

use crate::harness::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backup_goes_on_from_its_checkpoint() {
    let mut world = World::new(150).await;
    world.options.checkpoint_every = CheckpointEvery { items: 20, seconds: 1_000 };
    *world.checkpoints.stop_after.lock().unwrap() = Some(2);
    assert!(matches!(world.attempt().await, Err(JobError::Store(_))));
    let fetched = world.content_requests();
    assert!(fetched >= 20);
    *world.checkpoints.stop_after.lock().unwrap() = None;
    let finished = world.back_up().await;
    let n = world.truth().await.len() as u64;
    assert_eq!((finished.account.listed, finished.account.accounted()), (n, n));
    assert_eq!(world.content_requests(), n, "no content is fetched twice");
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_incremental_forgets_no_removal() {
    let mut world = World::new(100).await;
    world.back_up().await;
    world.evolve(json!({"seed": 8, "new": 12, "edited": 8, "moved": 8, "deleted": 8, "flags": 8})).await;
    world.options.checkpoint_every = CheckpointEvery { items: 4, seconds: 1_000 };
    *world.checkpoints.newest.lock().unwrap() = None;
    *world.checkpoints.count.lock().unwrap() = 0;
    *world.checkpoints.stop_after.lock().unwrap() = Some(2);
    assert!(world.attempt().await.is_err());
    *world.checkpoints.stop_after.lock().unwrap() = None;
    let finished = world.back_up().await;
    assert_eq!(finished.account.removed, 8);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_of_another_base_is_not_used() {
    let mut world = World::new(60).await;
    world.options.checkpoint_every = CheckpointEvery { items: 10, seconds: 1_000 };
    world.back_up().await;
    assert!(world.checkpoints.newest.lock().unwrap().is_some());
    world.evolve(json!({"seed": 8, "new": 2, "edited": 0, "moved": 0, "deleted": 1, "flags": 0})).await;
    world.back_up().await;
    world.check_snapshot().await;
}
