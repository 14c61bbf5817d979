use crate::{
    harness::World,
    support::resume::{N_KILLED, N_KILLED_LATER},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backup_goes_on_from_its_checkpoint_and_asks_for_no_steps_twice() {
    let n_steps_asked = |world: &World| world.requests()["checklist_list"];
    World::new(N_KILLED).await.assert_goes_on_from_its_checkpoint(n_steps_asked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_incremental_forgets_no_change() {
    // A task that moves is another one in its new list.
    World::new(N_KILLED_LATER).await.assert_killed_incremental_forgets_no_change(8, 16).await;
}
