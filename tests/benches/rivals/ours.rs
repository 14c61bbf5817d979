//! Holdfast's side: a source of files in front of the worker's own pipeline, into one storage node in a process of its own.
//!
//! The source exists for this bench only: an item is a file, its change key is size and modification time. Everything behind it
//! is what a worker runs: `SnapshotWriter` on a bounded pool, a session with mTLS, group commit with fsync in the node.
//!
//! The index of the previous snapshot is read from storage in every run, as a worker does; nothing is kept between runs but the
//! pin, which a worker gets with its lease.

use std::{
    collections::HashMap,
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use harness::single_node::SingleNode;
use holdfast_model::{
    Account, Epoch, Fence, Generation, ResourceId, Sequence, SnapshotId, TenantId, Workload,
};
use holdfast_record::Pin;
use holdfast_repository::{
    ChunkStore, ContentSource, EntryFlags, EntryKind, FinishedSnapshot, FolderKey, ItemFields, ItemKey,
    JobKeys, ResourceKey, SnapshotHeader, SnapshotReader, SnapshotWriter, TenantKeys, TreeRoots,
    WriterOptions,
};
use holdfast_runtime::SystemRandom;

use super::restore;

const TENANT: TenantId = TenantId([1; 16]);
const RESOURCE: ResourceId = ResourceId([2; 16]);
/// What the session of the single node was opened with.
const FENCE: Fence = Fence { generation: Generation(1), attempt: 1 };
/// Files read at once: a worker's fetches per job.
const FILES_AT_ONCE: usize = 4;
const PIECE_BYTES: usize = 256 << 10;
/// On its way to storage: about what a job of a worker has with the default `memory-budget` and slots.
const IN_FLIGHT_BYTES: usize = 24 << 20;

/// One node and the keys of one resource.
pub struct Ours {
    node: SingleNode,
    keys: Arc<JobKeys>,
    pool: Arc<rayon::ThreadPool>,
    newest: Option<Pin>,
    data: PathBuf,
}

/// What a run did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    pub n_stored: u64,
    pub n_unchanged: u64,
}

/// What is kept of a file or folder beside its bytes.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct FileMeta {
    pub name: String,
    pub mode: u32,
    pub modified: (i64, i64),
}

/// A file or a folder as the walk found it.
struct Found {
    path: PathBuf,
    key: ItemKey,
    fields: ItemFields,
    meta: Bytes,
}

impl Ours {
    /// Starts an empty node. Not part of what is timed: in production it runs already.
    pub async fn start(folder: &Path) -> Self {
        let keys = JobKeys {
            tenant: TENANT,
            resource: RESOURCE,
            tenant_keys: TenantKeys::generate(&SystemRandom),
            resource_key: ResourceKey::generate(&SystemRandom),
        };
        let pool = rayon::ThreadPoolBuilder::new().build().expect("a pool with a thread per core");
        let node = SingleNode::start(folder, TENANT, RESOURCE).await;
        Self { node, keys: Arc::new(keys), pool: Arc::new(pool), newest: None, data: folder.join("data") }
    }

    /// One run: the base's index, the walk, what is new, the snapshot, and a durable record that names it.
    pub async fn back_up(&mut self, source: &Path) -> anyhow::Result<Done> {
        let store: Arc<dyn ChunkStore> = Arc::new(self.node.session.clone());
        let (roots, mut known) = self.index(&store).await?;
        let options = WriterOptions { in_flight_bytes: IN_FLIGHT_BYTES, ..WriterOptions::default() };
        let (keys, pool) = (self.keys.clone(), self.pool.clone());
        let writer = SnapshotWriter::create(store, keys, pool, options, roots);
        let source = source.to_owned();
        let found = tokio::task::spawn_blocking(move || walk(&source)).await??;
        let mut done = Done::default();
        let mut changed = Vec::new();
        for one in found {
            if known.remove(&one.key) == Some(one.fields.change) {
                done.n_unchanged += 1;
            } else {
                done.n_stored += 1;
                changed.push(one);
            }
        }
        futures::stream::iter(changed)
            .map(|one| store_one(&writer, one))
            .buffer_unordered(FILES_AT_ONCE)
            .try_collect::<()>()
            .await?;
        for gone in known.keys() {
            writer.remove_item(gone).await?;
        }
        let finished = writer.finish(self.header(done)).await?;
        self.commit(&finished, done).await?;
        Ok(done)
    }

    /// Roots of the newest snapshot, and its items with their change keys.
    async fn index(
        &self,
        store: &Arc<dyn ChunkStore>,
    ) -> anyhow::Result<(Option<TreeRoots>, HashMap<ItemKey, [u8; 16]>)> {
        let Some(pin) = &self.newest else { return Ok((None, HashMap::new())) };
        let reader = SnapshotReader::open(store.clone(), self.keys.clone(), pin).await?;
        let known = reader.items().map_ok(|(key, entry)| (key, entry.change)).try_collect().await?;
        Ok((Some(reader.header().roots), known))
    }

    fn sequence(&self) -> Sequence {
        Sequence(self.newest.as_ref().map_or(1, |pin| pin.sequence.0 + 1))
    }

    fn header(&self, done: Done) -> SnapshotHeader {
        SnapshotHeader {
            tenant: TENANT,
            resource: RESOURCE,
            workload: Workload::Mail,
            sequence: self.sequence(),
            parent: self.newest.as_ref().map(Pin::hash),
            roots: TreeRoots::default(),
            state: Vec::new(),
            account: Account {
                listed: done.n_stored + done.n_unchanged,
                stored: done.n_stored,
                unchanged: done.n_unchanged,
                ..Account::default()
            },
            failed: Vec::new(),
            started_ms: 0,
            finished_ms: 0,
            worker: "bench".into(),
            format: 1,
        }
    }

    /// Without a coordinator there is no ticket: the pin goes to the node as a job checkpoint, which is written the same way.
    async fn commit(&mut self, finished: &FinishedSnapshot, done: Done) -> anyhow::Result<()> {
        let sequence = self.sequence();
        let pin = Pin {
            tenant: TENANT,
            resource: RESOURCE,
            workload: Workload::Mail,
            sequence,
            fence: FENCE,
            epoch: Epoch(1),
            snapshot: SnapshotId::derive(TENANT, RESOURCE, Workload::Mail, sequence),
            root: finished.root,
            sealed_root: finished.sealed_root.clone(),
            previous: self.newest.as_ref().map(Pin::hash),
            created_ms: 0,
            retain_until_ms: 0,
            items: done.n_stored + done.n_unchanged,
            items_missing: 0,
        };
        self.node.session.put_checkpoint(FENCE, sequence.0, pin.encode(), &[finished.root]).await?;
        self.newest = Some(pin);
        Ok(())
    }

    /// Bytes in the node's folder.
    pub fn stored_bytes(&self) -> u64 {
        super::folder_bytes(&self.data)
    }

    pub fn node_pid(&self) -> i32 {
        self.node.process.pid().as_raw()
    }

    /// Where they are.
    pub fn stored_parts(&self) -> String {
        let parts = ["segments", "index.redb", "touches", "state.redb"].map(|name| {
            let path = self.data.join(name);
            let bytes = if path.is_dir() {
                super::folder_bytes(&path)
            } else {
                path.metadata().map_or(0, |metadata| metadata.len())
            };
            format!("{name} {:.1} MiB", bytes as f64 / (1 << 20) as f64)
        });
        parts.join(", ")
    }

    /// Writes every file of the newest snapshot into an empty folder, with modes and times; how many.
    pub async fn restore(&self, target: &Path) -> anyhow::Result<u64> {
        let pin = self.newest.as_ref().context("nothing was backed up")?;
        let store: Arc<dyn ChunkStore> = Arc::new(self.node.session.clone());
        restore::everything(SnapshotReader::open(store, self.keys.clone(), pin).await?, target).await
    }
}

fn walk(source: &Path) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut folders = vec![source.to_owned()];
    while let Some(folder) = folders.pop() {
        let parent = folder_key(folder.strip_prefix(source)?);
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            let name = path.strip_prefix(source)?.to_str().context("a name is not UTF-8")?.to_owned();
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            let size = if metadata.is_dir() { 0 } else { metadata.len() };
            let kind = if metadata.is_dir() { EntryKind::Folder } else { EntryKind::MailMessage };
            let fields = ItemFields {
                kind,
                flags: EntryFlags(0),
                change: change_key(size, modified),
                size,
                parent,
                sort: 0,
            };
            let meta = FileMeta { name: name.clone(), mode: metadata.mode() & 0o7777, modified };
            let key = ItemKey(name.into_bytes());
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            found.push(Found { path, key, fields, meta: serde_json::to_vec(&meta)?.into() });
        }
    }
    Ok(found)
}

fn change_key(size: u64, (seconds, nanoseconds): (i64, i64)) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes()).update(&seconds.to_le_bytes()).update(&nanoseconds.to_le_bytes());
    truncated(&hasher.finalize())
}

fn folder_key(path: &Path) -> FolderKey {
    FolderKey(truncated(&blake3::hash(path.as_os_str().as_encoded_bytes())))
}

fn truncated(hash: &blake3::Hash) -> [u8; 16] {
    std::array::from_fn(|index| hash.as_bytes()[index])
}

async fn store_one(writer: &SnapshotWriter, one: Found) -> anyhow::Result<()> {
    let content = if one.fields.kind == EntryKind::Folder {
        ContentSource::None
    } else {
        let mut content = writer.content();
        let path = one.path.clone();
        let (mut file, mut piece) =
            tokio::task::spawn_blocking(move || read_piece(File::open(path)?)).await??;
        while !piece.is_empty() {
            content.push(piece).await?;
            (file, piece) = tokio::task::spawn_blocking(move || read_piece(file)).await??;
        }
        ContentSource::New(vec![content.finish().await?])
    };
    Ok(writer.put_item(one.key, one.fields, one.meta, content).await?)
}

fn read_piece(file: File) -> std::io::Result<(File, Bytes)> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    (&file).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok((file, piece.into()))
}
