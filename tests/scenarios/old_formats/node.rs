//! One storage node without its network, on a folder, with a clock that stands still and the same randomness each time.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::{
    ChunkId, Clock, Epoch, Fence, Generation, JobId, Layout, LayoutNode, LayoutVersion, Millis, NodeId,
    PoolId, Random, Replication, ResourceId, SessionClaims, SessionId, TenantId, Verb, Workload,
};
use holdfast_proto::{convert::Ticket, storage::SessionToken};
use holdfast_record::{Pin, SealedRecord};
use holdfast_repository::{ChunkStore, StoreError};
use holdfast_storage_node::{
    Authority, Caller, Executor, FenceRule, Node, NodeSetup, PeerCall, PeerError, Peers, PinOutcome,
    Presence, ReplicaOutcome, ReplicaPut, StorageNodeOptions, disk::LocalDisk,
};
use serde_json::json;

/// Well after anything that the golden repository says.
pub const NOW_MS: Millis = 1_800_000_000_000;
pub const EPOCH: Epoch = Epoch(5);
pub const FENCE: Fence = Fence { generation: Generation(1), attempt: 1 };
const PUT_RECORDS: usize = 256;
const GET_BYTES: usize = 32 << 20;

struct StillClock(AtomicU64);

impl Clock for StillClock {
    fn now_ms(&self) -> Millis {
        NOW_MS
    }

    /// Goes on a little at each look, so that waiting ends.
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// The same bytes for the same seed.
pub struct Seeded(Mutex<blake3::OutputReader>);

impl Seeded {
    pub fn new(seed: &str) -> Self {
        Self(Mutex::new(blake3::Hasher::new().update(seed.as_bytes()).finalize_xof()))
    }

    pub fn bytes(seed: &str, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Self::new(seed).fill(&mut bytes);
        bytes
    }
}

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().expect("no holder panics").fill(buffer);
    }
}

struct NoPeers;

#[async_trait]
impl Peers for NoPeers {
    async fn replicate(&self, _: &LayoutNode, _: &PeerCall, _: Vec<Bytes>) -> Result<ReplicaPut, PeerError> {
        Err(PeerError::TooSlow)
    }

    async fn have_local(
        &self,
        _: &LayoutNode,
        _: &PeerCall,
        _: &[ChunkId],
    ) -> Result<Vec<Presence>, PeerError> {
        Err(PeerError::TooSlow)
    }
}

/// Opens the folder as the only node of its cluster. Small segments, so that some are sealed.
pub fn try_open(data: &Path) -> Result<Arc<Node>, holdfast_storage_node::Error> {
    let options = json!({
        "node-id": 1, "site": "a", "cluster": "golden", "listen": "127.0.0.1:0", "data": data, "capacity": "1GiB",
        "tls": { "cert-file": "unused", "key-file": "unused", "ca-file": "unused" },
        "coordinator-public-key-file": "unused", "segment-target": "64KiB",
    });
    let options: StorageNodeOptions = serde_json::from_value(options).expect("these options are valid");
    let setup = NodeSetup {
        disk: Arc::new(LocalDisk),
        executor: Executor::Threads,
        fence_rule: FenceRule::Highest,
        clock: Arc::new(StillClock(AtomicU64::new(0))),
        random: Arc::new(Seeded::new("golden node")),
        peers: Arc::new(NoPeers),
    };
    Node::open(&options, setup).map(Arc::new)
}

/// And gives it every partition.
pub fn open(data: &Path) -> Result<Arc<Node>> {
    let node = try_open(data)?;
    let member = LayoutNode::new(NodeId(1), "a".into(), "127.0.0.1:1".to_owned(), 1 << 30);
    let replication = Replication { copies: 1, ack_sites: 1 };
    let layout = Layout::compute(LayoutVersion(1), "p".into(), replication, vec![member])
        .context("compute a layout of one node")?;
    let authority = Authority { generation: Generation(1), epoch: EPOCH, layout: Some(Arc::new(layout)) };
    node.apply(authority)?;
    Ok(node)
}

pub fn caller(tenant: TenantId, resource: ResourceId) -> Caller {
    let claims = SessionClaims {
        tenant,
        pool: PoolId("p".to_owned()),
        resource,
        workload: Workload::Mail,
        job: JobId([3; 16]),
        fence: FENCE,
        epoch: EPOCH,
        verbs: vec![Verb::Read, Verb::Write, Verb::Commit],
        expires_at_ms: NOW_MS * 2,
    };
    Caller { claims, token: SessionToken::default() }
}

/// Stores records and then the pin that reaches them.
pub async fn commit(node: &Node, records: Vec<SealedRecord>, pin: &Pin) -> Result<()> {
    let caller = caller(pin.tenant, pin.resource);
    for some in records.chunks(PUT_RECORDS) {
        let encoded = some.iter().map(SealedRecord::encode).collect();
        let put = node.replicate(&caller, SessionId(7), encoded).await?;
        let kept =
            |outcome: &ReplicaOutcome| matches!(outcome, ReplicaOutcome::Stored | ReplicaOutcome::Exists);
        ensure!(put.outcomes.iter().all(kept), "{}", put.reason);
    }
    let ticket = Ticket {
        tenant: pin.tenant,
        resource: pin.resource,
        workload: pin.workload,
        sequence: pin.sequence,
        fence: pin.fence,
        pin_hash: pin.hash(),
    };
    let (outcome, _) = node.put_pin(&ticket, &pin.encode())?;
    ensure!(outcome == PinOutcome::Stored, "the pin was not stored: {outcome:?}");
    Ok(())
}

/// What a snapshot reader reads from.
pub struct NodeStore {
    pub node: Arc<Node>,
    pub caller: Caller,
}

#[async_trait]
impl ChunkStore for NodeStore {
    async fn have(&self, _: &[ChunkId]) -> Result<Vec<bool>, StoreError> {
        Err(StoreError::Refused { reason: "only for reading".to_owned() })
    }

    async fn put(&self, _: Vec<SealedRecord>) -> Result<(), StoreError> {
        Err(StoreError::Refused { reason: "only for reading".to_owned() })
    }

    async fn get(&self, ids: &[ChunkId]) -> Result<Vec<SealedRecord>, StoreError> {
        let mut records = Vec::new();
        while records.len() < ids.len() {
            let wanted = &ids[records.len()..];
            let found = self.node.get(&self.caller, wanted, GET_BYTES).await;
            let found = found.map_err(|error| StoreError::Unavailable { reason: error.to_string() })?;
            for (id, bytes) in wanted.iter().zip(found) {
                let bytes = bytes.ok_or(StoreError::Missing { id: *id })?;
                records.push(SealedRecord::decode(bytes).map_err(|_| StoreError::Corrupt { id: *id })?);
            }
        }
        Ok(records)
    }

    async fn get_copies(&self, id: ChunkId) -> Result<Vec<SealedRecord>, StoreError> {
        self.get(&[id]).await
    }
}
