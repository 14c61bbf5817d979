//! A worker that was stopped while its job went to another commits nothing when it wakes.

use std::time::Duration;

use harness::{Cluster, ClusterOptions, services::Services, sim};
use nix::sys::signal::Signal;
use serde_json::json;

const RUN_WITHIN: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lost_its_lease_commits_nothing() {
    let folder = tempfile::tempdir().expect("a private folder");
    let services = Services::start(folder.path()).await;
    let tenant = sim::SimTenant::start(sim::options(1, 200, 20_000_000)).await;
    tenant.control("options", json!({ "latency-ms": 100 })).await;
    let options = ClusterOptions {
        coordinators: 1,
        workers: 2,
        lease_seconds: 5,
        slots: 1,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(folder.path(), &services, &options).await;
    cluster.connect_tenant("contoso", &tenant.url()).await;

    let run = cluster.start_backup("contoso").await;
    let holder = harness::eventually("a worker makes progress", Duration::from_secs(60), || async {
        let job = cluster.jobs(&run).await?.into_iter().next()?;
        (job.state == "running" && job.account.is_some_and(|account| account.stored > 0))
            .then_some(job.worker)
    })
    .await;
    let zombie = usize::from(holder.ends_with('2'));
    cluster.workers[zombie].signal(Signal::SIGSTOP);
    let jobs = cluster.finished(&run, RUN_WITHIN).await;
    let finisher = jobs[0].worker.clone();
    cluster.workers[zombie].signal(Signal::SIGCONT);

    assert_ne!(finisher, holder, "the other worker finished it");
    harness::eventually("the zombie drops the job", Duration::from_secs(60), || async {
        let output = cluster.workers[zombie].output();
        output.contains("dropped").then_some(())
    })
    .await;
    let snapshots = cluster.newest_snapshots("contoso").await;
    assert_eq!(snapshots.len(), 1);
    assert_eq!(snapshots[0].sequence, 1, "exactly one snapshot was committed");
}
