//! Opens snapshots for the operator, and finds folders in them.
//!
//! The one thing to know: folders sort before the rest, so reading them costs the folders, not the items.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use futures::TryStreamExt as _;
use holdfast_model::{JobId, Verb};
use holdfast_record::Pin;
use holdfast_repository::{EntryKind, FolderKey, ItemKey, SnapshotReader};

use super::{OperatorService, properties::Properties};
use crate::{
    catalog::{audit::Actor, snapshot::SnapshotRow},
    core::TokenFor,
    error::Error,
    folder_key::{ROOT_PARENT, folder_key},
};

/// Folders of one snapshot, at most.
const MAX_FOLDERS: usize = 100_000;

/// A folder of a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) key: FolderKey,
    pub(super) kind: EntryKind,
    /// `/Inbox/Projects`; empty for the root.
    pub(super) path: String,
}

/// Every folder of a snapshot, parents before children.
pub(super) struct Folders {
    pub(super) all: Vec<Folder>,
    by_key: HashMap<FolderKey, usize>,
}

impl OperatorService {
    /// Opens a snapshot with its resource's key: an audited use of it. Nothing decrypted is stored.
    pub(super) async fn open_snapshot(
        &self,
        actor: &Actor,
        action: &str,
        row: &SnapshotRow,
    ) -> Result<SnapshotReader, Error> {
        let core = &self.core;
        core.catalog.audit(actor, action, &row.id.to_string()).await?;
        let tenant = core.catalog.tenant(row.tenant).await?;
        let resource = core.catalog.resource(row.tenant, row.resource).await?;
        let keys = Arc::new(core.job_keys(&tenant, &resource).await?);
        let pin = Pin::decode(&row.pin)?;
        let subject = TokenFor {
            tenant: row.tenant,
            resource: row.resource,
            workload: row.workload,
            job: JobId::random(&*core.random),
            fence: pin.fence,
        };
        let (token, _) = core.session_token(&subject, &[Verb::Read]).await?;
        let store = Arc::new(core.storage.reader(core.layout().await?, token, row.tenant));
        Ok(SnapshotReader::open(store, keys, &pin).await?)
    }
}

impl Folders {
    /// Reads them all.
    pub(super) async fn read(reader: &SnapshotReader) -> Result<Self, Error> {
        let mut folders = Self { all: Vec::new(), by_key: HashMap::new() };
        let mut next = VecDeque::from([(FolderKey(ROOT_PARENT), None::<String>)]);
        while let Some((parent, parent_path)) = next.pop_front() {
            for Named { key, kind, name } in folders_in(reader, parent).await? {
                if folders.by_key.contains_key(&key) || folders.all.len() >= MAX_FOLDERS {
                    continue;
                }
                let path = parent_path.as_ref().map_or(String::new(), |path| format!("{path}/{name}"));
                folders.by_key.insert(key, folders.all.len());
                folders.all.push(Folder { key, kind, path: path.clone() });
                next.push_back((key, Some(path)));
            }
        }
        Ok(folders)
    }

    /// The path of a folder; empty for the root and for one that is not in the snapshot.
    pub(super) fn path(&self, key: FolderKey) -> String {
        self.by_key
            .get(&key)
            .and_then(|index| self.all.get(*index))
            .map(|f| f.path.clone())
            .unwrap_or_default()
    }

    /// The folder with a path, or else with an id, and all below it.
    pub(super) fn under(&self, path: &str) -> Vec<FolderKey> {
        let under = self.under_path(path);
        if !under.is_empty() {
            return under;
        }
        let by_id = self.by_key.get(&key_of(&ItemKey(path.as_bytes().to_vec())));
        by_id
            .and_then(|index| self.all.get(*index))
            .map(|folder| self.under_path(&folder.path))
            .unwrap_or_default()
    }

    fn under_path(&self, path: &str) -> Vec<FolderKey> {
        let wanted = path.trim_end_matches('/').to_lowercase();
        let below = format!("{wanted}/");
        let is_under = |folder: &&Folder| {
            let path = folder.path.to_lowercase();
            path == wanted || path.starts_with(&below)
        };
        self.all.iter().filter(is_under).map(|folder| folder.key).collect()
    }
}

/// A folder under its name alone.
pub(super) struct Named {
    pub(super) key: FolderKey,
    kind: EntryKind,
    /// As paths write it.
    pub(super) name: String,
}

/// The folders directly in a folder.
pub(super) async fn folders_in(reader: &SnapshotReader, parent: FolderKey) -> Result<Vec<Named>, Error> {
    let mut children = reader.children(parent);
    let mut folders = Vec::new();
    while let Some(child) = children.try_next().await? {
        if child.sort > 0 || folders.len() >= MAX_FOLDERS {
            break;
        }
        if !child.kind.is_container() {
            continue;
        }
        let Some(item) = reader.item(&child.key).await? else { continue };
        let properties = Properties::read(&reader.meta(&item).await?);
        let name = properties.name(item.kind).replace('/', "\u{2215}");
        folders.push(Named { key: key_of(&child.key), kind: item.kind, name });
    }
    Ok(folders)
}

/// What the children of a folder are filed under.
pub(super) fn key_of(folder: &ItemKey) -> FolderKey {
    FolderKey(folder_key(&String::from_utf8_lossy(&folder.0)))
}
