//! Where a restore writes to: the target's folders, found by well-known name or path, created where they are missing.

use std::collections::{BTreeMap, HashMap};

use holdfast_graph_client::{GraphClient, MailFolder};
use tokio::sync::OnceCell;

use crate::{
    JobError,
    workload::snapshot_folders::{SnapshotFolder, SnapshotFolders},
};

/// The hidden folder where messages with large attachments are built; each restore has its own.
const STAGING_FOLDER: &str = "Holdfast staging";

/// The target mailbox's folders.
pub struct TargetFolders<'a> {
    graph: &'a GraphClient,
    user: &'a str,
    root: String,
    /// Everything goes below this one.
    into: Option<String>,
    by_well_known: HashMap<String, String>,
    /// By (parent id, lower-case name).
    by_name: HashMap<(String, String), String>,
    resolved: HashMap<usize, String>,
    staging_name: String,
    staging: OnceCell<String>,
}

impl<'a> TargetFolders<'a> {
    /// Reads the target's tree and makes the folder to restore into.
    pub async fn open(
        graph: &'a GraphClient,
        user: &'a str,
        (into, restore_key): (&str, &str),
    ) -> Result<Self, JobError> {
        let restore = &blake3::hash(restore_key.as_bytes()).to_hex()[..8];
        let mut folders = Self {
            graph,
            user,
            root: String::new(),
            into: None,
            by_well_known: HashMap::new(),
            by_name: HashMap::new(),
            resolved: HashMap::new(),
            staging_name: format!("{STAGING_FOLDER} {restore}"),
            staging: OnceCell::new(),
        };
        for folder in graph.mail_folders(user, &BTreeMap::new()).await? {
            folders.learn(&folder);
        }
        let mut at = folders.root.clone();
        for name in into.split('/').filter(|name| !name.is_empty()) {
            at = folders.child(&at, name, false).await?;
            folders.into = Some(at.clone());
        }
        Ok(folders)
    }

    fn learn(&mut self, folder: &MailFolder) {
        match &folder.parent_id {
            None => self.root.clone_from(&folder.id),
            Some(parent) => {
                let name = (parent.clone(), folder.display_name.to_lowercase());
                self.by_name.insert(name, folder.id.clone());
            }
        }
        if let Some(name) = &folder.well_known {
            self.by_well_known.insert(name.to_lowercase(), folder.id.clone());
        }
    }

    /// The target's folder for one of the snapshot, created with its parents where it is missing.
    pub async fn resolve(&mut self, folders: &SnapshotFolders, index: usize) -> Result<String, JobError> {
        let mut missing = Vec::new();
        let mut at = Some(index);
        let mut id = self.into.clone().unwrap_or_else(|| self.root.clone());
        while let Some(index) = at {
            if let Some(known) = self.known(index, &folders.all()[index]) {
                id = known;
                break;
            }
            missing.push(index);
            at = folders.all()[index].parent;
        }
        for index in missing.into_iter().rev() {
            let folder = &folders.all()[index];
            id = self.child(&id, &folder.name, folder.is_hidden).await?;
            self.resolved.insert(index, id.clone());
        }
        Ok(id)
    }

    fn known(&self, index: usize, folder: &SnapshotFolder) -> Option<String> {
        if let Some(id) = self.resolved.get(&index) {
            return Some(id.clone());
        }
        if folder.parent.is_none() {
            return Some(self.into.clone().unwrap_or_else(|| self.root.clone()));
        }
        let well_known = folder.well_known.as_ref().filter(|_| self.into.is_none())?;
        self.by_well_known.get(&well_known.to_lowercase()).cloned()
    }

    async fn child(&mut self, parent: &str, name: &str, is_hidden: bool) -> Result<String, JobError> {
        let slot = (parent.to_owned(), name.to_lowercase());
        if let Some(id) = self.by_name.get(&slot) {
            return Ok(id.clone());
        }
        let created = self.graph.create_folder(self.user, parent, name, is_hidden).await?;
        self.by_name.insert(slot, created.id.clone());
        Ok(created.id)
    }

    /// The staging folder of an earlier attempt.
    pub fn old_staging(&self) -> Option<String> {
        self.by_name.get(&(self.root.clone(), self.staging_name.to_lowercase())).cloned()
    }

    /// The staging folder, where there is one.
    pub fn any_staging(&self) -> Option<String> {
        self.staging.get().cloned().or_else(|| self.old_staging())
    }

    /// The staging folder, made when first needed.
    pub async fn staging(&self) -> Result<&str, JobError> {
        let make = || async {
            match self.old_staging() {
                Some(id) => Ok(id),
                None => {
                    Ok(self.graph.create_folder(self.user, &self.root, &self.staging_name, true).await?.id)
                }
            }
        };
        self.staging.get_or_try_init(make).await.map(String::as_str)
    }
}
