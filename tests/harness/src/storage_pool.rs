//! A pool of storage nodes in processes of their own, reached with mTLS, and nothing else of a cluster: the test holds the
//! signing key, so it says who may write what, and asks every node by itself what it has.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use holdfast_model::{
    ChunkId, Epoch, Fence, Generation, JobId, Layout, LayoutNode, LayoutVersion, NodeId, PartitionId,
    Replication, ResourceId, Role, Sequence, SessionClaims, SessionId, SnapshotId, TenantId, Verb, Workload,
};
use holdfast_proto::{
    convert::Ticket,
    signed::{Signer, attach_token},
    storage::{
        CommitTicket, GetRequest, HoldsRequest, SessionToken, StatusRequest, StatusResponse,
        storage_node_client::StorageNodeClient, storage_repair_client::StorageRepairClient,
    },
};
use holdfast_record::{Pin, SealedRecord};
use holdfast_repository::StoreError;
use holdfast_runtime::{
    SystemClock, SystemRandom,
    grpc::{Channels, TlsOptions},
    pki::Pki,
};
use holdfast_storage_client::{
    ReadStore, SessionParams, StorageClient, StorageClientOptions, StorageSession,
};
use tonic::Status;

use crate::{
    eventually,
    process::{Process, binary, free_ports},
};

const CLUSTER: &str = "pool";
const POOL: &str = "pool";
const START_WITHIN: Duration = Duration::from_secs(60);
const FAR_FUTURE_MS: u64 = 4_102_444_800_000;
const NODES_MAX: usize = 8;
/// Keys in one question to a node.
const HOLDS_BATCH: usize = 4_096;
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const FENCE: Fence = Fence { generation: Generation(1), attempt: 1 };

/// How big a pool is and how it behaves.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// The site of each storage node.
    pub sites: Vec<&'static str>,
    pub replication: Replication,
    /// Options of every storage node beside its place and certificates, as TOML lines.
    pub node: String,
    pub client: StorageClientOptions,
}

/// Whose records and pins: one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    pub tenant: TenantId,
    pub resource: ResourceId,
}

/// The running pool. Fields are public so that a scenario can kill what it wants, and take the processes out to do so while
/// others use the pool.
pub struct StoragePool {
    pub nodes: Vec<Process>,
    pub layout: Arc<Layout>,
    pub folder: PathBuf,
    signer: Signer,
    as_coordinator: TlsOptions,
    as_worker: TlsOptions,
    as_node: TlsOptions,
    coordinator: StorageClient,
    worker: StorageClient,
}

impl StoragePool {
    /// Starts the nodes; comes back when each has the layout.
    pub async fn start(folder: &Path, options: &PoolOptions) -> Self {
        let pki = Pki::open_or_create(&folder.join("pki"), CLUSTER).expect("make certificates");
        let tls = |role: Role| pki.issue(role, "test", &[]).expect("issue a certificate").options();
        let (private, public) = Signer::generate().expect("make a signing key");
        std::fs::write(folder.join("signing.pub"), hex::encode(public)).expect("write the public key");
        let ports: [u16; NODES_MAX] = free_ports();
        let places: Vec<LayoutNode> = options
            .sites
            .iter()
            .zip(1..)
            .zip(ports)
            .map(|((site, id), port)| {
                LayoutNode::new(NodeId(id), (*site).into(), format!("127.0.0.1:{port}"), 1 << 40)
            })
            .collect();
        assert_eq!(places.len(), options.sites.len(), "at most {NODES_MAX} nodes");
        let layout = Layout::compute(LayoutVersion(1), POOL.into(), options.replication, places);
        let layout = Arc::new(layout.expect("a layout that holds"));
        let nodes = layout.nodes.iter().map(|place| start_node(folder, &pki, place, &options.node)).collect();
        let client = |role: Role| {
            StorageClient::new(
                options.client.clone(),
                tls(role),
                Arc::new(SystemClock),
                Arc::new(SystemRandom),
            )
        };
        let pool = Self {
            nodes,
            layout,
            folder: folder.to_owned(),
            signer: Signer::from_pkcs8(&private).expect("a fresh key"),
            as_coordinator: tls(Role::Coordinator),
            as_worker: tls(Role::Worker),
            as_node: tls(Role::StorageNode),
            coordinator: client(Role::Coordinator),
            worker: client(Role::Worker),
        };
        pool.takes_the_layout().await;
        pool
    }

    async fn takes_the_layout(&self) {
        eventually("every storage node takes the layout", START_WITHIN, || async {
            let applied = self.coordinator.apply_layout(&self.layout, Generation(1), Epoch(1)).await;
            applied.iter().all(|(_, outcome)| outcome.is_ok()).then_some(())
        })
        .await;
    }

    /// Where a storage node keeps its data.
    pub fn node_data(&self, index: usize) -> PathBuf {
        self.folder.join(format!("node-{}", index + 1))
    }

    /// The indexes of the nodes of a site.
    pub fn nodes_in(&self, site: &str) -> Vec<usize> {
        (0..self.layout.nodes.len()).filter(|index| self.layout.nodes[*index].site.0 == site).collect()
    }

    /// Waits until every storage node answers.
    pub async fn nodes_are_up(&self) {
        eventually("every storage node is up", START_WITHIN, || async {
            let statuses = self.statuses().await;
            statuses.iter().all(Result::is_ok).then_some(())
        })
        .await;
    }

    /// What every node says of itself, repair included.
    pub async fn statuses(&self) -> Vec<Result<StatusResponse, Status>> {
        futures::future::join_all((0..self.layout.nodes.len()).map(|index| self.status(index))).await
    }

    pub async fn status(&self, index: usize) -> Result<StatusResponse, Status> {
        let channel = self.channel(index, &self.as_coordinator);
        Ok(StorageNodeClient::new(channel).status(StatusRequest {}).await?.into_inner())
    }

    // === Writing and reading as a worker ===

    /// The session token of a writer's one job.
    pub fn token(&self, writer: Writer) -> SessionToken {
        self.signer.token(&SessionClaims {
            tenant: writer.tenant,
            pool: POOL.into(),
            resource: writer.resource,
            workload: Workload::Mail,
            job: JobId([7; 16]),
            fence: FENCE,
            epoch: Epoch(1),
            verbs: vec![Verb::Read, Verb::Write, Verb::Commit],
            expires_at_ms: FAR_FUTURE_MS,
        })
    }

    pub async fn open_session(&self, writer: Writer, id: u64) -> Result<StorageSession, StoreError> {
        let params = SessionParams {
            session: SessionId(id),
            tenant: writer.tenant,
            resource: writer.resource,
            workload: Workload::Mail,
            base_pin: None,
        };
        self.worker.open_session(self.layout.clone(), self.token(writer), params).await
    }

    pub fn reader(&self, writer: Writer) -> ReadStore {
        self.worker.reader(self.layout.clone(), self.token(writer), writer.tenant)
    }

    /// A pin of a writer with the ticket that commits it.
    pub fn pin(&self, writer: Writer, sequence: u64, root: ChunkId) -> (Pin, CommitTicket) {
        let pin = Pin {
            tenant: writer.tenant,
            resource: writer.resource,
            workload: Workload::Mail,
            sequence: Sequence(sequence),
            fence: FENCE,
            epoch: Epoch(1),
            snapshot: SnapshotId(sequence.to_be_bytes()),
            root,
            sealed_root: Bytes::from_static(b"sealed"),
            previous: None,
            created_ms: sequence,
            retain_until_ms: 0,
            items: sequence,
            items_missing: 0,
        };
        let ticket = self.signer.ticket(&Ticket {
            tenant: writer.tenant,
            resource: writer.resource,
            workload: Workload::Mail,
            sequence: pin.sequence,
            fence: FENCE,
            pin_hash: pin.hash(),
        });
        (pin, ticket)
    }

    /// All pins of a writer, each with the number of owners that showed it; fails unless a majority answers.
    pub async fn pins(&self, writer: Writer) -> Vec<(Pin, usize)> {
        let (layout, token) = (self.layout.clone(), self.token(writer));
        let read =
            self.worker.read_pins(layout, token, writer.tenant, writer.resource, Workload::Mail, 0).await;
        let view = read.expect("the owners answer");
        assert!(view.majority_answered && view.undecided.is_empty(), "{view:?}");
        view.pins
    }

    // === What one node has by itself ===

    /// Whether a node holds each of these records of a tenant, by its index.
    pub async fn holds(&self, index: usize, tenant: TenantId, ids: &[ChunkId]) -> Result<Vec<bool>, Status> {
        let channel = self.channel(index, &self.as_node);
        let mut client = StorageRepairClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut held = Vec::with_capacity(ids.len());
        for part in ids.chunks(HOLDS_BATCH) {
            let keys = part.iter().map(|id| Bytes::from([&tenant.0[..], &id.0[..]].concat())).collect();
            let answer = client.holds(HoldsRequest { keys }).await?.into_inner();
            assert_eq!(answer.held.len(), part.len(), "one answer per key");
            held.extend(answer.held.iter().map(|one| one.present));
        }
        Ok(held)
    }

    /// Reads records from one node alone, verified; `None` where it has none that is whole.
    pub async fn read_from(
        &self,
        index: usize,
        writer: Writer,
        ids: &[ChunkId],
    ) -> Result<Vec<Option<SealedRecord>>, Status> {
        let channel = self.channel(index, &self.as_worker);
        let mut client = StorageNodeClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let ids: Vec<Bytes> = ids.iter().map(|id| Bytes::copy_from_slice(&id.0)).collect();
        let (n, mut found) = (ids.len(), Vec::new());
        let mut request = tonic::Request::new(GetRequest { ids });
        attach_token(&mut request, &self.token(writer));
        let mut answers = client.get(request).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            found.extend(answer.records.into_iter().map(|bytes| {
                let record = SealedRecord::decode(bytes).ok()?;
                record.verify().is_ok().then_some(record)
            }));
        }
        assert_eq!(found.len(), n, "one answer per id");
        Ok(found)
    }

    /// Of these records, those that some owner lacks, by owner: nothing when every copy is where the layout wants it.
    pub async fn missing_copies(
        &self,
        tenant: TenantId,
        ids: &[ChunkId],
    ) -> Result<BTreeMap<NodeId, Vec<ChunkId>>, Status> {
        let mut missing = BTreeMap::new();
        for (index, node) in self.layout.nodes.iter().enumerate() {
            let owned = |id: &&ChunkId| self.layout.owns(node.id, PartitionId::of_chunk(**id));
            let owned: Vec<ChunkId> = ids.iter().filter(owned).copied().collect();
            let held = self.holds(index, tenant, &owned).await?;
            let lacks: Vec<ChunkId> =
                owned.into_iter().zip(held).filter(|(_, held)| !held).map(|(id, _)| id).collect();
            if !lacks.is_empty() {
                missing.insert(node.id, lacks);
            }
        }
        Ok(missing)
    }

    fn channel(&self, index: usize, tls: &TlsOptions) -> tonic::transport::Channel {
        Channels::connect(&self.layout.nodes[index].address, tls, Role::StorageNode)
            .expect("valid certificates")
    }
}

fn start_node(folder: &Path, pki: &Pki, place: &LayoutNode, more: &str) -> Process {
    let name = format!("node-{}", place.id.0);
    let tls = pki.issue(Role::StorageNode, &name, &[]).expect("issue a certificate").options();
    let text = format!(
        "cluster = \"{CLUSTER}\"\nnode-id = {}\nsite = \"{}\"\nlisten = \"{}\"\ndata = {:?}\ncapacity = \"1TiB\"\ncoordinator-public-key-file = {:?}\n{more}\n[tls]\ncert-file = {:?}\nkey-file = {:?}\nca-file = {:?}\n",
        place.id.0,
        place.site,
        place.address,
        folder.join(&name),
        folder.join("signing.pub"),
        tls.cert_file,
        tls.key_file,
        tls.ca_file
    );
    let config = folder.join(format!("{name}.toml"));
    std::fs::write(&config, text).expect("write a configuration");
    Process::start(&name, folder, move || {
        let mut command = Command::new(binary());
        command.arg("storage-node").arg("--config").arg(&config);
        command
    })
}
