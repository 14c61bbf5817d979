//! A few fake nodes behind cuttable links, a client with its certificate, and records to move.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use holdfast_model::{
    ChunkId, Epoch, Fence, Generation, Layout, LayoutNode, LayoutVersion, NodeId, PartitionId, Replication,
    ResourceId, Role, Sequence, SessionId, SnapshotId, TenantId, Workload,
};
use holdfast_proto::storage::{CommitTicket, SessionToken, storage_node_server::StorageNodeServer};
use holdfast_record::{Chunker, Codec, Pin, Placement, RecordKind, SealedHeader, SealedRecord, hash_refs};
use holdfast_runtime::{
    ByteSize, HumanDuration, Pki, RoleTable, Shutdown, SystemClock, SystemRandom, TlsOptions, grpc,
};
use holdfast_storage_client::{SessionParams, StorageClient, StorageClientOptions, StorageSession};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::service::Routes;

use crate::fake::{Fake, Service};

pub const TENANT: TenantId = TenantId([7; 16]);
pub const RESOURCE: ResourceId = ResourceId([8; 16]);

const WORKER: &[Role] = &[Role::Worker];
static TABLE: RoleTable = RoleTable(&[
    ("/holdfast.storage.v1.StorageNode/Hello", WORKER),
    ("/holdfast.storage.v1.StorageNode/OpenSession", WORKER),
    ("/holdfast.storage.v1.StorageNode/RenewSession", WORKER),
    ("/holdfast.storage.v1.StorageNode/CloseSession", WORKER),
    ("/holdfast.storage.v1.StorageNode/Have", WORKER),
    ("/holdfast.storage.v1.StorageNode/Put", WORKER),
    ("/holdfast.storage.v1.StorageNode/Get", WORKER),
    ("/holdfast.storage.v1.StorageNode/PutPin", WORKER),
    ("/holdfast.storage.v1.StorageNode/PutCheckpoint", WORKER),
    ("/holdfast.storage.v1.StorageNode/ReadPins", WORKER),
    ("/holdfast.storage.v1.StorageNode/RaiseFence", WORKER),
    ("/holdfast.storage.v1.StorageNode/ApplyLayout", WORKER),
    ("/holdfast.storage.v1.StorageNode/Status", WORKER),
]);

/// The wire between the client and one node.
pub struct Link {
    pub address: String,
    up: watch::Sender<bool>,
    n_open: Arc<AtomicUsize>,
}

impl Link {
    async fn to(target: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let up = watch::Sender::new(true);
        let (state, n_open) = (up.clone(), Arc::new(AtomicUsize::new(0)));
        let counter = n_open.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut up, counter) = (state.subscribe(), counter.clone());
                if !*up.borrow() {
                    continue;
                }
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut node = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut node) => {}
                        _ = up.wait_for(|up| !up) => {}
                    }
                    counter.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, up, n_open }
    }

    /// Breaks every connection, and new ones until it is mended.
    pub async fn cut(&self) {
        self.up.send_replace(false);
        eventually("every connection is broken", || self.n_open.load(Ordering::SeqCst) == 0).await;
    }

    pub fn mend(&self) {
        self.up.send_replace(true);
    }
}

pub struct Cluster {
    pub nodes: Vec<Arc<Fake>>,
    pub links: Vec<Link>,
    pub layout: Arc<Layout>,
    pub tls: TlsOptions,
    shutdown: Shutdown,
    _dir: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// Starts one node per site named; sites may repeat.
pub async fn cluster(sites: &[&str], copies: u8, ack_sites: u8) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::create(dir.path(), "test").unwrap();
    let node_tls = pki.issue(Role::StorageNode, "node", &[]).unwrap().options();
    let tls = pki.issue(Role::Worker, "worker", &[]).unwrap().options();
    let (peers, shutdown) = (Arc::new(OnceLock::new()), Shutdown::new());
    let (mut nodes, mut links, mut in_layout) = (Vec::new(), Vec::new(), Vec::new());
    for (id, site) in (1..).zip(sites) {
        let fake = Arc::new(Fake::new(id, site, peers.clone()));
        let service = StorageNodeServer::new(Service(fake.clone())).max_decoding_message_size(32 << 20);
        let (address, _) =
            grpc::serve("127.0.0.1:0", &node_tls, "test", &TABLE, Routes::new(service), shutdown.clone())
                .await
                .unwrap();
        let link = Link::to(address).await;
        in_layout.push(LayoutNode::new(NodeId(id), (*site).into(), link.address.clone(), 1 << 30));
        nodes.push(fake);
        links.push(link);
    }
    let replication = Replication { copies, ack_sites };
    let layout = Layout::compute(LayoutVersion(5), "p".into(), replication, in_layout).unwrap();
    assert!(peers.set((layout.clone(), nodes.clone())).is_ok());
    Cluster { nodes, links, layout: Arc::new(layout), tls, shutdown, _dir: dir }
}

impl Cluster {
    pub fn node(&self, id: NodeId) -> &Arc<Fake> {
        self.nodes.iter().find(|node| node.id == id).unwrap()
    }

    /// The owners of a chunk, in order.
    pub fn owners(&self, id: ChunkId) -> Vec<NodeId> {
        self.layout.owners_of(PartitionId::of_chunk(id)).map(|node| node.id).collect()
    }

    pub fn client_with(&self, change: impl FnOnce(&mut StorageClientOptions)) -> StorageClient {
        let mut options = StorageClientOptions {
            retry_for: HumanDuration::millis(700),
            read_retry_for: HumanDuration::millis(50),
            request_timeout: HumanDuration::seconds(5),
            down_for: HumanDuration::millis(200),
            straggler_wait: HumanDuration::millis(300),
            in_flight_bytes: ByteSize::mib(1),
            put_frame_bytes: ByteSize::kib(16),
            ..Default::default()
        };
        change(&mut options);
        StorageClient::new(options, self.tls.clone(), Arc::new(SystemClock), Arc::new(SystemRandom))
    }

    pub fn client(&self) -> StorageClient {
        self.client_with(|_| {})
    }

    pub async fn session_with(&self, change: impl FnOnce(&mut StorageClientOptions)) -> StorageSession {
        self.client_with(change).open_session(self.layout.clone(), token(1), params()).await.unwrap()
    }

    pub async fn session(&self) -> StorageSession {
        self.session_with(|_| {}).await
    }
}

pub fn params() -> SessionParams {
    SessionParams {
        session: SessionId(42),
        tenant: TENANT,
        resource: RESOURCE,
        workload: Workload::Mail,
        base_pin: None,
    }
}

pub fn token(n: u8) -> SessionToken {
    SessionToken { body: vec![n].into(), signature: Bytes::new() }
}

/// A record of some length; the number decides its id and content.
pub fn record(n: u64, len: usize) -> SealedRecord {
    let ciphertext: Vec<u8> = (0..len).map(|i| (i as u64 ^ n) as u8).collect();
    SealedRecord {
        header: SealedHeader {
            kind: RecordKind::Data,
            codec: Codec::None,
            chunker: Chunker::Whole,
            key_epoch: 0,
            tenant: TENANT,
            id: ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes()),
            pt_len: len as u32,
            refs_hash: hash_refs(&[]),
        },
        nonce: [1; 12],
        ct: *blake3::hash(&ciphertext).as_bytes(),
        refs: Vec::new(),
        placement: Placement::default(),
        ciphertext: ciphertext.into(),
    }
}

pub fn records(numbers: std::ops::Range<u64>, len: usize) -> Vec<SealedRecord> {
    numbers.map(|n| record(n, len)).collect()
}

pub fn ids(records: &[SealedRecord]) -> Vec<ChunkId> {
    records.iter().map(|record| record.header.id).collect()
}

pub fn fence(attempt: u64) -> Fence {
    Fence { generation: Generation(1), attempt }
}

pub fn pin(sequence: u64, attempt: u64) -> Pin {
    let sequence = Sequence(sequence);
    Pin {
        tenant: TENANT,
        resource: RESOURCE,
        workload: Workload::Mail,
        sequence,
        fence: fence(attempt),
        epoch: Epoch(7),
        snapshot: SnapshotId::derive(TENANT, RESOURCE, Workload::Mail, sequence),
        root: ChunkId([3; 32]),
        sealed_root: Bytes::from_static(b"sealed"),
        previous: None,
        created_ms: 1,
        retain_until_ms: 2,
        items: 3,
        items_missing: 0,
    }
}

/// The fakes do not check signatures.
pub fn ticket() -> CommitTicket {
    CommitTicket::default()
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
