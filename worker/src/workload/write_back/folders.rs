//! The folders of the target: found by well-known name or path, made where they are missing.

use std::collections::HashMap;

use async_trait::async_trait;
use holdfast_graph_client::GraphError;

use super::CREATE_ATTEMPTS;
use crate::{
    JobError,
    workload::snapshot_folders::{SnapshotFolder, SnapshotFolders},
};

/// A folder that the target has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFolder {
    /// Its id.
    pub id: String,
    /// The id of the folder it is in.
    pub parent_id: String,
    /// Its name.
    pub name: String,
    /// Its well-known name.
    pub well_known: Option<String>,
}

/// Makes folders in the target.
#[async_trait]
pub trait FolderMaker: Send + Sync {
    /// Makes one; returns its id.
    async fn make(&self, parent: &str, name: &str, is_hidden: bool) -> Result<String, GraphError>;

    /// The folder with this name, asked for anew; for when it is unknown whether it was made.
    async fn find(&self, parent: &str, name: &str) -> Result<Option<String>, GraphError>;
}

/// Makes a folder exactly once: an unknown outcome is looked up before it is repeated. Returns its id.
pub async fn make_once(
    maker: &dyn FolderMaker,
    (parent, name): (&str, &str),
    is_hidden: bool,
) -> Result<String, GraphError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match maker.make(parent, name, is_hidden).await {
            Ok(id) => return Ok(id),
            Err(error @ GraphError::Ambiguous { .. }) => error,
            Err(error) => return Err(error),
        };
        match maker.find(parent, name).await? {
            Some(id) => return Ok(id),
            None if attempt >= CREATE_ATTEMPTS => return Err(error),
            None => {}
        }
    }
}

/// The target's folders.
pub struct TargetFolders {
    root: String,
    /// Everything goes below this one.
    into: Option<String>,
    by_well_known: HashMap<String, String>,
    /// By (parent id, lower-case name).
    by_name: HashMap<(String, String), String>,
    resolved: HashMap<usize, String>,
}

impl TargetFolders {
    /// Below `root`, with what is there; makes the folder to restore into.
    pub async fn open(
        root: String,
        known: impl IntoIterator<Item = KnownFolder>,
        into: &str,
        maker: &dyn FolderMaker,
    ) -> Result<Self, JobError> {
        let mut folders = Self {
            root,
            into: None,
            by_well_known: HashMap::new(),
            by_name: HashMap::new(),
            resolved: HashMap::new(),
        };
        for folder in known {
            if let Some(name) = &folder.well_known {
                folders.by_well_known.insert(name.to_lowercase(), folder.id.clone());
            }
            folders.by_name.insert((folder.parent_id, folder.name.to_lowercase()), folder.id);
        }
        let mut at = folders.root.clone();
        for name in into.split('/').filter(|name| !name.is_empty()) {
            at = folders.child(&at, name, false, maker).await?;
            folders.into = Some(at.clone());
        }
        Ok(folders)
    }

    /// The target's folder for one of the snapshot, made with its parents where it is missing.
    pub async fn resolve(
        &mut self,
        folders: &SnapshotFolders,
        index: usize,
        maker: &dyn FolderMaker,
    ) -> Result<String, JobError> {
        let mut missing = Vec::new();
        let mut at = Some(index);
        let mut id = self.top();
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
            id = self.child(&id, &folder.name, folder.is_hidden, maker).await?;
            self.resolved.insert(index, id.clone());
        }
        Ok(id)
    }

    /// The folder with this name at the top.
    pub fn at_top(&self, name: &str) -> Option<&str> {
        self.by_name.get(&(self.root.clone(), name.to_lowercase())).map(String::as_str)
    }

    /// The folder that everything is in.
    pub fn root(&self) -> &str {
        &self.root
    }

    fn top(&self) -> String {
        self.into.clone().unwrap_or_else(|| self.root.clone())
    }

    fn known(&self, index: usize, folder: &SnapshotFolder) -> Option<String> {
        if let Some(id) = self.resolved.get(&index) {
            return Some(id.clone());
        }
        if folder.parent.is_none() {
            return Some(self.top());
        }
        let well_known = folder.well_known.as_ref().filter(|_| self.into.is_none())?;
        self.by_well_known.get(&well_known.to_lowercase()).cloned()
    }

    async fn child(
        &mut self,
        parent: &str,
        name: &str,
        is_hidden: bool,
        maker: &dyn FolderMaker,
    ) -> Result<String, JobError> {
        let slot = (parent.to_owned(), name.to_lowercase());
        if let Some(id) = self.by_name.get(&slot) {
            return Ok(id.clone());
        }
        let id = make_once(maker, (parent, name), is_hidden).await?;
        self.by_name.insert(slot, id.clone());
        Ok(id)
    }
}
