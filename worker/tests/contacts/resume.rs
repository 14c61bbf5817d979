use crate::{
    harness::World,
    support::resume::{N_KILLED, N_KILLED_LATER},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backup_goes_on_from_its_checkpoint_and_asks_for_no_photo_twice() {
    World::new(N_KILLED).await.assert_goes_on_from_its_checkpoint(World::n_photo_requests).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_incremental_forgets_no_change() {
    World::new(N_KILLED_LATER).await.assert_killed_incremental_forgets_no_change(0, 8).await;
}
