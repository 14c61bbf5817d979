//! Several coordinators serve, one decides: what happens when the one that decides is stopped, and when the catalog goes away.

use std::time::Duration;

use harness::{Cluster, ClusterOptions, eventually, services::Services, sim};
use holdfast_model::Account;
use holdfast_proto::coordinator::{
    GetRunRequest, GetStatusRequest, Job, ListAuditRequest, ListSnapshotsRequest,
};
use nix::sys::signal::Signal;
use serde_json::json;

const MAILBOXES: usize = 6;
const SOON: Duration = Duration::from_secs(60);
const RUN_WITHIN: Duration = Duration::from_secs(180);
/// What only a coordinator that decides writes into its log.
const DECISIONS: [&str; 5] = [
    "job dispatched",
    "the lease of a job ended",
    "a vanished worker",
    "this coordinator leads",
    "a new layout is stored",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_lost_its_term_decides_nothing_when_it_wakes() {
    let folder = tempfile::tempdir().expect("a private folder");
    let services = Services::start(folder.path()).await;
    let tenant = sim::SimTenant::start(sim::options(6, 40, 8_000_000)).await;
    tenant.control("options", json!({ "latency-ms": 60 })).await;
    let options =
        ClusterOptions { workers: 2, nodes: vec!["a", "b"], lease_seconds: 30, ..ClusterOptions::default() };
    let cluster = Cluster::start(folder.path(), &services, &options).await;
    cluster.connect_tenant("contoso", &tenant.url()).await;
    let old = usize::from(leader(&cluster, 0).await.starts_with("coordinator-2"));
    let new = 1 - old;

    let first = cluster.start_backup_at(new, "contoso").await;
    eventually("a job makes progress", SOON, || async {
        let jobs = jobs(&cluster, new, &first).await?;
        jobs.iter().any(|job| job.account.is_some_and(|account| account.stored > 0)).then_some(())
    })
    .await;
    cluster.coordinators[old].signal(Signal::SIGSTOP);
    let said_before = cluster.coordinators[old].output().len();
    let name = format!("coordinator-{}", new + 1);
    eventually("the other one leads", SOON, || async {
        leader(&cluster, new).await.starts_with(&name).then_some(())
    })
    .await;
    accounts_add_up(&finished(&cluster, new, &first).await);
    let second = cluster.start_backup_at(new, "contoso").await;
    cluster.coordinators[old].signal(Signal::SIGCONT);
    accounts_add_up(&finished(&cluster, new, &second).await);
    eventually("the old one notices", SOON, || async {
        cluster.coordinators[old].output()[said_before..].contains("the term is lost").then_some(())
    })
    .await;

    let said = cluster.coordinators[old].output()[said_before..].to_owned();
    for decision in DECISIONS {
        assert!(!said.contains(decision), "it decided: {said}");
    }
    assert!(leader(&cluster, old).await.starts_with(&name), "both know who leads");
    let request = ListSnapshotsRequest { tenant: "contoso".to_owned(), ..Default::default() };
    let snapshots =
        cluster.operator_at(old).list_snapshots(request).await.expect("the old one serves").into_inner();
    assert_eq!(snapshots.snapshots.len(), 2 * MAILBOXES, "one of each mailbox and run: {snapshots:?}");
    let audit = cluster.operator_at(old).list_audit(ListAuditRequest { newest: 1000 }).await;
    let audit = audit.expect("the audit trail").into_inner();
    assert!(audit.chain_intact);
    let claims = audit.rows.iter().filter(|row| row.action == "key.unwrap").count();
    assert!(claims >= 2 * MAILBOXES, "every claim is in the audit trail: {claims}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_is_ready_only_while_its_catalog_answers() {
    let folder = tempfile::tempdir().expect("a private folder");
    let mut services = Services::start(folder.path()).await;
    let options =
        ClusterOptions { coordinators: 1, workers: 1, nodes: vec!["a", "b"], ..ClusterOptions::default() };
    let mut cluster = Cluster::start(folder.path(), &services, &options).await;
    let generation = "holdfast:quota:generation";
    assert!(
        services.redis.has(generation).await,
        "whoever made the catalog says that nobody called Microsoft yet"
    );
    ready(&cluster, 200).await;

    services.postgres.kill();
    ready(&cluster, 503).await;
    services.postgres.restart().await;
    ready(&cluster, 200).await;

    services.redis.empty().await;
    cluster.coordinators[0].kill();
    cluster.coordinators[0].restart();
    ready(&cluster, 200).await;
    assert!(
        !services.redis.has(generation).await,
        "an emptied Redis is never taken for that of a new cluster"
    );
}

async fn ready(cluster: &Cluster, status: u16) {
    let url = format!("http://{}/readyz", cluster.admin_addresses[0]);
    eventually(&format!("/readyz answers {status}"), SOON, || async {
        let answer = reqwest::get(&url).await.ok()?;
        (answer.status().as_u16() == status).then_some(())
    })
    .await;
}

async fn leader(cluster: &Cluster, asked: usize) -> String {
    eventually("a coordinator leads", SOON, || async {
        let status = cluster
            .operator_at(asked)
            .get_status(GetStatusRequest { failed: false })
            .await
            .ok()?
            .into_inner();
        (!status.leader.is_empty()).then_some(status.leader)
    })
    .await
}

async fn jobs(cluster: &Cluster, asked: usize, run: &str) -> Option<Vec<Job>> {
    let request = GetRunRequest { run: run.to_owned() };
    Some(cluster.operator_at(asked).get_run(request).await.ok()?.into_inner().jobs)
}

async fn finished(cluster: &Cluster, asked: usize, run: &str) -> Vec<Job> {
    eventually(&format!("run {run} finishes"), RUN_WITHIN, || async {
        let jobs = jobs(cluster, asked, run).await?;
        let parked = jobs.iter().find(|job| job.state == "parked");
        assert!(parked.is_none(), "a job was parked: {parked:?}");
        jobs.iter().all(|job| job.state == "done").then_some(jobs)
    })
    .await
}

fn accounts_add_up(jobs: &[Job]) {
    assert_eq!(jobs.len(), MAILBOXES);
    for job in jobs {
        let account: Account = job.account.unwrap_or_default().into();
        assert!(account.adds_up() && !account.has_exceptions(), "{}: {account:?}", job.resource);
    }
}
