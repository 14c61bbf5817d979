//! Opens snapshots for the operator, and finds folders in them.
//!
//! The one thing to know: folders sort before the rest, so reading them costs the folders, not the items.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use holdfast_graph_client::RECOVERABLE_ITEMS;
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

/// Folders of one snapshot, at most, where all are needed: they are in memory at once, some hundred bytes each.
const MAX_FOLDERS: usize = 1_000_000;

/// A folder of a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) key: FolderKey,
    pub(super) kind: EntryKind,
    /// `/Inbox/Projects`; empty for the root.
    pub(super) path: String,
    /// It holds what was deleted already and could still be recovered.
    is_recoverable: bool,
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
        Self::read_at_most(reader, MAX_FOLDERS).await
    }

    /// Reads them; more than `max` are an error, because what is in the others would be left out.
    async fn read_at_most(reader: &SnapshotReader, max: usize) -> Result<Self, Error> {
        let mut folders = Self { all: Vec::new(), by_key: HashMap::new() };
        let mut next = VecDeque::from([(FolderKey(ROOT_PARENT), None::<String>)]);
        while let Some((parent, parent_path)) = next.pop_front() {
            let mut inside = folders_in(reader, parent);
            while let Some(Named { key, kind, name, is_recoverable }) = inside.try_next().await? {
                if folders.by_key.contains_key(&key) {
                    continue;
                }
                if folders.all.len() >= max {
                    return Err(Error::TooManyFolders { limit: max });
                }
                let path = parent_path.as_ref().map_or(String::new(), |path| format!("{path}/{name}"));
                folders.by_key.insert(key, folders.all.len());
                folders.all.push(Folder { key, kind, path: path.clone(), is_recoverable });
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

    /// The folders that hold what was deleted already and could still be recovered.
    pub(super) fn recoverable(&self) -> BTreeSet<FolderKey> {
        self.all.iter().filter(|folder| folder.is_recoverable).map(|folder| folder.key).collect()
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
    is_recoverable: bool,
}

/// The folders directly in a folder, one after the other: however many there are, memory is flat.
pub(super) fn folders_in(reader: &SnapshotReader, parent: FolderKey) -> BoxStream<'_, Result<Named, Error>> {
    let children = reader.children(parent).map_err(Error::from);
    // What is no folder comes behind all of them.
    let first = children.try_take_while(|child| futures::future::ready(Ok(child.sort == 0)));
    let folders = first.try_filter(|child| futures::future::ready(child.kind.is_container()));
    let named = folders.try_filter_map(move |child| async move {
        let Some(item) = reader.item(&child.key).await? else { return Ok(None) };
        let properties = Properties::read(&reader.meta(&item).await?);
        let name = properties.name(item.kind).replace('/', "\u{2215}");
        let is_recoverable = properties.well_known() == Some(RECOVERABLE_ITEMS);
        Ok(Some(Named { key: key_of(&child.key), kind: item.kind, name, is_recoverable }))
    });
    named.boxed()
}

/// What the children of a folder are filed under.
pub(super) fn key_of(folder: &ItemKey) -> FolderKey {
    FolderKey(folder_key(&String::from_utf8_lossy(&folder.0)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::made_snapshot::{Made, made_snapshot},
        *,
    };

    #[tokio::test]
    async fn more_folders_than_can_be_read_are_an_error_and_not_left_out() {
        let names: Vec<String> = (0..9).map(|n| format!("folder {n}")).collect();
        let inside = names.iter().map(|name| Made::folder(name, Some("root")));
        let made: Vec<Made<'_>> = std::iter::once(Made::folder("root", None)).chain(inside).collect();
        let reader = made_snapshot(&made).await;
        let folders = Folders::read_at_most(&reader, 10).await.unwrap();
        assert_eq!(folders.all.len(), 10);
        assert_eq!(folders.path(FolderKey(folder_key("folder 8"))), "/folder 8");
        let error = Folders::read_at_most(&reader, 9).await.err().unwrap();
        assert!(matches!(error, Error::TooManyFolders { limit: 9 }), "{error}");
        assert!(error.to_string().contains("holdfast browse"), "{error}");
    }
}
