use std::collections::BTreeSet;

use holdfast_graph_client::{DriveItem, DriveItemKind, NameConflict};
use holdfast_graph_sim::{Population, differences_of};
use holdfast_model::ConflictPolicy;
use holdfast_worker::workload::collect::ItemFailure;
use serde_json::{Value, json};

use crate::harness::{World, population};

/// Links that ask for a password, or name people, cannot be made again: the restore says so.
fn without_lost_links(before: &mut [Value], after: &mut [Value]) {
    for one in before.iter_mut().chain(after) {
        for permission in one["permissions"].as_array_mut().unwrap() {
            assert_ne!(permission["link"]["hasPassword"], true);
        }
    }
}

async fn world() -> World {
    let mut world = World::with(population(30)).await;
    world.options.drive_versions = usize::MAX;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_drive_comes_back_property_by_property_and_once() {
    world().await.assert_comes_back_once(without_lost_links).await;
}

/// Earlier versions too: none is lost, and none is there twice because the answer to its write was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_comes_back_through_faults_of_every_kind() {
    let mut world = World::with(Population { drive_versioned_percent: 60, ..population(30) }).await;
    world.options.drive_versions = usize::MAX;
    world.assert_comes_back_through_faults(without_lost_links).await;
}

/// Of the failures of a restore, those of folders: path and code.
fn of_folders(failed: &[ItemFailure], truth: &[Value]) -> BTreeSet<(String, String)> {
    let kinds = ["folder", "notebook"];
    let folders = truth.iter().filter(|one| kinds.contains(&one["kind"].as_str().unwrap()));
    let ids: BTreeSet<&str> = folders.map(|one| one["id"].as_str().unwrap()).collect();
    let failed = failed.iter().filter(|failed| ids.contains(failed.id.as_str()));
    failed.map(|failed| (failed.path.clone(), failed.code.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_shared_as_it_was_is_in_the_account() {
    let mut world = World::with(Population { drive_shared_percent: 100, ..population(20) }).await;
    world.back_up().await;
    let before = world.truth_list().await;
    let is_guest = |permission: &Value| permission["to"].as_str().is_some_and(|to| to.contains("fabrikam"));
    let has_guests = |one: &&Value| one["permissions"].as_array().unwrap().iter().any(is_guest);
    let shared: Vec<&Value> = before.iter().filter(has_guests).collect();
    let path = |one: &Value| one["identity"].as_str().unwrap().to_owned();
    let code = "PermissionNotRestored:sharingDisabled".to_owned();
    let folders: BTreeSet<_> =
        shared.iter().filter(|one| one["kind"] == "folder").map(|one| (path(one), code.clone())).collect();
    assert!(!folders.is_empty() && folders.len() < shared.len(), "folders and files are shared with guests");
    world.control("wipe", json!({"user": world.user.id, "workload": "onedrive"})).await;
    world.control("options", json!({"external-sharing": false})).await;
    let restored = world.restore("r1", "", ConflictPolicy::Skip).await;
    assert_eq!(of_folders(&restored.failed, &before), folders);
    let n_files = before.iter().filter(|one| one["kind"] == "file").count();
    let account = restored.account;
    assert_eq!(account.stored as usize, n_files + folders.len(), "a folder that lacks something counts");
    assert_eq!(account.incomplete as usize, shared.len(), "{:?}", restored.failed);
    assert!(account.adds_up() && account.has_exceptions());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notebook_comes_back_as_a_folder_with_its_files_and_says_so() {
    let mut world = World::with(Population { drive_notebooks_per_user: 1, ..population(5) }).await;
    world.back_up().await;
    let before = world.truth_list().await;
    let there = world.restore("r1", "", ConflictPolicy::Skip).await;
    assert_eq!(
        (there.account.stored, there.failed.len()),
        (0, 0),
        "it is a notebook still: {:?}",
        there.failed
    );
    world.control("wipe", json!({"user": world.user.id, "workload": "onedrive"})).await;
    let restored = world.restore("r2", "", ConflictPolicy::Skip).await;
    let notebook = ("/Notebook 0".to_owned(), "PackageRestoredAsFolder".to_owned());
    assert_eq!(of_folders(&restored.failed, &before), BTreeSet::from([notebook]));
    assert_eq!((restored.failed.len(), restored.account.incomplete), (1, 1));
    let contents = |all: &[Value]| -> BTreeSet<(String, String)> {
        let files = all.iter().filter(|one| one["kind"] == "file");
        files.map(|one| (one["identity"].to_string(), one["blake3"].to_string())).collect()
    };
    assert_eq!(contents(&world.truth_list().await), contents(&before));
}

/// Gives files in the first folder that has enough of them another content.
async fn edit_files(world: &World, n: usize) {
    let graph = world.graph();
    let drive = graph.user_drive(&world.user.id).await.unwrap().unwrap().id;
    let mut folder = "root".to_owned();
    loop {
        let children = graph.drive_children(&drive, &folder, None).await.unwrap().items;
        let is_file = |item: &&DriveItem| matches!(item.kind, DriveItemKind::File { .. });
        let files: Vec<_> = children.iter().filter(is_file).collect();
        if files.len() >= n {
            for file in files.iter().take(n) {
                let replace = NameConflict::Replace;
                graph.put_drive_file(&drive, &folder, &file.name, "edited".into(), replace).await.unwrap();
            }
            return;
        }
        folder.clone_from(&children.iter().find(|item| !is_file(item)).unwrap().id);
    }
}

/// What a changed file's place holds after restores by every policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_left_restored_beside_or_replaced() {
    let mut world = World::with(Population { drive_versioned_percent: 0, ..population(20) }).await;
    world.back_up().await;
    let before = world.truth_list().await;
    edit_files(&world, 3).await;
    let names = |all: &[Value]| -> BTreeSet<String> {
        all.iter().map(|one| one["identity"].as_str().unwrap().to_owned()).collect()
    };
    let skipped = world.restore("r1", "", ConflictPolicy::Skip).await;
    assert_eq!((skipped.account.stored, skipped.account.skipped, skipped.failed.len()), (0, 3, 0));

    for _ in 0..2 {
        world.restore("r2", "", ConflictPolicy::Rename).await;
        let after = world.truth_list().await;
        let beside: Vec<_> = names(&after).difference(&names(&before)).cloned().collect();
        assert_eq!(beside.len(), 3, "once, however often it is restored: {beside:?}");
        assert!(beside.iter().all(|name| name.contains(" (restored)")), "{beside:?}");
    }

    let n_deletes = |world: &World| world.requests().get("drive_item_delete").copied().unwrap_or(0);
    let before_deletes = n_deletes(&world);
    let replaced = world.restore("r3", "", ConflictPolicy::Replace).await;
    assert_eq!(replaced.failed, []);
    assert_eq!(n_deletes(&world) - before_deletes, 3, "what is replaced is removed once");
    let after = world.truth_list().await;
    let originals: Vec<Value> =
        after.into_iter().filter(|one| names(&before).contains(one["identity"].as_str().unwrap())).collect();
    assert_eq!(differences_of(&before, &originals), Vec::<String>::new());
}
