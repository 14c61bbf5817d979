//! One setting as an entry of the manifest: Microsoft's JSON without content.

use holdfast_repository::{ContentSource, EntryFlags, EntryKind, FolderKey, ItemFields};
use serde_json::Value;

use super::steady::steady;
use crate::{
    JobError,
    backup::{Manifest, key},
    workload::{
        container_key,
        stored::{Setting, StoredFolder, change_of, with_holdfast},
    },
};

/// A setting to be put into the manifest.
pub(super) struct SettingToPut<'a> {
    pub(super) id: &'a str,
    pub(super) parent_id: &'a str,
    /// Microsoft's JSON.
    pub(super) raw: &'a Value,
    pub(super) setting: Setting,
}

impl SettingToPut<'_> {
    /// Puts it where it is new or changed.
    pub(super) async fn put(&self, manifest: &Manifest) -> Result<(), JobError> {
        let change = change_of("", steady(self.raw).to_string().as_bytes());
        let parent = FolderKey(container_key(self.parent_id));
        let entry = manifest.entry(self.id).await?;
        if entry.is_some_and(|entry| entry.change == change && entry.parent == parent) {
            return Ok(());
        }
        let holdfast = StoredFolder { setting: Some(self.setting), ..StoredFolder::default() };
        let meta = with_holdfast(&self.raw.to_string(), &holdfast)?;
        let (kind, flags) = (EntryKind::Folder, EntryFlags::default());
        let fields = ItemFields { kind, flags, change, size: 0, parent, sort: 0 };
        Ok(manifest.writer().put_item(key(self.id), fields, meta, ContentSource::None).await?)
    }
}
