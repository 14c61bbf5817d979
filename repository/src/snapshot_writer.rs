//! Writes a snapshot: items come in any order, merges make them durable and put them into the trees.
//!
//! Order of durability, the reason it is safe to be killed at any moment: data and bundles → tree nodes → snapshot object;
//! the pin that makes it count is the caller's. Invariant: roots are handed out only when all they reach is durable.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use holdfast_model::ChunkId;
use holdfast_record::{Chunker, MAX_PLAINTEXT_BYTES, RecordKind, short_ref};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    bundle::{Bundles, Slot},
    chunk_store::ChunkStore,
    content_blob::content_blob,
    content_writer::{ContentDraft, ContentWriter},
    error::{Error, within},
    fetch::Fetcher,
    item::{BlobRef, ItemEntry, ItemFields, ItemKey, MAX_KEY_BYTES, child_key},
    keys::JobKeys,
    recipe::MimeWriter,
    seal::{DEFAULT_ZSTD_LEVEL, Sealer},
    snapshot::{SnapshotHeader, TreeRoots},
    tree::{Cursor, Edit, Merge, NodeStore, TreeKind},
    upload::{Upload, Uploader},
};

/// Keys whose leaves are read at one time.
const WARM_KEYS: usize = 128;

/// How a snapshot is written.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Plaintext bytes between hand-over and durable, at least 4 MiB. Default 64 MiB.
    pub in_flight_bytes: usize,
    /// The compression level. Default 3.
    pub zstd_level: i32,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { in_flight_bytes: 64 << 20, zstd_level: DEFAULT_ZSTD_LEVEL }
    }
}

/// What a writer did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterStats {
    /// Plaintext bytes of content and properties taken; of a message with a recipe, as they are stored: decoded.
    pub bytes_in: u64,
    /// Sealed bytes put, before replication.
    pub bytes_stored: u64,
    /// Records put.
    pub chunks_new: u64,
    /// Records that storage or this writer had already.
    pub chunks_known: u64,
}

/// What an item's content is.
#[derive(Debug, Clone)]
pub enum ContentSource {
    /// It has none.
    None,
    /// That of the entry it was read from: only from the base or this writer.
    Existing(BlobRef),
    /// These parts, in order.
    New(Vec<ContentDraft>),
}

impl ContentSource {
    /// These parts, or nothing where there are none.
    pub fn of(drafts: Vec<ContentDraft>) -> Self {
        if drafts.is_empty() { Self::None } else { Self::New(drafts) }
    }
}

/// A snapshot that is durable and waits for its pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedSnapshot {
    /// The storage id of the snapshot object, for the pin.
    pub root: ChunkId,
    /// Its content hash sealed with the resource's key, for the pin.
    pub sealed_root: Bytes,
    /// Its trees.
    pub roots: TreeRoots,
}

/// Writes one snapshot. Clones share it. Everything stops when the last clone is dropped.
#[derive(Clone)]
pub struct SnapshotWriter {
    inner: Arc<Inner>,
}

struct Inner {
    uploader: Arc<Uploader>,
    items: Arc<NodeStore>,
    children: Arc<NodeStore>,
    state: Mutex<State>,
}

struct State {
    base: TreeRoots,
    bundles: Bundles,
    edits: BTreeMap<ItemKey, PendingEdit>,
}

#[derive(Clone, Copy)]
enum PendingEdit {
    Put { fields: ItemFields, meta: Slot, content: Option<Slot> },
    Remove,
}

impl SnapshotWriter {
    /// Starts on a base, or on nothing. Call it within a tokio runtime.
    pub fn create(
        store: Arc<dyn ChunkStore>,
        keys: Arc<JobKeys>,
        pool: Arc<rayon::ThreadPool>,
        options: WriterOptions,
        base: Option<TreeRoots>,
    ) -> Self {
        let sealer = Arc::new(Sealer::new(&keys));
        let fetcher = Fetcher::new(store.clone(), sealer.clone());
        let inner = Inner {
            uploader: Arc::new(Uploader::start(store, sealer, pool, options)),
            items: Arc::new(NodeStore::new(TreeKind::Items, fetcher.clone())),
            children: Arc::new(NodeStore::new(TreeKind::Children, fetcher)),
            state: Mutex::new(State {
                base: base.unwrap_or_default(),
                bundles: Bundles::default(),
                edits: BTreeMap::new(),
            }),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts a part of an item's content.
    pub fn content(&self) -> ContentWriter {
        ContentWriter::of_item(self.inner.uploader.clone())
    }

    /// Starts a part that is a file as others may have it too: an attachment, a document. It shares its chunks with every
    /// other copy, those within messages included.
    pub fn file(&self) -> ContentWriter {
        ContentWriter::of_file(self.inner.uploader.clone())
    }

    /// Starts a part that is a message in MIME: what is in base64 is stored as the files it is.
    pub fn mime(&self) -> MimeWriter {
        MimeWriter::new(self.inner.uploader.clone())
    }

    /// Adds or replaces an item. `meta` holds its properties.
    pub async fn put_item(
        &self,
        key: ItemKey,
        fields: ItemFields,
        meta: Bytes,
        contents: ContentSource,
    ) -> Result<(), Error> {
        check_key(&key)?;
        within("properties", meta.len(), MAX_PLAINTEXT_BYTES)?;
        let uploader = &self.inner.uploader;
        uploader.count_in(meta.len());
        let content = match contents {
            ContentSource::None => None,
            ContentSource::Existing(blob) => Some(Content::Existing(blob)),
            ContentSource::New(drafts) => {
                let (blob, refs) = content_blob(uploader, drafts).await?;
                Some(Content::New(blob, refs))
            }
        };
        let mut state = self.state().await?;
        let meta = state.bundles.place(uploader, meta, Vec::new()).await?;
        let content = match content {
            None => None,
            Some(Content::Existing(blob)) => Some(Slot::Named(blob)),
            Some(Content::New(blob, refs)) => Some(state.bundles.place(uploader, blob, refs).await?),
        };
        state.edits.insert(key, PendingEdit::Put { fields, meta, content });
        Ok(())
    }

    /// Changes the fields of an item, a flag or its folder, and keeps properties and content. `false` if there is no such
    /// item.
    pub async fn update_fields(&self, key: &ItemKey, fields: ItemFields) -> Result<bool, Error> {
        let mut state = self.state().await?;
        let (meta, content) = match state.edits.get(key).copied() {
            Some(PendingEdit::Remove) => return Ok(false),
            Some(PendingEdit::Put { meta, content, .. }) => (meta, content),
            None => match find_item(&self.inner.items, state.base, key).await? {
                Some(entry) => (Slot::Named(entry.meta), entry.content.map(Slot::Named)),
                None => return Ok(false),
            },
        };
        state.edits.insert(key.clone(), PendingEdit::Put { fields, meta, content });
        Ok(true)
    }

    /// Removes an item; nothing happens where there is none.
    pub async fn remove_item(&self, key: &ItemKey) -> Result<(), Error> {
        check_key(key)?;
        self.state().await?.edits.insert(key.clone(), PendingEdit::Remove);
        Ok(())
    }

    /// The item as it stands: what was put here over what the base has.
    pub async fn entry(&self, key: &ItemKey) -> Result<Option<ItemEntry>, Error> {
        let mut state = self.state().await?;
        let edit = state.edits.get(key).copied();
        match edit {
            Some(PendingEdit::Remove) => Ok(None),
            Some(edit) => self.resolve(&mut state, edit).await,
            None => {
                let base = state.base;
                // Others may go on while this reads; the base stays readable even if they merge.
                drop(state);
                find_item(&self.inner.items, base, key).await
            }
        }
    }

    /// Reads ahead what the base says of these items, in few round trips, for [`Self::entry`] to find.
    pub async fn warm(&self, keys: &[ItemKey]) -> Result<(), Error> {
        let Some(root) = self.state().await?.base.items else { return Ok(()) };
        let mut sorted: Vec<&[u8]> = keys.iter().map(|key| &key.0[..]).collect();
        sorted.sort_unstable();
        for some in sorted.chunks(WARM_KEYS) {
            self.inner.items.warm_paths(root, some).await?;
        }
        Ok(())
    }

    /// Makes everything so far durable and part of the trees; the roots returned are the next base. An error is final: start
    /// again from the last roots.
    pub async fn merge(&self) -> Result<TreeRoots, Error> {
        let mut state = self.state().await?;
        let merged = self.merge_state(&mut state).await;
        if let Err(error) = &merged {
            // The edits are gone: a later merge would leave them out in silence.
            self.inner.uploader.fail(error.clone());
        }
        merged
    }

    /// Merges, and makes the snapshot object durable.
    pub async fn finish(&self, mut header: SnapshotHeader) -> Result<FinishedSnapshot, Error> {
        let roots = self.merge().await?;
        header.roots = roots;
        let plain = header.encode();
        within("snapshot object", plain.len(), MAX_PLAINTEXT_BYTES)?;
        let uploader = &self.inner.uploader;
        let sealer = uploader.sealer();
        let refs =
            [roots.items, roots.children].into_iter().flatten().map(|h| short_ref(&sealer.id(h))).collect();
        let kind = RecordKind::Snapshot;
        let h = uploader
            .named(uploader.submit(Upload { kind, chunker: Chunker::Whole, refs, plain }).await?)
            .await?;
        uploader.flush().await?;
        Ok(FinishedSnapshot { root: sealer.id(h), sealed_root: sealer.seal_root(h), roots })
    }

    /// What was done so far.
    pub fn stats(&self) -> WriterStats {
        self.inner.uploader.stats()
    }

    /// Items changed since the last merge: when to merge again.
    pub async fn n_pending(&self) -> usize {
        self.inner.state.lock().await.edits.len()
    }

    /// Asks storage again about every chunk: call it when the session has been reopened.
    pub fn forget_seen(&self) -> Result<(), Error> {
        self.inner.uploader.forget_seen()
    }

    async fn state(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.inner.state.lock().await;
        self.inner.uploader.check()?;
        Ok(state)
    }

    /// The final places of an edit; closes a bundle that is still open.
    async fn resolve(&self, state: &mut State, edit: PendingEdit) -> Result<Option<ItemEntry>, Error> {
        let PendingEdit::Put { fields, meta, content } = edit else { return Ok(None) };
        let uploader = &self.inner.uploader;
        let meta = state.bundles.resolve(uploader, meta).await?;
        let content = match content {
            Some(slot) => Some(state.bundles.resolve(uploader, slot).await?),
            None => None,
        };
        Ok(Some(ItemEntry::new(fields, meta, content)))
    }

    async fn merge_state(&self, state: &mut State) -> Result<TreeRoots, Error> {
        let uploader = &*self.inner.uploader;
        let edits = std::mem::take(&mut state.edits);
        let mut items: Vec<Edit> = Vec::with_capacity(edits.len());
        for (key, edit) in edits {
            let value = self.resolve(state, edit).await?.map(|entry| entry.encode());
            items.push((key.0.into(), value));
        }
        state.bundles.forget();
        uploader.flush().await?;
        let mut children: Vec<Edit> = Vec::new();
        let mut on_change = |key: &Bytes, before: Option<&Bytes>, after: Option<&Bytes>| {
            move_child(&mut children, key, before, after)
        };
        let merge = Merge { nodes: &self.inner.items, uploader };
        let items_root = merge.apply(state.base.items, items, &mut on_change).await?;
        children.sort_unstable();
        let merge = Merge { nodes: &self.inner.children, uploader };
        let children_root = merge.apply(state.base.children, children, &mut |_, _, _| Ok(())).await?;
        uploader.flush().await?;
        state.base = TreeRoots { items: items_root, children: children_root };
        Ok(state.base)
    }
}

enum Content {
    Existing(BlobRef),
    New(Bytes, Vec<[u8; 16]>),
}

fn check_key(key: &ItemKey) -> Result<(), Error> {
    if key.0.is_empty() {
        return Err(Error::Malformed { what: "item key", reason: "it is empty" });
    }
    within("item key", key.0.len(), MAX_KEY_BYTES)
}

/// What a changed item changes in the listing of its folder, or of two.
fn move_child(
    children: &mut Vec<Edit>,
    key: &Bytes,
    before: Option<&Bytes>,
    after: Option<&Bytes>,
) -> Result<(), Error> {
    let place = |value: Option<&Bytes>| -> Result<Option<(Bytes, u8)>, Error> {
        let Some(value) = value else { return Ok(None) };
        let entry = ItemEntry::decode(value)?;
        Ok(Some((child_key(entry.parent, entry.sort, key), entry.kind.code())))
    };
    let (before, after) = (place(before)?, place(after)?);
    if before == after {
        return Ok(());
    }
    if let Some((old, _)) = before.filter(|(old, _)| after.as_ref().is_none_or(|(new, _)| new != old)) {
        children.push((old, None));
    }
    if let Some((new, kind)) = after {
        children.push((new, Some(Bytes::copy_from_slice(&[kind]))));
    }
    Ok(())
}

/// Looks an item up in a tree.
pub(crate) async fn find_item(
    items: &Arc<NodeStore>,
    roots: TreeRoots,
    key: &ItemKey,
) -> Result<Option<ItemEntry>, Error> {
    let Some(root) = roots.items else { return Ok(None) };
    let Some(cursor) = Cursor::seek(items, root, 0, &key.0, 1).await? else { return Ok(None) };
    let (found, value) = &cursor.current.entries[cursor.current.route(&key.0)];
    if found[..] == key.0[..] { ItemEntry::decode(value).map(Some) } else { Ok(None) }
}
