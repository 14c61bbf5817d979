//! The main job on a cluster of separate processes, while everything that can be killed is killed.

use std::{collections::BTreeMap, time::Duration};

use harness::{Cluster, ClusterOptions, services::Services, sim};
use holdfast_graph_sim::{TruthMessage, differences};
use serde_json::json;

const MAILBOXES: u32 = 30;
const MESSAGES_PER_MAILBOX: u32 = 40;
const TOTAL_BYTES: u64 = 60_000_000;
/// Slow enough that the run outlasts every fault.
const LATENCY_MS: u64 = 100;
const RUN_WITHIN: Duration = Duration::from_secs(420);
const NODE_AWAY: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_everything_is_backed_up_and_comes_back() {
    let folder = tempfile::tempdir().expect("a private folder");
    let mut services = Services::start(folder.path()).await;
    let tenant = sim::SimTenant::start(sim::options(MAILBOXES, MESSAGES_PER_MAILBOX, TOTAL_BYTES)).await;
    tenant.control("options", json!({ "latency-ms": LATENCY_MS })).await;
    let mut cluster = Cluster::start(folder.path(), &services, &ClusterOptions::default()).await;
    cluster.connect_tenant("contoso", &tenant.url()).await;

    let run = cluster.start_backup("contoso").await;
    break_everything(&mut cluster, &mut services, &run).await;
    let jobs = cluster.finished(&run, RUN_WITHIN).await;
    assert_eq!(jobs.len(), MAILBOXES as usize);
    accounts_add_up(&jobs);

    tenant
        .control(
            "evolve",
            json!({"seed": 7, "new": 40, "edited": 20, "moved": 20, "deleted": 20, "flags": 20}),
        )
        .await;
    let run = cluster.start_backup("contoso").await;
    accounts_add_up(&cluster.finished(&run, RUN_WITHIN).await);

    let before = truths(&tenant).await;
    for user in before.keys() {
        tenant.wipe(user).await;
    }
    let snapshots = cluster.newest_snapshots("contoso").await;
    assert_eq!(snapshots.len(), MAILBOXES as usize);
    for snapshot in &snapshots {
        assert_eq!(snapshot.sequence, 2, "one snapshot per run: {snapshot:?}");
        assert_eq!(snapshot.copies, 2, "two copies of {snapshot:?}");
    }
    let mut runs = Vec::new();
    for snapshot in &snapshots {
        runs.push(cluster.start_restore(&snapshot.id).await);
    }
    for run in &runs {
        accounts_add_up(&cluster.finished(run, RUN_WITHIN).await);
    }
    compare_all(&tenant, &before).await;
    nothing_forbidden_happened(&tenant).await;
}

/// kill -9 a worker, a storage node (back after ten seconds) and the leading coordinator, restart RabbitMQ, empty Redis: all
/// while the run goes on.
async fn break_everything(cluster: &mut Cluster, services: &mut Services, run: &str) {
    started(cluster, run).await;
    cluster.workers[0].kill();
    cluster.nodes[1].kill();
    services.redis.empty().await;
    tokio::time::sleep(NODE_AWAY).await;
    cluster.nodes[1].restart();
    cluster.workers[0].restart();
    still_running(cluster, run, "the leading coordinator is killed").await;
    let leader = leading(cluster).await;
    cluster.coordinators[leader].kill();
    still_running(cluster, run, "RabbitMQ is restarted").await;
    services.rabbit.restart().await;
    cluster.coordinators[leader].restart();
}

/// A fault after the run proves nothing.
async fn still_running(cluster: &Cluster, run: &str, before: &str) {
    let jobs =
        harness::eventually("a coordinator answers", Duration::from_secs(60), || cluster.jobs(run)).await;
    let unfinished = jobs.iter().filter(|job| job.state != "done").count();
    assert!(unfinished > 0, "the run was over before {before}");
    println!("{unfinished} of {} jobs unfinished when {before}", jobs.len());
}

async fn started(cluster: &Cluster, run: &str) {
    harness::eventually("a job has made progress", Duration::from_secs(120), || async {
        let jobs = cluster.jobs(run).await?;
        jobs.iter().any(|job| job.account.is_some_and(|account| account.stored > 0)).then_some(())
    })
    .await;
}

/// The index of the coordinator that holds the term.
async fn leading(cluster: &Cluster) -> usize {
    use holdfast_proto::coordinator::GetStatusRequest;
    let name = harness::eventually("a coordinator leads", Duration::from_secs(60), || async {
        let status =
            cluster.operator().get_status(GetStatusRequest { failed: false }).await.ok()?.into_inner();
        (!status.leader.is_empty()).then_some(status.leader)
    })
    .await;
    usize::from(name.ends_with('2'))
}

fn accounts_add_up(jobs: &[holdfast_proto::coordinator::Job]) {
    for job in jobs {
        let account: holdfast_model::Account = job.account.unwrap_or_default().into();
        assert!(account.adds_up(), "{}: {account:?}", job.resource);
        assert!(!account.has_exceptions(), "{}: {account:?}", job.resource);
    }
}

async fn truths(tenant: &sim::SimTenant) -> BTreeMap<String, Vec<TruthMessage>> {
    let mut truths = BTreeMap::new();
    for user in tenant.users() {
        let truth = tenant.truth(&user).await;
        truths.insert(user, truth);
    }
    assert!(truths.values().any(|messages| !messages.is_empty()), "the tenant has mail");
    truths
}

async fn compare_all(tenant: &sim::SimTenant, before: &BTreeMap<String, Vec<TruthMessage>>) {
    let mut found = Vec::new();
    for (user, before) in before {
        let after = tenant.truth(user).await;
        found
            .extend(differences(before, &after).into_iter().map(|difference| format!("{user} {difference}")));
    }
    assert!(found.is_empty(), "{} differences, the first: {:#?}", found.len(), &found[..found.len().min(10)]);
}

async fn nothing_forbidden_happened(tenant: &sim::SimTenant) {
    let counters = tenant.get("counters").await;
    assert_eq!(counters["would_have_sent_mail"], 0, "{counters}");
    assert_eq!(counters["early_after_429"], 0, "{counters}");
}
