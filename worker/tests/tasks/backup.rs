use holdfast_graph_client::TodoTaskPart;
use serde_json::json;

use crate::harness::{World, failures, outcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_backup_holds_what_the_lists_hold() {
    let mut world = World::new(60).await;
    let finished = world.back_up().await;
    assert_eq!(outcome(&finished), (60, 60, 0, 0));
    assert_eq!((failures(&finished.account), finished.account.carried), (0, 0));
    world.check_snapshot().await;
    assert!(world.n_files_read() > 0, "some tasks have attachments");
    let counters = world.counters();
    assert!(counters.openapi_violations.is_empty(), "{:?}", counters.openapi_violations);
    assert!(counters.max_in_flight.values().all(|n| *n <= 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_flagged_mail_is_kept_and_its_tasks_are_not() {
    let mut world = World::new(10).await;
    world.back_up().await;
    let reader = world.reader().await;
    let folders = holdfast_worker::workload::snapshot_folders::SnapshotFolders::read(&reader).await.unwrap();
    let well_known: Vec<&str> =
        folders.all().iter().filter_map(|folder| folder.well_known.as_deref()).collect();
    assert!(well_known.contains(&"flaggedEmails") && well_known.contains(&"defaultList"), "{well_known:?}");
    assert_eq!(world.stored().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_asks_only_for_what_changed_and_reads_no_file_again() {
    let mut world = World::new(60).await;
    world.back_up().await;
    let (files, before) = (world.n_files_read(), world.requests());
    world.evolve(json!({"seed": 5, "new": 0, "edited": 5, "moved": 0, "deleted": 4, "flags": 6})).await;
    let finished = world.back_up().await;
    assert_eq!(outcome(&finished), (11, 11, 0, 4));
    assert_eq!(world.n_files_read(), files, "edits and ticks leave attachments as they are");
    assert_eq!(world.requests()["checklist_list"] - before["checklist_list"], 11);
    world.check_snapshot().await;
    world.evolve(json!({"seed": 6, "new": 4, "edited": 0, "moved": 5, "deleted": 0, "flags": 0})).await;
    let finished = world.back_up().await;
    assert_eq!(outcome(&finished), (9, 9, 0, 5), "a task that is moved is a new one");
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_hung_on_a_task_is_found_and_only_that_is_fetched() {
    let mut world = World::new(30).await;
    world.back_up().await;
    let stored = world.stored().await;
    let (list, task) = stored[0].id.split_once(':').unwrap();
    let (graph, user) = (world.graph(), world.user.id.clone());
    let file = json!({"@odata.type": "#microsoft.graph.taskFileAttachment", "name": "late.txt",
        "contentType": "text/plain", "contentBytes": "bGF0ZQ=="});
    graph.add_task_attachment(&user, (list, task), &file).await.unwrap();
    let line = json!({"displayName": "one more"});
    graph.create_todo_task_part(&user, (list, task), TodoTaskPart::ChecklistItems, &line).await.unwrap();
    let second = world.back_up().await;
    assert_eq!(outcome(&second), (1, 1, 0, 0));
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_and_nothing_read_where_nothing_changed() {
    let mut world = World::new(40).await;
    world.back_up().await;
    let (roots, before) = (world.reader().await.header().roots, world.requests());
    let second = world.back_up().await;
    assert_eq!(outcome(&second), (0, 0, 0, 0));
    assert_eq!(second.account.carried, 40);
    assert_eq!(world.reader().await.header().roots, roots);
    let after = world.requests();
    for kind in ["task_attachment_value", "task_attachment_list", "checklist_list", "task_link_list"] {
        assert_eq!(after.get(kind), before.get(kind), "{kind}");
    }
    assert_eq!(after["todo_list_delta"] - before["todo_list_delta"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_delta_token_costs_a_listing_and_nothing_else() {
    let mut world = World::new(60).await;
    world.back_up().await;
    world.evolve(json!({"seed": 9, "new": 0, "edited": 2, "moved": 0, "deleted": 5, "flags": 0})).await;
    world.expire_delta().await;
    let (files, before) = (world.n_files_read(), world.requests());
    let finished = world.back_up().await;
    assert_eq!(outcome(&finished), (55, 2, 53, 5));
    assert_eq!(world.n_files_read(), files);
    assert_eq!(world.requests()["checklist_list"] - before["checklist_list"], 2);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_gone_goes_with_its_tasks() {
    let mut world = World::new(60).await;
    world.back_up().await;
    let (graph, user) = (world.graph(), world.user.id.clone());
    let lists = graph.todo_lists_delta(&user, None).await.unwrap().items;
    let own = lists.into_iter().find_map(|change| match change {
        holdfast_graph_client::Change::Present(list) if list.well_known.is_none() => Some(list.id),
        _ => None,
    });
    graph.delete_todo_list(&user, &own.unwrap()).await.unwrap();
    let n_left = world.truth_by_id().await.len() as u64;
    assert!(n_left < 60);
    let finished = world.back_up().await;
    assert_eq!(finished.account.removed, 60 - n_left);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_without_an_attachment_that_cannot_be_read_is_stored_and_said_to_lack_it() {
    let mut world = World::new(60).await;
    world.faults(json!({"seed": 4, "rate-corrupt-item": 0.3})).await;
    let first = world.back_up().await;
    let n = first.account.incomplete;
    assert!(n > 0 && first.failed.iter().all(|failed| failed.is_partial), "{:?}", first.failed);
    assert!(first.failed.iter().all(|failed| failed.code == "AttachmentMissing:ErrorCorruptData"));
    assert_eq!((first.account.stored, first.pin.items_missing, failures(&first.account)), (60, n, 0));
    world.faults(json!({"rate-corrupt-item": 0.0})).await;
    let second = world.back_up().await;
    assert_eq!(second.failed.len() as u64, n, "it is not forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_every_kind_lose_nothing() {
    for seed in 1..=3 {
        World::new(60).await.assert_faults_lose_nothing(seed, (6, 12)).await;
    }
}
