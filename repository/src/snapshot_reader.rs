//! Reads what a snapshot writer made: items, folders, content, and the difference of two snapshots.
//!
//! Invariant: every byte handed out was authenticated and hashed against the name its parent gave it, up to the pin.

use std::{ops::Deref, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use holdfast_record::Pin;

use crate::{
    blob,
    bundle_cache::BundleCache,
    chunk_store::ChunkStore,
    content_reader::ContentPart,
    content_writer::INLINE_MAX,
    error::Error,
    fetch::Fetcher,
    item::{BlobRef, ChildEntry, FolderKey, ItemEntry, ItemKey},
    keys::JobKeys,
    seal::Sealer,
    secret::ContentHash,
    snapshot::{SnapshotHeader, TreeRoots},
    snapshot_writer::find_item,
    tree::{Cursor, Diff, NodeStore, TreeKind},
};

/// Leaves loaded at one time when a tree is walked.
const LEAF_READ_AHEAD: usize = 16;
/// The longest range read into one buffer.
pub const MAX_RANGE_BYTES: u64 = 64 << 20;
/// The longest page of a folder.
pub const MAX_PAGE: usize = 1_000;

/// Continues a folder's listing behind the last entry of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildCursor(pub Vec<u8>);

/// A part of a folder's listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildPage {
    /// The entries, ascending by (sort, key).
    pub children: Vec<ChildEntry>,
    /// Where to continue; none at the end.
    pub next: Option<ChildCursor>,
}

/// What became of an item between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The item.
    pub key: ItemKey,
    /// As it was; none if it is new.
    pub before: Option<ItemEntry>,
    /// As it is; none if it is gone.
    pub after: Option<ItemEntry>,
}

/// Reads trees by their roots: of a snapshot, or of a job checkpoint. Clones share the cache.
#[derive(Clone)]
pub struct TreeReader {
    fetcher: Fetcher,
    items: Arc<NodeStore>,
    children: Arc<NodeStore>,
    bundles: BundleCache,
    roots: TreeRoots,
}

/// Reads a committed snapshot. Everything of [`TreeReader`] works on it.
#[derive(Clone)]
pub struct SnapshotReader {
    tree: TreeReader,
    header: Arc<SnapshotHeader>,
}

impl SnapshotReader {
    /// Opens the snapshot that a pin commits.
    pub async fn open(store: Arc<dyn ChunkStore>, keys: Arc<JobKeys>, pin: &Pin) -> Result<Self, Error> {
        let sealer = Arc::new(Sealer::new(&keys));
        let h = sealer.open_root(pin.root, &pin.sealed_root)?;
        let fetcher = Fetcher::new(store, sealer);
        let header = SnapshotHeader::decode(&fetcher.fetch_one(h).await?)?;
        let same = [
            ("tenant", header.tenant == pin.tenant),
            ("resource", header.resource == pin.resource),
            ("workload", header.workload == pin.workload),
            ("sequence", header.sequence == pin.sequence),
            ("parent", header.parent == pin.previous),
        ];
        if let Some((field, _)) = same.into_iter().find(|(_, same)| !same) {
            return Err(Error::WrongSnapshot { field });
        }
        Ok(Self { tree: TreeReader::from_fetcher(fetcher, header.roots), header: Arc::new(header) })
    }

    /// The same with another room to read ahead; see [`TreeReader::with_read_ahead`].
    #[must_use]
    pub fn with_read_ahead(self, bytes: usize) -> Self {
        Self { tree: self.tree.with_read_ahead(bytes), ..self }
    }

    /// What the snapshot object says.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }
}

impl Deref for SnapshotReader {
    type Target = TreeReader;

    fn deref(&self) -> &TreeReader {
        &self.tree
    }
}

impl TreeReader {
    /// Reads trees that have no pin: those of a job checkpoint.
    pub fn new(store: Arc<dyn ChunkStore>, keys: &JobKeys, roots: TreeRoots) -> Self {
        Self::from_fetcher(Fetcher::new(store, Arc::new(Sealer::new(keys))), roots)
    }

    fn from_fetcher(fetcher: Fetcher, roots: TreeRoots) -> Self {
        let items = Arc::new(NodeStore::new(TreeKind::Items, fetcher.clone()));
        let children = Arc::new(NodeStore::new(TreeKind::Children, fetcher.clone()));
        Self { fetcher, items, children, bundles: BundleCache::default(), roots }
    }

    /// The same with room for so many bytes of content ahead of what is used, of all streams of it and its clones together; 32 MiB
    /// otherwise. Each stream may hold one chunk more, so that none ever waits for another.
    #[must_use]
    pub fn with_read_ahead(self, bytes: usize) -> Self {
        Self { fetcher: self.fetcher.with_room(bytes), ..self }
    }

    /// The roots it reads.
    pub fn roots(&self) -> TreeRoots {
        self.roots
    }

    /// Looks an item up.
    pub async fn item(&self, key: &ItemKey) -> Result<Option<ItemEntry>, Error> {
        find_item(&self.items, self.roots, key).await
    }

    /// Every item, ascending by key.
    pub fn items(&self) -> BoxStream<'static, Result<(ItemKey, ItemEntry), Error>> {
        entries(self.items.clone(), self.roots.items, Bytes::new())
            .and_then(|(key, value)| async move { Ok((ItemKey(key.to_vec()), ItemEntry::decode(&value)?)) })
            .boxed()
    }

    /// What is in a folder, ascending by (sort, key).
    pub fn children(&self, folder: FolderKey) -> BoxStream<'static, Result<ChildEntry, Error>> {
        self.children_from(folder, Bytes::copy_from_slice(&folder.0))
            .map(|entry| entry.map(|(_, child)| child))
            .boxed()
    }

    /// A page of a folder, at most [`MAX_PAGE`] long.
    pub async fn children_page(
        &self,
        folder: FolderKey,
        after: Option<&ChildCursor>,
        limit: usize,
    ) -> Result<ChildPage, Error> {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut start = after.map_or(folder.0.to_vec(), |cursor| cursor.0.clone());
        if !start.starts_with(&folder.0) {
            return Err(Error::Malformed { what: "folder cursor", reason: "it belongs to another folder" });
        }
        if after.is_some() {
            // The smallest key behind the cursor's.
            start.push(0);
        }
        let mut stream = self.children_from(folder, start.into());
        let (mut children, mut last) = (Vec::new(), None);
        while let Some((key, child)) = stream.try_next().await? {
            if children.len() == limit {
                return Ok(ChildPage { children, next: last.map(|key: Bytes| ChildCursor(key.to_vec())) });
            }
            children.push(child);
            last = Some(key);
        }
        Ok(ChildPage { children, next: None })
    }

    fn children_from(
        &self,
        folder: FolderKey,
        start: Bytes,
    ) -> BoxStream<'static, Result<(Bytes, ChildEntry), Error>> {
        entries(self.children.clone(), self.roots.children, start)
            .try_take_while(move |(key, _)| futures::future::ready(Ok(key.starts_with(&folder.0))))
            .and_then(|(key, value)| async move {
                let child = ChildEntry::decode(&key, &value)?;
                Ok((key, child))
            })
            .boxed()
    }

    /// The properties of an item.
    pub async fn meta(&self, entry: &ItemEntry) -> Result<Bytes, Error> {
        self.blob(entry.meta).await
    }

    /// The parts of an item's content, in order; none where it has no content.
    pub async fn content(&self, entry: &ItemEntry) -> Result<Vec<ContentPart>, Error> {
        let Some(content) = entry.content else { return Ok(Vec::new()) };
        let mut parts = Vec::new();
        for part in blob::decode(&self.blob(content).await?)? {
            parts.push(ContentPart::of(&self.fetcher, part).await?);
        }
        Ok(parts)
    }

    /// The bytes of a part, a few chunks read ahead.
    pub fn read(&self, part: &ContentPart) -> BoxStream<'static, Result<Bytes, Error>> {
        self.read_range_stream(part, 0, part.len)
    }

    /// A range of a part, cut at its end, as a stream.
    pub fn read_range_stream(
        &self,
        part: &ContentPart,
        offset: u64,
        len: u64,
    ) -> BoxStream<'static, Result<Bytes, Error>> {
        part.stream(&self.fetcher, offset, len)
    }

    /// A range of a part, cut at its end, in one buffer of at most [`MAX_RANGE_BYTES`].
    pub async fn read_range(&self, part: &ContentPart, offset: u64, len: u64) -> Result<Bytes, Error> {
        let len = len.min(part.len.saturating_sub(offset));
        if len > MAX_RANGE_BYTES {
            return Err(Error::TooLarge { what: "range", found: len, limit: MAX_RANGE_BYTES });
        }
        let mut stream = self.read_range_stream(part, offset, len);
        let mut all = BytesMut::new();
        while let Some(bytes) = stream.try_next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// Starts to fetch what the properties and the small contents of an item are read from: for items that are read soon.
    pub fn prefetch(&self, entry: &ItemEntry) {
        let blobs = [Some(entry.meta), entry.content].into_iter().flatten();
        for blob in blobs.filter(is_bundled) {
            drop(self.bundles.start(&self.fetcher, blob.h));
        }
    }

    async fn blob(&self, blob: BlobRef) -> Result<Bytes, Error> {
        let record = if is_bundled(&blob) {
            self.bundles.get(&self.fetcher, blob.h).await?
        } else {
            self.fetcher.fetch_one(blob.h).await?
        };
        let (start, end) = (blob.offset as usize, blob.offset as usize + blob.len as usize);
        if end > record.len() {
            return Err(Error::Malformed { what: "blob", reason: "it reaches behind its record" });
        }
        Ok(record.slice(start..end))
    }
}

/// Whether other things are read from the same record.
fn is_bundled(blob: &BlobRef) -> bool {
    blob.len as usize <= INLINE_MAX
}

/// The items that differ between two snapshots of one resource, ascending by key. Costs the difference, not the snapshots.
///
/// Only what an item is counts, not where its bytes are.
pub fn diff(before: &TreeReader, after: &TreeReader) -> BoxStream<'static, Result<Change, Error>> {
    let starts = ((before.items.clone(), before.roots.items), (after.items.clone(), after.roots.items));
    stream::once(async move { Diff::start(starts.0, starts.1).await })
        .map_ok(|diff| stream::try_unfold(diff, next_change))
        .try_flatten()
        .boxed()
}

async fn next_change(mut diff: Diff) -> Result<Option<(Change, Diff)>, Error> {
    while let Some((key, before, after)) = diff.next().await? {
        let decode = |value: Option<Bytes>| value.map(|value| ItemEntry::decode(&value)).transpose();
        let (before, after) = (decode(before)?, decode(after)?);
        if before.map(|entry| entry.fields()) != after.map(|entry| entry.fields()) {
            return Ok(Some((Change { key: ItemKey(key.to_vec()), before, after }, diff)));
        }
    }
    Ok(None)
}

/// Every entry of a tree from a key on.
fn entries(
    nodes: Arc<NodeStore>,
    root: Option<ContentHash>,
    start: Bytes,
) -> BoxStream<'static, Result<(Bytes, Bytes), Error>> {
    enum Walk {
        Start(Arc<NodeStore>, ContentHash, Bytes),
        At(Box<Cursor>, usize),
    }
    let Some(root) = root else { return stream::empty().boxed() };
    stream::try_unfold(Walk::Start(nodes, root, start), |walk| async move {
        let (mut cursor, mut index) = match walk {
            Walk::At(cursor, index) => (cursor, index),
            Walk::Start(nodes, root, start) => {
                let Some(cursor) = Cursor::seek(&nodes, root, 0, &start, LEAF_READ_AHEAD).await? else {
                    return Ok(None);
                };
                let index = cursor.current.entries.partition_point(|(key, _)| *key < start);
                (Box::new(cursor), index)
            }
        };
        while index >= cursor.current.entries.len() {
            if !cursor.next().await? {
                return Ok(None);
            }
            index = 0;
        }
        let entry = cursor.current.entries[index].clone();
        Ok(Some((entry, Walk::At(cursor, index + 1))))
    })
    .boxed()
}
