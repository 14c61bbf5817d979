//! Cost follows change, never the size of the mailbox: requests, contents, bytes and memory.
//!
//! The ignored ones are the same promises at the size that the figures are published for; `docs/performance.md` says how to run
//! them.

use std::{fmt::Write as _, path::Path, time::Duration};

use base64::Engine as _;
use harness::{Cluster, ClusterOptions, services::Services, sim};
use holdfast_model::Account;
use serde_json::json;

const CHANGES: u64 = 100;
const PAGE: u64 = 50;
/// What a run may ask for besides pages and changed messages.
const SPARE_REQUESTS: u64 = 10;
const MEAN_MESSAGE_BYTES: u64 = 20_000;

const HUGE_MESSAGE_BYTES: usize = 150_000_000;
const SMALL_MESSAGE_BYTES: u64 = 2_500;
const MEMORY_CEILING: u64 = 512 << 20;
const MIB: u64 = 1 << 20;

/// No limits of Microsoft's: neither the simulator refuses nor the worker waits.
const WITHOUT_LIMITS: &str = "mailbox-requests = 1000000000\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_costs_what_has_changed() {
    cost_follows_change(2_000, Duration::from_secs(120)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: the published size"]
async fn a_second_run_costs_what_has_changed_among_20_000_messages() {
    cost_follows_change(20_000, Duration::from_secs(1_200)).await;
}

async fn cost_follows_change(messages: u32, within: Duration) {
    let folder = tempfile::tempdir().expect("a private folder");
    let options = sim::options(1, messages, u64::from(messages) * MEAN_MESSAGE_BYTES);
    let mut mailbox = Mailbox::start(folder.path(), options).await;

    let first = mailbox.back_up(within).await;
    assert_eq!(first.account.stored, u64::from(messages));

    let nothing = mailbox.back_up(within).await;
    // Every folder is asked for its changes, and the answer is one page at least.
    let folders = nothing.requests_of("message_delta");
    let allowed = |entries: u64, changes: u64| {
        let pages = folders + entries / PAGE;
        folders + pages + 2 * changes + SPARE_REQUESTS
    };
    assert!(nothing.requests() <= allowed(0, 0), "{nothing:?}");
    assert_eq!((nothing.contents, nothing.account.stored), (0, 0));

    let share = CHANGES / 5;
    let five_kinds = json!({"new": share, "edited": share, "moved": share, "deleted": share, "flags": share});
    mailbox.evolve(five_kinds).await;
    let changed = mailbox.back_up(within).await;
    // A moved message is on two pages: where it was and where it is.
    let allowed_now = allowed(CHANGES + share, CHANGES);
    assert!(changed.requests() <= allowed_now, "more than {allowed_now} requests: {changed:?}");
    assert!(changed.contents <= 2 * share, "only new and edited messages are fetched: {changed:?}");
    assert_eq!(changed.account.removed, share);
    // 2 % where a hundred changes are half a percent; in a small mailbox they are more of it.
    let percent = 2.max(400 * share / u64::from(messages));
    let allowed_bytes = first.account.bytes_stored / 100 * percent;
    assert!(changed.account.bytes_stored <= allowed_bytes, "more than {percent} % of {first:?}: {changed:?}");

    mailbox.evolve(json!({"moved": 34, "deleted": 33, "flags": 33})).await;
    let quiet = mailbox.back_up(within).await;
    assert_eq!(quiet.contents, 0, "nothing of what was moved, deleted or flagged is fetched: {quiet:?}");
    assert!(quiet.requests() <= allowed(CHANGES + 34, CHANGES), "{quiet:?}");
    assert_eq!(quiet.account.removed, 33);

    println!(
        "first: {first}\nnothing changed: {nothing}\n100 changes: {changed}\n100 without content: {quiet}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: 50,000 messages"]
async fn a_huge_message_among_50_000_does_not_outgrow_the_worker() {
    let folder = tempfile::tempdir().expect("a private folder");
    let messages = folder.path().join("messages");
    write_huge_message(&messages);
    let mut options = sim::options(1, 50_000, 50_000 * SMALL_MESSAGE_BYTES);
    options.population.max_message_bytes = 4 * SMALL_MESSAGE_BYTES;
    options.population.eml_folder = Some(messages);
    let mut mailbox = Mailbox::start(folder.path(), options).await;

    let first = mailbox.back_up(Duration::from_secs(1_800)).await;
    let after_first = mailbox.worker_peak();
    mailbox.evolve(json!({"new": 20, "edited": 20, "moved": 20, "deleted": 20, "flags": 20})).await;
    let second = mailbox.back_up(Duration::from_secs(600)).await;

    println!("first: {first}, worker's peak {} MiB", after_first / MIB);
    println!("second: {second}, worker's peak {} MiB", mailbox.worker_peak() / MIB);
    assert_eq!(first.account.stored, 50_001);
    assert!(first.account.bytes_read > HUGE_MESSAGE_BYTES as u64 + 50_000 * 2_000, "{first:?}");
    assert!(mailbox.worker_peak() <= MEMORY_CEILING, "{} MiB", mailbox.worker_peak() / MIB);
}

/// One mailbox, and a cluster with one worker that protects it.
struct Mailbox {
    _services: Services,
    cluster: Cluster,
    tenant: sim::SimTenant,
    user: String,
    evolutions: u64,
}

/// What a run cost.
#[derive(Debug)]
struct Run {
    account: Account,
    requests: serde_json::Map<String, serde_json::Value>,
    contents: u64,
    took: Duration,
}

impl Mailbox {
    async fn start(folder: &Path, options: holdfast_graph_sim::SimOptions) -> Self {
        let services = Services::start(folder).await;
        let tenant = sim::SimTenant::start(options).await;
        tenant.control("options", json!({ "limits": { "enabled": false } })).await;
        let options = ClusterOptions {
            coordinators: 1,
            workers: 1,
            nodes: vec!["a", "b"],
            lease_seconds: 20,
            quota: WITHOUT_LIMITS.to_owned(),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(folder, &services, &options).await;
        cluster.connect_tenant("contoso", &tenant.url()).await;
        let user = tenant.users().remove(0);
        Self { _services: services, cluster, tenant, user, evolutions: 0 }
    }

    async fn evolve(&mut self, mut changes: serde_json::Value) {
        self.evolutions += 1;
        changes["seed"] = json!(self.evolutions);
        self.tenant.control("evolve", changes).await;
    }

    async fn back_up(&mut self, within: Duration) -> Run {
        self.tenant.control("reset-counters", json!({})).await;
        let started = std::time::Instant::now();
        let run = self.cluster.start_backup("contoso").await;
        let jobs = self.cluster.finished(&run, within).await;
        let took = started.elapsed();
        assert_eq!(jobs.len(), 1);
        let account: Account = jobs[0].account.unwrap_or_default().into();
        assert!(account.adds_up() && !account.has_exceptions(), "{account:?}");
        let counters = self.tenant.get("counters").await;
        let requests = counters["requests"][&self.user].as_object().cloned().unwrap_or_default();
        let contents = counters["content_requests"][&self.user].as_u64().unwrap_or(0);
        Run { account, requests, contents, took }
    }

    fn worker_peak(&self) -> u64 {
        self.cluster.workers[0].peak_memory_bytes()
    }
}

impl Run {
    /// All requests for the mailbox, as Microsoft counts them.
    fn requests(&self) -> u64 {
        self.requests.values().filter_map(serde_json::Value::as_u64).sum()
    }

    fn requests_of(&self, kind: &str) -> u64 {
        self.requests.get(kind).and_then(serde_json::Value::as_u64).unwrap_or(0)
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} requests, {} contents, {} bytes stored, {:.1} s",
            self.requests(),
            self.contents,
            self.account.bytes_stored,
            self.took.as_secs_f64()
        )
    }
}

/// A message file with one incompressible attachment.
fn write_huge_message(folder: &Path) {
    std::fs::create_dir(folder).expect("make a folder");
    let mut bytes = vec![0; HUGE_MESSAGE_BYTES / 78 * 57];
    blake3::Hasher::new().update(b"huge").finalize_xof().fill(&mut bytes);
    let mut text = String::with_capacity(HUGE_MESSAGE_BYTES + 4096);
    text.push_str(
        "From: Alex <alex@contoso.example>\r\nTo: Sam <sam@contoso.example>\r\nSubject: The drawings\r\n\
         Date: Fri, 30 Oct 2026 09:00:00 +0000\r\nMessage-ID: <huge@contoso.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nAll of them.\r\n\
         --b\r\nContent-Type: application/octet-stream; name=\"drawings.bin\"\r\n\
         Content-Disposition: attachment; filename=\"drawings.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n",
    );
    for line in bytes.chunks(57) {
        base64::engine::general_purpose::STANDARD.encode_string(line, &mut text);
        text.push_str("\r\n");
    }
    write!(text, "--b--\r\n").expect("a string takes everything");
    std::fs::write(folder.join("huge.eml"), text).expect("write the message");
}
