use holdfast_model::ConflictPolicy;
use holdfast_worker::{backup::FinishedBackup, workload::collect::PARKED_AFTER};
use serde_json::json;

use crate::harness::{World, failures};

fn outcome(finished: &FinishedBackup) -> (u64, u64, u64, u64) {
    let account = &finished.account;
    (account.listed, account.stored, account.unchanged, account.removed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_backup_holds_what_the_mailbox_holds() {
    let mut world = World::new(60).await;
    let finished = world.back_up().await;
    let n = world.truth().await.len() as u64;
    assert_eq!(outcome(&finished), (n, n, 0, 0));
    assert_eq!((failures(&finished.account), finished.account.carried), (0, 0));
    world.check_snapshot().await;
    let counters = world.counters();
    assert!(counters.openapi_violations.is_empty(), "{:?}", counters.openapi_violations);
    assert!(counters.max_in_flight.values().all(|n| *n <= 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_fetches_only_new_and_edited_content() {
    let mut world = World::new(60).await;
    world.back_up().await;
    let before = world.content_requests();
    let changes =
        world.evolve(json!({"seed": 5, "new": 4, "edited": 3, "moved": 4, "deleted": 3, "flags": 6})).await;
    let requests_before: u64 = world.counters().requests.values().flat_map(|kinds| kinds.values()).sum();
    let finished = world.back_up().await;
    world.check_snapshot().await;
    let fetched = world.content_requests() - before;
    assert!(fetched <= 7, "{fetched} contents for 4 new and 3 edited messages ({changes})");
    assert_eq!(finished.account.removed, 3);
    assert_eq!(failures(&finished.account), 0);
    let requests: u64 = world.counters().requests.values().flat_map(|kinds| kinds.values()).sum();
    let n_folders = 40;
    assert!(requests - requests_before <= n_folders + 2 * 20 + 10, "{} requests", requests - requests_before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_changes_stores_and_fetches_nothing() {
    let mut world = World::new(30).await;
    let first = world.back_up().await;
    let before = world.content_requests();
    let second = world.back_up().await;
    assert_eq!(outcome(&second), (0, 0, 0, 0));
    assert_eq!(second.account.carried, first.account.stored);
    assert_eq!(world.content_requests(), before);
    assert_eq!(second.pin.items, first.pin.items);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_empty_pages_truncated_bodies_and_throttling_lose_nothing() {
    let mut world = World::new(50).await;
    world
        .faults(
            json!({"seed": 3, "rate-429": 0.02, "rate-503": 0.02, "rate-reset": 0.02, "rate-truncate": 0.05,
            "rate-duplicate-in-page": 0.3, "rate-empty-page": 0.3}),
        )
        .await;
    let finished = world.back_up().await;
    assert_eq!(failures(&finished.account), 0, "{:?}", finished.failed);
    world.faults(json!({"rate-429": 0.0, "rate-503": 0.0, "rate-reset": 0.0, "rate-truncate": 0.0})).await;
    world.check_snapshot().await;
    assert_eq!(world.counters().early_after_429, 0);
}

/// Slow answers keep the run waiting for its listing while contents are refused: the refusals must be heard all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_must_wait_is_left_alone_while_its_pages_are_listed() {
    let mut world = World::new(60).await;
    world.control("options", json!({"latency-ms": 60})).await;
    world.faults(json!({"seed": 1, "rate-429": 0.06})).await;
    let finished = world.back_up().await;
    assert_eq!(failures(&finished.account), 0, "{:?}", finished.failed);
    assert!(world.counters().faults.values().sum::<u64>() > 0);
    assert_eq!(world.counters().early_after_429, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_delta_token_costs_a_listing_and_no_content() {
    let mut world = World::new(50).await;
    world.back_up().await;
    world.evolve(json!({"seed": 9, "new": 2, "edited": 0, "moved": 2, "deleted": 3, "flags": 0})).await;
    world.control("expire-delta", json!({"user": world.user.id})).await;
    let before = world.content_requests();
    let finished = world.back_up().await;
    assert_eq!(finished.account.removed, 3);
    assert_eq!(world.content_requests() - before, 2);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_item_is_listed_and_retried_first_by_the_next_run() {
    let mut world = World::new(40).await;
    world.faults(json!({"seed": 4, "rate-corrupt-item": 0.2})).await;
    let first = world.back_up().await;
    let n = failures(&first.account);
    assert!(n > 0 && first.failed.len() as u64 == n, "{:?}", first.account);
    assert_eq!(first.pin.items_missing, n);
    assert!(first.failed.iter().all(|failed| failed.code == "ErrorCorruptData" && !failed.retryable));
    world.faults(json!({"rate-corrupt-item": 0.0})).await;
    let second = world.back_up().await;
    assert_eq!(outcome(&second), (n, n, 0, 0));
    assert!(second.failed.is_empty());
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_always_fails_is_parked_and_comes_back_when_everything_is_listed() {
    let mut world = World::new(40).await;
    world.faults(json!({"seed": 4, "rate-corrupt-item": 0.2})).await;
    let n = world.back_up().await.failed.len();
    assert!(n > 0);
    for _ in 1..PARKED_AFTER {
        assert_eq!(world.back_up().await.failed.len(), n);
    }
    let asked = world.content_requests();
    let parked = world.back_up().await;
    assert_eq!(world.content_requests(), asked, "it is not asked for any more");
    assert!(parked.failed.len() == n && parked.failed.iter().all(|failed| failed.is_parked()));
    assert_eq!(parked.pin.items_missing, n as u64, "and it is not forgotten");

    world.faults(json!({"rate-corrupt-item": 0.0})).await;
    world.expire_delta().await;
    let healed = world.back_up().await;
    assert_eq!((healed.failed.len(), healed.account.stored), (0, n as u64));
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_edit_keeps_the_older_version_marked_stale() {
    let mut world = World::new(20).await;
    world.back_up().await;
    world.evolve(json!({"seed": 2, "new": 0, "edited": 3, "moved": 0, "deleted": 0, "flags": 0})).await;
    world.faults(json!({"seed": 4, "rate-corrupt-item": 1.0})).await;
    let second = world.back_up().await;
    assert_eq!(second.failed.len(), 3);
    assert!(second.failed.iter().all(|failed| failed.stale));
    assert_eq!(second.pin.items, world.truth().await.len() as u64);
    world.faults(json!({"rate-corrupt-item": 0.0})).await;
    world.back_up().await;
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_flags_are_corrected_only_when_the_slow_listing_is_due() {
    let mut world = World::new(20).await;
    world.options.flags_every = 2;
    let listings = |world: &World| {
        let counters = world.counters();
        counters
            .requests
            .values()
            .flat_map(|kinds| kinds.iter())
            .map(|(kind, n)| (kind.clone(), *n))
            .collect::<Vec<_>>()
    };
    world.back_up().await;
    let first: u64 = listings(&world).iter().map(|(_, n)| n).sum();
    world.back_up().await;
    let second: u64 = listings(&world).iter().map(|(_, n)| n).sum();
    world.back_up().await;
    let third: u64 = listings(&world).iter().map(|(_, n)| n).sum();
    // Whichever of the two runs was due made one more call per folder.
    assert!((second - first) > (third - second), "{first} {second} {third}");
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_die_in_the_middle_of_a_round_lose_nothing_and_fetch_nothing_twice() {
    let mut world = World::new(300).await;
    world.faults(json!({"seed": 6, "rate-expired-delta": 0.4})).await;
    let first = world.back_up().await;
    assert!(world.counters().faults.values().sum::<u64>() > 0);
    assert_eq!(world.content_requests(), first.account.stored);
    world.check_snapshot().await;
    world.evolve(json!({"seed": 9, "new": 5, "edited": 5, "moved": 5, "deleted": 5, "flags": 5})).await;
    let second = world.back_up().await;
    assert_eq!(second.account.removed, 5);
    world.faults(json!({"rate-expired-delta": 0.0})).await;
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_listed_and_not_found_is_looked_for_again() {
    let mut world = World::new(40).await;
    world.faults(json!({"seed": 5, "rate-404": 0.3})).await;
    let first = world.back_up().await;
    assert!(first.account.gone > 0, "{:?}", first.account);
    world.faults(json!({"rate-404": 0.0})).await;
    let second = world.back_up().await;
    assert_eq!(second.account.stored, first.account.gone);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attachment_added_together_with_a_flag_is_found_and_flags_and_moves_fetch_nothing() {
    let mut world = World::new(60).await;
    world.back_up().await;
    let truth = world.truth().await;
    let touched: Vec<String> = truth
        .values()
        .filter(|message| !message.is_draft && message.attachments.iter().any(|one| !one.is_inline))
        .map(|message| message.id.clone())
        .take(3)
        .collect();
    assert_eq!(touched.len(), 3, "messages that have an attachment already");
    let graph = world.graph();
    for id in &touched {
        let attachment = json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "late.txt",
            "contentType": "text/plain", "contentBytes": "bGF0ZQ=="});
        graph.add_attachment(&world.user.id, id, &attachment).await.unwrap();
    }
    let n = truth.len() as u64;
    world.evolve(json!({"seed": 3, "new": 0, "edited": 0, "moved": 0, "deleted": 0, "flags": n})).await;
    let before = world.content_requests();
    let second = world.back_up().await;
    world.check_snapshot().await;
    assert_eq!(world.content_requests() - before, 3, "only where something was attached");
    assert_eq!(second.account.stored, n);

    let requests = |world: &World| -> u64 {
        world.counters().requests.values().flat_map(std::collections::BTreeMap::values).sum()
    };
    let (before, asked) = (world.content_requests(), requests(&world));
    world.evolve(json!({"seed": 4, "new": 0, "edited": 0, "moved": 10, "deleted": 10, "flags": 20})).await;
    world.back_up().await;
    world.check_snapshot().await;
    assert_eq!(world.content_requests(), before);
    let n_folders_and_pages = 40;
    assert!(requests(&world) - asked <= n_folders_and_pages + 2 * 40 + 10, "{}", requests(&world) - asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_without_an_attachment_is_counted_as_incomplete_and_so_when_restored() {
    let mut world = World::new(40).await;
    let graph = world.graph();
    // A link is in no MIME: it takes a call of its own, which fails for some.
    for id in world.truth().await.keys() {
        let link = json!({"@odata.type": "#microsoft.graph.referenceAttachment", "name": "plan.docx"});
        graph.add_attachment(&world.user.id, id, &link).await.unwrap();
    }
    world.faults(json!({"seed": 7, "rate-404": 0.3})).await;
    let first = world.back_up().await;
    let partial = first.failed.iter().filter(|failed| failed.is_partial).count() as u64;
    assert!(partial > 0 && first.failed.iter().all(|failed| failed.code.starts_with("AttachmentMissing:")));
    assert_eq!((first.account.incomplete, failures(&first.account)), (partial, 0));
    assert!(first.account.has_exceptions() && first.account.stored > partial);
    assert_eq!(first.pin.items_missing, partial);

    // Restored, it lacks the same part, and says so too.
    world.faults(json!({"rate-404": 0.0})).await;
    world.control("wipe", json!({"user": world.user.id})).await;
    let restored = world.restore("r1", "", ConflictPolicy::Skip).await;
    assert_eq!((restored.account.stored, restored.account.incomplete), (first.account.stored, partial));
    assert!(restored.account.adds_up() && restored.account.has_exceptions());
}
