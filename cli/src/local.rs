//! A whole cluster on one machine: folders, certificates, keys and one configuration file per role, the same files a cluster
//! uses. `up` runs them in one process, `demo` with storage nodes as child processes.
//!
//! Everything is made once and kept: starting again on the same folder finds what is there. The folder is locked before anything in
//! it is read or written, so that a second `up` cannot rewrite the configuration of the first.

use std::{
    fs::{File, TryLockError},
    net::TcpListener,
    path::{Path, PathBuf},
};

use holdfast_model::Role;
use holdfast_proto::signed::Signer;
use holdfast_repository::KeyFile;
use holdfast_runtime::{SystemRandom, grpc::TlsOptions, pki::Pki};
use serde::{Deserialize, Serialize};

use crate::{client::Profile, error::CliError};

/// The cluster's name in every certificate of a local cluster.
const CLUSTER: &str = "local";
/// Shorter than a cluster's: with every third of it the worker tells how far it is, which is what a progress bar shows, and after a
/// `kill -9` its jobs go on after so long.
const LEASE_SECONDS: u64 = 15;
/// Whoever holds a lock on this file has the folder. The system lets go of it when the process ends, however it ends.
const LOCK_FILE: &str = "up.lock";

/// Where the storage nodes of a local cluster live and how much they may hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LocalOptions {
    /// Address of the coordinator, `host:port`; default `127.0.0.1:7400`.
    pub listen: String,
    /// Address of the admin port with /healthz, /readyz, /metrics; default `127.0.0.1:7401`.
    pub admin_listen: String,
    /// The site of each storage node; copies go to two sites. Default: two nodes in `site-a`, one in `site-b`.
    pub nodes: Vec<String>,
    /// The first port of the storage nodes; node n listens on first + n - 1. Default 7410.
    pub first_node_port: u16,
    /// How much each node may hold; default 1 TiB.
    pub node_capacity: String,
    /// Jobs at once; default 4.
    pub slots: u32,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7400".to_owned(),
            admin_listen: "127.0.0.1:7401".to_owned(),
            nodes: vec!["site-a".to_owned(), "site-a".to_owned(), "site-b".to_owned()],
            first_node_port: 7410,
            node_capacity: "1TiB".to_owned(),
            slots: 4,
        }
    }
}

impl LocalOptions {
    /// Free ports instead of the fixed ones, so that several clusters fit on one machine.
    pub fn on_free_ports(mut self) -> Result<Self, CliError> {
        // All listeners are held until every port is known, or two could be the same.
        let held = (0..=self.nodes.len() + 1)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<Vec<_>, _>>()?;
        let ports = held.iter().map(|l| l.local_addr().map(|a| a.port())).collect::<Result<Vec<_>, _>>()?;
        self.listen = format!("127.0.0.1:{}", ports[0]);
        self.admin_listen = format!("127.0.0.1:{}", ports[1]);
        self.first_node_port = 0;
        self.nodes =
            self.nodes.iter().zip(&ports[2..]).map(|(site, port)| format!("{site}@{port}")).collect();
        Ok(self)
    }

    /// (site, port) of each node.
    fn placed(&self) -> Vec<(String, u16)> {
        let place = |(entry, n): (&String, u16)| match entry.split_once('@') {
            Some((site, port)) => (site.to_owned(), port.parse().unwrap_or(0)),
            None => (entry.clone(), self.first_node_port + n),
        };
        self.nodes.iter().zip(0u16..).map(place).collect()
    }
}

/// The files of a local cluster.
pub struct LocalCluster {
    folder: PathBuf,
    /// One configuration file per storage node, and the node's site.
    pub nodes: Vec<LocalNode>,
    /// The coordinator's configuration file.
    pub coordinator: PathBuf,
    /// The worker's configuration file.
    pub worker: PathBuf,
    /// How an operator reaches it.
    pub profile: Profile,
    _lock: File,
}

/// One storage node of a local cluster.
pub struct LocalNode {
    /// Its failure domain.
    pub site: String,
    /// Its configuration file.
    pub config: PathBuf,
}

impl LocalCluster {
    /// Opens the cluster in a folder, making what is missing.
    pub fn open(folder: &Path, options: &LocalOptions) -> Result<Self, CliError> {
        std::fs::create_dir_all(folder.join("config"))?;
        // A node makes its own data folder, and nothing above it.
        std::fs::create_dir_all(folder.join("nodes"))?;
        let folder = std::path::absolute(folder)?;
        let lock = lock(&folder)?;
        let pki = Pki::open_or_create(&folder.join("pki"), CLUSTER).map_err(CliError::failed)?;
        make_key_file(&folder.join("key.json"))?;
        make_signing_key(&folder)?;
        let placed = options.placed();
        let mut nodes = Vec::new();
        for ((site, port), id) in placed.iter().zip(1u64..) {
            let tls = issue(&pki, Role::StorageNode, &format!("node-{id}"))?;
            let text = node_config(&folder, options, &tls, (id, site, *port));
            nodes.push(LocalNode {
                site: site.clone(),
                config: write_config(&folder, &format!("node-{id}"), &text)?,
            });
        }
        let coordinator_tls = issue(&pki, Role::Coordinator, "coordinator-1")?;
        let coordinator = coordinator_config(&folder, options, &coordinator_tls, &placed);
        let worker = worker_config(options, &issue(&pki, Role::Worker, "worker-1")?);
        let profile =
            Profile { server: options.listen.clone(), tls: issue(&pki, Role::Operator, "local-operator")? };
        Ok(Self {
            coordinator: write_config(&folder, "coordinator", &coordinator)?,
            worker: write_config(&folder, "worker", &worker)?,
            folder,
            nodes,
            profile,
            _lock: lock,
        })
    }

    /// The folder it lives in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn lock(folder: &Path) -> Result<File, CliError> {
    let path = folder.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CliError::failed(format!(
            "{} is in use by another `holdfast up`: stop it, or give this one its own folder with --data",
            folder.display()
        ))),
        Err(TryLockError::Error(error)) => {
            Err(CliError::failed(format!("cannot lock {}: {error}", path.display())))
        }
    }
}

fn issue(pki: &Pki, role: Role, name: &str) -> Result<TlsOptions, CliError> {
    pki.issue(role, name, &[]).map(|files| files.options()).map_err(CliError::failed)
}

fn make_key_file(path: &Path) -> Result<(), CliError> {
    if path.exists() {
        return Ok(());
    }
    KeyFile::generate(&SystemRandom).save(path).map_err(CliError::failed)
}

/// Makes the key that signs session tokens and commit tickets (`signing.key`, PKCS#8) and its public half for the storage nodes
/// (`signing.pub`, hexadecimal). Existing ones are kept.
pub fn make_signing_key(folder: &Path) -> Result<(), CliError> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let (private, public) = (folder.join("signing.key"), folder.join("signing.pub"));
    if private.exists() && public.exists() {
        return Ok(());
    }
    if private.exists() {
        return Err(CliError::failed(format!(
            "{} exists without its public half: move it away first",
            private.display()
        )));
    }
    let (pkcs8, raw) = Signer::generate().map_err(CliError::failed)?;
    std::fs::write(public, hex::encode(raw))?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(private)?;
    file.write_all(&pkcs8)?;
    file.sync_all()?;
    Ok(())
}

fn write_config(folder: &Path, name: &str, text: &str) -> Result<PathBuf, CliError> {
    let path = folder.join("config").join(format!("{name}.toml"));
    std::fs::write(&path, text)?;
    Ok(path)
}

/// A path or word as a TOML string.
fn quoted(value: impl AsRef<Path>) -> String {
    toml::Value::String(value.as_ref().to_string_lossy().into_owned()).to_string()
}

fn tls_table(tls: &TlsOptions) -> String {
    format!(
        "[tls]\ncert-file = {}\nkey-file = {}\nca-file = {}\n",
        quoted(&tls.cert_file),
        quoted(&tls.key_file),
        quoted(&tls.ca_file)
    )
}

fn node_config(
    folder: &Path,
    options: &LocalOptions,
    tls: &TlsOptions,
    (id, site, port): (u64, &String, u16),
) -> String {
    format!(
        "cluster = {}\nnode-id = {id}\nsite = {}\nlisten = \"127.0.0.1:{port}\"\ndata = {}\ncapacity = {}\ncoordinator-public-key-file = {}\n\n{}",
        quoted(CLUSTER),
        quoted(site),
        quoted(folder.join("nodes").join(format!("node-{id}"))),
        quoted(&options.node_capacity),
        quoted(folder.join("signing.pub")),
        tls_table(tls)
    )
}

fn coordinator_config(
    folder: &Path,
    options: &LocalOptions,
    tls: &TlsOptions,
    placed: &[(String, u16)],
) -> String {
    let mut text = format!(
        "cluster = {}\nname = \"coordinator-1\"\nlisten = {}\nadmin-listen = {}\ncatalog-url = {}\nkey-file = {}\nsigning-key-file = {}\nlease-seconds = {LEASE_SECONDS}\n\n{}\n[pool]\nname = \"default\"\ncopies = 2\nack-sites = 2\n",
        quoted(CLUSTER),
        quoted(&options.listen),
        quoted(&options.admin_listen),
        quoted(format!("sqlite://{}", folder.join("catalog.db").display())),
        quoted(folder.join("key.json")),
        quoted(folder.join("signing.key")),
        tls_table(tls)
    );
    for ((site, port), id) in placed.iter().zip(1u64..) {
        text.push_str(&format!(
            "\n[[pool.nodes]]\nid = {id}\nsite = {}\naddress = \"127.0.0.1:{port}\"\ncapacity = {}\n",
            quoted(site),
            quoted(&options.node_capacity)
        ));
    }
    text
}

fn worker_config(options: &LocalOptions, tls: &TlsOptions) -> String {
    format!(
        "cluster = {}\nname = \"worker-1\"\ncoordinators = [{}]\nslots = {}\n\n{}",
        quoted(CLUSTER),
        quoted(&options.listen),
        options.slots,
        tls_table(tls)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_refused_before_anything_in_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let first = LocalCluster::open(folder.path(), &LocalOptions::default()).unwrap();
        let before = std::fs::read(&first.coordinator).unwrap();
        let other = LocalOptions { listen: "127.0.0.1:9".to_owned(), ..LocalOptions::default() };
        let refused = LocalCluster::open(folder.path(), &other).err().unwrap();
        assert!(refused.to_string().contains("is in use by another `holdfast up`"), "{refused}");
        assert_eq!(refused.exit().code(), 1);
        assert_eq!(std::fs::read(&first.coordinator).unwrap(), before);
        drop(first);
        let again = LocalCluster::open(folder.path(), &other).unwrap();
        assert_ne!(std::fs::read(&again.coordinator).unwrap(), before);
    }
}
