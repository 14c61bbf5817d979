//! The folders of the mailbox that is restored to.

use std::collections::BTreeMap;

use async_trait::async_trait;
use holdfast_graph_client::{GraphError, MailFolder};

use crate::{
    JobError,
    restore::RestoreContext,
    workload::{
        snapshot_folders::SnapshotFolders,
        write_back::{FolderMaker, KnownFolder, TargetFolders},
    },
};

/// The mailbox's folders.
pub(super) struct Folders<'a> {
    maker: Maker<'a>,
    folders: TargetFolders,
}

struct Maker<'a>(&'a RestoreContext);

#[async_trait]
impl FolderMaker for Maker<'_> {
    async fn make(&self, parent: &str, name: &str, is_hidden: bool) -> Result<String, GraphError> {
        Ok(self.0.graph.create_folder(&self.0.user, parent, name, is_hidden).await?.id)
    }

    async fn find(&self, parent: &str, name: &str) -> Result<Option<String>, GraphError> {
        let listed = self.0.graph.mail_folders(&self.0.user, &BTreeMap::new()).await?;
        let is_it = |folder: &KnownFolder| folder.parent_id == parent && folder.name == name;
        Ok(listed.into_iter().filter_map(known).find(is_it).map(|folder| folder.id))
    }
}

/// Reads them and makes the one to restore into.
pub(super) async fn open(context: &RestoreContext) -> Result<Folders<'_>, JobError> {
    let listed = context.graph.mail_folders(&context.user, &BTreeMap::new()).await?;
    let root = listed.iter().find(|folder| folder.parent_id.is_none());
    let root = root.map(|folder| folder.id.clone()).unwrap_or_default();
    let maker = Maker(context);
    let folders =
        TargetFolders::open(root, listed.into_iter().filter_map(known), &context.into, &maker).await?;
    Ok(Folders { maker, folders })
}

fn known(folder: MailFolder) -> Option<KnownFolder> {
    let MailFolder { id, parent_id, display_name, well_known, .. } = folder;
    Some(KnownFolder { id, parent_id: parent_id?, name: display_name, well_known })
}

impl Folders<'_> {
    /// The folder for one of the snapshot, made with its parents where it is missing.
    pub(super) async fn resolve(
        &mut self,
        folders: &SnapshotFolders,
        index: usize,
    ) -> Result<String, JobError> {
        self.folders.resolve(folders, index, &self.maker).await
    }

    /// The folder with this name at the top.
    pub(super) fn at_top(&self, name: &str) -> Option<&str> {
        self.folders.at_top(name)
    }

    /// The folder that everything is in.
    pub(super) fn root(&self) -> &str {
        self.folders.root()
    }
}
