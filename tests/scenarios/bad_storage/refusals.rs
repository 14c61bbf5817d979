//! What a storage node is given by mistake is refused with one clear line, and nothing of what is there changes.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness::{
    Cluster, ClusterOptions, PoolOptions, StoragePool, damage, eventually,
    lone_node::{LoneNode, fingerprint, one_clear_line, storage_node},
    process::{Process, binary},
    records::{Records, Sizes},
    services::Services,
    small_disk::ReadOnly,
    storage_pool::Writer,
};
use holdfast_model::{Replication, ResourceId, Role, TenantId};
use holdfast_proto::coordinator::{ListNodesRequest, Node};
use holdfast_repository::ChunkStore as _;
use holdfast_runtime::TlsOptions;
use holdfast_storage_client::StorageClientOptions;

const SOON: Duration = Duration::from_secs(60);
const FAILED: i32 = 1;
const BAD_CONFIGURATION: i32 = 64;

/// A node of its own whose data folder was used once.
struct World {
    _folder: tempfile::TempDir,
    alone: LoneNode,
    data: PathBuf,
}

impl World {
    async fn with_a_used_folder() -> Self {
        let folder = tempfile::tempdir().expect("a private folder");
        let alone = LoneNode::make(folder.path());
        let mut node = Process::start("node-1", folder.path(), {
            let config = alone.config("node-1", "data", alone.ports[0], alone.ports[1]);
            move || storage_node(&config)
        });
        listens(&node).await;
        assert_eq!(node.terminate(SOON), Some(0), "{}", node.output());
        let data = folder.path().join("data");
        Self { _folder: folder, alone, data }
    }

    /// The configuration of the node that the folder belongs to.
    fn own(&self) -> String {
        self.on(&self.data)
    }

    fn on(&self, data: &Path) -> String {
        self.alone.text(data, self.alone.ports[2], self.alone.ports[3])
    }

    /// Starting with a configuration fails so, and leaves every file of the used folder as it was.
    fn refused(&self, text: &str, exit: i32, says: &str) {
        let before = fingerprint(&self.data);
        let config = self.alone.write("refused", text);
        let output = storage_node(&config).output().expect("run holdfast");
        one_clear_line(&output, exit, says);
        assert_eq!(fingerprint(&self.data), before, "changed although '{says}'");
    }
}

async fn listens(node: &Process) {
    eventually("the node listens", SOON, || async { node.output().contains("listening").then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_of_somebody_else_is_left_alone() {
    let world = World::with_a_used_folder().await;
    // Another node comes with that node's certificate.
    let alone = &world.alone;
    let certificate = alone.certificate(Role::StorageNode, "node-2");
    let text = alone.text_with(&world.data, [alone.ports[2], alone.ports[3]], &certificate);
    world.refused(
        &text.replace("node-id = 1", "node-id = 2"),
        FAILED,
        "belongs to node 1 of cluster 'test', but this is node 2 of cluster 'test'",
    );

    // Another cluster's node comes with that cluster's certificate.
    let other = LoneNode::of_cluster(&world.alone.folder.join("other"), "other");
    let text = other.text(&world.data, other.ports[0], other.ports[1]);
    world.refused(
        &text,
        FAILED,
        "belongs to node 1 of cluster 'test', but this is node 1 of cluster 'other'",
    );

    let photos = world.alone.folder.join("photos");
    std::fs::create_dir(&photos).expect("make a folder");
    std::fs::write(photos.join("summer.jpg"), b"not ours").expect("write a file");
    let before = fingerprint(&photos);
    let says = "photos belongs to something else (it is not empty and has no marker), but this is node 1: give this node its own data folder";
    world.refused(&world.on(&photos), FAILED, says);
    assert_eq!(fingerprint(&photos), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_not_there_is_never_replaced_by_a_new_folder() {
    let world = World::with_a_used_folder().await;
    let folder = &world.alone.folder;
    let unmounted = folder.join("mnt/disk-1");
    let says = "disk-1/holdfast has no folder above it: mount its disk, or make that folder";
    world.refused(&world.on(&unmounted.join("holdfast")), FAILED, says);
    assert!(!folder.join("mnt").exists(), "nothing was made in its place");

    let file = folder.join("file");
    std::fs::write(&file, b"a file").expect("write a file");
    let says = "is a file, or below one: name a folder in `data`";
    world.refused(&world.on(&file), FAILED, says);
    world.refused(&world.on(&file.join("data")), FAILED, says);
    assert_eq!(std::fs::read(&file).expect("the file"), b"a file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_disk_is_named() {
    let world = World::with_a_used_folder().await;
    let empty = world.alone.folder.join("empty");
    std::fs::create_dir(&empty).expect("make a folder");
    for (folder, name) in [(&world.data, "used-read-only"), (&empty, "empty-read-only")] {
        let mounted = match ReadOnly::mount(folder, &world.alone.folder.join(name)) {
            Ok(mounted) => mounted,
            Err(reason) => {
                println!("SKIPPED: a read-only disk needs a mount of its own, and mount says: {reason}");
                return;
            }
        };
        let says = format!("{name} is on a disk that is mounted read-only: mount it writable");
        world.refused(&world.on(mounted.path()), FAILED, &says);
    }
    assert!(fingerprint(&empty).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_configuration_is_named_with_its_place() {
    let world = World::with_a_used_folder().await;
    let own = world.own();
    let refused = |from: &str, to: &str, says: &str| {
        assert!(own.contains(from), "{from}");
        world.refused(&own.replace(from, to), BAD_CONFIGURATION, says);
    };
    refused("node-id = 1", "node-id = ", "refused.toml:2:");
    refused("node-id = 1", "node-id = 1\nnod-id = 1", "unknown field `nod-id`");
    refused("node-id = 1", "node-id = \"one\"", "invalid type: string");
    refused("node-id = 1", "node-id = -1", "refused.toml:2:");
    refused("node-id = 1\n", "", "missing field `node-id`");
    refused("\"1GiB\"", "\"plenty\"", "'plenty' is not a size: write a whole number and");
    refused("\"1GiB\"", "\"0B\"", "capacity must be more than 0");
    refused("[tls]", "segment-target = \"1KiB\"\n[tls]", "segment-target must be at least 64KiB");
    refused("[tls]", "ingest-stop-percent = 100\n[tls]", "ingest-stop-percent must be between 1 and 99");
    refused("[tls]", "[repair]\nretry-seconds = 0\n[tls]", "repair.retry-seconds must be between 1 and 3600");
    refused("site = \"a\"", "site = \"\"", "site is empty: name the place where the node stands");
    let listen = format!("\"127.0.0.1:{}\"", world.alone.ports[2]);
    refused(&listen, "\"nowhere\"", "'nowhere' is not host:port");
    let output = storage_node(&world.alone.folder.join("none.toml")).output().expect("run holdfast");
    one_clear_line(&output, BAD_CONFIGURATION, "none.toml: check that it exists and may be read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_or_key_of_somebody_else_is_refused_before_the_folder_is_opened() {
    let world = World::with_a_used_folder().await;
    let alone = &world.alone;
    let with = |tls| alone.text_with(&world.data, [alone.ports[2], alone.ports[3]], &tls);
    let own = alone.certificate(Role::StorageNode, "node-1");
    let worker = alone.certificate(Role::Worker, "worker-1");
    let says = "is the certificate of a worker: give this storage-node one of its own";
    world.refused(&with(worker.clone()), BAD_CONFIGURATION, says);
    let node_2 = alone.certificate(Role::StorageNode, "node-2");
    let says = "tls.cert-file is the certificate of 'node-2': give this node the one of 'node-1'";
    world.refused(&with(node_2), BAD_CONFIGURATION, says);
    let mixed = TlsOptions { key_file: worker.key_file, ..own.clone() };
    world.refused(&with(mixed), BAD_CONFIGURATION, "cannot be used together");
    let other = LoneNode::of_cluster(&alone.folder.join("other"), "other");
    let other = other.certificate(Role::StorageNode, "node-1");
    world.refused(&with(other), BAD_CONFIGURATION, "belongs to cluster 'other', this process to 'test'");
    let missing = TlsOptions { ca_file: alone.folder.join("none.crt"), ..own };
    world.refused(&with(missing), BAD_CONFIGURATION, "none.crt");

    std::fs::write(alone.folder.join("junk.pub"), b"junk").expect("write a file");
    let junk = world.own().replace("signing.pub", "junk.pub");
    world.refused(&junk, BAD_CONFIGURATION, "junk.pub, which is not a raw Ed25519 public key");
    world.refused(&world.own().replace("signing.pub", "none.pub"), BAD_CONFIGURATION, "none.pub");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_of_a_newer_or_older_format_is_refused_and_kept() {
    let folder = tempfile::tempdir().expect("a private folder");
    let options = PoolOptions {
        sites: vec!["a"],
        replication: Replication { copies: 1, ack_sites: 1 },
        node: String::new(),
        client: StorageClientOptions::default(),
    };
    let mut pool = StoragePool::start(folder.path(), &options).await;
    let writer = Writer { tenant: TenantId([1; 16]), resource: ResourceId([2; 16]) };
    let records = Records { tenant: writer.tenant, seed: 1, sizes: Sizes::Mixed };
    let session = pool.open_session(writer, 1).await.expect("the node is up");
    session.put((0..20).map(|number| records.record(number)).collect()).await.expect("acknowledged");
    session.close().await;
    assert_eq!(pool.nodes[0].terminate(SOON), Some(0), "{}", pool.nodes[0].output());

    let (data, config) = (pool.node_data(0), folder.path().join("node-1.toml"));
    let segment = damage::segments(&data).remove(0);
    for (version, says) in [
        (2, "format 2 is newer than this holdfast reads (1): use a newer holdfast"),
        (0, "format 0 is a preview and is not read by this version"),
    ] {
        damage::set_version(&segment, version);
        let before = fingerprint(&data);
        let output = storage_node(&config).output().expect("run holdfast");
        one_clear_line(&output, FAILED, says);
        one_clear_line(&output, FAILED, &segment.to_string_lossy());
        assert_eq!(fingerprint(&data), before, "changed although {says}");
    }
    // Nothing was lost by being refused.
    damage::set_version(&segment, 1);
    pool.nodes[0].restart();
    pool.nodes_are_up().await;
    let ids: Vec<_> = (0..20).map(|number| records.id(number)).collect();
    let found = pool.reader(writer).get(&ids).await.expect("everything is there");
    assert!(found.iter().zip(0..).all(|(record, number)| records.is(number, record)));
}

// === Layouts ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layout_that_cannot_hold_is_refused_and_the_one_in_use_stays() {
    let folder = tempfile::tempdir().expect("a private folder");
    let services = Services::start(folder.path()).await;
    let options =
        ClusterOptions { coordinators: 1, workers: 0, nodes: vec!["a", "b"], ..ClusterOptions::default() };
    let mut cluster = Cluster::start(folder.path(), &services, &options).await;
    let before = nodes(&cluster).await;
    cluster.coordinators[0].kill();
    let config = folder.path().join("coordinator-1.toml");
    let own = std::fs::read_to_string(&config).expect("the configuration");
    for (from, to, says) in [
        ("copies = 2", "copies = 3", "the pool cannot be laid out: 3 copies need 3 sites"),
        ("site = \"b\"", "site = \"a\"", "2 copies need 2 sites"),
        ("100GiB", "0B", "2 copies need 2 sites with capacity, the pool 'default' has 0"),
        (
            "ack-sites = 2",
            "ack-sites = 3",
            "ack-sites is 3: it must be at least 1 and at most copies, which is 2",
        ),
        ("id = 2", "id = 1", "node-1 is listed twice: give each node an id of its own"),
    ] {
        assert!(own.contains(from), "{from}");
        std::fs::write(&config, own.replace(from, to)).expect("write the configuration");
        let mut command = Command::new(binary());
        let output = command.arg("coordinator").arg("--config").arg(&config).output().expect("run holdfast");
        one_clear_line(&output, BAD_CONFIGURATION, says);
    }
    std::fs::write(&config, &own).expect("write the configuration");
    cluster.coordinators[0].restart();
    cluster.nodes_are_up().await;
    let after = nodes(&cluster).await;
    let places = |nodes: &[Node]| nodes.iter().map(|node| (node.id, node.partitions)).collect::<Vec<_>>();
    assert_eq!(places(&after), places(&before), "the partitions are where they were");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_pool_does_not_name_is_told_to_the_operator() {
    let folder = tempfile::tempdir().expect("a private folder");
    let services = Services::start(folder.path()).await;
    let options =
        ClusterOptions { coordinators: 1, workers: 0, nodes: vec!["a", "b"], ..ClusterOptions::default() };
    let mut cluster = Cluster::start(folder.path(), &services, &options).await;
    cluster.nodes[1].kill();
    cluster.set_node_option(1, "node-id", "9");
    let tls = cluster.certificate(Role::StorageNode, "node-9");
    cluster.set_node_option(1, "cert-file", &format!("{:?}", tls.cert_file));
    cluster.set_node_option(1, "key-file", &format!("{:?}", tls.key_file));
    cluster.set_node_option(1, "data", &format!("{:?}", folder.path().join("node-9")));
    cluster.nodes[1].restart();
    let reason = eventually("the node is told to be another one", SOON, || async {
        let found = nodes(&cluster).await.into_iter().find(|node| node.id == 2)?;
        (found.state != "up" && found.reason.contains("node-9")).then_some(found.reason)
    })
    .await;
    assert!(
        reason.contains("instead of node-2: correct its `node-id`, or the address in the pool"),
        "{reason}"
    );
}

async fn nodes(cluster: &Cluster) -> Vec<Node> {
    cluster.operator().list_nodes(ListNodesRequest {}).await.expect("list the nodes").into_inner().nodes
}
