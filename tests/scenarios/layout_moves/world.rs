//! The world of the scenarios in which the layout changes.

use std::{path::Path, process::Output, time::Duration};

use harness::{Cluster, ClusterOptions, eventually, services::Services, sim};
use holdfast_model::Account;
use holdfast_proto::coordinator::{
    GetLayoutRequest, GetLayoutResponse, Job, ListNodesRequest, ListNodesResponse, StartVerifyRequest,
};

const MAILBOXES: u32 = 3;
const MESSAGES_PER_MAILBOX: u32 = 30;
const TOTAL_BYTES: u64 = 8_000_000;
pub const RUN_WITHIN: Duration = Duration::from_secs(150);
pub const MOVE_WITHIN: Duration = Duration::from_secs(120);
/// Moves are compared and brought back without pauses.
const EAGER: &str = "capacity = \"100GiB\"\n[repair]\nretry-seconds = 1\nresync-tranquility = 0\n";

/// One coordinator, two workers, storage nodes that lose no time.
pub fn options() -> ClusterOptions {
    ClusterOptions { coordinators: 1, workers: 2, node: EAGER.to_owned(), ..ClusterOptions::default() }
}

/// A cluster with a tenant that has mail.
pub struct World {
    _services: Services,
    pub tenant: sim::SimTenant,
    pub cluster: Cluster,
}

impl World {
    pub async fn start(folder: &Path, options: &ClusterOptions) -> Self {
        let services = Services::start(folder).await;
        let tenant = sim::SimTenant::start(sim::options(MAILBOXES, MESSAGES_PER_MAILBOX, TOTAL_BYTES)).await;
        let cluster = Cluster::start(folder, &services, options).await;
        cluster.connect_tenant("contoso", &tenant.url()).await;
        let world = Self { _services: services, tenant, cluster };
        world.folders_are_known().await;
        world
    }

    /// The coordinator knows where every node keeps its state: only then a lost one can be told.
    pub async fn folders_are_known(&self) {
        eventually("the layout names every folder", MOVE_WITHIN, || async {
            let nodes = self.nodes().await?;
            let settled = nodes.nodes.iter().all(|node| node.state == "up" && node.reason.is_empty());
            (settled && self.layout().await.version >= 2).then_some(())
        })
        .await;
    }

    pub async fn back_up(&self) {
        let run = self.cluster.start_backup("contoso").await;
        accounts_add_up(&self.cluster.finished(&run, RUN_WITHIN).await);
    }

    pub async fn layout(&self) -> GetLayoutResponse {
        self.cluster.operator().get_layout(GetLayoutRequest {}).await.expect("the layout").into_inner()
    }

    pub async fn nodes(&self) -> Option<ListNodesResponse> {
        Some(self.cluster.operator().list_nodes(ListNodesRequest {}).await.ok()?.into_inner())
    }

    pub async fn at_rest(&self) -> GetLayoutResponse {
        eventually("the move ends", MOVE_WITHIN, || async {
            let layout = self.layout().await;
            (layout.partitions_moving == 0).then_some(layout)
        })
        .await
    }

    /// Joins what is configured beside it: by the operator's command, once the coordinator knows of it.
    pub async fn apply_layout(&mut self) {
        self.cluster.coordinators[0].kill();
        self.cluster.coordinators[0].restart();
        let applied = eventually("the layout is put to use", MOVE_WITHIN, || async {
            let applied = self.cluster.holdfast(&["layout", "apply"]);
            applied.status.success().then(|| text(&applied))
        });
        let applied = applied.await;
        assert!(applied.contains("partitions get new owners"), "{applied}");
    }

    /// Every copy is where the layout wants it.
    pub async fn healed(&self) {
        eventually("every copy is where it should be", MOVE_WITHIN, || async {
            let nodes = self.nodes().await?.nodes;
            nodes.iter().all(|node| node.state == "up" && node.records_below_policy == 0).then_some(())
        })
        .await;
    }

    pub async fn verifies(&self) {
        let request = StartVerifyRequest { snapshot: String::new(), sample_percent: 100 };
        let run = self.cluster.operator().start_verify(request).await.expect("start a verification");
        let jobs = self.cluster.finished(&run.into_inner().run, RUN_WITHIN).await;
        accounts_add_up(&jobs);
        assert_eq!(jobs.len(), MAILBOXES as usize);
    }

    pub async fn every_message_is_in_the_newest_snapshots(&self) {
        for snapshot in self.cluster.newest_snapshots("contoso").await {
            let truth = self.tenant.truth(snapshot.resource.trim_start_matches("user:")).await;
            assert_eq!((snapshot.items, snapshot.items_missing), (truth.len() as u64, 0), "{snapshot:?}");
        }
    }
}

pub fn accounts_add_up(jobs: &[Job]) {
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
pub fn text(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}
