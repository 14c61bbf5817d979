//! Real nodes over mTLS in this process: two sites, roles, tokens.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{path::Path, sync::Arc, time::Duration};

use holdfast_model::{
    ChunkId, Clock, Epoch, Fence, Generation, JobId, Layout, LayoutNode, LayoutVersion, NodeId, PoolId,
    Replication, ResourceId, Role, SessionClaims, SiteName, TenantId, Verb, Workload,
};
use holdfast_proto::{
    signed::{Signer, attach_token},
    status::ErrorCode,
    storage::{
        self, PutOutcome, storage_node_client::StorageNodeClient, storage_repair_client::StorageRepairClient,
    },
};
use holdfast_record::{Chunker, Codec, Placement, RecordKind, SealedHeader, SealedRecord, hash_refs};
use holdfast_runtime::{
    ByteSize, Channels, Pki, Shutdown, SystemClock, SystemRandom, TelemetryOptions, pki::issue_signing_key,
};
use holdfast_storage_node::{GroupCommitOptions, NodeHandle, RepairOptions, StorageNodeOptions, start};
use tonic::{Request, Status, transport::Channel};

const TENANT: TenantId = TenantId([1; 16]);
const SITES: [&str; 2] = ["a", "b"];
type Client = StorageNodeClient<Channel>;

struct Cluster {
    nodes: Vec<(NodeHandle, Shutdown)>,
    pki: Pki,
    n_certificates: std::sync::atomic::AtomicU64,
    signer: Signer,
    dir: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(&dir.path().join("pki"), "test").unwrap();
        let keys = issue_signing_key(&dir.path().join("signing")).unwrap();
        let signer = Signer::from_pkcs8(&read_key(&keys.private)).unwrap();
        let mut cluster = Self { nodes: Vec::new(), pki, n_certificates: 0.into(), signer, dir };
        for (id, site) in (1..).zip(SITES) {
            let shutdown = Shutdown::new();
            let options = cluster.options(id, site, &keys.public);
            let node = start(options, Arc::new(SystemClock), Arc::new(SystemRandom), shutdown.clone())
                .await
                .unwrap();
            cluster.nodes.push((node, shutdown));
        }
        for at in 0..SITES.len() {
            let layout = cluster.layout();
            let request =
                storage::ApplyLayoutRequest { generation: 1, epoch: 5, layout: Some((&layout).into()) };
            cluster.client(at, Role::Coordinator).apply_layout(request).await.unwrap();
        }
        cluster
    }

    fn options(&self, id: u64, site: &str, public_key: &Path) -> StorageNodeOptions {
        StorageNodeOptions {
            node_id: id,
            site: site.to_owned(),
            cluster: "test".to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            admin_listen: Some("127.0.0.1:0".to_owned()),
            data: self.dir.path().join(format!("node-{id}")),
            capacity: ByteSize::gib(8),
            disks: Vec::new(),
            tls: self.pki.issue(Role::StorageNode, &format!("node-{id}"), &[]).unwrap().options(),
            coordinator_public_key_file: public_key.to_owned(),
            segment_target: ByteSize::mib(256),
            group_commit: GroupCommitOptions::default(),
            ingest_stop_percent: 90,
            repair_stop_percent: 85,
            repair: RepairOptions::default(),
            s3: None,
            telemetry: TelemetryOptions::default(),
        }
    }

    /// Every call makes a certificate of its own.
    fn tls(&self, role: Role, name: &str) -> holdfast_runtime::TlsOptions {
        let nth = self.n_certificates.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.pki.issue(role, &format!("{name}-{nth}"), &[]).unwrap().options()
    }

    fn layout(&self) -> Layout {
        let nodes = (1..).zip(SITES).zip(&self.nodes).map(|((id, site), (node, _))| {
            LayoutNode::new(NodeId(id), SiteName::from(site), node.addr().to_string(), 1 << 30)
        });
        Layout::compute(LayoutVersion(1), PoolId::from("p"), Replication::default(), nodes.collect()).unwrap()
    }

    fn client(&self, at: usize, role: Role) -> Client {
        let tls = self.tls(role, "tester");
        let address = self.nodes[at].0.addr().to_string();
        StorageNodeClient::new(Channels::connect(&address, &tls, Role::StorageNode).unwrap())
            .max_decoding_message_size(32 << 20)
    }

    fn repair_client(&self, at: usize, role: Role) -> StorageRepairClient<Channel> {
        let tls = self.tls(role, "tester");
        let address = self.nodes[at].0.addr().to_string();
        StorageRepairClient::new(Channels::connect(&address, &tls, Role::StorageNode).unwrap())
    }

    fn request<T>(&self, tenant: TenantId, message: T) -> Request<T> {
        let claims = SessionClaims {
            tenant,
            pool: PoolId::from("p"),
            resource: ResourceId([2; 16]),
            workload: Workload::Mail,
            job: JobId([3; 16]),
            fence: Fence { generation: Generation(1), attempt: 1 },
            epoch: Epoch(5),
            verbs: vec![Verb::Read, Verb::Write, Verb::Commit],
            expires_at_ms: SystemClock.now_ms() + 600_000,
        };
        let mut request = Request::new(message);
        attach_token(&mut request, &self.signer.token(&claims));
        request
    }

    async fn put(
        &self,
        at: usize,
        tenant: TenantId,
        puts: Vec<storage::PutRequest>,
    ) -> Result<Vec<storage::PutResponse>, Status> {
        let request = self.request(tenant, tokio_stream::iter(puts));
        let mut answers = self.client(at, Role::Worker).put(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await? {
            all.push(answer);
        }
        Ok(all)
    }

    async fn stop(self) {
        for (node, shutdown) in self.nodes {
            shutdown.trigger();
            node.join().await.unwrap();
        }
    }
}

fn read_key(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    // Raw or in hexadecimal.
    std::str::from_utf8(&bytes).ok().and_then(|text| hex::decode(text.trim()).ok()).unwrap_or(bytes)
}

fn record(n: u64, len: usize) -> SealedRecord {
    let mut ciphertext = vec![0; len];
    let seed = blake3::hash(&n.to_le_bytes());
    blake3::Hasher::new_keyed(seed.as_bytes()).finalize_xof().fill(&mut ciphertext);
    let header = SealedHeader {
        kind: RecordKind::Data,
        codec: Codec::None,
        chunker: Chunker::Whole,
        key_epoch: 1,
        tenant: TENANT,
        id: ChunkId(*seed.as_bytes()),
        pt_len: u32::try_from(len).unwrap(),
        refs_hash: hash_refs(&[]),
    };
    SealedRecord {
        header,
        nonce: [0; 12],
        ct: *blake3::hash(&ciphertext).as_bytes(),
        refs: Vec::new(),
        placement: Placement::default(),
        ciphertext: ciphertext.into(),
    }
}

fn put_of(records: &[SealedRecord]) -> storage::PutRequest {
    storage::PutRequest { session: 7, records: records.iter().map(SealedRecord::encode).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_is_answered_when_both_sites_have_it_and_each_serves_it() {
    let cluster = Cluster::start().await;
    let records: Vec<_> = (0..40).map(|n| record(n, 50_000)).collect();
    let answers = cluster.put(0, TENANT, records.chunks(8).map(put_of).collect()).await.unwrap();
    assert_eq!(answers.len(), 5);
    for replica in answers.iter().flat_map(|answer| &answer.replicas) {
        assert!(replica.outcomes().all(|outcome| outcome == PutOutcome::Stored), "{}", replica.reason);
    }
    assert_eq!(answers[0].replicas.iter().map(|one| one.site.as_str()).collect::<Vec<_>>(), SITES);
    let mut ids: Vec<bytes::Bytes> =
        records.iter().map(|record| bytes::Bytes::copy_from_slice(&record.header.id.0)).collect();
    ids.push(vec![0xee; 32].into());
    for at in 0..SITES.len() {
        let request = cluster.request(TENANT, storage::GetRequest { ids: ids.clone() });
        let mut frames = cluster.client(at, Role::Worker).get(request).await.unwrap().into_inner();
        let mut found = Vec::new();
        while let Some(frame) = frames.message().await.unwrap() {
            assert!(frame.records.iter().map(bytes::Bytes::len).sum::<usize>() <= 1 << 20);
            found.extend(frame.records);
        }
        assert_eq!((found.len(), found[40].len()), (41, 0));
        for (bytes, put) in found.into_iter().zip(&records) {
            assert_eq!(SealedRecord::decode(bytes).unwrap().ciphertext, put.ciphertext);
        }
    }
    let asked = storage::HaveRequest { session: 7, ids };
    let request = cluster.request(TENANT, tokio_stream::iter(vec![asked]));
    let mut answers = cluster.client(1, Role::Worker).have(request).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(answer.replicas.iter().map(|one| one.node_id).collect::<Vec<_>>(), vec![2, 1]);
    for replica in &answer.replicas {
        let yes = replica.presence().filter(|one| *one == storage::Presence::Yes).count();
        assert_eq!((yes, replica.presence().next_back()), (40, Some(storage::Presence::Absent)));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_refused() {
    let cluster = Cluster::start().await;
    let code = |status: Status| ErrorCode::of(&status);
    // Roles.
    let refused = cluster.client(0, Role::Worker).status(storage::StatusRequest {}).await.unwrap_err();
    assert_eq!(code(refused), ErrorCode::Forbidden);
    let ids = vec![vec![1; 32].into()];
    let get = cluster.request(TENANT, storage::GetRequest { ids });
    let refused = cluster.client(0, Role::Operator).get(get).await.unwrap_err();
    assert_eq!(code(refused), ErrorCode::Forbidden);
    let status =
        cluster.client(0, Role::Operator).status(storage::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.uploads, None, "it has no bucket");
    // A token of another tenant, none, and one that the coordinator did not sign.
    let refused = cluster.put(0, TenantId([9; 16]), vec![put_of(&[record(1, 10)])]).await.unwrap_err();
    assert_eq!(code(refused), ErrorCode::Forbidden);
    let open = storage::OpenSessionRequest { session: 7, base_pin: bytes::Bytes::new() };
    let refused = cluster.client(0, Role::Worker).open_session(open.clone()).await.unwrap_err();
    assert_eq!(code(refused), ErrorCode::BadRequest);
    let mut forged = Request::new(open.clone());
    let body = storage::SessionToken { body: vec![8, 1].into(), signature: vec![0; 64].into() };
    attach_token(&mut forged, &body);
    let refused = cluster.client(0, Role::Worker).open_session(forged).await.unwrap_err();
    assert_eq!(code(refused), ErrorCode::Forbidden);
    let good = cluster.request(TENANT, open);
    let opened = cluster.client(0, Role::Worker).open_session(good).await.unwrap().into_inner();
    assert_eq!((opened.epoch, opened.lease_ms), (5, 600_000));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_replica_does_not_hold_up_puts_and_is_used_again_when_it_is_back() {
    let mut cluster = Cluster::start().await;
    let (node, shutdown) = cluster.nodes.pop().unwrap();
    let address = node.addr().to_string();
    shutdown.trigger();
    node.join().await.unwrap();
    let puts = (0..20).map(|n| put_of(&[record(n, 1_000)])).collect();
    let answers = tokio::time::timeout(Duration::from_secs(15), cluster.put(0, TENANT, puts)).await.unwrap();
    for answer in answers.unwrap() {
        let outcomes: Vec<_> = answer.replicas.iter().flat_map(storage::PutReplica::outcomes).collect();
        assert_eq!(outcomes, vec![PutOutcome::Stored, PutOutcome::Failed]);
        assert!(answer.replicas[1].reason.contains("node-2 in site b"), "{}", answer.replicas[1].reason);
    }
    let mut options = cluster.options(2, "b", &cluster.dir.path().join("signing/session-signing.pub"));
    options.listen = address;
    let shutdown = Shutdown::new();
    let node = start(options, Arc::new(SystemClock), Arc::new(SystemRandom), shutdown.clone()).await.unwrap();
    cluster.nodes.push((node, shutdown));
    let mut n = 100;
    let back = async {
        loop {
            let answers = cluster.put(0, TENANT, vec![put_of(&[record(n, 1_000)])]).await.unwrap();
            n += 1;
            if answers[0].replicas[1].outcomes().eq([PutOutcome::Stored]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_replica_missed_is_brought_to_it_over_the_wire() {
    let mut cluster = Cluster::start().await;
    let (node, shutdown) = cluster.nodes.pop().unwrap();
    let address = node.addr().to_string();
    shutdown.trigger();
    node.join().await.unwrap();
    let missed: Vec<_> = (0..30).map(|n| record(n, 20_000)).collect();
    cluster.put(0, TENANT, vec![put_of(&missed)]).await.unwrap();
    let status =
        cluster.client(0, Role::Operator).status(storage::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.repair.unwrap().records_below_policy, 30);
    let mut options = cluster.options(2, "b", &cluster.dir.path().join("signing/session-signing.pub"));
    options.listen = address;
    let shutdown = Shutdown::new();
    let node = start(options, Arc::new(SystemClock), Arc::new(SystemRandom), shutdown.clone()).await.unwrap();
    cluster.nodes.push((node, shutdown));
    let back = async {
        loop {
            let request = storage::StatusRequest {};
            let mut at = [0, 1].map(|at| cluster.client(at, Role::Operator));
            let first = at[0].status(request).await.unwrap().into_inner();
            let second = at[1].status(request).await.unwrap().into_inner();
            let repair = first.repair.unwrap();
            if (second.records, repair.records_below_policy, repair.oldest_age_ms) == (30, 0, 0) {
                assert_eq!(repair.partitions_owned, 4_096);
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), back).await.unwrap();
    // Every call of repair over gRPC, and only for storage nodes.
    let key = [&TENANT.0[..], &missed[0].header.id.0[..]].concat();
    let fetch = || storage::FetchRequest { keys: vec![key.clone().into()] };
    let mut nodes = cluster.repair_client(1, Role::StorageNode);
    let copies = nodes.fetch(fetch()).await.unwrap().into_inner().copies;
    let copy = SealedRecord::decode(copies[0].record.clone()).unwrap();
    assert_eq!(
        (copy.header, copy.ciphertext, copies[0].touch_epoch),
        (missed[0].header.clone(), missed[0].ciphertext.clone(), 5)
    );
    let digests = storage::DigestsRequest { partitions: vec![0, 4_095] };
    assert_eq!(
        nodes.digests(digests.clone()).await.unwrap().into_inner(),
        cluster.repair_client(0, Role::StorageNode).digests(digests.clone()).await.unwrap().into_inner()
    );
    for role in [Role::Worker, Role::Coordinator, Role::Operator] {
        let mut others = cluster.repair_client(1, role);
        assert_eq!(ErrorCode::of(&others.fetch(fetch()).await.unwrap_err()), ErrorCode::Forbidden);
        assert_eq!(
            ErrorCode::of(&others.mend(storage::MendRequest { copies: copies.clone() }).await.unwrap_err()),
            ErrorCode::Forbidden
        );
    }
    // Nonsense is refused, not believed.
    let wrong = storage::DigestsRequest { partitions: vec![4_096] };
    assert_eq!(ErrorCode::of(&nodes.digests(wrong).await.unwrap_err()), ErrorCode::BadRequest);
    let wrong = storage::HoldsRequest { keys: vec![vec![1; 47].into()] };
    assert_eq!(ErrorCode::of(&nodes.holds(wrong).await.unwrap_err()), ErrorCode::BadRequest);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_an_error_that_names_it() {
    let cluster = Cluster::start().await;
    let taken = cluster.nodes[0].0.addr().to_string();
    let mut options = cluster.options(3, "a", &cluster.dir.path().join("signing/session-signing.pub"));
    options.listen = taken.clone();
    let failed = start(options.clone(), Arc::new(SystemClock), Arc::new(SystemRandom), Shutdown::new()).await;
    let error = failed.err().unwrap();
    let text = error.to_string();
    assert!(text.contains(&taken) && text.contains("`listen`"), "{text}");
    // The folder is free again.
    options.listen = "127.0.0.1:0".to_owned();
    let shutdown = Shutdown::new();
    let node = start(options, Arc::new(SystemClock), Arc::new(SystemRandom), shutdown.clone()).await.unwrap();
    shutdown.trigger();
    node.join().await.unwrap();
    cluster.stop().await;
}

/// A measurement, not a promise: `cargo test -p holdfast-storage-node --release --test edge -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn ingest_and_have_rates() {
    let cluster = Cluster::start().await;
    let records: Vec<_> = (0..512).map(|n| record(n, 1 << 20)).collect();
    let raw = raw_append_rate(cluster.dir.path(), &records);
    let puts = records.iter().map(|record| put_of(std::slice::from_ref(record))).collect();
    let started = std::time::Instant::now();
    let answers = cluster.put(0, TENANT, puts).await.unwrap();
    let rate = 512.0 / started.elapsed().as_secs_f64();
    let stored = answers.iter().flat_map(|answer| &answer.replicas).all(|one| one.reason.is_empty());
    println!("ingest to two nodes {rate:.0} MiB/s, raw append+fsync {raw:.0} MiB/s, all stored: {stored}");
    let ids: Vec<bytes::Bytes> =
        (0..4_096_u64).map(|n| blake3::hash(&n.to_le_bytes()).as_bytes().to_vec().into()).collect();
    let asks = vec![storage::HaveRequest { session: 7, ids }; 50];
    let request = cluster.request(TENANT, tokio_stream::iter(asks));
    let started = std::time::Instant::now();
    let mut answers = cluster.client(0, Role::Worker).have(request).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    println!("have on two nodes: {:.0} ids/s", 50.0 * 4_096.0 / started.elapsed().as_secs_f64());
    let tree: Vec<_> = (10_000..50_000).map(|n| record(n, 4_000)).collect();
    let started = std::time::Instant::now();
    cluster.put(0, TENANT, tree.chunks(250).map(put_of).collect()).await.unwrap();
    println!("records of 4 kB on two nodes: {:.0}/s", tree.len() as f64 / started.elapsed().as_secs_f64());
    cluster.stop().await;
}

fn raw_append_rate(dir: &Path, records: &[SealedRecord]) -> f64 {
    use std::io::Write as _;
    let mut file = std::fs::File::create(dir.join("raw")).unwrap();
    let started = std::time::Instant::now();
    for group in records.chunks(4) {
        for record in group {
            file.write_all(&record.ciphertext).unwrap();
        }
        file.sync_data().unwrap();
    }
    records.len() as f64 / started.elapsed().as_secs_f64()
}
