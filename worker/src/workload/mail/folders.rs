//! The folder tree of a mailbox: read whole, put into the manifest where it changed.
//!
//! The one thing to know: folders have no immutable ids and no reliable delta; a known folder that is not listed is gone.

use std::collections::{BTreeMap, HashMap};

use holdfast_graph_client::{MailFolder, RECOVERABLE_ITEMS};

use super::{
    apart,
    settings::{self, Unreadable},
};
use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        collect::{Container, State},
        stored::FolderToPut,
    },
};

/// Folders nest this deep at most; a longer chain is a cycle.
const MAX_DEPTH: usize = 300;

/// What a mailbox has besides messages.
pub(super) struct MailTree {
    /// Folders, and what is stored as they are.
    pub(super) containers: Vec<Container>,
    /// What Microsoft does not show.
    pub(super) unreadable: Vec<Unreadable>,
    /// The id of the folder of what can be recovered.
    pub(super) recoverable: Option<String>,
}

/// Reads everything but messages and puts what changed into the manifest. The state keeps the well-known names found before;
/// those found now replace them.
pub(super) async fn sync(context: &BackupContext, state: &mut State) -> Result<MailTree, JobError> {
    let listed = context.graph.mail_folders(&context.user, &state.names).await?;
    let mut tree =
        MailTree { containers: tree(context, &listed).await?, unreadable: Vec::new(), recoverable: None };
    let named = |folder: &MailFolder| Some((folder.well_known.clone()?, folder.id.clone()));
    let mut names: BTreeMap<String, String> = listed.iter().filter_map(named).collect();
    let root = listed.first().map(|folder| folder.id.as_str()).unwrap_or_default();
    let at_top = listed.iter().filter(|folder| folder.parent_id.as_deref() == Some(root));
    let at_top: Vec<&str> = at_top.map(|folder| folder.display_name.as_str()).collect();
    let settings = settings::sync(context, (root, &at_top), state).await?;
    let search_folders = apart::search_folders(context, root, state).await?;
    names.extend(apart::names_of(&search_folders));
    let recoverable = apart::recoverable_items(context, (root, &mut names), state).await?;
    tree.recoverable = names.get(RECOVERABLE_ITEMS).cloned();
    for read in [settings, search_folders, recoverable] {
        tree.containers.extend(read.containers);
        tree.unreadable.extend(read.unreadable);
    }
    state.names = names;
    Ok(tree)
}

/// Puts the folders of the visible tree.
async fn tree(context: &BackupContext, listed: &[MailFolder]) -> Result<Vec<Container>, JobError> {
    let paths = paths(listed);
    let mut folders = Vec::with_capacity(listed.len());
    for folder in listed {
        // The root that an earlier run found is not asked for again, and stored as it was.
        if !folder.raw.is_null() {
            let put = FolderToPut {
                id: &folder.id,
                parent_id: folder.parent_id.as_deref(),
                raw: &folder.raw.to_string(),
                well_known: folder.well_known.as_deref(),
            };
            put.put(&context.manifest).await?;
        }
        let path = paths.get(folder.id.as_str()).cloned().unwrap_or_default();
        folders.push(Container {
            // A search folder only shows the messages of others.
            is_listable: !folder.is_search_folder,
            n_items: folder.total_items,
            ..Container::new(&folder.id, path)
        });
    }
    Ok(folders)
}

/// Per id the path. The root's is empty.
fn paths(folders: &[MailFolder]) -> HashMap<&str, String> {
    let by_id: HashMap<&str, &MailFolder> =
        folders.iter().map(|folder| (folder.id.as_str(), folder)).collect();
    let path = |folder: &MailFolder| {
        let mut names = Vec::new();
        let mut at = Some(folder);
        while let Some(folder) = at
            && names.len() < MAX_DEPTH
        {
            let Some(parent) = &folder.parent_id else { break };
            names.push(folder.display_name.replace('/', "\u{2215}"));
            at = by_id.get(parent.as_str()).copied();
        }
        names.iter().rev().fold(String::new(), |path, name| path + "/" + name)
    };
    folders.iter().map(|folder| (folder.id.as_str(), path(folder))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(id: &str, parent: Option<&str>, name: &str) -> MailFolder {
        MailFolder {
            id: id.into(),
            display_name: name.into(),
            parent_id: parent.map(str::to_owned),
            is_hidden: false,
            is_search_folder: false,
            child_count: 0,
            total_items: 0,
            well_known: None,
            raw: json!({}),
        }
    }

    #[test]
    fn paths_follow_the_parents_and_a_cycle_ends() {
        let folders = [
            folder("r", None, "Top"),
            folder("a", Some("r"), "Inbox"),
            folder("b", Some("a"), "x/y"),
            folder("c", Some("d"), "C"),
            folder("d", Some("c"), "D"),
        ];
        let paths = paths(&folders);
        assert_eq!(paths["r"], "");
        assert_eq!(paths["b"], "/Inbox/x\u{2215}y");
        assert!(paths["c"].len() <= MAX_DEPTH * 2);
    }
}
