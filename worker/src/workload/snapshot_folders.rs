//! The folders of a snapshot, and what an operator selects among them: by folder path, or by item id.
//!
//! The one thing to know: reading the folders costs the folders, not the items, because folders sort before items.

use std::collections::{BTreeSet, HashMap, VecDeque};

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use holdfast_repository::{FolderKey, ItemEntry, ItemKey, SnapshotReader};
use serde::Deserialize;

use super::{
    ROOT_PARENT, container_key,
    stored::{Setting, StoredFolder, broken},
};
use crate::JobError;

/// Folders of one snapshot, at most: they are in memory at once, some hundred bytes each.
const MAX_FOLDERS: usize = 1_000_000;

/// A folder as the snapshot has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFolder {
    /// Microsoft's id when it was backed up.
    pub id: String,
    /// What its children are filed under.
    pub key: [u8; 16],
    /// The position of its parent; none for the root.
    pub parent: Option<usize>,
    /// Its name.
    pub name: String,
    /// `/Inbox/Projects`; empty for the root.
    pub path: String,
    /// Its well-known name.
    pub well_known: Option<String>,
    /// Whether Outlook hides it.
    pub is_hidden: bool,
    /// A view of other folders.
    pub is_search_folder: bool,
    /// What it is, where it is no folder but something that a mailbox does by itself.
    pub setting: Option<Setting>,
}

impl SnapshotFolder {
    /// Whether it is worth something by itself, without any items.
    pub fn is_definition(&self) -> bool {
        self.is_search_folder || self.setting.is_some()
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FolderMeta {
    #[serde(default, alias = "name")]
    display_name: String,
    #[serde(default)]
    is_hidden: Option<bool>,
    #[serde(rename = "@odata.type", default)]
    kind: Option<String>,
    #[serde(rename = "_holdfast", default)]
    holdfast: StoredFolder,
}

/// What was selected.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Positions of folders, parents first.
    pub folders: Vec<usize>,
    /// Single items.
    pub items: Vec<String>,
}

/// All folders of a snapshot, parents before children.
pub struct SnapshotFolders {
    folders: Vec<SnapshotFolder>,
    by_key: HashMap<[u8; 16], usize>,
}

impl SnapshotFolders {
    /// Reads them.
    pub async fn read(reader: &SnapshotReader) -> Result<Self, JobError> {
        Self::read_at_most(reader, MAX_FOLDERS).await
    }

    /// Reads them; more than `max` are an error, because what is in the others would be left out.
    pub async fn read_at_most(reader: &SnapshotReader, max: usize) -> Result<Self, JobError> {
        let mut all = Self { folders: Vec::new(), by_key: HashMap::new() };
        let mut next: VecDeque<(Option<usize>, [u8; 16])> = VecDeque::from([(None, ROOT_PARENT)]);
        while let Some((parent, key)) = next.pop_front() {
            let mut children = reader.children(FolderKey(key));
            while let Some(child) = children.try_next().await? {
                if child.sort > 0 {
                    break;
                }
                if !child.kind.is_container() {
                    continue;
                }
                let folder = read_folder(reader, &child.key, parent, &all.folders).await?;
                if all.by_key.contains_key(&folder.key) {
                    continue;
                }
                if all.folders.len() >= max {
                    return Err(JobError::TooManyFolders { limit: max });
                }
                next.push_back((Some(all.folders.len()), folder.key));
                all.by_key.insert(folder.key, all.folders.len());
                all.folders.push(folder);
            }
        }
        Ok(all)
    }

    /// All of them.
    pub fn all(&self) -> &[SnapshotFolder] {
        &self.folders
    }

    /// The folder with this key.
    pub fn by_key(&self, key: [u8; 16]) -> Option<usize> {
        self.by_key.get(&key).copied()
    }

    /// What these paths and ids name; everything when there are none.
    pub async fn select(&self, reader: &SnapshotReader, paths: &[String]) -> Result<Selection, JobError> {
        if paths.is_empty() {
            return Ok(Selection { folders: (0..self.folders.len()).collect(), items: Vec::new() });
        }
        let (mut folders, mut items) = (BTreeSet::new(), Vec::new());
        for path in paths {
            let mut found = self.under(path);
            if found.is_empty()
                && let Some(folder) = self.folders.iter().find(|folder| folder.id == *path)
            {
                found = self.under(&folder.path);
            }
            if !found.is_empty() {
                folders.extend(found);
            } else if reader.item(&ItemKey(path.clone().into_bytes())).await?.is_some() {
                items.push(path.clone());
            } else {
                return Err(JobError::NoSuchPath { path: path.clone() });
            }
        }
        Ok(Selection { folders: folders.into_iter().collect(), items })
    }

    /// The folder with this path and all below it.
    fn under(&self, path: &str) -> Vec<usize> {
        let wanted = path.trim_end_matches('/').to_lowercase();
        let below = format!("{wanted}/");
        let is_under = |folder: &SnapshotFolder| {
            let path = folder.path.to_lowercase();
            path == wanted || path.starts_with(&below)
        };
        self.folders
            .iter()
            .enumerate()
            .filter(|(_, folder)| is_under(folder))
            .map(|(index, _)| index)
            .collect()
    }

    /// The items of a folder with their entries.
    pub fn items<'a>(
        &'a self,
        reader: &'a SnapshotReader,
        folder: usize,
    ) -> BoxStream<'a, Result<(String, ItemEntry), JobError>> {
        let key = self.folders.get(folder).map_or([0xff; 16], |folder| folder.key);
        reader
            .children(FolderKey(key))
            .map_err(JobError::from)
            .try_filter_map(move |child| async move {
                if child.kind.is_container() {
                    return Ok(None);
                }
                let entry = reader.item(&child.key).await?;
                Ok(entry.map(|entry| (String::from_utf8_lossy(&child.key.0).into_owned(), entry)))
            })
            .boxed()
    }

    /// Everything that was selected: (folder, id, entry).
    pub fn selected<'a>(
        &'a self,
        reader: &'a SnapshotReader,
        selection: &'a Selection,
    ) -> BoxStream<'a, Result<(usize, String, ItemEntry), JobError>> {
        let of_folder = move |folder: usize| {
            self.items(reader, folder).map_ok(move |(id, entry)| (folder, id, entry)).boxed()
        };
        let single = move |id: &'a String| async move {
            let entry = reader.item(&ItemKey(id.clone().into_bytes())).await?;
            let entry = entry.ok_or_else(|| JobError::NoSuchPath { path: id.clone() })?;
            let folder = self.by_key(entry.parent.0).unwrap_or(0);
            Ok((folder, id.clone(), entry))
        };
        let folders = futures::stream::iter(selection.folders.iter().copied()).flat_map(of_folder);
        folders.chain(futures::stream::iter(&selection.items).then(single)).boxed()
    }
}

async fn read_folder(
    reader: &SnapshotReader,
    key: &ItemKey,
    parent: Option<usize>,
    folders: &[SnapshotFolder],
) -> Result<SnapshotFolder, JobError> {
    let id = String::from_utf8_lossy(&key.0).into_owned();
    let meta = match reader.item(key).await? {
        Some(entry) => serde_json::from_slice(&reader.meta(&entry).await?).map_err(broken("folder"))?,
        None => FolderMeta::default(),
    };
    let path = match parent {
        None => String::new(),
        Some(parent) => format!("{}/{}", folders[parent].path, meta.display_name.replace('/', "\u{2215}")),
    };
    Ok(SnapshotFolder {
        key: container_key(&id),
        id,
        parent,
        name: meta.display_name,
        path,
        well_known: meta.holdfast.well_known,
        setting: meta.holdfast.setting,
        is_hidden: meta.is_hidden.unwrap_or_default(),
        is_search_folder: meta.kind.is_some_and(|kind| kind.ends_with("mailSearchFolder")),
    })
}
