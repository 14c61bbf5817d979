//! A handover of pins between real nodes over mTLS, in several pages, and who is refused.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_model::{
    ChunkId, Clock, Epoch, Fence, Generation, JobId, Layout, LayoutChange, LayoutNode, LayoutVersion, NodeId,
    PartitionId, PoolId, Replication, ResourceId, Role, Sequence, SessionClaims, SnapshotId, TenantId, Verb,
    Workload,
};
use holdfast_proto::{
    convert::Ticket,
    signed::{Signer, attach_layout_version, attach_token},
    status::ErrorCode,
    storage::{self, storage_node_client::StorageNodeClient, storage_repair_client::StorageRepairClient},
};
use holdfast_record::Pin;
use holdfast_runtime::{Channels, Pki, Shutdown, SystemClock, SystemRandom, TlsOptions};
use holdfast_storage_node::{NodeHandle, StorageNodeOptions, start};
use tonic::{Request, transport::Channel};

const TENANT: TenantId = TenantId([1; 16]);
const FENCE: Fence = Fence { generation: Generation(1), attempt: 1 };
const MESSAGE_BYTES: usize = 32 << 20;
/// Longer than all pins of a page may be.
const CHECKPOINT_BYTES: usize = 9 << 20;
/// How many pins each resource has, and whether it has a job checkpoint. All are in one partition.
const RESOURCES: [(u64, bool); 3] = [(3, true), (2, true), (1, false)];

/// The resources in order: the first ones that share their partition with the first of all.
fn resources() -> Vec<ResourceId> {
    let all = (1_u32..).map(|n| {
        let mut resource = ResourceId([0; 16]);
        resource.0[..4].copy_from_slice(&n.to_be_bytes());
        resource
    });
    let in_one = |one: &ResourceId| PartitionId::of_pins(TENANT, *one) == partition();
    all.filter(in_one).take(RESOURCES.len()).collect()
}

fn partition() -> PartitionId {
    PartitionId::of_pins(TENANT, ResourceId([2; 16]))
}

struct Member {
    handle: NodeHandle,
    shutdown: Shutdown,
    tls: TlsOptions,
}

struct Cluster {
    members: Vec<Member>,
    pki: Pki,
    signer: Signer,
    coordinator: TlsOptions,
    worker: TlsOptions,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// Three nodes, of which two have a layout.
    async fn start() -> (Self, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(&dir.path().join("pki"), "test").unwrap();
        let (private, public) = Signer::generate().unwrap();
        std::fs::write(dir.path().join("signing.pub"), hex::encode(public)).unwrap();
        let mut members = Vec::new();
        for (id, site) in [(1, "a"), (2, "b"), (3, "c")] {
            let tls = pki.issue(Role::StorageNode, &format!("node-{id}"), &[]).unwrap().options();
            let options = serde_json::json!({
                "node-id": id, "site": site, "cluster": "test", "listen": "127.0.0.1:0",
                "data": dir.path().join(format!("node-{id}")), "capacity": "1GiB", "tls": tls,
                "coordinator-public-key-file": dir.path().join("signing.pub"),
            });
            let options: StorageNodeOptions = serde_json::from_value(options).unwrap();
            let shutdown = Shutdown::new();
            let started = start(options, Arc::new(SystemClock), Arc::new(SystemRandom), shutdown.clone());
            members.push(Member { handle: started.await.unwrap(), shutdown, tls });
        }
        let coordinator = pki.issue(Role::Coordinator, "c", &[]).unwrap().options();
        let worker = pki.issue(Role::Worker, "w", &[]).unwrap().options();
        let signer = Signer::from_pkcs8(&private).unwrap();
        let cluster = Self { members, pki, signer, coordinator, worker, _dir: dir };
        let places = vec![cluster.place(0, "a"), cluster.place(1, "b")];
        let layout = Layout::compute(LayoutVersion(1), PoolId::from("p"), Replication::default(), places);
        let layout = layout.unwrap();
        cluster.apply(&layout, &[0, 1]).await;
        (cluster, layout)
    }

    fn place(&self, at: usize, site: &str) -> LayoutNode {
        let address = self.members[at].handle.addr().to_string();
        LayoutNode::new(NodeId(at as u64 + 1), site.into(), address, 1 << 30)
    }

    fn channel(&self, at: usize, tls: &TlsOptions) -> Channel {
        Channels::connect(&self.members[at].handle.addr().to_string(), tls, Role::StorageNode).unwrap()
    }

    fn client(&self, at: usize, tls: &TlsOptions) -> StorageNodeClient<Channel> {
        StorageNodeClient::new(self.channel(at, tls)).max_decoding_message_size(MESSAGE_BYTES)
    }

    async fn apply(&self, layout: &Layout, to: &[usize]) {
        for at in to {
            let request =
                storage::ApplyLayoutRequest { generation: 1, epoch: 5, layout: Some(layout.into()) };
            self.client(*at, &self.coordinator).apply_layout(request).await.unwrap();
        }
    }

    /// Asks as somebody for everything of the partition of the tests.
    async fn hand_over(
        &self,
        at: usize,
        tls: &TlsOptions,
    ) -> Result<storage::HandOverResponse, tonic::Status> {
        let request = storage::HandOverRequest {
            partitions: vec![partition().0.into()],
            moved_in: 2,
            after_space: Bytes::new(),
            after_sequence: None,
        };
        let mut client =
            StorageRepairClient::new(self.channel(at, tls)).max_decoding_message_size(MESSAGE_BYTES);
        Ok(client.hand_over(request).await?.into_inner())
    }

    fn request<T>(&self, resource: ResourceId, layout: u64, message: T) -> Request<T> {
        let claims = SessionClaims {
            tenant: TENANT,
            pool: PoolId::from("p"),
            resource,
            workload: Workload::Mail,
            job: JobId([3; 16]),
            fence: FENCE,
            epoch: Epoch(5),
            verbs: vec![Verb::Read, Verb::Write, Verb::Commit],
            expires_at_ms: SystemClock.now_ms() + 600_000,
        };
        let mut request = Request::new(message);
        attach_token(&mut request, &self.signer.token(&claims));
        attach_layout_version(&mut request, LayoutVersion(layout));
        request
    }

    /// Pins and a job checkpoint at an owner.
    async fn fill(&self, at: usize) {
        let mut client = self.client(at, &self.worker);
        for ((session, resource), (n_pins, has_checkpoint)) in (1..).zip(resources()).zip(RESOURCES) {
            let open = storage::OpenSessionRequest { session, base_pin: Bytes::new() };
            client.open_session(self.request(resource, 1, open)).await.unwrap();
            if has_checkpoint {
                let put = storage::PutCheckpointRequest {
                    session,
                    fence: Some(FENCE.into()),
                    revision: 4,
                    body: vec![7; CHECKPOINT_BYTES].into(),
                    roots: vec![vec![8; 32].into()],
                };
                assert!(
                    client
                        .put_checkpoint(self.request(resource, 1, put))
                        .await
                        .unwrap()
                        .into_inner()
                        .accepted
                );
            }
            for pin in pins(resource, n_pins) {
                let ticket = Ticket {
                    tenant: TENANT,
                    resource,
                    workload: Workload::Mail,
                    sequence: pin.sequence,
                    fence: pin.fence,
                    pin_hash: pin.hash(),
                };
                let put =
                    storage::PutPinRequest { ticket: Some(self.signer.ticket(&ticket)), pin: pin.encode() };
                let stored = client.put_pin(self.request(resource, 1, put)).await.unwrap().into_inner();
                assert_eq!(stored.outcome(), storage::PinOutcome::Stored);
            }
        }
    }

    async fn read(
        &self,
        at: usize,
        resource: ResourceId,
    ) -> Result<storage::ReadPinsResponse, tonic::Status> {
        let read = storage::ReadPinsRequest { workload: Workload::Mail.code().into(), newest: 0 };
        let mut client = self.client(at, &self.worker);
        Ok(client.read_pins(self.request(resource, 2, read)).await?.into_inner())
    }

    async fn stop(self) {
        for Member { handle, shutdown, .. } in self.members {
            shutdown.trigger();
            handle.join().await.unwrap();
        }
    }
}

fn pins(resource: ResourceId, n: u64) -> impl Iterator<Item = Pin> {
    (1..=n).map(move |sequence| Pin {
        tenant: TENANT,
        resource,
        workload: Workload::Mail,
        sequence: Sequence(sequence),
        fence: FENCE,
        epoch: Epoch(5),
        snapshot: SnapshotId([1; 8]),
        root: ChunkId([4; 32]),
        sealed_root: Bytes::from_static(b"sealed"),
        previous: None,
        created_ms: 1,
        retain_until_ms: 0,
        items: 1,
        items_missing: 0,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_owner_takes_over_in_several_pages_and_nobody_else_is_told_anything() {
    let (cluster, before) = Cluster::start().await;
    cluster.fill(0).await;
    cluster.fill(1).await;
    let change = LayoutChange {
        nodes: vec![before.nodes[0].clone(), cluster.place(2, "c")],
        replication: before.replication,
        lost: [].into(),
    };
    let after = before.changed(LayoutVersion(2), change).unwrap();
    let [first, leaves, new] = [0, 1, 2].map(|at| cluster.members[at].tls.clone());

    // It may still store pins by the layout before.
    let early = cluster.hand_over(0, &new).await.unwrap_err();
    assert!(ErrorCode::is_not_yet(&early), "{early:?}");
    cluster.apply(&after, &[0, 1]).await;
    for (who, tls) in [
        ("a node that keeps the pins no more", leaves),
        (
            "a node that the layout does not name",
            cluster.pki.issue(Role::StorageNode, "node-9", &[]).unwrap().options(),
        ),
        (
            "a certificate without an id",
            cluster.pki.issue(Role::StorageNode, "spare", &[]).unwrap().options(),
        ),
        ("a worker", cluster.worker.clone()),
        ("a coordinator", cluster.coordinator.clone()),
    ] {
        let refused = cluster.hand_over(0, &tls).await.expect_err(who);
        assert_eq!(ErrorCode::of(&refused), ErrorCode::Forbidden, "{who}: {refused:?}");
    }
    // A job checkpoint that leaves no room for a pin ends the first page.
    let page = cluster.hand_over(0, &new).await.unwrap();
    assert_eq!((page.spaces.len(), page.spaces[0].pins.len(), page.more), (1, 0, true));
    assert!(cluster.hand_over(1, &first).await.is_ok());

    cluster.apply(&after, &[2]).await;
    let taken = async {
        while cluster.read(2, resources()[0]).await.is_err() {
            // What its loop does every five seconds.
            cluster.members[2].handle.node().resync_step(SystemClock.now_ms()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), taken).await.expect("the pins are taken over");
    for (resource, (n_pins, has_checkpoint)) in resources().into_iter().zip(RESOURCES) {
        let read = cluster.read(2, resource).await.unwrap();
        assert_eq!(read.pins, pins(resource, n_pins).map(|pin| pin.encode()).collect::<Vec<_>>());
        assert_eq!(read.highest_fence, Some(FENCE.into()));
        let body = read.checkpoint.map(|checkpoint| checkpoint.body.len());
        assert_eq!(body, has_checkpoint.then_some(CHECKPOINT_BYTES), "{resource}");
    }
    // The open session came with them.
    let renew = storage::RenewSessionRequest { session: 1 };
    cluster
        .client(2, &cluster.worker)
        .renew_session(cluster.request(resources()[0], 2, renew))
        .await
        .unwrap();
    cluster.stop().await;
}
