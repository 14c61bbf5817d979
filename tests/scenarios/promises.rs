//! The promises of the design, each under its name, on one cluster of real processes.
//!
//! Promise 10, kill anything at any time, is the scenario `cluster_under_faults`. Promises 8 and 9, that nobody shortens a lock
//! and that the storage alone is enough, are not kept yet and have no test here.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, process::Command, time::Duration};

use base64::Engine as _;
use harness::{Cluster, ClusterOptions, eventually, services::Services, sim};
use holdfast_graph_sim::{TruthMessage, differences};
use holdfast_model::Account;
use holdfast_proto::coordinator::{
    BrowseRequest, GetJobRequest, GetStatusRequest, Job, ListSnapshotsRequest, Snapshot, StartVerifyRequest,
};
use serde_json::{Value, json};

const MAILBOXES: usize = 3;
const RUN_WITHIN: Duration = Duration::from_secs(180);
const MEMORY_CEILING: u64 = 512 << 20;
/// A message of about this size is in one of the mailboxes.
const LARGE_MESSAGE_BYTES: usize = 60_000_000;
const LARGE_MESSAGE_SAYS: &str = "All of them are attached below.";
/// What a run may ask for besides pages and changed messages.
const SPARE_REQUESTS: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_design_promises_holds() {
    let folder = tempfile::tempdir().expect("a private folder");
    let messages = folder.path().join("messages");
    write_large_message(&messages);
    let mut world = World::start(folder.path(), &messages).await;

    let first = promise_1_no_silent_loss(&world).await;
    promise_4_bounded_memory(&world);
    promise_5_quota_is_neither_wasted_nor_exceeded(&world).await;
    let complete = promise_1_the_next_run_retries_what_failed(&world).await;
    promise_6_committed_means_durable(&mut world).await;
    promise_3_cost_follows_change(&world, &first).await;
    promise_2_every_snapshot_is_a_full(&world, &complete).await;
    promise_7_storage_sees_neither_plaintext_nor_keys(&world, &messages, &complete);
}

/// Every message in which something was not readable is listed, and nothing else is missing.
async fn promise_1_no_silent_loss(world: &World) -> Vec<Job> {
    world
        .tenant
        .control("options", json!({ "faults": { "rate-429": 0.03, "rate-corrupt-item": 0.06 } }))
        .await;
    let truth = world.truths().await;
    let jobs = world.back_up().await;
    let mut failed = 0;
    for job in &jobs {
        let account = account(job);
        assert!(account.adds_up(), "{account:?}");
        let user = job.resource.trim_start_matches("user:").to_owned();
        assert_eq!(account.listed, truth[&user].len() as u64, "every message of {user} was listed");
        let lost = account.failed_retryable + account.failed_permanent;
        assert_eq!(account.stored + lost, account.listed, "{account:?}");
        let answer = world.cluster.operator().get_job(GetJobRequest { job: job.id.clone() }).await;
        let listed = answer.expect("the job").into_inner().failed;
        assert_eq!(listed.len() as u64, lost, "each is named: {listed:?}");
        assert!(listed.iter().all(|item| !item.code.is_empty() && !item.id.is_empty()), "{listed:?}");
        failed += lost;
    }
    assert!(failed > 0, "the simulator made some unreadable");
    let missing: u64 = world.newest().await.values().map(|snapshot| snapshot.items_missing).sum();
    assert_eq!(missing, failed, "the snapshots say what is missing");
    jobs
}

async fn promise_1_the_next_run_retries_what_failed(world: &World) -> Complete {
    world.tenant.control("options", json!({ "faults": { "rate-429": 0.0, "rate-corrupt-item": 0.0 } })).await;
    world.tenant.control("reset-counters", json!({})).await;
    let jobs = world.back_up().await;
    for job in &jobs {
        let account = account(job);
        assert!(account.adds_up() && !account.has_exceptions(), "{account:?}");
    }
    let snapshots = world.newest().await;
    assert!(snapshots.values().all(|snapshot| snapshot.items_missing == 0), "{snapshots:?}");
    Complete { truth: world.truths().await, snapshots }
}

/// The snapshot before the changes gives back the mailbox as it was then; the later ones need not be there for it.
async fn promise_2_every_snapshot_is_a_full(world: &World, complete: &Complete) {
    // The large message is in the first mailbox: this one comes back in seconds.
    let (user, before) = complete.truth.iter().next_back().expect("there are mailboxes");
    let old = &complete.snapshots[&format!("user:{user}")];
    let newest = world.newest().await[&format!("user:{user}")].clone();
    assert!(newest.sequence > old.sequence, "there are later ones");
    let now = world.tenant.truth(user).await;
    assert!(!differences(before, &now).is_empty(), "the mailbox has changed since");

    let browse = BrowseRequest { snapshot: old.id.clone(), limit: 500, ..Default::default() };
    let entries = world.cluster.operator().browse(browse).await.expect("browse it").into_inner().entries;
    assert!(entries.iter().any(|entry| entry.name == "Inbox"), "{entries:?}");
    world.tenant.wipe(user).await;
    let run = world.cluster.start_restore(&old.id).await;
    let jobs = world.cluster.finished(&run, RUN_WITHIN).await;
    assert!(!account(&jobs[0]).has_exceptions(), "{jobs:?}");
    let found = differences(before, &world.tenant.truth(user).await);
    assert!(found.is_empty(), "{} differences: {:#?}", found.len(), &found[..found.len().min(10)]);
}

async fn promise_3_cost_follows_change(world: &World, first: &[Job]) {
    world.tenant.control("reset-counters", json!({})).await;
    let nothing = world.back_up().await;
    assert!(nothing.iter().all(|job| account(job).stored == 0), "{nothing:?}");
    let counters = world.tenant.get("counters").await;
    assert_eq!(sum(&counters["content_requests"]), 0, "{counters}");
    for user in world.tenant.users() {
        let requests = &counters["requests"][&user];
        let folders = requests["message_delta"].as_u64().unwrap_or(0);
        // Every folder is asked for its changes, and the answer is one page at least.
        assert!(sum(requests) <= 2 * folders + SPARE_REQUESTS, "{user}: {requests}");
    }
    let changes = json!({"seed": 3, "new": 3, "edited": 3, "moved": 3, "deleted": 3, "flags": 3});
    world.tenant.control("evolve", changes).await;
    let changed = world.back_up().await;
    let bytes = |jobs: &[Job]| jobs.iter().map(|job| account(job).bytes_stored).sum::<u64>();
    assert!(bytes(&changed) > 0 && bytes(&changed) < bytes(first) / 10, "{changed:?}");
}

fn promise_4_bounded_memory(world: &World) {
    let peaks: Vec<u64> =
        world.cluster.workers.iter().map(harness::process::Process::peak_memory_bytes).collect();
    assert!(peaks.iter().all(|peak| *peak > 0 && *peak <= MEMORY_CEILING), "{peaks:?}");
}

async fn promise_5_quota_is_neither_wasted_nor_exceeded(world: &World) {
    let counters = world.tenant.get("counters").await;
    assert!(counters["throttled_429"].as_u64() > Some(0), "Microsoft throttled: {counters}");
    assert_eq!(counters["early_after_429"], 0, "Retry-After is law: {counters}");
    let in_flight = counters["max_in_flight"].as_object().expect("a map");
    let most = in_flight.values().filter_map(Value::as_u64).max().unwrap_or(0);
    assert!((2..=4).contains(&most), "{in_flight:?}");
}

/// The moment a run is done, every node is killed: what was committed is all there when they are back.
async fn promise_6_committed_means_durable(world: &mut World) {
    let changes = json!({"seed": 2, "new": 4, "edited": 4, "moved": 2, "deleted": 0, "flags": 0});
    world.tenant.control("evolve", changes).await;
    world.back_up().await;
    for node in &mut world.cluster.nodes {
        node.kill();
    }
    for node in &mut world.cluster.nodes {
        node.restart();
    }
    eventually("every node is up again", RUN_WITHIN, || async {
        let status =
            world.cluster.operator().get_status(GetStatusRequest { failed: false }).await.ok()?.into_inner();
        (status.nodes_up == status.nodes).then_some(())
    })
    .await;
    let snapshots = world.newest().await;
    assert!(
        snapshots.values().all(|snapshot| snapshot.copies == 2),
        "measured, not remembered: {snapshots:?}"
    );
    let everything = StartVerifyRequest { snapshot: String::new(), sample_percent: 100 };
    let run =
        world.cluster.operator().start_verify(everything).await.expect("start to verify").into_inner().run;
    let jobs = world.cluster.finished(&run, RUN_WITHIN).await;
    assert_eq!(jobs.len(), MAILBOXES);
    for job in &jobs {
        let account = account(job);
        assert!(account.stored > 0 && account.adds_up() && !account.has_exceptions(), "{account:?}");
    }
}

/// Neither a subject, an address, a name, a text nor a key is on the nodes' disks.
fn promise_7_storage_sees_neither_plaintext_nor_keys(world: &World, messages: &Path, complete: &Complete) {
    let mut known = vec![LARGE_MESSAGE_SAYS.to_owned(), sim::CLIENT_SECRET.to_owned()];
    known.extend(world.tenant.users());
    for message in complete.truth.values().flatten() {
        known.extend(Some(message.subject.clone()).filter(|subject| subject.len() >= 12));
        known.push(message.internet_message_id.clone());
    }
    known.retain(|text| text.len() >= 8);
    assert!(known.len() > 100, "{}", known.len());
    let keys = keys_of(&world.cluster.folder.join("key.json"));
    assert!(!keys.is_empty(), "the key file holds keys");
    known.extend(keys.iter().cloned());
    let patterns = world.cluster.folder.join("known");
    std::fs::write(&patterns, known.join("\n")).expect("write what is known");
    let texts = |at: &Path| grep(Command::new("grep").arg("-rlaF").arg("-f").arg(&patterns).arg(at));
    assert_eq!(texts(messages).lines().count(), 1, "what is looked for is found where it is");
    let raw: Vec<String> = keys.iter().map(|key| raw_pattern(key)).collect();
    let raw = raw.join("|");
    for number in 1..=world.cluster.nodes.len() {
        let disk = world.cluster.folder.join(format!("node-{number}"));
        assert_eq!(texts(&disk), "", "plaintext on a node");
        assert_eq!(grep(Command::new("grep").args(["-rlaP", &raw]).arg(&disk)), "", "a key on a node");
    }
}

/// The files in which `grep` finds something.
fn grep(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C").output().expect("run grep");
    assert!(output.status.code() < Some(2), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every key in the key file, in hexadecimal.
fn keys_of(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("the key file");
    let words = text.split(|c: char| !c.is_ascii_hexdigit());
    words.filter(|word| word.len() == 64).map(str::to_owned).collect()
}

fn raw_pattern(key: &str) -> String {
    let mut pattern = String::new();
    for byte in hex::decode(key).expect("hexadecimal") {
        write!(pattern, "\\x{byte:02x}").expect("a string takes everything");
    }
    pattern
}

/// What the tenant held when the snapshots were made that hold all of it.
struct Complete {
    truth: BTreeMap<String, Vec<TruthMessage>>,
    snapshots: BTreeMap<String, Snapshot>,
}

struct World {
    _services: Services,
    tenant: sim::SimTenant,
    cluster: Cluster,
}

impl World {
    async fn start(folder: &Path, messages: &Path) -> Self {
        let services = Services::start(folder).await;
        let mut options = sim::options(3, 60, 12_000_000);
        options.population.eml_folder = Some(messages.to_owned());
        let tenant = sim::SimTenant::start(options).await;
        let options = ClusterOptions {
            coordinators: 1,
            workers: 2,
            nodes: vec!["a", "b"],
            lease_seconds: 30,
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(folder, &services, &options).await;
        cluster.connect_tenant("contoso", &tenant.url()).await;
        Self { _services: services, tenant, cluster }
    }

    async fn back_up(&self) -> Vec<Job> {
        let run = self.cluster.start_backup("contoso").await;
        let jobs = self.cluster.finished(&run, RUN_WITHIN).await;
        assert_eq!(jobs.len(), MAILBOXES);
        jobs
    }

    /// The newest snapshot of each resource.
    async fn newest(&self) -> BTreeMap<String, Snapshot> {
        let request = ListSnapshotsRequest { tenant: "contoso".to_owned(), ..Default::default() };
        let all = self.cluster.operator().list_snapshots(request).await.expect("list snapshots").into_inner();
        let mut newest = BTreeMap::<String, Snapshot>::new();
        for snapshot in all.snapshots {
            let known = newest.get(&snapshot.resource).map_or(0, |known| known.sequence);
            if snapshot.sequence > known {
                newest.insert(snapshot.resource.clone(), snapshot);
            }
        }
        newest
    }

    async fn truths(&self) -> BTreeMap<String, Vec<TruthMessage>> {
        let mut truths = BTreeMap::new();
        for user in self.tenant.users() {
            truths.insert(user.clone(), self.tenant.truth(&user).await);
        }
        truths
    }
}

fn account(job: &Job) -> Account {
    job.account.unwrap_or_default().into()
}

/// The sum of a JSON map of numbers.
fn sum(map: &Value) -> u64 {
    map.as_object().map_or(0, |map| map.values().filter_map(Value::as_u64).sum())
}

/// A message file with one incompressible attachment.
fn write_large_message(folder: &Path) {
    std::fs::create_dir(folder).expect("make a folder");
    let mut bytes = vec![0; LARGE_MESSAGE_BYTES / 78 * 57];
    blake3::Hasher::new().update(b"large").finalize_xof().fill(&mut bytes);
    let mut text = format!(
        "From: Alex <alex@contoso.example>\r\nTo: Sam <sam@contoso.example>\r\nSubject: The drawings\r\n\
         Date: Fri, 30 Oct 2026 09:00:00 +0000\r\nMessage-ID: <large@contoso.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
         {LARGE_MESSAGE_SAYS}\r\n--b\r\nContent-Type: application/octet-stream; name=\"drawings.bin\"\r\n\
         Content-Disposition: attachment; filename=\"drawings.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    for line in bytes.chunks(57) {
        base64::engine::general_purpose::STANDARD.encode_string(line, &mut text);
        text.push_str("\r\n");
    }
    text.push_str("--b--\r\n");
    std::fs::write(folder.join("large.eml"), text).expect("write the message");
}
