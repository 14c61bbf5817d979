//! A storage node's core without its network, filled with records.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use harness::records::{Records, Sizes};
use holdfast_model::{
    ChunkId, Epoch, Fence, Generation, JobId, Layout, LayoutNode, LayoutVersion, NodeId, Replication,
    ResourceId, SessionClaims, SessionId, TenantId, Verb, Workload,
};
use holdfast_proto::storage::SessionToken;
use holdfast_record::SealedRecord;
use holdfast_runtime::{SystemClock, SystemRandom};
use holdfast_storage_node::{
    Authority, Caller, Executor, FenceRule, Node, NodeSetup, PeerCall, PeerError, Peers, Presence,
    ReplicaOutcome, ReplicaPut, StorageNodeOptions, disk::LocalDisk,
};

use crate::{BATCH, BATCHES, BATCHES_IN_FLIGHT, Cost, Meter};

pub const TENANT: TenantId = TenantId([1; 16]);
const POOL: &str = "bench";
const SESSION: SessionId = SessionId(1);
const RECORD_BYTES: usize = 256;
const RECORDS_PER_PUT: usize = 4_096;
const PUTS_IN_FLIGHT: usize = 4;
const FAR_FUTURE_MS: u64 = 4_102_444_800_000;

/// A node, what is in it, and where the next ids come from.
pub struct Filled {
    node: Arc<Node>,
    layout: Arc<Layout>,
    epoch: Epoch,
    stored: Records,
    n_stored: u64,
    /// Ids of these are in no node.
    foreign: Records,
    next: u64,
}

/// There is one node.
struct NoPeers;

#[async_trait]
impl Peers for NoPeers {
    async fn replicate(&self, _: &LayoutNode, _: &PeerCall, _: Vec<Bytes>) -> Result<ReplicaPut, PeerError> {
        Err(PeerError::Unreachable { reason: "the bench has one node".to_owned() })
    }

    async fn have_local(
        &self,
        _: &LayoutNode,
        _: &PeerCall,
        _: &[ChunkId],
    ) -> Result<Vec<Presence>, PeerError> {
        Err(PeerError::Unreachable { reason: "the bench has one node".to_owned() })
    }
}

impl Filled {
    /// Opens a node and puts the records.
    pub async fn start(folder: &Path, n_stored: u64) -> Self {
        let setup = NodeSetup {
            disk: Arc::new(LocalDisk),
            executor: Executor::Threads,
            fence_rule: FenceRule::default(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            peers: Arc::new(NoPeers),
        };
        let node = Node::open(&options(folder), setup).expect("open an empty folder");
        let owner = LayoutNode::new(NodeId(1), "bench".into(), "127.0.0.1:1".to_owned(), 1 << 40);
        let replication = Replication { copies: 1, ack_sites: 1 };
        let layout = Layout::compute(LayoutVersion(1), POOL.into(), replication, vec![owner]);
        let sizes = Sizes::Fixed(RECORD_BYTES);
        let mut filled = Self {
            node: Arc::new(node),
            layout: Arc::new(layout.expect("one node")),
            epoch: Epoch(0),
            stored: Records { tenant: TENANT, seed: 1, sizes },
            n_stored,
            foreign: Records { tenant: TENANT, seed: 2, sizes },
            next: 0,
        };
        filled.next_epoch();
        filled.fill().await;
        filled
    }

    async fn fill(&self) {
        let caller = self.caller();
        let starts = (0..self.n_stored).step_by(RECORDS_PER_PUT);
        futures::stream::iter(starts)
            .map(|from| {
                let to = self.n_stored.min(from + RECORDS_PER_PUT as u64);
                let records = (from..to).map(|number| SealedRecord::encode(&self.stored.record(number)));
                let (node, caller, records) = (self.node.clone(), caller.clone(), records.collect());
                async move {
                    let replicas = node.put(&caller, SESSION, records).await?;
                    let answer = &replicas[0].answer;
                    assert!(answer.outcomes.iter().all(|one| *one == ReplicaOutcome::Stored), "{answer:?}");
                    Ok::<_, holdfast_storage_node::Error>(())
                }
            })
            .buffer_unordered(PUTS_IN_FLIGHT)
            .try_collect::<()>()
            .await
            .expect("put records");
        let n = self.node.store().n_records().expect("count the records");
        assert_eq!(n, self.n_stored);
    }

    /// From now on no record is protected until it is asked for.
    pub fn next_epoch(&mut self) {
        self.epoch = self.epoch.next();
        let (generation, layout) = (Generation(1), Some(self.layout.clone()));
        self.node.apply(Authority { generation, epoch: self.epoch, layout }).expect("raise the epoch");
    }

    fn caller(&self) -> Caller {
        let claims = SessionClaims {
            tenant: TENANT,
            pool: POOL.into(),
            resource: ResourceId([2; 16]),
            workload: Workload::Mail,
            job: JobId([7; 16]),
            fence: Fence { generation: Generation(1), attempt: 1 },
            epoch: self.epoch,
            verbs: vec![Verb::Read, Verb::Write],
            expires_at_ms: FAR_FUTURE_MS,
        };
        Caller { claims, token: SessionToken::default() }
    }

    /// Questions of which so many percent are there, no id twice; ids are hashes, so their order in the index is random.
    pub fn questions(&mut self, present_percent: usize) -> Vec<(Vec<ChunkId>, usize)> {
        let question = |next: &mut u64| {
            let mut n_present = 0;
            let ids = (0..BATCH).map(|position| {
                *next += 1;
                if position * 61 % 100 < present_percent {
                    n_present += 1;
                    self.stored.id(*next % self.n_stored)
                } else {
                    self.foreign.id(*next)
                }
            });
            (ids.collect(), n_present)
        };
        let mut next = self.next;
        let asked = (0..BATCHES).map(|_| question(&mut next)).collect();
        self.next = next;
        asked
    }

    /// Asks all, several at a time.
    pub async fn ask(&self, questions: &[(Vec<ChunkId>, usize)]) -> Cost {
        let caller = self.caller();
        // As the edge has them: ids of their own.
        let questions = questions.to_vec();
        let meter = Meter::start();
        futures::stream::iter(questions)
            .map(|(ids, n_present)| {
                let (node, caller) = (self.node.clone(), caller.clone());
                async move {
                    let task = tokio::spawn(async move { node.have(&caller, SESSION, ids).await });
                    let replicas = task.await.expect("no panic").expect("an answer");
                    let n_yes = replicas[0].answer.iter().filter(|one| **one == Presence::Yes).count();
                    assert_eq!(n_yes, n_present);
                }
            })
            .buffer_unordered(BATCHES_IN_FLIGHT)
            .for_each(|()| async {})
            .await;
        meter.stop(BATCHES * BATCH)
    }

    /// Ends the node, so that its index can be opened alone; the epoch it was in.
    pub async fn close(self) -> Epoch {
        self.node.close().await.expect("checkpoint and close");
        self.epoch
    }
}

fn options(folder: &Path) -> StorageNodeOptions {
    let nowhere = folder.join("not-read");
    let text = format!(
        "cluster = \"bench\"\nnode-id = 1\nsite = \"bench\"\nlisten = \"127.0.0.1:0\"\ndata = {:?}\ncapacity = \"1TiB\"\ncoordinator-public-key-file = {nowhere:?}\n[tls]\ncert-file = {nowhere:?}\nkey-file = {nowhere:?}\nca-file = {nowhere:?}\n",
        folder.join("data")
    );
    toml::from_str(&text).expect("the bench's own options parse")
}
