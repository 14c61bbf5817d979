//! A node joins by configuration, restart and the operator's command while a backup runs.

use harness::ClusterOptions;
use serde_json::json;

use super::world::{self, RUN_WITHIN, World, accounts_add_up, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_while_a_backup_runs_and_another_can_be_lost_afterwards() {
    let folder = tempfile::tempdir().expect("a private folder");
    let options = ClusterOptions { nodes: vec!["a", "b"], ..world::options() };
    let mut world = World::start(folder.path(), &options).await;
    world.back_up().await;

    world.tenant.control("evolve", json!({ "seed": 5, "new": 60, "edited": 10 })).await;
    world.cluster.add_node(&options, "c", "data");
    // The configuration alone changes nothing, and is told.
    assert_eq!(world.layout().await.nodes.len(), 2);
    let run = world.cluster.start_backup("contoso").await;
    world.apply_layout().await;
    accounts_add_up(&world.cluster.finished(&run, RUN_WITHIN).await);
    let layout = world.at_rest().await;
    let joined = &layout.nodes[2];
    assert!(joined.partitions > 2_000, "it has {} partitions", joined.partitions);
    world.healed().await;
    let records = world.nodes().await.expect("the coordinator answers").nodes[2].records;
    assert!(records > 0, "it keeps nothing");

    // What one of the first two had is on the others now.
    world.cluster.nodes[0].kill();
    std::fs::remove_dir_all(world.cluster.node_data(0)).expect("remove the lost node's folder");
    world.verifies().await;
    world.every_message_is_in_the_newest_snapshots().await;
    let actions = text(&world.cluster.holdfast(&["audit"]));
    assert_eq!(actions.matches("layout.change").count(), 1, "{actions}");
}
