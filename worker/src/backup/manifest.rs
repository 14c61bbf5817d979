//! The snapshot in the making: the writer's pending edits, and reading what is below them.
//!
//! The one thing to know: an item put since the last merge has no place in storage yet, so its meta cannot be read before
//! [`Manifest::merge`].

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use holdfast_repository::{
    ChildEntry, ChunkStore, FolderKey, ItemEntry, ItemKey, JobKeys, SnapshotWriter, TreeReader, TreeRoots,
    WriterOptions,
};

use super::BackupContext;
use crate::JobError;

/// Plaintext bytes that a writer beside the snapshot may have on their way: the least that a writer takes.
const SIDE_BYTES: usize = 4 << 20;

/// A manifest that is being edited.
pub struct Manifest {
    writer: SnapshotWriter,
    /// Reads properties only; it keeps the bundles it has seen, up to a limit.
    metas: TreeReader,
    store: Arc<dyn ChunkStore>,
    keys: Arc<JobKeys>,
}

impl Manifest {
    pub(super) fn new(writer: SnapshotWriter, store: Arc<dyn ChunkStore>, keys: Arc<JobKeys>) -> Self {
        let metas = TreeReader::new(store.clone(), &keys, TreeRoots::default());
        Self { writer, metas, store, keys }
    }

    /// Where edits go.
    pub fn writer(&self) -> &SnapshotWriter {
        &self.writer
    }

    /// The job's keys.
    pub fn keys(&self) -> &JobKeys {
        &self.keys
    }

    /// The entry of an item as it is now.
    pub async fn entry(&self, id: &str) -> Result<Option<ItemEntry>, JobError> {
        Ok(self.writer.entry(&key(id)).await?)
    }

    /// Makes all edits durable.
    pub async fn merge(&self) -> Result<TreeRoots, JobError> {
        Ok(self.writer.merge().await?)
    }

    /// The meta of an entry that is not pending.
    pub async fn meta(&self, entry: &ItemEntry) -> Result<Bytes, JobError> {
        Ok(self.metas.meta(entry).await?)
    }

    /// What is in a folder of merged trees.
    pub fn children(
        &self,
        roots: TreeRoots,
        folder: [u8; 16],
    ) -> BoxStream<'static, Result<ChildEntry, holdfast_repository::Error>> {
        self.reader(roots).children(FolderKey(folder))
    }

    /// Everything in merged trees.
    pub fn items(
        &self,
        roots: TreeRoots,
    ) -> BoxStream<'static, Result<(ItemKey, ItemEntry), holdfast_repository::Error>> {
        self.reader(roots).items()
    }

    /// Reads other trees of the same resource.
    pub fn reader(&self, roots: TreeRoots) -> TreeReader {
        TreeReader::new(self.store.clone(), &self.keys, roots)
    }

    /// Writes trees beside the snapshot: of properties only, so it needs little room.
    pub fn side_writer(&self, context: &BackupContext) -> SnapshotWriter {
        let options = WriterOptions { in_flight_bytes: SIDE_BYTES, ..WriterOptions::default() };
        let (store, keys, pool) = (self.store.clone(), self.keys.clone(), context.shared.pool.clone());
        SnapshotWriter::create(store, keys, pool, options, None)
    }

    /// The storage id of the trees' roots.
    pub fn root_ids(&self, roots: &TreeRoots) -> Vec<holdfast_model::ChunkId> {
        let sealer = holdfast_repository::Sealer::new(&self.keys);
        [roots.items, roots.children].into_iter().flatten().map(|h| sealer.id(h)).collect()
    }
}

/// An item's key: Microsoft's id.
pub fn key(id: &str) -> ItemKey {
    ItemKey(id.as_bytes().to_vec())
}
