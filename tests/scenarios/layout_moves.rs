//! Storage nodes leave, are lost and come back while backups run, and nothing is missing afterwards.

mod join;
mod witness;
mod world;

use harness::{ClusterOptions, eventually};
use serde_json::json;

use world::{MOVE_WITHIN, RUN_WITHIN, World, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_under_load_and_switched_off_for_good_and_another_is_replaced_after_loss() {
    let folder = tempfile::tempdir().expect("a private folder");
    let options = ClusterOptions { nodes: vec!["a", "a", "b", "b"], ..world::options() };
    let mut world = World::start(folder.path(), &options).await;
    world.back_up().await;

    // What is planned moves nothing yet.
    let plan = text(&world.cluster.holdfast(&["drain", "1", "--plan"]));
    assert!(
        plan.contains("2048 partitions get new owners") && plan.contains("Nothing was changed"),
        "{plan}"
    );
    assert_eq!(world.layout().await.partitions_moving, 0);

    world.tenant.control("evolve", json!({ "seed": 5, "new": 90, "edited": 10 })).await;
    let run = world.cluster.start_backup("contoso").await;
    let drained = text(&world.cluster.holdfast(&["drain", "1", "--json"]));
    assert!(drained.contains("\"applied\": true"), "{drained}");
    world.cluster.finished(&run, RUN_WITHIN).await;
    let layout = world.at_rest().await;
    assert_eq!((layout.nodes[0].duty.as_str(), layout.nodes[0].partitions), ("drained", 0));

    world.cluster.nodes[0].kill();
    std::fs::remove_dir_all(world.cluster.node_data(0)).expect("remove the drained node's folder");
    world.verifies().await;
    world.every_message_is_in_the_newest_snapshots().await;

    // Another node loses its folder. It takes part in nothing until it is said to be lost.
    world.cluster.nodes[2].kill();
    std::fs::remove_dir_all(world.cluster.node_data(2)).expect("remove the lost node's folder");
    world.cluster.nodes[2].restart();
    eventually("the operator is told", MOVE_WITHIN, || async {
        let nodes = world.nodes().await?;
        nodes.nodes[2].reason.contains("holdfast layout apply --lost 3").then_some(())
    })
    .await;
    let replaced = text(&world.cluster.holdfast(&["layout", "apply", "--lost", "3"]));
    assert!(replaced.contains("partitions get new owners"), "{replaced}");
    world.at_rest().await;
    eventually("every copy is where it should be", MOVE_WITHIN, || async {
        let nodes = world.nodes().await?;
        let healed = nodes.nodes.iter().all(|node| node.records_below_policy == 0);
        (healed && nodes.nodes[2].records > 0).then_some(())
    })
    .await;
    world.cluster.nodes[3].kill();
    world.verifies().await;

    let actions = text(&world.cluster.holdfast(&["audit"]));
    assert_eq!(actions.matches("layout.change").count(), 2, "{actions}");
}
