//! The way back of a drive: folders, files, their times and permissions.
//!
//! A file is written under a temporary name, proved by its hash, and only then takes the place that it belongs to. A file that
//! is there with the same name, length and hash is the restored one: it is not written again.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_graph_client::{DriveItem, DriveItemKind, DriveItemUpdate, FileTimes, GraphError, Page};
use holdfast_model::ConflictPolicy;
use serde_json::Value;

use super::{
    grants,
    meta::{StoredDriveItem, stored_drive_item},
    upload::{Upload, prove},
};
use crate::{
    JobError,
    restore::RestoreContext,
    workload::{
        snapshot_folders::SnapshotFolders,
        stored::broken,
        write_back::{ContainerLoss, Created, ItemToWrite, Occupant, Place, Target, restore_prefix},
    },
};

/// Graph's name for the folder that everything is in.
const ROOT: &str = "root";
/// What cannot be brought back, because it is a link to something in another drive.
const SHORTCUT: &str = "ShortcutNotRestored";
/// Microsoft makes notebooks and the like, not we: what was one comes back as a folder with its files.
const PACKAGE: &str = "PackageRestoredAsFolder";
/// How many names are tried for a file whose own is taken.
const MAX_NAMES: u32 = 50;

/// The drive that is restored to.
pub(super) struct DriveTarget<'a> {
    context: &'a RestoreContext,
    drive: String,
    /// Everything goes below this folder.
    top: String,
    /// The folders that are there or were made, by their position in the snapshot.
    resolved: HashMap<usize, String>,
    /// What could not be brought back of folders, until the engine asks.
    losses: Vec<ContainerLoss>,
}

/// A stored file.
pub(super) struct Stored {
    name: String,
    times: FileTimes,
    /// It is a notebook, or something else that looks like a file and is a folder.
    is_package: bool,
    holdfast: StoredDriveItem,
}

impl<'a> DriveTarget<'a> {
    /// Finds the person's drive and makes the folder to restore into.
    pub(super) async fn open(context: &'a RestoreContext) -> Result<Self, JobError> {
        let drive = context.graph.user_drive(&context.user).await?.ok_or(JobError::DriveGone)?.id;
        let mut top = ROOT.to_owned();
        for name in context.into.split('/').filter(|name| !name.is_empty()) {
            top = context.graph.create_drive_folder(&drive, &top, name).await?.id;
        }
        Ok(Self { context, drive, top, resolved: HashMap::new(), losses: Vec::new() })
    }

    /// The target's folder for one of the snapshot, made with its parents where it is missing.
    async fn folder(&mut self, folders: &SnapshotFolders, index: usize) -> Result<String, JobError> {
        let mut missing = Vec::new();
        let mut at = Some(index);
        let mut id = self.top.clone();
        while let Some(index) = at {
            let folder = &folders.all()[index];
            if folder.parent.is_none() {
                break;
            }
            if let Some(known) = self.resolved.get(&index) {
                id.clone_from(known);
                break;
            }
            missing.push(index);
            at = folder.parent;
        }
        for index in missing.into_iter().rev() {
            let folder = &folders.all()[index];
            let made = self.context.graph.create_drive_folder(&self.drive, &id, &folder.name).await?;
            for code in self.give_folder(&made, &folder.id).await? {
                self.losses.push(ContainerLoss { index, code });
            }
            id = made.id;
            self.resolved.insert(index, id.clone());
        }
        Ok(id)
    }

    /// Gives a folder the times and the permissions that it had; returns the codes of what it lacks.
    async fn give_folder(&self, made: &DriveItem, stored_id: &str) -> Result<Vec<String>, JobError> {
        let reader = &self.context.reader;
        let Some(entry) = reader.item(&crate::backup::key(stored_id)).await? else { return Ok(Vec::new()) };
        let stored = self.read(&reader.meta(&entry).await?)?;
        let times = DriveItemUpdate { times: stored.times, ..DriveItemUpdate::default() };
        self.context.graph.update_drive_item(&self.drive, &made.id, &times).await?;
        let place = (self.drive.as_str(), made.id.as_str());
        let mut losses = grants::give(self.context, place, &stored.holdfast.permissions).await?;
        if stored.is_package && !matches!(made.kind, DriveItemKind::Package { .. }) {
            losses.push(PACKAGE.to_owned());
        }
        Ok(losses)
    }

    /// Moves a proved file to the name that it belongs to, or to one beside it where that is taken.
    async fn settle(&self, id: &str, item: &ItemToWrite<'_, Stored>) -> Result<(), JobError> {
        let mut update = DriveItemUpdate { times: item.stored.times.clone(), ..DriveItemUpdate::default() };
        let mut n_taken = 0;
        loop {
            update.name = Some(beside(&item.stored.name, n_taken));
            match self.context.graph.update_drive_item(&self.drive, id, &update).await {
                Ok(_) => return Ok(()),
                Err(error) if error.status() == Some(409) && n_taken < MAX_NAMES => n_taken += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[async_trait]
impl Target for DriveTarget<'_> {
    type Stored = Stored;

    const ITEM_BYTES: u64 = 32 << 20;
    const KEY_IS_CONTENT: bool = true;
    const CREATE_REMOVES_REPLACED: bool = true;

    async fn place(&mut self, folders: &SnapshotFolders, index: usize) -> Result<Place, JobError> {
        Ok(Place::In(self.folder(folders, index).await?))
    }

    fn take_container_losses(&mut self) -> Vec<ContainerLoss> {
        std::mem::take(&mut self.losses)
    }

    async fn occupants(&self, folder: &str, link: Option<&str>) -> Result<Page<Occupant>, GraphError> {
        let page = self.context.graph.drive_children(&self.drive, folder, link).await?;
        let prefix = restore_prefix(&self.context.restore_key);
        // Only a restore beside others gives other names.
        let is_beside = self.context.conflict == ConflictPolicy::Rename;
        Ok(page.map(|item| occupant(&prefix, item, is_beside)))
    }

    fn read(&self, meta: &Bytes) -> Result<Stored, JobError> {
        let item: Value = serde_json::from_slice(meta).map_err(broken("meta"))?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let info = item.get("fileSystemInfo");
        let time = |name: &str| text(info.and_then(|info| info.get(name)));
        Ok(Stored {
            name: text(item.get("name")).unwrap_or_default(),
            times: FileTimes { created: time("createdDateTime"), modified: time("lastModifiedDateTime") },
            is_package: item.get("package").is_some_and(|package| !package.is_null()),
            holdfast: stored_drive_item(meta)?,
        })
    }

    fn look(&self, stored: &Stored) -> String {
        stored.name.to_lowercase()
    }

    /// A drive has no property for a key: name, length and hash of the content are one.
    fn key(&self, restore: &str, _id: &str, stored: &Stored) -> String {
        let prefix = restore_prefix(restore);
        match &stored.holdfast.content {
            Some(file) => content_key(&prefix, &stored.name, file.len, &file.quick_xor_hash),
            None => prefix,
        }
    }

    async fn create(&self, item: &ItemToWrite<'_, Stored>) -> Result<Created, JobError> {
        let Some(file) = &item.stored.holdfast.content else {
            return Ok(Created { id: String::new(), losses: vec![SHORTCUT.to_owned()] });
        };
        let parts = self.context.reader.content(item.entry).await?;
        let upload = Upload::new(self.context, &self.drive, item.container, &item.key);
        let (current, earlier) = parts.split_first().ok_or(JobError::ShortAttachment)?;
        let written = upload.write(current, earlier, file).await?;
        if let Some(old) = &item.replaces {
            self.context.graph.delete_drive_item(&self.drive, old).await?;
        }
        self.settle(&written.id, item).await?;
        Ok(Created { losses: prove(&written, file), id: written.id })
    }

    async fn complete(
        &self,
        item: &ItemToWrite<'_, Stored>,
        id: &str,
        _is_new: bool,
    ) -> Result<Vec<String>, JobError> {
        match id {
            "" => Ok(Vec::new()),
            id => grants::give(self.context, (&self.drive, id), &item.stored.holdfast.permissions).await,
        }
    }

    async fn delete(&self, _folder: &str, id: &str) -> Result<(), GraphError> {
        self.context.graph.delete_drive_item(&self.drive, id).await
    }
}

fn occupant(prefix: &str, item: DriveItem, is_beside: bool) -> Occupant {
    let name = if is_beside { original_name(&item.name) } else { item.name.clone() };
    let restore_key = match &item.kind {
        DriveItemKind::File { hash: Some(hash), .. } => Some(content_key(prefix, &name, item.size, hash)),
        _ => None,
    };
    Occupant { looks: vec![item.name.to_lowercase()], restore_key, id: item.id }
}

/// What tells a restored file.
fn content_key(prefix: &str, name: &str, len: u64, hash: &str) -> String {
    format!("{prefix}\n{name}\n{len}\n{hash}")
}

/// The n-th name for a file whose own name is taken: `Plan (restored).docx`, `Plan (restored 2).docx`.
fn beside(name: &str, n_taken: u32) -> String {
    let mark = match n_taken {
        0 => return name.to_owned(),
        1 => " (restored)".to_owned(),
        n => format!(" (restored {n})"),
    };
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem}{mark}.{extension}"),
        _ => format!("{name}{mark}"),
    }
}

/// The name that a file had before it was restored beside another.
fn original_name(name: &str) -> String {
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    match stem.rsplit_once(" (restored") {
        Some((original, rest)) if is_number(rest) => format!("{original}{extension}"),
        _ => name.to_owned(),
    }
}

/// `)` or ` 2)`.
fn is_number(rest: &str) -> bool {
    let Some(number) = rest.strip_suffix(')') else { return false };
    number.is_empty() || number.strip_prefix(' ').is_some_and(|number| number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_beside_another_leads_back_to_it() {
        for name in ["Plan.docx", "Plan", ".profile", "a.tar.gz", "x (1).txt"] {
            for n_taken in 0..4 {
                assert_eq!(original_name(&beside(name, n_taken)), name);
            }
        }
        assert_eq!(beside("Plan.docx", 1), "Plan (restored).docx");
        assert_eq!(beside("Plan", 2), "Plan (restored 2)");
        assert_eq!(original_name("Plan (restored by Ann).docx"), "Plan (restored by Ann).docx");
    }
}
