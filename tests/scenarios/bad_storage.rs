//! Storage that is full, damaged or already in use gets one clear line that says what to do, and nothing acknowledged is lost.

mod refusals;

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use harness::{
    Cluster, ClusterOptions,
    damage::{self, FoundRecord},
    eventually,
    lone_node::{LoneNode, one_clear_line, storage_node},
    process::{Process, binary, free_ports},
    services::Services,
    sim,
    small_disk::SmallDisk,
};
use holdfast_graph_sim::{TruthMessage, differences};
use holdfast_model::Account;
use holdfast_proto::coordinator::{GetJobRequest, Job, StartVerifyRequest};
use holdfast_record::RecordKind;
use serde_json::json;

const MAILBOXES: u32 = 2;
const MESSAGES_PER_MAILBOX: u32 = 15;
const TOTAL_BYTES: u64 = 4_000_000;
const RUN_WITHIN: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(60);
/// A worker gives a job back well before it is parked after five attempts.
const GIVE_UP_SOON: &str = "retry-for = \"2s\"\n";
const SMALL_DISK_BYTES: u64 = 48 << 20;
/// More than the 1 % at which the node stops by itself, less than what is written next.
const LEFT_BYTES: u64 = 900 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_is_told_to_the_operator_and_the_backup_goes_on_when_it_has_room() {
    let folder = tempfile::tempdir().expect("a private folder");
    let mut world = World::start(folder.path(), &small_cluster()).await;
    world.back_up().await;
    world.reconfigure_node(0, "capacity", "\"1MiB\"").await;
    let stops = "ingest stops, reads and pins go on";
    assert_eq!(lines_with(&world.cluster.nodes[0], stops), 1, "told once");
    let told = world.cluster.nodes[0].output();
    assert!(
        told.lines().any(|line| line.contains(stops) && line.contains("raise `capacity`")),
        "with what to do: {told}"
    );

    let run = world.start_a_larger_backup().await;
    let job = world.given_back(&run, "full").await;
    assert!(job.message.contains("node-1 (capacity ") && job.message.contains("raise `capacity`"), "{job:?}");
    let shown = world.cluster.holdfast(&["jobs", &job.id]);
    assert_eq!(shown.status.code(), Some(0));
    assert!(stdout(&shown).contains("raise `capacity`"), "{}", stdout(&shown));
    let nodes = stdout(&world.cluster.holdfast(&["nodes"]));
    assert!(nodes.lines().any(|line| line.contains("node-1") && line.contains("disk is full")), "{nodes}");
    assert!(nodes.lines().any(|line| line.contains("node-2") && !line.contains("full")), "{nodes}");
    let status = world.cluster.holdfast(&["status"]);
    assert_eq!(status.status.code(), Some(3), "{}", stdout(&status));
    assert!(stdout(&status).contains("storage: 1 node is full"), "{}", stdout(&status));
    world.verifies().await;

    world.reconfigure_node(0, "capacity", "\"100GiB\"").await;
    accounts_add_up(&world.cluster.finished(&run, RUN_WITHIN).await);
    world.every_message_is_in_the_newest_snapshots().await;
    world.verifies().await;
    // What was acknowledged is on the node that was full, too.
    world.cluster.nodes[1].kill();
    world.verifies().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_in_the_middle_of_a_write_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a private folder");
    let disk = match SmallDisk::mount(&folder.path().join("node-1"), SMALL_DISK_BYTES) {
        Ok(disk) => disk,
        Err(reason) => {
            println!("SKIPPED: a real full disk needs a file system of its own, and mount says: {reason}");
            return;
        }
    };
    let options = ClusterOptions {
        node: "capacity = \"100GiB\"\ningest-stop-percent = 99\n".to_owned(),
        ..small_cluster()
    };
    let mut world = World::start(folder.path(), &options).await;
    world.back_up().await;
    disk.fill(LEFT_BYTES);
    let run = world.start_a_larger_backup().await;
    let job = world.given_back(&run, "full").await;
    assert!(job.message.contains("node-1 (disk "), "{job:?}");
    assert!(lines_with(&world.cluster.nodes[0], "ingest stops, reads and pins go on") >= 1);
    world.verifies().await;

    // Killed while it is full, it serves what it acknowledged, and says nothing about damage.
    world.cluster.nodes[0].kill();
    world.cluster.nodes[0].restart();
    world.cluster.nodes_are_up().await;
    world.cluster.nodes[1].kill();
    world.verifies().await;
    world.cluster.nodes[1].restart();

    disk.make_room();
    accounts_add_up(&world.cluster.finished(&run, RUN_WITHIN).await);
    world.every_message_is_in_the_newest_snapshots().await;
    world.cluster.nodes[1].kill();
    world.verifies().await;
    assert_eq!(lines_with(&world.cluster.nodes[0], "damage"), 0, "{}", world.cluster.nodes[0].output());
    assert_eq!(lines_with(&world.cluster.nodes[0], "poisoned"), 0, "{}", world.cluster.nodes[0].output());
    drop(world);
    drop(disk);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_reported_read_around_and_named_where_no_copy_is_left() {
    let folder = tempfile::tempdir().expect("a private folder");
    let mut world = World::start(folder.path(), &small_cluster()).await;
    world.back_up().await;
    let found = "damage found in segments";

    // One record in one copy.
    stop(&mut world.cluster.nodes[0]);
    let victim = largest_content(&world.cluster.node_data(0));
    damage::flip(&victim);
    world.cluster.nodes[0].restart();
    world.cluster.nodes_are_up().await;
    assert_eq!(lines_with(&world.cluster.nodes[0], found), 1, "{}", world.cluster.nodes[0].output());
    assert_eq!(lines_with(&world.cluster.nodes[0], "`holdfast verify --all`"), 1, "with what to do");
    world.node_1_reports_damage();
    world.verifies().await;

    // The end of a segment that was acknowledged is gone from the same copy.
    stop(&mut world.cluster.nodes[0]);
    let segment = damage::segments(&world.cluster.node_data(0)).remove(0);
    let len = std::fs::metadata(&segment).expect("the segment").len();
    damage::truncate(&segment, len / 2);
    world.cluster.nodes[0].restart();
    world.cluster.nodes_are_up().await;
    assert_eq!(lines_with(&world.cluster.nodes[0], found), 2, "{}", world.cluster.nodes[0].output());
    world.node_1_reports_damage();
    world.verifies().await;

    // The first record in the other copy too: nothing can give it back.
    stop(&mut world.cluster.nodes[1]);
    let other = damage::data_records(&world.cluster.node_data(1));
    damage::flip(other.iter().find(|record| record.id == victim.id).expect("both sites have the record"));
    world.cluster.nodes[1].restart();
    world.cluster.nodes_are_up().await;
    let lost = world.verify_names_what_is_lost().await;
    assert!(!lost.is_empty(), "the damaged record belongs to a message");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_names_what_no_copy_has_and_gives_back_everything_else() {
    let folder = tempfile::tempdir().expect("a private folder");
    let mut world = World::start(folder.path(), &small_cluster()).await;
    world.back_up().await;
    let victim = largest_content(&world.cluster.node_data(0));
    for index in 0..2 {
        stop(&mut world.cluster.nodes[index]);
        let records = damage::data_records(&world.cluster.node_data(index));
        damage::flip(records.iter().find(|record| record.id == victim.id).expect("both have the record"));
        world.cluster.nodes[index].restart();
    }
    world.cluster.nodes_are_up().await;
    let lost = world.verify_names_what_is_lost().await;
    world.everything_else_is_restored(&lost).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_and_a_folder_in_use_are_named_with_what_to_change() {
    let folder = tempfile::tempdir().expect("a private folder");
    let alone = LoneNode::make(folder.path());
    let running = Process::start("node", folder.path(), {
        let config = alone.config("node", "data", alone.ports[0], alone.ports[1]);
        move || storage_node(&config)
    });
    eventually("the node listens", SOON, || async { running.output().contains("listening").then_some(()) })
        .await;

    let config = alone.config("same-folder", "data", alone.ports[2], alone.ports[3]);
    one_clear_line(
        &storage_node(&config).output().expect("run holdfast"),
        1,
        "data/state.redb is in use by another process: stop the storage node that runs on it, or give this node a `data` folder",
    );
    let config = alone.config("same-port", "other", alone.ports[0], alone.ports[3]);
    let taken = |port: u16, option: &str| {
        format!(
            "127.0.0.1:{port} is already in use: stop the process that listens there or set another address in `{option}`"
        )
    };
    let output = storage_node(&config).output().expect("run holdfast");
    one_clear_line(&output, 1, &taken(alone.ports[0], "listen"));
    let config = alone.config("same-admin", "other", alone.ports[2], alone.ports[1]);
    let output = storage_node(&config).output().expect("run holdfast");
    one_clear_line(&output, 1, &taken(alone.ports[1], "admin-listen"));
    assert!(!running.output().contains("damage"), "the running node was left alone");
}

#[test]
fn up_names_the_address_that_is_taken() {
    let folder = tempfile::tempdir().expect("a private folder");
    let [listen, admin, one, two] = free_ports();
    for (held, advice) in [(listen, "another address"), (admin, "another address"), (two, "`listen`")] {
        let _taken = std::net::TcpListener::bind(("127.0.0.1", held)).expect("take the port");
        let config = folder.path().join("up.toml");
        let text = format!(
            "listen = \"127.0.0.1:{listen}\"\nadmin-listen = \"127.0.0.1:{admin}\"\nnodes = [\"a@{one}\", \"b@{two}\"]\nnode-capacity = \"1GiB\"\n"
        );
        std::fs::write(&config, text).expect("write the configuration");
        let data = folder.path().join(format!("up-{held}"));
        let mut command = Command::new(binary());
        command.arg("up").arg("--data").arg(&data).arg("--config").arg(&config).env("HOME", "/nonexistent");
        let output = command.output().expect("run holdfast");
        one_clear_line(&output, 1, &format!("127.0.0.1:{held} is already in use"));
        one_clear_line(&output, 1, advice);
    }
}

// === What the scenarios share ===

struct World {
    _services: Services,
    tenant: sim::SimTenant,
    cluster: Cluster,
}

fn small_cluster() -> ClusterOptions {
    ClusterOptions {
        coordinators: 1,
        workers: 1,
        nodes: vec!["a", "b"],
        storage: GIVE_UP_SOON.to_owned(),
        ..ClusterOptions::default()
    }
}

impl World {
    async fn start(folder: &Path, options: &ClusterOptions) -> Self {
        let services = Services::start(folder).await;
        let options_of_sim = sim::options(MAILBOXES, MESSAGES_PER_MAILBOX, TOTAL_BYTES);
        let tenant = sim::SimTenant::start(options_of_sim).await;
        let cluster = Cluster::start(folder, &services, options).await;
        cluster.connect_tenant("contoso", &tenant.url()).await;
        Self { _services: services, tenant, cluster }
    }

    async fn back_up(&self) {
        let run = self.cluster.start_backup("contoso").await;
        accounts_add_up(&self.cluster.finished(&run, RUN_WITHIN).await);
    }

    /// A run that has a few megabytes to store.
    async fn start_a_larger_backup(&self) -> String {
        self.tenant.control("evolve", json!({ "seed": 5, "new": 60, "edited": 10 })).await;
        self.cluster.start_backup("contoso").await
    }

    async fn reconfigure_node(&mut self, index: usize, option: &str, value: &str) {
        stop(&mut self.cluster.nodes[index]);
        self.cluster.set_node_option(index, option, value);
        self.cluster.nodes[index].restart();
        self.cluster.nodes_are_up().await;
    }

    /// A job of the run that waits to be tried again, with a reason.
    async fn given_back(&self, run: &str, reason: &str) -> Job {
        eventually("a job is given back", SOON, || async {
            let jobs = self.cluster.jobs(run).await?;
            assert!(jobs.iter().all(|job| job.state != "parked"), "{jobs:?}");
            jobs.into_iter().find(|job| job.state == "queued" && job.message.contains(reason))
        })
        .await
    }

    /// The newest snapshot of everybody reads back whole.
    async fn verifies(&self) {
        let jobs = self.verify().await;
        accounts_add_up(&jobs);
        assert_eq!(jobs.len(), MAILBOXES as usize);
    }

    async fn verify(&self) -> Vec<Job> {
        let request = StartVerifyRequest { snapshot: String::new(), sample_percent: 100 };
        let run = self.cluster.operator().start_verify(request).await.expect("start a verification");
        self.cluster.finished(&run.into_inner().run, RUN_WITHIN).await
    }

    async fn every_message_is_in_the_newest_snapshots(&self) {
        for snapshot in self.cluster.newest_snapshots("contoso").await {
            let user = snapshot.resource.trim_start_matches("user:");
            let truth = self.tenant.truth(user).await;
            assert_eq!((snapshot.items, snapshot.items_missing), (truth.len() as u64, 0), "{snapshot:?}");
        }
    }

    fn node_1_reports_damage(&self) {
        let nodes = stdout(&self.cluster.holdfast(&["nodes"]));
        let reported = |line: &str| line.contains("node-1") && line.contains("in quarantine");
        assert!(nodes.lines().any(reported), "{nodes}");
        assert!(nodes.lines().any(|line| line.contains("node-2") && !line.contains("quarantine")), "{nodes}");
    }

    /// `verify` ends with exceptions and lists each message that no copy can give back: their ids.
    async fn verify_names_what_is_lost(&self) -> BTreeSet<String> {
        let output = self.cluster.holdfast(&["verify", "--all", "--wait"]);
        assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
        let mut lost = BTreeSet::new();
        for job in self.verify().await {
            let account: Account = job.account.unwrap_or_default().into();
            assert!(account.adds_up(), "{account:?}");
            let request = GetJobRequest { job: job.id.clone() };
            let failed = self.cluster.operator().get_job(request).await.expect("the job").into_inner().failed;
            assert_eq!(failed.len() as u64, account.failed_permanent, "each is named: {failed:?}");
            let shown = stdout(&self.cluster.holdfast(&["jobs", &job.id]));
            for item in failed {
                assert_eq!(item.code, "unreadable", "{item:?}");
                assert!(shown.contains(&item.id), "{shown}");
                lost.insert(item.id);
            }
        }
        lost
    }

    /// A restore into empty mailboxes gives back every other message, names these and says so with its exit code.
    async fn everything_else_is_restored(&self, lost: &BTreeSet<String>) {
        let mut exits = BTreeSet::new();
        for snapshot in self.cluster.newest_snapshots("contoso").await {
            let user = snapshot.resource.trim_start_matches("user:").to_owned();
            let (there, gone): (Vec<TruthMessage>, Vec<TruthMessage>) =
                self.tenant.truth(&user).await.into_iter().partition(|message| !lost.contains(&message.id));
            self.tenant.wipe(&user).await;
            let output = self.cluster.holdfast(&["restore", &snapshot.id, "--wait"]);
            let expected = if gone.is_empty() { 0 } else { 3 };
            assert_eq!(output.status.code(), Some(expected), "{user}: {}", stdout(&output));
            exits.insert(expected);
            let found = differences(&there, &self.tenant.truth(&user).await);
            assert!(found.is_empty(), "{user}: {found:#?}");
        }
        assert!(exits.contains(&3), "somebody lost something");
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn lines_with(process: &Process, text: &str) -> usize {
    process.output().lines().filter(|line| line.contains(text)).count()
}

/// SIGTERM, and gone.
fn stop(process: &mut Process) {
    assert_eq!(process.terminate(Duration::from_secs(30)), Some(0), "{}", process.output());
}

/// The largest piece of content that is a record of its own.
fn largest_content(data: &Path) -> FoundRecord {
    let content = damage::data_records(data).into_iter().filter(|record| record.kind == RecordKind::Data);
    content.max_by_key(|record| record.len).expect("the node keeps content")
}

fn accounts_add_up(jobs: &[Job]) {
    for job in jobs {
        let account: Account = job.account.unwrap_or_default().into();
        assert!(account.adds_up(), "{}: {account:?}", job.resource);
        assert!(!account.has_exceptions(), "{}: {account:?} {}", job.resource, job.message);
    }
}
