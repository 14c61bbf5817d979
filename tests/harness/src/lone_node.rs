//! A storage node without a cluster around it: its configuration, and what the command says when it is started by hand.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use holdfast_model::Role;
use holdfast_proto::signed::Signer;
use holdfast_runtime::{grpc::TlsOptions, pki::Pki};

use crate::process::{binary, free_ports};

/// What a lone node's configuration is made from.
pub struct LoneNode {
    pub folder: PathBuf,
    pub ports: [u16; 4],
    cluster: &'static str,
    pki: Pki,
}

impl LoneNode {
    /// Makes certificates and a public key in a folder, for the cluster `test`.
    pub fn make(folder: &Path) -> Self {
        Self::of_cluster(folder, "test")
    }

    /// The same for any cluster.
    pub fn of_cluster(folder: &Path, cluster: &'static str) -> Self {
        let pki = Pki::open_or_create(&folder.join("pki"), cluster).expect("make certificates");
        let (_, public) = Signer::generate().expect("make a signing key");
        std::fs::write(folder.join("signing.pub"), hex::encode(public)).expect("write the public key");
        Self { folder: folder.to_owned(), ports: free_ports(), cluster, pki }
    }

    /// The files of a certificate of any role.
    pub fn certificate(&self, role: Role, name: &str) -> TlsOptions {
        self.pki.issue(role, name, &[]).expect("issue a certificate").options()
    }

    /// The configuration of node 1 on a data folder.
    pub fn text(&self, data: &Path, listen: u16, admin: u16) -> String {
        self.text_with(data, [listen, admin], &self.certificate(Role::StorageNode, "node-1"))
    }

    /// The same with other certificate files.
    pub fn text_with(&self, data: &Path, [listen, admin]: [u16; 2], tls: &TlsOptions) -> String {
        format!(
            "cluster = \"{}\"\nnode-id = 1\nsite = \"a\"\nlisten = \"127.0.0.1:{listen}\"\nadmin-listen = \"127.0.0.1:{admin}\"\ndata = {data:?}\ncapacity = \"1GiB\"\ncoordinator-public-key-file = {:?}\n[tls]\ncert-file = {:?}\nkey-file = {:?}\nca-file = {:?}\n",
            self.cluster,
            self.folder.join("signing.pub"),
            tls.cert_file,
            tls.key_file,
            tls.ca_file
        )
    }

    /// Writes a configuration file.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(format!("{name}.toml"));
        std::fs::write(&path, text).expect("write the configuration");
        path
    }

    /// Writes the configuration of node 1 on a data folder beside it.
    pub fn config(&self, name: &str, data: &str, listen: u16, admin: u16) -> PathBuf {
        self.write(name, &self.text(&self.folder.join(data), listen, admin))
    }
}

/// Starts a storage node with a configuration.
pub fn storage_node(config: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("storage-node").arg("--config").arg(config);
    command
}

/// The command failed with this exit code, and with one line that says what to do.
pub fn one_clear_line(output: &Output, exit: i32, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "one line of error, with '{says}', instead of: {stderr}");
    assert!(errors[0].contains(says), "'{says}' is not in: {}", errors[0]);
    assert_eq!(output.status.code(), Some(exit), "{stderr}");
}

/// Everything below a folder by its path: of a file its length and hash, nothing of a folder.
pub fn fingerprint(folder: &Path) -> BTreeMap<PathBuf, Option<(u64, String)>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("list a folder") {
            let path = entry.expect("list a folder").path();
            if path.is_dir() {
                found.insert(path.clone(), None);
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("read a file");
                let hash = blake3::hash(&bytes).to_hex().to_string();
                found.insert(path, Some((bytes.len() as u64, hash)));
            }
        }
    }
    found
}
