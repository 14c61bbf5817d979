//! Applies edits to a tree, writing only the nodes they touch.
//!
//! Level by level: the nodes that hold edited keys are read in order and cut again from the boundary before them, until a
//! boundary falls where an old node ended; from there the old nodes stand. What was replaced becomes the edits of the level
//! above. Invariant: the result is the tree that a build from scratch would make.

use std::{cmp::Ordering, sync::Arc};

use bytes::Bytes;
use holdfast_record::{Chunker, RecordKind, short_ref};

use crate::{
    error::Error,
    item::ItemEntry,
    secret::ContentHash,
    tree::{
        boundary::Boundary,
        cursor::Cursor,
        node::{Node, TreeKind, hash_of},
        node_store::NodeStore,
    },
    upload::{Upload, Uploader},
};

/// Edits whose leaves are read at one time.
const WARM_EDITS: usize = 128;
/// A tree of more levels does not exist.
const MAX_LEVELS: u8 = 32;

/// A key and its new value, or none to remove it.
pub(crate) type Edit = (Bytes, Option<Bytes>);

/// Hears of every leaf entry that changed: key, value before, value after.
pub(crate) type OnChange<'a> =
    &'a mut (dyn FnMut(&Bytes, Option<&Bytes>, Option<&Bytes>) -> Result<(), Error> + Send);

pub(crate) struct Merge<'a> {
    pub(crate) nodes: &'a Arc<NodeStore>,
    pub(crate) uploader: &'a Uploader,
}

/// The (last key, hash) of the nodes of one level that went and that came.
#[derive(Default)]
struct Replaced {
    removed: Vec<(Bytes, ContentHash)>,
    added: Vec<(Bytes, ContentHash)>,
}

impl Merge<'_> {
    /// Applies ascending, distinct edits and returns the new root.
    pub(crate) async fn apply(
        &self,
        root: Option<ContentHash>,
        mut edits: Vec<Edit>,
        on_change: OnChange<'_>,
    ) -> Result<Option<ContentHash>, Error> {
        if edits.is_empty() {
            return Ok(root);
        }
        let top = match root {
            Some(h) => Some(self.nodes.load(h).await?.level),
            None => None,
        };
        let mut unheard = |_: &Bytes, _: Option<&Bytes>, _: Option<&Bytes>| Ok(());
        let mut replaced = self.apply_level(root, 0, &edits, on_change).await?;
        for level in 0..MAX_LEVELS {
            if replaced.removed == replaced.added {
                return Ok(root);
            }
            let below_top = top.is_some_and(|top| level < top);
            if below_top {
                edits = replaced.into_edits();
            } else {
                match &replaced.added[..] {
                    [] => return Ok(None),
                    [(_, only)] => return self.collapse(*only).await.map(Some),
                    _ => {
                        edits =
                            replaced.added.iter().map(|(key, h)| (key.clone(), Some(hash_value(h)))).collect()
                    }
                }
            }
            let old = root.filter(|_| below_top);
            replaced = self.apply_level(old, level + 1, &edits, &mut unheard).await?;
        }
        Err(Error::TooLarge {
            what: "manifest tree",
            found: u64::from(MAX_LEVELS) + 1,
            limit: u64::from(MAX_LEVELS),
        })
    }

    /// A root with a single child is not the root: a build from scratch would have stopped below it.
    async fn collapse(&self, mut h: ContentHash) -> Result<ContentHash, Error> {
        loop {
            if self.nodes.cached(h).is_none() {
                // It may have been written a moment ago.
                self.uploader.flush().await?;
            }
            let node = self.nodes.load(h).await?;
            if node.level == 0 || node.entries.len() > 1 {
                return Ok(h);
            }
            h = node.child(0);
        }
    }

    async fn apply_level(
        &self,
        root: Option<ContentHash>,
        level: u8,
        edits: &[Edit],
        on_change: OnChange<'_>,
    ) -> Result<Replaced, Error> {
        let mut writer = LevelWriter::new(self, level);
        let (mut at, mut warmed) = (0, 0);
        while at < edits.len() {
            if let Some(root) = root.filter(|_| at >= warmed) {
                warmed = (at + WARM_EDITS).min(edits.len());
                let keys: Vec<&[u8]> = edits[at..warmed].iter().map(|(key, _)| &key[..]).collect();
                self.nodes.warm_paths(root, &keys).await?;
            }
            let cursor = match root {
                Some(root) => Cursor::seek(self.nodes, root, level, &edits[at].0, 1).await?,
                None => None,
            };
            let Some(mut cursor) = cursor else {
                writer.merge(&[], &edits[at..], on_change).await?;
                break;
            };
            loop {
                let node = cursor.current.clone();
                writer.replaced.removed.push((node.last_key().clone(), cursor.current_hash));
                let rest = &edits[at..];
                let is_last = cursor.is_last();
                let here =
                    if is_last { rest.len() } else { rest.partition_point(|edit| edit.0 <= node.last_key()) };
                writer.merge(&node.entries, &rest[..here], on_change).await?;
                at += here;
                if is_last || writer.pending.is_empty() || !cursor.next().await? {
                    break;
                }
            }
        }
        writer.end_node().await?;
        Ok(writer.replaced)
    }
}

/// Cuts the entries of one level into nodes and hands them over.
struct LevelWriter<'a> {
    merge: &'a Merge<'a>,
    boundary: Boundary,
    level: u8,
    pending: Vec<(Bytes, Bytes)>,
    replaced: Replaced,
}

impl<'a> LevelWriter<'a> {
    fn new(merge: &'a Merge<'a>, level: u8) -> Self {
        let tenant_key = &merge.uploader.sealer().keys().tenant_keys.boundary;
        let boundary = Boundary::new(tenant_key, merge.nodes.kind, level);
        Self { merge, boundary, level, pending: Vec::new(), replaced: Replaced::default() }
    }

    /// Merges the entries of an old node with the edits of its range, both ascending.
    async fn merge(
        &mut self,
        mut entries: &[(Bytes, Bytes)],
        mut edits: &[Edit],
        on_change: OnChange<'_>,
    ) -> Result<(), Error> {
        loop {
            let order = match (entries.first(), edits.first()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(entry), Some(edit)) => entry.0.cmp(&edit.0),
            };
            let old = if order == Ordering::Greater { None } else { entries.split_off_first() };
            let edit = if order == Ordering::Less { None } else { edits.split_off_first() };
            let (key, value) = match (old, edit) {
                (Some((key, value)), None) => (key, Some(value)),
                (old, Some((key, value))) => {
                    let before = old.map(|(_, value)| value);
                    if before != value.as_ref() {
                        on_change(key, before, value.as_ref())?;
                    }
                    (key, value.as_ref())
                }
                (None, None) => return Ok(()),
            };
            if let Some(value) = value {
                self.push(key.clone(), value.clone()).await?;
            }
        }
    }

    async fn push(&mut self, key: Bytes, value: Bytes) -> Result<(), Error> {
        let n = self.pending.len() as u64 + 1;
        let ends = self.boundary.ends(n, &key);
        self.pending.push((key, value));
        if ends { self.end_node().await } else { Ok(()) }
    }

    async fn end_node(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let node = Node { level: self.level, entries: std::mem::take(&mut self.pending) };
        let kind = if self.level == 0 { RecordKind::ManifestLeaf } else { RecordKind::ManifestInner };
        let uploader = self.merge.uploader;
        let plain = node.encode(self.merge.nodes.kind);
        let h = uploader.sealer().hash(kind, &plain);
        let stands = self.replaced.removed.iter().rev().take(4).any(|(_, old)| *old == h);
        self.replaced.added.push((node.last_key().clone(), h));
        if !stands {
            let refs = self.refs(&node)?;
            self.merge.nodes.insert(h, Arc::new(node));
            uploader.submit_named(h, Upload { kind, chunker: Chunker::Whole, refs, plain }).await?;
        }
        Ok(())
    }

    /// The records that a node names: children above the leaves, what items consist of in a leaf of items.
    fn refs(&self, node: &Node) -> Result<Vec<[u8; 16]>, Error> {
        let mut named = Vec::new();
        for (_, value) in &node.entries {
            if self.level > 0 {
                named.push(hash_of(value));
            } else if self.merge.nodes.kind == TreeKind::Items {
                let entry = ItemEntry::decode(value)?;
                named.push(entry.meta.h);
                named.extend(entry.content.map(|content| content.h));
            }
        }
        named.sort_unstable();
        named.dedup();
        let sealer = self.merge.uploader.sealer();
        Ok(named.into_iter().map(|h| short_ref(&sealer.id(h))).collect())
    }
}

impl Replaced {
    /// What the level above has to change. Both lists ascend; where a key went and came, it came.
    fn into_edits(self) -> Vec<Edit> {
        let mut edits = std::collections::BTreeMap::new();
        for (key, h) in self.removed {
            edits.insert(key, (Some(h), None));
        }
        for (key, h) in self.added {
            edits.entry(key).or_insert((None, None)).1 = Some(h);
        }
        edits.retain(|_, (before, after)| before != after);
        edits.into_iter().map(|(key, (_, after))| (key, after.map(|h| hash_value(&h)))).collect()
    }
}

fn hash_value(h: &ContentHash) -> Bytes {
    Bytes::copy_from_slice(h.as_bytes())
}
