use std::time::Duration;

use holdfast_graph_client::ErrorClass;
use holdfast_model::Account;
use holdfast_worker::{CheckpointEvery, JobError};
use serde_json::json;

use crate::harness::{World, failures};

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

/// Lets Microsoft throttle until the job gives up, as one with little patience does. Its account so far.
async fn deferred(world: &mut World, (seed, rate): (u64, f64)) -> Account {
    world.patience = Duration::from_millis(300);
    world.faults(json!({"seed": seed, "rate-429": rate})).await;
    match world.attempt().await {
        Err(JobError::Graph(error)) => assert_eq!(error.class(), ErrorClass::Wait, "{error}"),
        other => panic!("the job was not deferred: {:?}", other.map(|finished| finished.account)),
    }
    world.faults(json!({"rate-429": 0.0})).await;
    world.patience = Duration::from_mins(1);
    world.progress.account()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deferred_job_fetches_only_what_has_no_outcome() {
    let mut n_in_the_middle = 0;
    for seed in 1..=5 {
        let mut world = World::new(150).await;
        let so_far = deferred(&mut world, (seed, 0.02)).await;
        let (n, fetched) = (world.truth().await.len() as u64, world.content_requests());
        assert_eq!(*world.checkpoints.count.lock().unwrap(), u32::from(so_far.stored > 0));
        assert!(so_far.stored < n && fetched - so_far.stored <= world.options.fetches as u64, "{so_far:?}");
        n_in_the_middle += u64::from(so_far.stored > 0 && so_far.listed > so_far.accounted());
        let account = world.back_up().await.account;
        assert_eq!(world.content_requests() - fetched, n - so_far.stored, "seed {seed}: {so_far:?}");
        assert_eq!((account.listed, account.stored, account.carried), (n, n, 0), "seed {seed}: {account:?}");
        world.check_snapshot().await;
        assert_eq!(world.counters().early_after_429, 0);
    }
    assert!(n_in_the_middle > 0, "none of the jobs left something without an outcome");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deferred_incremental_forgets_no_failed_item_and_no_change() {
    for seed in 1..=4 {
        let mut world = World::new(80).await;
        world.faults(json!({"seed": 4, "rate-corrupt-item": 0.2})).await;
        let n_failed = world.back_up().await.failed.len() as u64;
        assert!(n_failed > 0);
        world
            .evolve(json!({"seed": seed, "new": 12, "edited": 0, "moved": 8, "deleted": 5, "flags": 8}))
            .await;
        world.faults(json!({"rate-corrupt-item": 0.0})).await;
        *world.checkpoints.newest.lock().unwrap() = None;
        let before = world.content_requests();
        deferred(&mut world, (seed, 0.06)).await;
        let second = world.back_up().await;
        assert!(second.failed.is_empty(), "seed {seed}: {:?}", second.failed);
        let fetched = world.content_requests() - before;
        let most = 12 + n_failed + world.options.fetches as u64;
        assert!(fetched <= most, "seed {seed}: {fetched} contents for 12 new and {n_failed} failed messages");
        assert_eq!(failures(&second.account), 0);
        world.check_snapshot().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_cannot_be_read_costs_work_and_nothing_else() {
    const CONTEXT: &str = "holdfast job checkpoint 1";
    let mut world = World::new(60).await;
    world.options.checkpoint_every = CheckpointEvery { items: 20, seconds: 1_000 };
    *world.checkpoints.stop_after.lock().unwrap() = Some(1);
    assert!(world.attempt().await.is_err());
    *world.checkpoints.stop_after.lock().unwrap() = None;
    // As another version would write it: the same trees, another body.
    let sealed = world.checkpoints.newest.lock().unwrap().clone().unwrap();
    let plain = world.keys.open_blob(CONTEXT, &sealed).unwrap();
    let other = [&plain[..1 + usize::from(plain[0]) + 40], b"{}"].concat();
    let sealed = world.keys.seal_blob(CONTEXT, world.shared.random.as_ref(), &other);
    *world.checkpoints.newest.lock().unwrap() = Some(sealed.into());
    let account = world.back_up().await.account;
    let n = world.truth().await.len() as u64;
    assert_eq!((account.listed, account.stored, account.carried), (n, n, 0));
    world.check_snapshot().await;
}
