//! What the tests of this crate share: a settable clock, a disk that fails where told, records and callers.

use std::{
    collections::BTreeSet,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::{
    ChunkId, Clock, Epoch, Fence, Generation, JobId, Layout, LayoutNode, LayoutVersion, Millis, NodeId,
    PoolId, Replication, ResourceId, Sequence, SessionClaims, SessionId, SnapshotId, TenantId, Verb,
    Workload,
};
use holdfast_proto::{convert::Ticket, storage::SessionToken};
use holdfast_record::{Chunker, Codec, Pin, Placement, RecordKind, SealedHeader, SealedRecord, hash_refs};
use holdfast_runtime::{ByteSize, SystemRandom, TelemetryOptions, TlsOptions};

use crate::{
    Caller, DiskOptions, Error, Executor, FenceRule, GroupCommitOptions, Node, NodeSetup, PeerError, Peers,
    RepairOptions, StorageNodeOptions,
    disk::{Disk, DiskFile, DiskUsage, LocalDisk},
    peers::{PeerCall, Presence, ReplicaPut},
    pin::PinOutcome,
    state::Authority,
};

pub const TENANT: TenantId = TenantId([1; 16]);
pub const RESOURCE: ResourceId = ResourceId([2; 16]);
pub const SESSION: SessionId = SessionId(77);

/// A clock that stands still unless it is moved; its monotonic side runs, so that timeouts end.
pub struct TestClock {
    pub now_ms: AtomicU64,
    ticks: AtomicU64,
}

impl TestClock {
    /// Lets time go by, on both sides.
    pub fn advance(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
        self.ticks.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> Millis {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.ticks.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a disk is told to do wrong.
#[derive(Debug, Default)]
pub struct Faults {
    /// Syncs of segments fail.
    pub fail_segment_sync: AtomicBool,
    /// Syncs of pin segments fail.
    pub fail_pin_sync: AtomicBool,
    /// Writes to segments, and of damaged bytes aside, find the disk full.
    pub disk_full: AtomicBool,
    /// The file system says that it is this full.
    pub used_percent: AtomicU64,
    /// The file system says this instead.
    pub usage: Mutex<Option<DiskUsage>>,
    /// Syncs of segments so far.
    pub segment_syncs: AtomicU64,
    /// Bytes written to segments so far.
    pub segment_bytes: AtomicU64,
    /// The process has too many files open.
    pub no_files_left: AtomicBool,
    /// The folder of the state was synced while the state was in it.
    pub state_name_synced: AtomicBool,
    /// Files and folders that were synced so far, but for databases.
    pub synced: Mutex<BTreeSet<PathBuf>>,
    /// Syncs of the state fail.
    pub fail_state_sync: AtomicBool,
    /// Writes to the state find the disk full.
    pub state_full: AtomicBool,
    /// Syncs of the state so far.
    pub state_syncs: AtomicU64,
    /// Segments and the file system do wrong only below this folder; none: everywhere.
    pub only_below: Mutex<Option<PathBuf>>,
}

impl Faults {
    fn reach(&self, path: &Path) -> bool {
        self.only_below.lock().unwrap().as_ref().is_none_or(|below| path.starts_with(below))
    }
}

pub struct FaultyDisk(pub Arc<Faults>);

struct FaultyFile {
    inner: Arc<dyn DiskFile>,
    path: PathBuf,
    faults: Arc<Faults>,
    is_segment: bool,
    is_pins: bool,
    is_aside: bool,
}

impl FaultyDisk {
    fn wrap(&self, path: &Path, inner: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        let is_pins = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"pin-"));
        let is_segment = !is_pins && path.extension().is_some_and(|extension| extension == "seg");
        let is_aside = path.extension().is_some_and(|extension| extension == "bad");
        let (inner, path, faults) = (inner?, path.to_owned(), self.0.clone());
        Ok(Arc::new(FaultyFile { inner, path, faults, is_segment, is_pins, is_aside }))
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.wrap(path, LocalDisk.create(path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.wrap(path, LocalDisk.open(path))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if self.0.no_files_left.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(nix::libc::EMFILE));
        }
        self.wrap(path, LocalDisk.open_read(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if path.join("state.redb").exists() {
            self.0.state_name_synced.store(true, Ordering::Relaxed);
        }
        self.0.synced.lock().unwrap().insert(path.to_owned());
        LocalDisk.sync_dir(path)
    }

    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        if !self.0.reach(path) {
            return Ok(DiskUsage { total_bytes: 100 << 30, available_bytes: 100 << 30 });
        }
        if let Some(usage) = *self.0.usage.lock().unwrap() {
            return Ok(usage);
        }
        let used = self.0.used_percent.load(Ordering::Relaxed);
        Ok(DiskUsage { total_bytes: 100 << 30, available_bytes: (100 - used) << 30 })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        LocalDisk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        LocalDisk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.create_dir(path)
    }

    fn protect(&self, path: &Path) -> io::Result<()> {
        LocalDisk.protect(path)
    }

    fn database(&self, path: &Path, builder: &redb::Builder) -> Result<redb::Database, redb::DatabaseError> {
        let is_state = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"state.redb");
        if !path.file_name().is_some_and(is_state) {
            return LocalDisk.database(path, builder);
        }
        let options = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let file = redb::backends::FileBackend::new(options.open(path)?)?;
        builder.create_with_backend(FaultyDatabase(file, self.0.clone()))
    }
}

/// The file under a database.
#[derive(Debug)]
struct FaultyDatabase(redb::backends::FileBackend, Arc<Faults>);

impl redb::StorageBackend for FaultyDatabase {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.state_syncs.fetch_add(1, Ordering::Relaxed);
        if self.1.fail_state_sync.load(Ordering::Relaxed) {
            return Err(io::Error::other("injected"));
        }
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.1.state_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.0.query_lock_range(start, end)
    }
}

impl DiskFile for FaultyFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        if (self.is_segment || self.is_aside)
            && self.faults.disk_full.load(Ordering::Relaxed)
            && self.faults.reach(&self.path)
        {
            // Half of it arrives, as on a real disk.
            self.inner.write_all_at(&buffer[..buffer.len() / 2], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.is_segment {
            self.faults.segment_bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        }
        self.inner.write_all_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if self.is_segment {
            self.faults.segment_syncs.fetch_add(1, Ordering::Relaxed);
            if self.faults.fail_segment_sync.load(Ordering::Relaxed) && self.faults.reach(&self.path) {
                return Err(io::Error::other("injected"));
            }
        }
        if self.is_pins && self.faults.fail_pin_sync.load(Ordering::Relaxed) {
            return Err(io::Error::other("injected"));
        }
        self.faults.synced.lock().unwrap().insert(self.path.clone());
        self.inner.sync()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }
}

/// Peers that are never there.
pub struct NoPeers;

#[async_trait]
impl Peers for NoPeers {
    async fn replicate(&self, _: &LayoutNode, _: &PeerCall, _: Vec<Bytes>) -> Result<ReplicaPut, PeerError> {
        Err(PeerError::Unreachable { reason: "no network".to_owned() })
    }

    async fn have_local(
        &self,
        _: &LayoutNode,
        _: &PeerCall,
        _: &[ChunkId],
    ) -> Result<Vec<Presence>, PeerError> {
        Err(PeerError::Unreachable { reason: "no network".to_owned() })
    }
}

/// One node in a folder that outlives it.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub clock: Arc<TestClock>,
    pub faults: Arc<Faults>,
    pub options: StorageNodeOptions,
}

impl Rig {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("unused");
        let options = StorageNodeOptions {
            node_id: 1,
            site: "a".to_owned(),
            cluster: "test".to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            admin_listen: None,
            data: dir.path().join("data"),
            capacity: ByteSize::gib(1),
            disks: Vec::new(),
            tls: TlsOptions { cert_file: file.clone(), key_file: file.clone(), ca_file: file.clone() },
            coordinator_public_key_file: file,
            segment_target: ByteSize::mib(1),
            group_commit: GroupCommitOptions::default(),
            ingest_stop_percent: 90,
            repair_stop_percent: 85,
            repair: RepairOptions::default(),
            s3: None,
            telemetry: TelemetryOptions::default(),
        };
        let clock = Arc::new(TestClock { now_ms: AtomicU64::new(1_000_000), ticks: AtomicU64::new(0) });
        Self { dir, clock, faults: Arc::default(), options }
    }

    /// Gives the node one more disk.
    pub fn add_disk(&mut self, name: &str, capacity: ByteSize) -> PathBuf {
        let path = self.dir.path().join(name);
        self.options.disks.push(DiskOptions { path: path.clone(), capacity });
        path
    }

    /// A rig on a folder that something else made.
    pub fn at(data: &Path) -> Self {
        let mut rig = Self::new();
        rig.options.data = data.to_owned();
        rig
    }

    pub fn try_open(&self) -> Result<Arc<Node>, Error> {
        self.open_at(&self.options)
    }

    pub fn open_at(&self, options: &StorageNodeOptions) -> Result<Arc<Node>, Error> {
        self.open_among(options, Arc::new(NoPeers))
    }

    pub fn open_among(
        &self,
        options: &StorageNodeOptions,
        peers: Arc<dyn Peers>,
    ) -> Result<Arc<Node>, Error> {
        let setup = NodeSetup {
            disk: Arc::new(FaultyDisk(self.faults.clone())),
            executor: Executor::Threads,
            fence_rule: FenceRule::Highest,
            clock: self.clock.clone(),
            random: Arc::new(SystemRandom),
            peers,
        };
        Node::open(options, setup).map(Arc::new)
    }

    /// A node with a layout that gives it everything, in epoch 5 of generation 1.
    pub fn open(&self) -> Arc<Node> {
        let node = self.try_open().unwrap();
        node.apply(authority(1, 5, Some(layout(1, &[(1, "a")], 1)))).unwrap();
        node
    }

    /// Takes the state of a stopped node away, with the operator's word to go on without it.
    pub fn lose_state(&self) {
        std::fs::remove_file(self.options.data.join("state.redb")).unwrap();
        std::fs::write(self.options.data.join("rebuild-state"), []).unwrap();
    }

    /// What a `kill -9` at this moment would leave: a copy of the folder, opened by a new node.
    pub fn after_a_kill(&self) -> (Rig, Arc<Node>) {
        let rig = self.copy();
        let node = rig.try_open().unwrap();
        (rig, node)
    }

    pub fn copy(&self) -> Rig {
        let mut rig = Rig::new();
        copy_dir(&self.options.data, &rig.options.data);
        rig.options.segment_target = self.options.segment_target;
        rig
    }

    /// The only segment of a class.
    pub fn segment(&self, class: &str) -> std::path::PathBuf {
        let names = std::fs::read_dir(self.options.data.join("segments")).unwrap();
        let mut found: Vec<_> = names
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.starts_with(class) && name.ends_with(".seg")
            })
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn layout(version: u64, nodes: &[(u64, &str)], copies: u8) -> Layout {
    let nodes = nodes
        .iter()
        .map(|(id, site)| LayoutNode::new(NodeId(*id), (*site).into(), format!("127.0.0.1:{id}"), 1 << 30));
    let replication = Replication { copies, ack_sites: copies };
    Layout::compute(LayoutVersion(version), "p".into(), replication, nodes.collect()).unwrap()
}

pub fn authority(generation: u64, epoch: u64, layout: Option<Layout>) -> Authority {
    Authority { generation: Generation(generation), epoch: Epoch(epoch), layout: layout.map(Arc::new) }
}

pub fn fence(attempt: u64) -> Fence {
    Fence { generation: Generation(1), attempt }
}

pub fn claims(attempt: u64) -> SessionClaims {
    SessionClaims {
        tenant: TENANT,
        pool: PoolId("p".to_owned()),
        resource: RESOURCE,
        workload: Workload::Mail,
        job: JobId([3; 16]),
        fence: fence(attempt),
        epoch: Epoch(5),
        verbs: vec![Verb::Read, Verb::Write, Verb::Commit],
        expires_at_ms: 2_000_000_000_000_000,
    }
}

pub fn caller(attempt: u64) -> Caller {
    Caller { claims: claims(attempt), token: SessionToken::default() }
}

pub fn record_of(tenant: TenantId, n: u32, len: usize, kind: RecordKind) -> SealedRecord {
    let mut ciphertext = vec![0; len];
    let mut id = [0; 32];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&n.to_le_bytes());
    hasher.finalize_xof().fill(&mut id);
    blake3::Hasher::new_derive_key("test ciphertext").update(&id).finalize_xof().fill(&mut ciphertext);
    let header = SealedHeader {
        kind,
        codec: Codec::None,
        chunker: Chunker::Whole,
        key_epoch: 1,
        tenant,
        id: ChunkId(id),
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

pub fn record(n: u32, len: usize) -> SealedRecord {
    record_of(TENANT, n, len, RecordKind::Data)
}

pub fn pin(sequence: u64, attempt: u64, epoch: u64, retain_until_ms: Millis) -> Pin {
    Pin {
        tenant: TENANT,
        resource: RESOURCE,
        workload: Workload::Mail,
        sequence: Sequence(sequence),
        fence: fence(attempt),
        epoch: Epoch(epoch),
        snapshot: SnapshotId([1; 8]),
        root: ChunkId([4; 32]),
        sealed_root: Bytes::from_static(b"sealed"),
        previous: None,
        created_ms: 1,
        retain_until_ms,
        items: 1,
        items_missing: 0,
    }
}

pub fn ticket_for(pin: &Pin) -> Ticket {
    Ticket {
        tenant: pin.tenant,
        resource: pin.resource,
        workload: pin.workload,
        sequence: pin.sequence,
        fence: pin.fence,
        pin_hash: pin.hash(),
    }
}

pub fn put_this_pin(node: &Node, pin: &Pin) -> Result<(PinOutcome, Fence), Error> {
    node.put_pin(&ticket_for(pin), &pin.encode())
}

pub fn put_pin(node: &Node, sequence: u64, attempt: u64) -> Result<(PinOutcome, Fence), Error> {
    put_this_pin(node, &pin(sequence, attempt, 5, 9_000_000_000))
}
