//! Storage nodes leave, are lost and come back while backups run, and nothing is missing afterwards.

use std::{path::Path, process::Output, time::Duration};

use harness::{Cluster, ClusterOptions, eventually, services::Services, sim};
use holdfast_model::Account;
use holdfast_proto::coordinator::{
    GetLayoutRequest, GetLayoutResponse, Job, ListNodesRequest, ListNodesResponse, StartVerifyRequest,
};
use serde_json::json;

const MAILBOXES: u32 = 3;
const MESSAGES_PER_MAILBOX: u32 = 30;
const TOTAL_BYTES: u64 = 8_000_000;
const RUN_WITHIN: Duration = Duration::from_secs(150);
const MOVE_WITHIN: Duration = Duration::from_secs(120);
/// Moves are compared and brought back without pauses.
const EAGER: &str = "capacity = \"100GiB\"\n[repair]\nretry-seconds = 1\nresync-tranquility = 0\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_under_load_and_switched_off_for_good_and_another_is_replaced_after_loss() {
    let folder = tempfile::tempdir().expect("a private folder");
    let mut world = World::start(folder.path()).await;
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

struct World {
    _services: Services,
    tenant: sim::SimTenant,
    cluster: Cluster,
}

impl World {
    async fn start(folder: &Path) -> Self {
        let services = Services::start(folder).await;
        let tenant = sim::SimTenant::start(sim::options(MAILBOXES, MESSAGES_PER_MAILBOX, TOTAL_BYTES)).await;
        let options = ClusterOptions {
            coordinators: 1,
            workers: 2,
            nodes: vec!["a", "a", "b", "b"],
            node: EAGER.to_owned(),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(folder, &services, &options).await;
        cluster.connect_tenant("contoso", &tenant.url()).await;
        let world = Self { _services: services, tenant, cluster };
        world.folders_are_known().await;
        world
    }

    /// The coordinator knows where every node keeps its state: only then a lost one can be told.
    async fn folders_are_known(&self) {
        eventually("the layout names every folder", MOVE_WITHIN, || async {
            let nodes = self.nodes().await?;
            let settled = nodes.nodes.iter().all(|node| node.state == "up" && node.reason.is_empty());
            (settled && self.layout().await.version >= 2).then_some(())
        })
        .await;
    }

    async fn back_up(&self) {
        let run = self.cluster.start_backup("contoso").await;
        accounts_add_up(&self.cluster.finished(&run, RUN_WITHIN).await);
    }

    async fn layout(&self) -> GetLayoutResponse {
        self.cluster.operator().get_layout(GetLayoutRequest {}).await.expect("the layout").into_inner()
    }

    async fn nodes(&self) -> Option<ListNodesResponse> {
        Some(self.cluster.operator().list_nodes(ListNodesRequest {}).await.ok()?.into_inner())
    }

    async fn at_rest(&self) -> GetLayoutResponse {
        eventually("the move ends", MOVE_WITHIN, || async {
            let layout = self.layout().await;
            (layout.partitions_moving == 0).then_some(layout)
        })
        .await
    }

    async fn verifies(&self) {
        let request = StartVerifyRequest { snapshot: String::new(), sample_percent: 100 };
        let run = self.cluster.operator().start_verify(request).await.expect("start a verification");
        let jobs = self.cluster.finished(&run.into_inner().run, RUN_WITHIN).await;
        accounts_add_up(&jobs);
        assert_eq!(jobs.len(), MAILBOXES as usize);
    }

    async fn every_message_is_in_the_newest_snapshots(&self) {
        for snapshot in self.cluster.newest_snapshots("contoso").await {
            let truth = self.tenant.truth(snapshot.resource.trim_start_matches("user:")).await;
            assert_eq!((snapshot.items, snapshot.items_missing), (truth.len() as u64, 0), "{snapshot:?}");
        }
    }
}

fn accounts_add_up(jobs: &[Job]) {
    for job in jobs {
        let account: Account = job.account.unwrap_or_default().into();
        assert!(
            account.adds_up() && !account.has_exceptions(),
            "{}: {account:?} {}",
            job.resource,
            job.message
        );
    }
}

/// What a command that succeeds prints.
fn text(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}
