//! A big drive that many workers fetch, while the worker that lists it and one that helps are killed.

use std::{path::Path, time::Duration};

use harness::{Cluster, ClusterOptions, protected::WITHOUT_LIMITS, services::Services, sim};
use holdfast_graph_sim::{Population, SimLimits, SimOptions};
use holdfast_model::Account;
use holdfast_proto::coordinator::{GetJobRequest, Job, ListJobsRequest, ListSnapshotsRequest};
use serde_json::json;

const FILES: u32 = 1_500;
const SHARD_FILES: u64 = 200;
/// Slow enough that the run outlasts both kills.
const LATENCY_MS: u64 = 25;
const SOON: Duration = Duration::from_secs(60);
const RUN_WITHIN: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_drive_is_fetched_by_many_workers_whoever_of_them_is_killed() {
    let folder = tempfile::tempdir().expect("a private folder");
    let services = Services::start(folder.path()).await;
    let tenant = sim::SimTenant::start(a_drive()).await;
    tenant.control("options", json!({ "latency-ms": LATENCY_MS })).await;
    let mut cluster = Cluster::start(folder.path(), &services, &three_workers()).await;
    cluster.connect_tenant("contoso", &tenant.url()).await;

    let run = cluster.start_backup_of("contoso", &[], &["onedrive"]).await;
    let (parent, listing) = helped(&cluster, &run).await;
    cluster.workers[listing].kill();
    let helping = harness::eventually("another worker fetches a shard", SOON, || async {
        let shards = shards_of(&cluster, &parent).await?;
        let mut running = shards.iter().filter(|shard| shard.state == "running").map(worker_of);
        running.find(|helping| *helping != listing)
    })
    .await;
    cluster.workers[helping].kill();
    cluster.workers[listing].restart();
    cluster.workers[helping].restart();
    let jobs = cluster.finished(&run, RUN_WITHIN).await;

    assert_eq!(jobs.len(), 1, "a run is what was asked for, however it is split");
    assert_eq!(jobs[0].attempts, 2, "the backup went on in a second attempt: {:?}", jobs[0]);
    the_account_adds_up(&tenant, &jobs[0]).await;
    nothing_is_left_of_shards(&cluster, &parent).await;
    what_is_stored_is_what_is_there(folder.path(), &cluster, &tenant).await;
    let counters = tenant.get("counters").await;
    assert_eq!(counters["early_after_429"], 0, "{counters}");
}

fn a_drive() -> SimOptions {
    let mut options = sim::options(1, 0, 0);
    options.population = Population {
        drive_files_per_user: FILES,
        drive_file_bytes: 3_000,
        drive_max_file_bytes: 30_000,
        ..options.population
    };
    options.limits = SimLimits { enabled: false, ..options.limits };
    options
}

/// Each does one thing at a time, so that who lists helps nobody.
fn three_workers() -> ClusterOptions {
    ClusterOptions {
        coordinators: 1,
        workers: 3,
        lease_seconds: 4,
        slots: 1,
        worker: format!(
            "drive-shard-files = {SHARD_FILES}\ncheckpoint-every = {{ items = {SHARD_FILES}, seconds = 5 }}\n"
        ),
        quota: format!("slot-ttl-s = 15\n{WITHOUT_LIMITS}"),
        ..ClusterOptions::default()
    }
}

/// The backup, once others fetch for it, and the index of the worker that lists.
async fn helped(cluster: &Cluster, run: &str) -> (String, usize) {
    harness::eventually("other workers help", SOON, || async {
        let parent = cluster.jobs(run).await?.into_iter().next()?;
        let shards = shards_of(cluster, &parent.id).await?;
        let n_with_others = shards.iter().filter(|shard| ["running", "done"].contains(&shard.state.as_str()));
        (parent.state == "running" && n_with_others.count() >= 2)
            .then(|| (parent.id.clone(), worker_of(&parent)))
    })
    .await
}

async fn shards_of(cluster: &Cluster, parent: &str) -> Option<Vec<Job>> {
    let request = GetJobRequest { job: parent.to_owned() };
    Some(cluster.operator().get_job(request).await.ok()?.into_inner().shards)
}

/// `worker-2` is at 1.
fn worker_of(job: &Job) -> usize {
    let number = job.worker.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
    number.expect("a running job names its worker") - 1
}

async fn the_account_adds_up(tenant: &sim::SimTenant, job: &Job) {
    let account: Account = job.account.unwrap_or_default().into();
    let truth = truth(tenant).await;
    assert!(account.adds_up() && !account.has_exceptions(), "{account:?}");
    // The drive's root is listed as well.
    assert_eq!((account.listed, account.stored), (truth.len() as u64 + 1, truth.len() as u64 + 1));
    let downloads: u64 = tenant.get("counters").await["requests"]
        .as_object()
        .expect("requests by user")
        .values()
        .filter_map(|kinds| kinds["drive_download"].as_u64())
        .sum();
    println!("{FILES} files, {downloads} downloads, {account:?}");
    // What the killed ones had under way, and what they did not get to tell: never all of it again.
    assert!(downloads >= u64::from(FILES) && downloads <= u64::from(FILES) + 5 * SHARD_FILES, "{downloads}");
}

async fn nothing_is_left_of_shards(cluster: &Cluster, parent: &str) {
    assert_eq!(shards_of(cluster, parent).await, Some(Vec::new()));
    let jobs = cluster.operator().list_jobs(ListJobsRequest::default()).await.expect("list jobs");
    let left: Vec<Job> = jobs.into_inner().jobs.into_iter().filter(|job| !job.parent.is_empty()).collect();
    assert_eq!(left, Vec::new());
}

async fn truth(tenant: &sim::SimTenant) -> Vec<serde_json::Value> {
    let user = tenant.users().remove(0);
    tenant.handle.truth_of("onedrive", &user).await.expect("the user has a drive")
}

async fn what_is_stored_is_what_is_there(folder: &Path, cluster: &Cluster, tenant: &sim::SimTenant) {
    let request = ListSnapshotsRequest {
        tenant: "contoso".to_owned(),
        workload: "onedrive".to_owned(),
        ..Default::default()
    };
    let snapshots = cluster.operator().list_snapshots(request).await.expect("list snapshots");
    let snapshots = snapshots.into_inner().snapshots;
    assert_eq!(
        snapshots.iter().map(|one| one.sequence).collect::<Vec<_>>(),
        [1],
        "one snapshot, committed once"
    );
    let out = folder.join("export");
    let (id, to) = (snapshots[0].id.as_str(), out.to_str().expect("a plain path"));
    let exported = cluster.holdfast(&["export", id, "--format", "files", "--out", to, "--wait"]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let files = truth(tenant).await.into_iter().filter(|one| one["kind"] == "file").collect::<Vec<_>>();
    assert_eq!(files.len(), FILES as usize);
    // By content: a name that a file system does not take is exported as another.
    let mut expected: Vec<_> =
        files.iter().filter_map(|file| file["blake3"].as_str().map(str::to_owned)).collect();
    let mut found = contents_below(&out);
    expected.sort();
    found.sort();
    assert!(found == expected, "{} files exported, {} are there", found.len(), expected.len());
}

fn contents_below(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the export's folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let contents = |path: std::path::PathBuf| match path.is_dir() {
        true => contents_below(&path),
        false => vec![blake3::hash(&std::fs::read(&path).expect("an exported file")).to_hex().to_string()],
    };
    paths.flat_map(contents).collect()
}
