use std::collections::BTreeSet;

use holdfast_graph_client::{DriveItem, DriveItemKind, NameConflict};
use holdfast_graph_sim::{Population, differences_of};
use holdfast_model::ConflictPolicy;
use serde_json::Value;

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

/// A lost answer to the write of a version can make that version twice: without versions nothing is ever twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_comes_back_through_faults_of_every_kind() {
    let population = Population { drive_versioned_percent: 0, ..population(30) };
    World::with(population).await.assert_comes_back_through_faults(without_lost_links).await;
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

    let replaced = world.restore("r3", "", ConflictPolicy::Replace).await;
    assert_eq!(replaced.failed, []);
    let after = world.truth_list().await;
    let originals: Vec<Value> =
        after.into_iter().filter(|one| names(&before).contains(one["identity"].as_str().unwrap())).collect();
    assert_eq!(differences_of(&before, &originals), Vec::<String>::new());
}
