//! A witness in a third site decides with what is left when one of two data sites is lost.

use harness::{ClusterOptions, eventually};
use serde_json::json;

use super::world::{self, MOVE_WITHIN, RUN_WITHIN, World, accounts_add_up};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_witness_backups_and_restores_go_on_without_one_of_two_data_sites() {
    let folder = tempfile::tempdir().expect("a private folder");
    // One acknowledged copy is accepted: with two sites nothing could be written otherwise without one of them.
    let options = ClusterOptions { nodes: vec!["a", "b"], ack_sites: 1, ..world::options() };
    let mut world = World::start(folder.path(), &options).await;
    world.back_up().await;
    world.cluster.add_node(&options, "office", "witness");
    world.apply_layout().await;
    let layout = world.at_rest().await;
    assert_eq!((layout.nodes[2].duty.as_str(), layout.nodes[2].partitions), ("witness", 0));

    // One copy was enough so far: what is to survive the site has both.
    world.healed().await;
    world.cluster.nodes[0].kill();
    world.tenant.control("evolve", json!({ "seed": 7, "new": 30, "edited": 5 })).await;
    world.back_up().await;
    world.verifies().await;
    world.every_message_is_in_the_newest_snapshots().await;
    comes_back_after_a_wipe(&world).await;

    // Without the witness too there is no majority. It keeps what it was told, so with it there is one again.
    world.cluster.nodes[2].kill();
    world.tenant.control("evolve", json!({ "seed": 8, "new": 30, "edited": 5 })).await;
    let run = world.cluster.start_backup("contoso").await;
    let waiting = eventually("the jobs are under way", RUN_WITHIN, || async {
        let jobs = world.cluster.jobs(&run).await?;
        jobs.iter().any(|job| job.attempts > 0).then_some(jobs)
    });
    assert!(waiting.await.iter().all(|job| job.state != "done"), "something was committed by one of three");
    world.cluster.nodes[2].restart();
    accounts_add_up(&world.cluster.finished(&run, RUN_WITHIN).await);

    world.cluster.nodes[0].restart();
    world.healed().await;
    let nodes = eventually("both data sites have the same", MOVE_WITHIN, || async {
        let nodes = world.nodes().await?.nodes;
        (nodes[0].records == nodes[1].records).then_some(nodes)
    });
    let nodes = nodes.await;
    assert!(nodes[2].pins > 0 && nodes[2].records == 0, "{:?}", nodes[2]);
    world.cluster.nodes[1].kill();
    world.verifies().await;
}

/// One mailbox is emptied and restored from what the remaining site has.
async fn comes_back_after_a_wipe(world: &World) {
    let snapshot = world.cluster.newest_snapshots("contoso").await.remove(0);
    let user = snapshot.resource.trim_start_matches("user:").to_owned();
    let before = world.tenant.truth(&user).await.len();
    world.tenant.wipe(&user).await;
    let run = world.cluster.start_restore(&snapshot.id).await;
    world.cluster.finished(&run, RUN_WITHIN).await;
    assert!(before > 0);
    assert_eq!(world.tenant.truth(&user).await.len(), before);
}
