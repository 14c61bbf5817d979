//! A cluster of separate processes on loopback: coordinators, workers and storage nodes with mTLS, on real services or embedded
//! ones.

mod grow;
mod runs;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use holdfast_model::Role;
use holdfast_proto::{
    coordinator::{
        AppRegistration, ConnectTenantRequest, GetStatusRequest, operator_api_client::OperatorApiClient,
    },
    signed::Signer,
};
use holdfast_repository::KeyFile;
use holdfast_runtime::{
    SystemRandom,
    grpc::{Channels, Connect as _, TlsConnect, TlsOptions, TracedChannel},
    pki::Pki,
};

use crate::{
    eventually,
    process::{Process, binary, free_ports},
    services::Services,
    sim::{CLIENT_ID, CLIENT_SECRET, MICROSOFT_TENANT},
};

const CLUSTER: &str = "test";
const START_WITHIN: Duration = Duration::from_secs(60);

/// How big a cluster is and how it behaves.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    pub coordinators: usize,
    pub workers: usize,
    /// The site of each storage node.
    pub nodes: Vec<&'static str>,
    pub lease_seconds: u64,
    pub slots: u32,
    /// Options of every worker beside its slots and its services, as TOML lines.
    pub worker: String,
    /// Whether workers share one quota ledger; otherwise each counts for itself.
    pub shares_quota: bool,
    /// The `[quota]` section of every worker, as TOML lines.
    pub quota: String,
    /// The `[storage]` section of every worker, as TOML lines; empty for the defaults.
    pub storage: String,
    /// Options of every storage node beside its place and certificates, as TOML lines.
    pub node: String,
    /// Nodes that keep a record.
    pub copies: u8,
    /// Sites that have a record before it is acknowledged.
    pub ack_sites: u8,
    /// The `[telemetry]` section of every process, as TOML lines; empty for the defaults.
    pub telemetry: String,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            coordinators: 2,
            workers: 3,
            nodes: vec!["a", "a", "b", "b"],
            lease_seconds: 8,
            slots: 3,
            worker: String::new(),
            shares_quota: true,
            // A dead worker's slots come back well before a test loses patience.
            quota: "slot-ttl-s = 15\n".to_owned(),
            storage: String::new(),
            node: "capacity = \"100GiB\"\n".to_owned(),
            copies: 2,
            ack_sites: 2,
            telemetry: String::new(),
        }
    }
}

/// The running cluster. Fields are public so that a scenario can kill what it wants.
pub struct Cluster {
    pub folder: PathBuf,
    pub coordinators: Vec<Process>,
    pub workers: Vec<Process>,
    pub nodes: Vec<Process>,
    pub addresses: Vec<String>,
    /// The admin port of each coordinator.
    pub admin_addresses: Vec<String>,
    /// Where the storage nodes listen.
    pub node_addresses: Vec<String>,
    pki: Pki,
    operator_tls: TlsOptions,
}

impl Cluster {
    /// Starts every process and comes back when a coordinator answers and every node is up.
    pub async fn start(folder: &Path, services: &Services, options: &ClusterOptions) -> Self {
        let files = Files::make(folder, services, options);
        let nodes =
            files.nodes.iter().map(|(name, config)| role(folder, name, "storage-node", config)).collect();
        let coordinators = files
            .coordinators
            .iter()
            .map(|(name, config)| role(folder, name, "coordinator", config))
            .collect();
        let workers =
            files.workers.iter().map(|(name, config)| role(folder, name, "worker", config)).collect();
        let operator_tls =
            files.pki.issue(Role::Operator, "test-operator", &[]).expect("issue a certificate").options();
        let cluster = Self {
            folder: folder.to_owned(),
            coordinators,
            workers,
            nodes,
            addresses: files.addresses,
            node_addresses: files.node_addresses,
            admin_addresses: files.admin_addresses,
            pki: files.pki,
            operator_tls,
        };
        cluster.nodes_are_up().await;
        cluster
    }

    /// Where a storage node keeps its data.
    pub fn node_data(&self, index: usize) -> PathBuf {
        self.folder.join(format!("node-{}", index + 1))
    }

    /// The configuration file of a storage node.
    pub fn node_config(&self, index: usize) -> PathBuf {
        self.folder.join(format!("node-{}.toml", index + 1))
    }

    /// Waits until every storage node answers and is part of the layout.
    pub async fn nodes_are_up(&self) {
        eventually("every storage node is up", START_WITHIN, || async {
            let status =
                self.operator().get_status(GetStatusRequest { failed: false }).await.ok()?.into_inner();
            (status.nodes > 0 && status.nodes_up == status.nodes && !status.leader.is_empty()).then_some(())
        })
        .await;
    }

    /// A client of the first coordinator that runs.
    pub fn operator(&self) -> OperatorApiClient<TracedChannel> {
        self.operator_at(0)
    }

    pub fn operator_at(&self, index: usize) -> OperatorApiClient<TracedChannel> {
        let connect = TlsConnect { tls: self.operator_tls.clone(), server_role: Role::Coordinator };
        let channel = connect.connect(&self.addresses[index]);
        OperatorApiClient::new(Channels::traced(channel.expect("valid certificates")))
    }

    /// A profile file for the command line.
    pub fn profile(&self) -> PathBuf {
        let path = self.folder.join("operator.toml");
        let tls = &self.operator_tls;
        let text = format!(
            "server = \"{}\"\n[tls]\ncert-file = {:?}\nkey-file = {:?}\nca-file = {:?}\n",
            self.addresses[0], tls.cert_file, tls.key_file, tls.ca_file
        );
        std::fs::write(&path, text).expect("write the profile");
        path
    }

    /// Runs the command line against this cluster.
    pub fn holdfast(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(binary());
        command.args(arguments).env("HOLDFAST_PROFILE", self.profile());
        command.output().expect("run holdfast")
    }

    /// A certificate of any role, for tests of what a role may not do.
    pub fn certificate(&self, role: Role, name: &str) -> TlsOptions {
        self.pki.issue(role, name, &[]).expect("issue a certificate").options()
    }

    pub async fn connect_tenant(&self, name: &str, graph_url: &str) {
        let app = AppRegistration {
            client_id: CLIENT_ID.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
            certificate_pem: String::new(),
        };
        let request = ConnectTenantRequest {
            name: name.to_owned(),
            microsoft_tenant: MICROSOFT_TENANT.to_owned(),
            backup_app: Some(app),
            restore_app: None,
            cloud: "global".to_owned(),
            graph_url: graph_url.to_owned(),
            login_url: graph_url.to_owned(),
        };
        self.operator().connect_tenant(request).await.expect("connect the tenant");
    }
}

fn role(folder: &Path, name: &str, role: &'static str, config: &Path) -> Process {
    let config = config.to_owned();
    Process::start(name, folder, move || {
        let mut command = Command::new(binary());
        command.arg(role).arg("--config").arg(&config);
        command
    })
}

/// Certificates, keys and one configuration file per process.
struct Files {
    pki: Pki,
    nodes: Vec<(String, PathBuf)>,
    coordinators: Vec<(String, PathBuf)>,
    workers: Vec<(String, PathBuf)>,
    addresses: Vec<String>,
    admin_addresses: Vec<String>,
    node_addresses: Vec<String>,
}

impl Files {
    fn make(folder: &Path, services: &Services, options: &ClusterOptions) -> Self {
        let pki = Pki::open_or_create(&folder.join("pki"), CLUSTER).expect("make certificates");
        KeyFile::generate(&SystemRandom).save(&folder.join("key.json")).expect("write the key file");
        let (private, public) = Signer::generate().expect("make a signing key");
        std::fs::write(folder.join("signing.key"), private).expect("write the signing key");
        std::fs::write(folder.join("signing.pub"), hex::encode(public)).expect("write the public key");
        let ports: [u16; 16] = free_ports();
        let (node_ports, coordinator_ports) = ports.split_at(10);
        let (ports, admin_ports) = coordinator_ports.split_at(3);
        let at = |ports: &[u16]| -> Vec<String> {
            ports[..options.coordinators].iter().map(|port| format!("127.0.0.1:{port}")).collect()
        };
        let (addresses, admin_addresses) = (at(ports), at(admin_ports));
        let write = |role: Role, name: String, text: String| {
            let path = write_config(folder, &pki, options, (role, &name), &text);
            (name, path)
        };
        let nodes = (1..=options.nodes.len())
            .map(|id| {
                let site = options.nodes[id - 1];
                write(
                    Role::StorageNode,
                    format!("node-{id}"),
                    node(folder, options, (id, site), node_ports[id - 1]),
                )
            })
            .collect();
        let coordinators = (0..options.coordinators)
            .map(|index| {
                let name = format!("coordinator-{}", index + 1);
                let text = coordinator(
                    folder,
                    services,
                    options,
                    [&name, &addresses[index], &admin_addresses[index]],
                    node_ports,
                );
                write(Role::Coordinator, name, text)
            })
            .collect();
        let workers = (1..=options.workers)
            .map(|index| {
                let name = format!("worker-{index}");
                let text = worker(services, options, &name, &addresses);
                write(Role::Worker, name, text)
            })
            .collect();
        let node_addresses = node_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Self { nodes, coordinators, workers, addresses, admin_addresses, node_addresses, pki }
    }
}

/// Writes a process's configuration, with a certificate of its own.
fn write_config(
    folder: &Path,
    pki: &Pki,
    options: &ClusterOptions,
    (role, name): (Role, &str),
    text: &str,
) -> PathBuf {
    let tls = pki.issue(role, name, &[]).expect("issue a certificate").options();
    let tls = format!(
        "[tls]\ncert-file = {:?}\nkey-file = {:?}\nca-file = {:?}\n",
        tls.cert_file, tls.key_file, tls.ca_file
    );
    let telemetry = match options.telemetry.as_str() {
        "" => String::new(),
        lines => format!("\n[telemetry]\n{lines}\n"),
    };
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, text.replace("{tls}", &tls) + &telemetry).expect("write a configuration");
    path
}

fn node(folder: &Path, options: &ClusterOptions, (id, site): (usize, &str), port: u16) -> String {
    format!(
        "cluster = \"{CLUSTER}\"\nnode-id = {id}\nsite = \"{site}\"\nlisten = \"127.0.0.1:{port}\"\ndata = {:?}\ncoordinator-public-key-file = {:?}\n{}{{tls}}",
        folder.join(format!("node-{id}")),
        folder.join("signing.pub"),
        options.node
    )
}

fn coordinator(
    folder: &Path,
    services: &Services,
    options: &ClusterOptions,
    [name, listen, admin]: [&str; 3],
    node_ports: &[u16],
) -> String {
    let mut text = format!(
        "cluster = \"{CLUSTER}\"\nname = \"{name}\"\nlisten = \"{listen}\"\nadmin-listen = \"{admin}\"\ncatalog-url = \"{}\"\nkey-file = {:?}\nsigning-key-file = {:?}\nredis-url = \"{}\"\nlease-seconds = {}\nterm-seconds = 5\nrepublish-after-seconds = 5\n\n[queue]\namqp-url = \"{}\"\n\n{{tls}}\n[pool]\nname = \"default\"\ncopies = {}\nack-sites = {}\n",
        services.postgres.url(),
        folder.join("key.json"),
        folder.join("signing.key"),
        services.redis.url(),
        options.lease_seconds,
        services.rabbit.url(),
        options.copies,
        options.ack_sites,
    );
    for (index, site) in options.nodes.iter().enumerate() {
        text.push_str(&pool_node(index + 1, site, &format!("127.0.0.1:{}", node_ports[index]), "data"));
    }
    text
}

/// A node in the `[pool]` section.
fn pool_node(id: usize, site: &str, address: &str, duty: &str) -> String {
    format!(
        "\n[[pool.nodes]]\nid = {id}\nsite = \"{site}\"\naddress = \"{address}\"\ncapacity = \"100GiB\"\nduty = \"{duty}\"\n"
    )
}

fn worker(services: &Services, options: &ClusterOptions, name: &str, addresses: &[String]) -> String {
    let ledger = match options.shares_quota {
        true => format!("redis-url = \"{}\"\n", services.redis.url()),
        false => String::new(),
    };
    format!(
        "cluster = \"{CLUSTER}\"\nname = \"{name}\"\ncoordinators = {addresses:?}\nslots = {}\n{ledger}{}\n[queue]\namqp-url = \"{}\"\n\n[quota]\n{}\n[storage]\n{}\n{{tls}}",
        options.slots,
        options.worker,
        services.rabbit.url(),
        options.quota,
        options.storage,
    )
}
