//! A drive that is split: whoever fetches what, the snapshot and the account are those of a run that does everything itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use holdfast_graph_client::ErrorClass;
use holdfast_graph_sim::Population;
use holdfast_repository::ItemFields;
use holdfast_worker::{CheckpointEvery, CoordinatorError, JobError, backup::FinishedBackup};
use serde_json::{Value, json};

use crate::{
    harness::{World, blake3_hex, failures, population},
    support::shards::{Call, Helpers, outcomes},
};

/// A drive of small files.
fn small_files(files: u32) -> Population {
    Population { drive_file_bytes: 4_000, drive_max_file_bytes: 60_000, ..population(files) }
}

async fn small(files: u32) -> World {
    World::with(small_files(files)).await
}

/// Everything that counts of a stored item, but for where it is stored.
type Seen = (ItemFields, Value, Vec<Vec<u8>>);

async fn seen(world: &World) -> BTreeMap<String, Seen> {
    let stored = world.stored().await.into_iter();
    stored.map(|one| (one.id, (one.entry.fields(), one.meta, one.parts))).collect()
}

/// Starts from nothing again, on the same drive.
fn forget(world: &mut World) {
    world.base = None;
    world.forget_checkpoints();
}

/// Its listing gets no further ahead than a page.
fn slow_listing(world: &mut World) {
    world.options.page_buffer_bytes = 1;
}

impl World {
    async fn pages_of(&self, items: u32) {
        self.control("options", json!({ "page-size-max": items })).await;
    }

    async fn n_files(&self) -> u64 {
        self.truth_by_id().await.values().filter(|one| one["kind"] == "file").count() as u64
    }

    /// Contents to download: an empty file has none.
    async fn n_contents(&self) -> u64 {
        let empty = blake3_hex(b"");
        let truth = self.truth_by_id().await;
        truth.values().filter(|one| one["kind"] == "file" && one["blake3"] != empty.as_str()).count() as u64
    }
}

/// As [`World::control`] does, where there is no world.
async fn control(url: &str, name: &str, body: Value) {
    let request = reqwest::Client::new().post(format!("{url}/_control/{name}")).body(body.to_string());
    request.send().await.unwrap().error_for_status().unwrap();
}

fn hook(
    helpers: &Arc<Helpers>,
    hook: impl Fn(Call) -> futures::future::BoxFuture<'static, Result<(), JobError>> + Send + Sync + 'static,
) {
    *helpers.hook.lock().unwrap() = Some(Box::new(hook));
}

fn failed(finished: &FinishedBackup) -> Vec<(String, String, String, bool, u32)> {
    let line = |one: &holdfast_worker::workload::collect::ItemFailure| {
        (one.id.clone(), one.path.clone(), one.code.clone(), one.retryable, one.attempts)
    };
    finished.failed.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_backup_is_the_same_as_one_that_is_not() {
    let mut world = World::with(Population {
        drive_malware_per_user: 2,
        drive_locked_per_user: 3,
        drive_notebooks_per_user: 1,
        drive_shortcuts_per_user: 1,
        ..small_files(60)
    })
    .await;
    world.options.drive_versions = 1;
    let whole = world.back_up().await;
    let (expected, n_downloads) = (seen(&world).await, world.n_downloads());

    for slots in [0, 3] {
        forget(&mut world);
        world.pages_of(17).await;
        let helpers = world.split(10, slots);
        let before = world.n_downloads();
        let split = world.back_up().await;
        assert!(helpers.n_made() >= 6, "{} shards", helpers.n_made());
        assert_eq!(world.n_downloads() - before, n_downloads, "each content is fetched once");
        assert_eq!(outcomes(&split.account), outcomes(&whole.account), "{slots} helpers");
        assert_eq!(failed(&split), failed(&whole), "{slots} helpers");
        assert_eq!(failures(&split.account), split.failed.len() as u64);
        assert!(seen(&world).await == expected, "{slots} helpers: the same items");
        assert!(split.account.requests >= n_downloads, "what shards asked for counts: {:?}", split.account);
        world.check_snapshot().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_after_a_split_backup_is_all_that_the_next_one_fetches() {
    let mut world = small(60).await;
    let helpers = world.split(8, 2);
    world.back_up().await;
    let (n_made, n_downloads) = (helpers.n_made(), world.n_downloads());
    world.back_up().await;
    assert_eq!((helpers.n_made(), world.n_downloads()), (n_made, n_downloads), "nothing to fetch");
    world.evolve(json!({"new": 20, "edited": 5, "moved": 5, "deleted": 5, "flags": 0})).await;
    let third = world.back_up().await;
    assert!(helpers.n_made() > n_made, "an incremental is split as well");
    assert!(world.n_downloads() - n_downloads <= 25, "{}", world.n_downloads() - n_downloads);
    assert_eq!((failures(&third.account), third.account.removed), (0, 5));
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_every_kind_lose_nothing_of_a_split_drive() {
    for seed in 1..=3 {
        let mut world = small(60).await;
        let faults = json!({"seed": seed, "rate-429": 0.02, "rate-503": 0.03, "rate-504": 0.02, "rate-reset": 0.03,
            "rate-truncate": 0.05, "rate-duplicate-in-page": 0.3, "rate-empty-page": 0.2, "rate-401": 0.004,
            "rate-expired-delta": 0.1});
        world.faults(faults).await;
        world.pages_of(9).await;
        let helpers = world.split(7, 2);
        let first = world.back_up().await;
        assert_eq!(first.failed, []);
        world.check_snapshot().await;
        world
            .evolve(json!({"seed": seed, "new": 16, "edited": 6, "moved": 6, "deleted": 6, "flags": 0}))
            .await;
        let second = world.back_up().await;
        assert_eq!(second.failed, []);
        world.check_snapshot().await;
        assert!(helpers.n_made() > 8 && !world.counters().faults.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_below_one_shard_is_never_split_and_zero_splits_none() {
    let mut world = small(30).await;
    let n_files = usize::try_from(world.n_files().await).unwrap();
    for shard_files in [n_files + 1, 0] {
        forget(&mut world);
        let helpers = world.split(shard_files, 2);
        world.back_up().await;
        assert_eq!(helpers.n_made(), 0, "shards of {shard_files}");
        world.check_snapshot().await;
    }
    forget(&mut world);
    let helpers = world.split(n_files, 2);
    world.back_up().await;
    assert_eq!(helpers.n_made(), 1, "it is exactly one shard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_given_up_is_fetched_by_its_parent() {
    let mut world = small(60).await;
    world.back_up().await;
    let n_downloads = world.n_downloads();
    forget(&mut world);
    let helpers = world.split(10, 1);
    helpers.given_up.store(3, Ordering::SeqCst);
    let finished = world.back_up().await;
    assert_eq!((finished.failed.len(), world.n_downloads()), (0, 2 * n_downloads));
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_does_not_answer_or_knows_no_shards_is_not_waited_for() {
    let away: fn() -> CoordinatorError = || CoordinatorError::Unavailable { reason: "away".to_owned() };
    let old: fn() -> CoordinatorError = || CoordinatorError::Refused { reason: "unknown call".to_owned() };
    for error in [away, old] {
        let mut world = small(50).await;
        let helpers = world.split(10, 0);
        hook(&helpers, move |_| Box::pin(async move { Err(error().into()) }));
        let finished = tokio::time::timeout(Duration::from_secs(60), world.back_up()).await.unwrap();
        assert_eq!(finished.failed, []);
        assert_eq!(world.n_downloads(), world.n_contents().await);
        world.check_snapshot().await;
    }
}

/// What changes while a shard has it: `is_fetched` before, or only after the change.
async fn changes_meanwhile(is_fetched: bool) {
    let mut world = small(60).await;
    world.pages_of(9).await;
    slow_listing(&mut world);
    let helpers = world.split(10, if is_fetched { 3 } else { 0 });
    let (url, user) = (world.sim.base_url(), world.user.clone());
    let those = helpers.clone();
    hook(&helpers, move |call| {
        let (url, user, helpers) = (url.clone(), user.clone(), those.clone());
        Box::pin(async move {
            if call.wanted == 0 || helpers.n_made() != 2 {
                return Ok(());
            }
            // Once. What is fetched already seems to run, until the drive has changed.
            *helpers.hook.lock().unwrap() = None;
            helpers.idle().await;
            let changes = json!({"seed": 5, "new": 3, "edited": 30, "moved": 0, "deleted": 12, "flags": 0,
                "users": [user.user_principal_name], "workload": "onedrive"});
            control(&url, "evolve", changes).await;
            // Everything is listed anew, so that this very run hears of it.
            control(&url, "expire-delta", json!({"user": user.id, "workload": "onedrive"})).await;
            helpers.slots.store(3, Ordering::SeqCst);
            Ok(())
        })
    });
    let finished = world.back_up().await;
    assert!(helpers.hook.lock().unwrap().is_none(), "the drive changed while it was listed");
    assert_eq!(finished.failed, []);
    // The drive's root is listed as well.
    assert_eq!(finished.account.listed - finished.account.gone, world.truth_by_id().await.len() as u64 + 1);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_after_its_shard_fetched_it_is_fetched_again() {
    changes_meanwhile(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_before_its_shard_fetches_it_is_stored_as_it_is_now() {
    changes_meanwhile(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_after_the_listing_is_stored_as_its_shard_finds_it() {
    let mut world = small(60).await;
    let helpers = world.split(10, 0);
    let (url, user, those) = (world.sim.base_url(), world.user.clone(), helpers.clone());
    hook(&helpers, move |call| {
        let (url, user, helpers) = (url.clone(), user.clone(), those.clone());
        Box::pin(async move {
            if call.wanted > 0 && helpers.slots.swap(10, Ordering::SeqCst) == 0 {
                let changes = json!({"seed": 6, "new": 0, "edited": 20, "moved": 0, "deleted": 3, "flags": 0,
                    "users": [user.user_principal_name], "workload": "onedrive"});
                control(&url, "evolve", changes).await;
            }
            Ok(())
        })
    });
    let n_listed = world.truth_by_id().await.len() as u64 + 1;
    let finished = world.back_up().await;
    assert_eq!((finished.failed.len(), finished.account.listed, finished.account.gone), (0, n_listed, 3));
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_parent_goes_on_with_what_its_shards_have_fetched() {
    let mut world = small(100).await;
    world.pages_of(12).await;
    slow_listing(&mut world);
    world.options.checkpoint_every = CheckpointEvery { items: 30, seconds: 1_000 };
    let helpers = world.split(10, 2);
    // The parent merges none of them.
    helpers.told.store(0, Ordering::SeqCst);
    world.attempt_killed_at(2).await;
    helpers.idle().await;
    let n_done = helpers.n_done() as u64;
    assert!(n_done >= 3, "{n_done}");
    assert!(world.n_downloads() <= n_done * 10, "until then only shards have fetched");
    helpers.told.store(usize::MAX, Ordering::SeqCst);
    let finished = world.back_up().await;
    assert_eq!(world.n_downloads(), world.n_contents().await, "no content is fetched twice");
    assert_eq!(finished.failed, []);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_merged_after_the_newest_checkpoint_is_merged_again_by_the_next_attempt() {
    let mut world = small(60).await;
    slow_listing(&mut world);
    world.options.checkpoint_every = CheckpointEvery { items: 40, seconds: 1_000 };
    let helpers = world.split(10, 10);
    helpers.told.store(0, Ordering::SeqCst);
    let (those, checkpoints) = (helpers.clone(), world.checkpoints.clone());
    hook(&helpers, move |_| {
        let (helpers, checkpoints) = (those.clone(), checkpoints.clone());
        Box::pin(async move {
            let is_kept = *checkpoints.count.lock().unwrap() > 0;
            if is_kept && helpers.told.load(Ordering::SeqCst) == 0 {
                helpers.idle().await;
                helpers.told.store(2, Ordering::SeqCst);
            } else if is_kept && helpers.told.load(Ordering::SeqCst) == 2 {
                // This answer brings them.
                helpers.told.store(3, Ordering::SeqCst);
            } else if is_kept {
                // And with this call, which does not wait for them any more, the worker dies.
                return Err(JobError::Stopped);
            }
            Ok(())
        })
    });
    assert!(matches!(world.attempt().await, Err(JobError::Stopped)));
    assert_eq!(*world.checkpoints.count.lock().unwrap(), 1, "what was merged is in no checkpoint");
    *helpers.hook.lock().unwrap() = None;
    helpers.told.store(usize::MAX, Ordering::SeqCst);
    let finished = world.back_up().await;
    assert_eq!(world.n_downloads(), world.n_contents().await, "what shards have is not fetched again");
    assert_eq!(finished.failed, []);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_parent_forgets_neither_its_shards_nor_what_it_took_back() {
    let mut n_taken_back = 0;
    for seed in 1..=6 {
        let slots = usize::try_from(seed % 2).unwrap();
        let mut world = small(60).await;
        world.patience = Duration::from_millis(300);
        world.split(10, slots);
        world.faults(json!({"seed": seed, "rate-429": 0.06})).await;
        match world.attempt().await {
            Err(JobError::Graph(error)) => assert_eq!(error.class(), ErrorClass::Wait, "{error}"),
            other => panic!("the job was not deferred: {:?}", other.map(|finished| finished.account)),
        }
        world.faults(json!({"rate-429": 0.0})).await;
        world.patience = Duration::from_mins(1);
        let n_refused = world.counters().faults.values().sum::<u64>();
        let so_far = world.progress.account();
        n_taken_back += usize::from(slots == 0 && so_far.bytes_read > 0);
        let finished = world.back_up().await;
        assert_eq!(finished.failed, []);
        world.check_snapshot().await;
        if slots == 0 {
            let most = world.n_files().await + n_refused + world.options.fetches as u64;
            assert!(world.n_downloads() <= most, "seed {seed}: {} downloads, {most}", world.n_downloads());
        }
    }
    assert!(n_taken_back > 0, "no job was deferred while it fetched what nobody else did");
}
