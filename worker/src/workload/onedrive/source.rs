//! What the engine asks of a drive: its delta, and the content of what changed.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use holdfast_graph_client::{Change, DriveItem, DriveItemKind, GraphError};
use holdfast_repository::{EntryFlags, EntryKind, FolderKey, ItemEntry, ItemFields, TreeRoots};
use serde::Deserialize;

use super::{
    content,
    meta::{StoredDriveItem, stored_drive_item},
    permissions,
};
use crate::{
    JobError,
    backup::{BackupContext, Manifest},
    workload::{
        ROOT_PARENT,
        collect::{Container, FetchError, Found, Held, ItemChange, ItemPage, Judgement, Source, State},
        container_key,
        parts::{FETCH_BYTES, Parts},
        stored::{json_text, with_holdfast},
    },
};

/// The files of one drive.
pub(super) struct DriveSource {
    context: Arc<BackupContext>,
    /// Microsoft's id of the drive; none where the person has none.
    drive: Option<String>,
}

impl DriveSource {
    /// Finds the person's drive.
    pub(super) async fn open(context: Arc<BackupContext>) -> Result<Self, JobError> {
        let drive = context.graph.user_drive(&context.user).await?;
        Ok(Self { drive: drive.map(|drive| drive.id), context })
    }

    fn drive(&self) -> &str {
        self.drive.as_deref().unwrap_or_default()
    }
}

#[async_trait]
impl Source for DriveSource {
    type Item = DriveItem;
    type Stored = StoredDriveItem;

    /// The drive itself. Somebody who had one and has none is no reason to give up what is stored.
    async fn containers(&self, state: &mut State) -> Result<Vec<Container>, JobError> {
        match &self.drive {
            Some(drive) => Ok(vec![Container::new(drive, String::new())]),
            None if state.containers.is_empty() => Ok(Vec::new()),
            None => Err(JobError::DriveGone),
        }
    }

    async fn page(
        &self,
        drive: &str,
        link: Option<&str>,
        _is_plain: bool,
    ) -> Result<ItemPage<DriveItem>, GraphError> {
        let page = self.context.graph.drive_delta(drive, link).await?;
        let items = page.items.into_iter().map(|change| match change {
            Change::Present(item) => ItemChange::Present(item),
            Change::Removed { id, .. } => ItemChange::Removed { id },
        });
        Ok(ItemPage { items: items.collect(), next: page.next, delta: page.delta })
    }

    async fn item(&self, id: &str) -> Result<DriveItem, GraphError> {
        self.context.graph.drive_item(self.drive(), id).await
    }

    fn id<'a>(&self, item: &'a DriveItem) -> &'a str {
        &item.id
    }

    fn parent(&self, item: &DriveItem) -> [u8; 16] {
        item.parent_id.as_deref().map_or(ROOT_PARENT, container_key)
    }

    fn weight(&self, item: &DriveItem) -> u64 {
        item.raw.len() as u64
    }

    fn change(&self, item: &DriveItem) -> Result<[u8; 16], JobError> {
        Ok(change_of(item))
    }

    fn fields(&self, item: &DriveItem, change: [u8; 16], size: u64) -> ItemFields {
        let is_folder = matches!(item.kind, DriveItemKind::Folder { .. } | DriveItemKind::Package { .. });
        ItemFields {
            kind: if is_folder { EntryKind::DriveFolder } else { EntryKind::DriveFile },
            flags: EntryFlags::default(),
            change,
            size,
            parent: FolderKey(self.parent(item)),
            // Only folders have 0.
            sort: if is_folder { 0 } else { item.modified_ms.unwrap_or(0).max(1) },
        }
    }

    fn splits(&self) -> bool {
        true
    }

    /// A folder costs nothing to fetch.
    fn shard_size(&self, item: &DriveItem) -> Option<u64> {
        matches!(item.kind, DriveItemKind::File { .. }).then_some(item.size)
    }

    /// Without its address, which would open the content: the shard asks for another.
    fn for_shard(&self, item: &DriveItem) -> Bytes {
        item.raw.clone()
    }

    fn rebuild(&self, stored: &[u8]) -> Result<DriveItem, JobError> {
        DriveItem::from_json(stored).map_err(|source| JobError::Stored { what: "item of a shard", source })
    }

    /// Folders are items of a drive too: they have times, permissions and names of their own.
    fn is_item(&self, _kind: EntryKind) -> bool {
        true
    }

    /// Microsoft's word for the folder: of people, not of keys.
    fn path(&self, item: &DriveItem) -> Option<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Placed {
            parent_reference: Option<Parent>,
        }
        #[derive(Deserialize)]
        struct Parent {
            path: Option<String>,
        }
        let path = serde_json::from_slice::<Placed>(&item.raw).ok()?.parent_reference?.path?;
        let (_, below) = path.split_once("root:")?;
        Some(below.to_owned())
    }

    /// A drive has one container, and everything is in it.
    fn is_in(&self, _entry: &ItemEntry, _container: [u8; 16]) -> bool {
        true
    }

    async fn items_in(
        &self,
        manifest: &Manifest,
        roots: TreeRoots,
        _container: [u8; 16],
    ) -> Result<Vec<String>, JobError> {
        let ids = manifest.items(roots).map_ok(|(key, _)| String::from_utf8(key.0)).try_collect::<Vec<_>>();
        Ok(ids.await?.into_iter().flatten().collect())
    }

    async fn judge(
        &self,
        item: &DriveItem,
        entry: &ItemEntry,
        change: [u8; 16],
        _is_moved: bool,
    ) -> Result<Judgement<StoredDriveItem>, JobError> {
        if entry.change[8..] != change[8..] {
            return Ok(Judgement::Fetch);
        }
        let stored = stored_drive_item(&self.context.manifest.meta(entry).await?)?;
        if item.is_shared || !stored.permissions.is_empty() {
            return Ok(Judgement::Compare(stored));
        }
        Ok(Judgement::Keep { meta: with_holdfast(json_text(&item.raw), &stored)? })
    }

    async fn fetch(
        &self,
        item: &DriveItem,
        held: Option<Held<StoredDriveItem>>,
    ) -> Result<Found, FetchError> {
        let raw = json_text(&item.raw);
        let permissions = permissions::own(&self.context, self.drive(), item).await?;
        if let Some(Held { entry, stored }) = held {
            let holdfast = StoredDriveItem { permissions, ..stored };
            return Ok(Found::Same { entry: Box::new(entry), meta: with_holdfast(raw, &holdfast)? });
        }
        let _share = self.context.shared.memory.reserve(FETCH_BYTES).await;
        let mut parts = Parts::default();
        let mut holdfast = StoredDriveItem { permissions, ..StoredDriveItem::default() };
        if matches!(item.kind, DriveItemKind::File { .. }) {
            let place = (self.drive(), item);
            holdfast.content = Some(content::file(&self.context, self.drive(), item, &mut parts).await?);
            let n_wanted = self.context.options.drive_versions;
            holdfast.versions = content::earlier_versions(&self.context, place, n_wanted, &mut parts).await?;
        }
        Ok(Found::Content(parts.into_content(with_holdfast(raw, &holdfast)?, 0)))
    }
}

/// An item's `change`.
///
/// What tells content apart is length, hash and the time of the last change; cTag, which would, is not in deltas. Sharing that
/// changed alone leaves the etag as it is.
fn change_of(item: &DriveItem) -> [u8; 16] {
    let mut whole = blake3::Hasher::new();
    whole.update(item.etag.as_deref().map_or(&item.raw[..], str::as_bytes));
    whole.update(&[u8::from(item.sharing_changed)]);
    let mut content = blake3::Hasher::new();
    if let DriveItemKind::File { hash, .. } = &item.kind {
        content.update(&item.size.to_le_bytes());
        content.update(&item.modified_ms.unwrap_or(0).to_le_bytes());
        // Without a hash everything that changes may be the content.
        content.update(hash.as_deref().or(item.etag.as_deref()).unwrap_or_default().as_bytes());
    }
    let mut change = [0; 16];
    change[..8].copy_from_slice(&whole.finalize().as_bytes()[..8]);
    change[8..].copy_from_slice(&content.finalize().as_bytes()[..8]);
    change
}
