//! One storage node in a process of its own, reached with mTLS: what the benches measure against.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use holdfast_model::{
    Epoch, Fence, Generation, JobId, Layout, LayoutNode, LayoutVersion, NodeId, Replication, ResourceId,
    Role, SessionClaims, SessionId, TenantId, Verb, Workload,
};
use holdfast_proto::signed::Signer;
use holdfast_runtime::{SystemClock, SystemRandom, pki::Pki};
use holdfast_storage_client::{SessionParams, StorageClient, StorageClientOptions, StorageSession};

use crate::{
    eventually,
    process::{Process, binary, free_ports},
};

const CLUSTER: &str = "bench";
const FAR_FUTURE_MS: u64 = 4_102_444_800_000;

/// A running node and a writing session on it.
pub struct SingleNode {
    pub process: Process,
    pub session: StorageSession,
    pub tenant: TenantId,
    pub resource: ResourceId,
}

impl SingleNode {
    /// Starts the node on a folder and opens a session that keeps one copy.
    pub async fn start(folder: &Path, tenant: TenantId, resource: ResourceId) -> Self {
        let pki = Pki::open_or_create(&folder.join("pki"), CLUSTER).expect("make certificates");
        let (private, public) = Signer::generate().expect("make a signing key");
        let signer = Signer::from_pkcs8(&private).expect("a fresh key");
        std::fs::write(folder.join("signing.pub"), hex::encode(public)).expect("write the public key");
        let [port] = free_ports();
        let process = start_node(folder, &pki, port);
        let nodes = vec![LayoutNode::new(NodeId(1), "bench".into(), format!("127.0.0.1:{port}"), 1 << 40)];
        let replication = Replication { copies: 1, ack_sites: 1 };
        let layout = Layout::compute(LayoutVersion(1), "bench".into(), replication, nodes).expect("one node");
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        let tls = |role: Role| pki.issue(role, "bench", &[]).expect("issue a certificate").options();
        let coordinator = StorageClient::new(
            StorageClientOptions::default(),
            tls(Role::Coordinator),
            clock.clone(),
            random.clone(),
        );
        eventually("the node takes the layout", Duration::from_secs(30), || async {
            let applied = coordinator.apply_layout(&layout, Generation(1), Epoch(1)).await;
            applied.iter().all(|(_, outcome)| outcome.is_ok()).then_some(())
        })
        .await;
        let claims = SessionClaims {
            tenant,
            pool: "bench".into(),
            resource,
            workload: Workload::Mail,
            job: JobId([7; 16]),
            fence: Fence { generation: Generation(1), attempt: 1 },
            epoch: Epoch(1),
            verbs: vec![Verb::Read, Verb::Write],
            expires_at_ms: FAR_FUTURE_MS,
        };
        let params = SessionParams {
            session: SessionId(1),
            tenant,
            resource,
            workload: Workload::Mail,
            base_pin: None,
        };
        let client = StorageClient::new(StorageClientOptions::default(), tls(Role::Worker), clock, random);
        let session =
            client.open_session(Arc::new(layout), signer.token(&claims), params).await.expect("a session");
        Self { process, session, tenant, resource }
    }
}

fn start_node(folder: &Path, pki: &Pki, port: u16) -> Process {
    let tls = pki.issue(Role::StorageNode, "node-1", &[]).expect("issue a certificate").options();
    let text = format!(
        "cluster = \"{CLUSTER}\"\nnode-id = 1\nsite = \"bench\"\nlisten = \"127.0.0.1:{port}\"\ndata = {:?}\ncapacity = \"1TiB\"\ncoordinator-public-key-file = {:?}\n[tls]\ncert-file = {:?}\nkey-file = {:?}\nca-file = {:?}\n",
        folder.join("data"),
        folder.join("signing.pub"),
        tls.cert_file,
        tls.key_file,
        tls.ca_file
    );
    let config = folder.join("node.toml");
    std::fs::write(&config, text).expect("write a configuration");
    Process::start("node", folder, move || {
        let mut command = Command::new(binary());
        command.arg("storage-node").arg("--config").arg(&config);
        command
    })
}
