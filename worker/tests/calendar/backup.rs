use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{Told, World, failures, outcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_backup_holds_what_the_calendars_hold() {
    for told in [Told::ByDelta, Told::NotAtAll] {
        let mut world = World::with(80, told).await;
        let finished = world.back_up().await;
        assert_eq!(outcome(&finished), (80, 80, 0, 0));
        assert_eq!((failures(&finished.account), finished.account.carried), (0, 0));
        world.check_snapshot().await;
        assert!(world.n_files_read() > 0, "some events have attachments");
        let counters = world.counters();
        assert!(counters.openapi_violations.is_empty(), "{:?}", counters.openapi_violations);
        assert!(counters.max_in_flight.values().all(|n| *n <= 4));
        assert_eq!(counters.would_have_sent_mail, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_kept_and_a_calendar_of_somebody_else_is_left_to_them() {
    let mut world = World::new(10).await;
    world.back_up().await;
    let reader = world.reader().await;
    let root = reader.item(&holdfast_worker::backup::key("root")).await.unwrap().unwrap();
    let root: serde_json::Value = serde_json::from_slice(&reader.meta(&root).await.unwrap()).unwrap();
    let groups = world.graph().calendar_groups(&world.user.id).await.unwrap();
    assert_eq!(root["calendarGroups"], json!(groups));
    let folders = holdfast_worker::workload::snapshot_folders::SnapshotFolders::read(&reader).await.unwrap();
    let calendars = world.graph().calendars(&world.user.id).await.unwrap();
    let owner = calendars.iter().find(|one| one.is_default).unwrap().owner.clone();
    assert_eq!(calendars.iter().filter(|one| one.owner != owner).count(), 1);
    assert_eq!(folders.all().len(), calendars.len(), "one more at the top and one less below it");
    assert!(folders.all().iter().all(|folder| folder.name != "Somebody else's"));
    let defaults = folders.all().iter().filter(|folder| folder.well_known.as_deref() == Some("calendar"));
    assert_eq!(defaults.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_finds_changes_inside_and_outside_of_the_window_and_reads_no_file_again() {
    for told in [Told::ByDelta, Told::NotAtAll] {
        for seed in 1..=3 {
            let mut world = World::with(80, told).await;
            world.back_up().await;
            let files = world.n_files_read();
            world
                .evolve(json!({"seed": seed, "new": 0, "edited": 12, "moved": 6, "deleted": 6, "flags": 0}))
                .await;
            let finished = world.back_up().await;
            assert_eq!((finished.account.stored, finished.account.removed), (18, 6), "seed {seed}");
            assert_eq!(world.n_files_read(), files, "edits and moves leave attachments as they are");
            world.check_snapshot().await;
            // New ones, and single days of series changed or cancelled.
            world
                .evolve(json!({"seed": seed, "new": 8, "edited": 0, "moved": 0, "deleted": 0, "flags": 25}))
                .await;
            let finished = world.back_up().await;
            assert_eq!((finished.account.stored, finished.account.removed), (33, 0), "seed {seed}");
            world.check_snapshot().await;
            assert_eq!(world.counters().would_have_sent_mail, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_and_nothing_read_where_nothing_changed() {
    for told in [Told::ByDelta, Told::NotAtAll] {
        let mut world = World::with(60, told).await;
        world.back_up().await;
        let (roots, before) = (world.reader().await.header().roots, world.requests());
        let second = world.back_up().await;
        assert_eq!((second.account.stored, second.account.removed), (0, 0));
        assert_eq!(second.account.unchanged + second.account.carried, 60);
        assert_eq!(world.reader().await.header().roots, roots);
        let after = world.requests();
        let read = [
            "calendar_event_get",
            "calendar_event_attachment_list",
            "calendar_event_attachment_value",
            "calendar_event_attachment_get",
        ];
        for kind in read {
            assert_eq!(after.get(kind), before.get(kind), "{kind}");
        }
        let n = |kind: &str| after[kind] - before.get(kind).copied().unwrap_or(0);
        assert_eq!((n("calendar_list"), n("calendar_group_list")), (1, 1));
        let n_calendars = world.graph().calendars(&world.user.id).await.unwrap().len() as u64 - 1;
        match told {
            Told::ByDelta => assert_eq!(n("calendar_event_delta"), n_calendars, "one call for each"),
            // One for the default calendar, and one to find out about the others.
            Told::NotAtAll => assert_eq!(n("calendar_event_delta"), 2),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_delta_token_costs_a_listing_and_nothing_else() {
    let mut world = World::new(80).await;
    world.back_up().await;
    world.evolve(json!({"seed": 9, "new": 0, "edited": 6, "moved": 0, "deleted": 6, "flags": 0})).await;
    world.expire_delta().await;
    let (files, gets) = (world.n_files_read(), world.n_requests("calendar_event_get"));
    let finished = world.back_up().await;
    assert_eq!(outcome(&finished), (74, 6, 68, 6));
    assert_eq!(world.n_files_read(), files);
    assert!(world.n_requests("calendar_event_get") - gets <= 6, "no more than the series that changed");
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_month_a_calendar_is_listed_whole_and_what_was_missed_is_found() {
    let mut world = World::new(60).await;
    world.back_up().await;
    let listed = world.n_requests("calendar_event_list");
    world.back_up().await;
    assert_eq!(world.n_requests("calendar_event_list"), listed);
    world.time.days_pass(31);
    let finished = world.back_up().await;
    assert!(world.n_requests("calendar_event_list") > listed);
    assert_eq!(outcome(&finished), (60, 0, 60, 0));
    let listed = world.n_requests("calendar_event_list");
    world.back_up().await;
    assert_eq!(world.n_requests("calendar_event_list"), listed);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_cannot_be_read_is_in_the_account_and_retried() {
    let mut world = World::new(80).await;
    world.faults(json!({"seed": 3, "rate-corrupt-item": 0.2})).await;
    let first = world.back_up().await;
    let n_failed = failures(&first.account);
    assert!(n_failed > 0, "some series cannot be read: {:?}", first.account);
    assert_eq!(first.account.stored + n_failed, 80);
    assert_eq!(first.pin.items_missing, first.failed.len() as u64);
    let failed: BTreeSet<String> = first.failed.iter().map(|failed| failed.id.clone()).collect();
    world.check_all_but(&world.truth_by_id().await, &failed).await;

    // One that is called removed and cannot be looked at is not taken for removed.
    world.faults(json!({"seed": 3, "rate-corrupt-item": 0.0})).await;
    let second = world.back_up().await;
    assert!(second.failed.iter().all(|failed| failed.is_partial), "{:?}", second.failed);
    assert!(second.account.stored >= n_failed);
    let partial: BTreeSet<String> = second.failed.iter().map(|failed| failed.id.clone()).collect();
    world.check_all_but(&world.truth_by_id().await, &partial).await;
    world.evolve(json!({"seed": 2, "new": 0, "edited": 80, "moved": 0, "deleted": 0, "flags": 0})).await;
    world.faults(json!({"seed": 3, "rate-corrupt-item": 0.4})).await;
    let third = world.back_up().await;
    assert!(third.failed.iter().any(|failed| failed.stale), "{:?}", third.account);
    assert_eq!(third.account.removed, 0);
    world.faults(json!({"seed": 3, "rate-corrupt-item": 0.0})).await;
    let fourth = world.back_up().await;
    assert_eq!(failures(&fourth.account), 0);
    let partial: BTreeSet<String> = fourth.failed.iter().map(|failed| failed.id.clone()).collect();
    world.check_all_but(&world.truth_by_id().await, &partial).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_every_kind_lose_nothing() {
    for (seed, told) in [(1, Told::ByDelta), (2, Told::NotAtAll), (3, Told::ByDelta)] {
        let mut world = World::with(60, told).await;
        let faults = json!({"seed": seed, "rate-503": 0.03, "rate-504": 0.02, "rate-reset": 0.02,
            "rate-truncate": 0.02, "rate-duplicate-in-page": 0.3, "rate-phantom-removed": 0.3,
            "rate-empty-page": 0.2, "rate-expired-delta": 0.05});
        world.faults(faults).await;
        world.control("options", json!({"page-size-max": 20})).await;
        let first = world.back_up().await;
        assert!(first.failed.is_empty(), "{:?}", first.failed);
        world.check_snapshot().await;
        world
            .evolve(json!({"seed": seed, "new": 6, "edited": 6, "moved": 6, "deleted": 6, "flags": 6}))
            .await;
        let second = world.back_up().await;
        assert_eq!(second.account.removed, 6);
        world.check_snapshot().await;
        assert!(!world.counters().faults.is_empty());
        assert_eq!(world.counters().would_have_sent_mail, 0);
    }
}
