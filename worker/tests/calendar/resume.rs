use holdfast_worker::CheckpointEvery;
use serde_json::json;

use crate::harness::{Told, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backup_goes_on_from_its_checkpoint() {
    for told in [Told::ByDelta, Told::NotAtAll] {
        let mut world = World::with(120, told).await;
        world.control("options", json!({"page-size-max": 10})).await;
        world.options.checkpoint_every = CheckpointEvery { items: 20, seconds: 1_000 };
        world.attempt_killed_at(2).await;
        let files = world.n_files_read();
        let finished = world.back_up().await;
        assert_eq!((finished.account.listed, finished.account.accounted()), (120, 120));
        world.check_snapshot().await;
        let mut whole = World::with(120, told).await;
        whole.back_up().await;
        assert!(files > 0 && world.n_files_read() == whole.n_files_read(), "no file is read twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_incremental_forgets_no_change() {
    for told in [Told::ByDelta, Told::NotAtAll] {
        let mut world = World::with(100, told).await;
        world.control("options", json!({"page-size-max": 5})).await;
        world.back_up().await;
        world.evolve(json!({"seed": 8, "new": 12, "edited": 8, "moved": 8, "deleted": 8, "flags": 8})).await;
        world.options.checkpoint_every = CheckpointEvery { items: 4, seconds: 1_000 };
        world.forget_checkpoints();
        world.attempt_killed_at(2).await;
        let finished = world.back_up().await;
        assert_eq!(finished.account.removed, 8);
        world.check_snapshot().await;
    }
}
