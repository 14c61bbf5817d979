use holdfast_worker::CheckpointEvery;
use serde_json::json;

use crate::{
    harness::{Told, World},
    support::resume::N_KILLED_LATER,
};

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
        let mut world = World::with(N_KILLED_LATER, told).await;
        world.assert_killed_incremental_forgets_no_change(8, 8).await;
    }
}
