//! The folder tree of a mailbox: read whole, put into the manifest where it changed.
//!
//! The one thing to know: folders have no immutable ids and no reliable delta; a known folder that is not listed is gone.

use std::collections::{BTreeMap, HashMap};

use holdfast_graph_client::MailFolder;

use crate::{
    JobError,
    backup::BackupContext,
    workload::{collect::Container, stored::FolderToPut},
};

/// Folders nest this deep at most; a longer chain is a cycle.
const MAX_DEPTH: usize = 300;

/// Reads the tree and puts what changed into the manifest. `names` are the well-known names found before; those found now
/// replace them.
pub async fn sync(
    context: &BackupContext,
    names: &mut BTreeMap<String, String>,
) -> Result<Vec<Container>, JobError> {
    let listed = context.graph.mail_folders(&context.user, names).await?;
    let paths = paths(&listed);
    let mut folders = Vec::with_capacity(listed.len());
    for folder in &listed {
        let put = FolderToPut {
            id: &folder.id,
            parent_id: folder.parent_id.as_deref(),
            raw: &folder.raw.to_string(),
            well_known: folder.well_known.as_deref(),
        };
        put.put(&context.manifest).await?;
        let path = paths.get(folder.id.as_str()).cloned().unwrap_or_default();
        folders.push(Container {
            // A search folder only shows the messages of others.
            is_listable: !folder.is_search_folder,
            n_items: folder.total_items,
            ..Container::new(&folder.id, path)
        });
    }
    let named = |folder: &MailFolder| Some((folder.well_known.clone()?, folder.id.clone()));
    *names = listed.iter().filter_map(named).collect();
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
