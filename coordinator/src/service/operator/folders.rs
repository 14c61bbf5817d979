//! Opens snapshots for the operator, and finds folders in them.
//!
//! The one thing to know: folders sort before messages, so reading them costs the folders, not the messages.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use futures::TryStreamExt as _;
use holdfast_model::{JobId, Verb};
use holdfast_proto::coordinator::BrowseEntry;
use holdfast_record::Pin;
use holdfast_repository::{EntryFlags, EntryKind, FolderKey, ItemEntry, ItemKey, SnapshotReader};
use serde::Deserialize;

use super::OperatorService;
use crate::{
    catalog::{audit::Actor, snapshot::SnapshotRow},
    core::TokenFor,
    error::Error,
    folder_key::{ROOT_PARENT, folder_key},
};

/// Folders of one snapshot, at most.
const MAX_FOLDERS: usize = 100_000;

/// What is shown of the properties that the worker stored; the rest stays unread.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Shown {
    display_name: Option<String>,
    subject: Option<String>,
    from: Option<Recipient>,
    received_date_time: Option<String>,
    has_attachments: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Recipient {
    email_address: Option<EmailAddress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EmailAddress {
    address: Option<String>,
}

/// A folder of a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) key: FolderKey,
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
            for (key, name) in folders_in(reader, parent).await? {
                if folders.by_key.contains_key(&key) || folders.all.len() >= MAX_FOLDERS {
                    continue;
                }
                let path = parent_path.as_ref().map_or(String::new(), |path| format!("{path}/{name}"));
                folders.by_key.insert(key, folders.all.len());
                folders.all.push(Folder { key, path: path.clone() });
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

    /// The folder with a path and all below it.
    pub(super) fn under(&self, path: &str) -> Vec<FolderKey> {
        let wanted = path.trim_end_matches('/').to_lowercase();
        let below = format!("{wanted}/");
        let is_under = |folder: &&Folder| {
            let path = folder.path.to_lowercase();
            path == wanted || path.starts_with(&below)
        };
        self.all.iter().filter(is_under).map(|folder| folder.key).collect()
    }
}

/// The folders directly in a folder: key and name. Names are written as paths write them.
pub(super) async fn folders_in(
    reader: &SnapshotReader,
    parent: FolderKey,
) -> Result<Vec<(FolderKey, String)>, Error> {
    let mut children = reader.children(parent);
    let mut folders = Vec::new();
    while let Some(child) = children.try_next().await? {
        if child.sort > 0 || folders.len() >= MAX_FOLDERS {
            break;
        }
        let Some(item) = reader.item(&child.key).await?.filter(|item| item.kind == EntryKind::Folder) else {
            continue;
        };
        let id = String::from_utf8_lossy(&child.key.0);
        let shown = shown(&reader.meta(&item).await?);
        let name = shown.display_name.unwrap_or_default().replace('/', "\u{2215}");
        folders.push((FolderKey(folder_key(&id)), name));
    }
    Ok(folders)
}

/// An item as a listing shows it.
pub(super) async fn browse_entry(
    reader: &SnapshotReader,
    key: &ItemKey,
    item: &ItemEntry,
) -> Result<BrowseEntry, Error> {
    let shown = shown(&reader.meta(item).await?);
    let received = shown.received_date_time.and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let time_ms = received.map_or(item.sort, |time| u64::try_from(time.as_millisecond()).unwrap_or(0));
    let (kind, name) = match item.kind {
        EntryKind::Folder => ("folder", shown.display_name),
        EntryKind::MailMessage => ("mail_message", shown.subject),
    };
    Ok(BrowseEntry {
        kind: kind.to_owned(),
        id: String::from_utf8_lossy(&key.0).into_owned(),
        name: name.unwrap_or_default(),
        from: shown.from.and_then(|from| from.email_address?.address).unwrap_or_default(),
        time_ms,
        size: item.size,
        stale: item.flags.contains(EntryFlags::STALE),
        has_attachments: shown
            .has_attachments
            .unwrap_or_else(|| item.flags.contains(EntryFlags::HAS_ATTACHMENTS)),
    })
}

/// Properties that cannot be read are shown as absent: one strange item must not hide its folder.
fn shown(meta: &[u8]) -> Shown {
    serde_json::from_slice(meta).unwrap_or_default()
}
