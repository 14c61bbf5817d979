//! The folder tree of a mailbox: read whole, put into the manifest where it changed.
//!
//! The one thing to know: folders have no immutable ids and no reliable delta; a known folder that is not listed is gone.

use std::collections::{BTreeMap, HashMap};

use holdfast_graph_client::MailFolder;
use holdfast_repository::{ContentSource, EntryFlags, EntryKind, FolderKey, ItemFields};
use serde::{Deserialize, Serialize};

use super::meta::with_holdfast;
use crate::{
    JobError,
    backup::{BackupContext, Manifest, key},
    workload::{ROOT_PARENT, collect::Container, container_key},
};

/// Folders nest this deep at most; a longer chain is a cycle.
const MAX_DEPTH: usize = 300;

/// What Holdfast adds to a folder.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredFolder {
    /// Its well-known name.
    #[serde(default)]
    pub well_known: Option<String>,
}

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
        put(&context.manifest, folder).await?;
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

async fn put(manifest: &Manifest, folder: &MailFolder) -> Result<(), JobError> {
    let raw = folder.raw.to_string();
    let meta = with_holdfast(&raw, &StoredFolder { well_known: folder.well_known.clone() })?;
    let mut change = [0; 16];
    change.copy_from_slice(&blake3::hash(&meta).as_bytes()[..16]);
    let parent = FolderKey(folder.parent_id.as_deref().map_or(ROOT_PARENT, container_key));
    let entry = manifest.entry(&folder.id).await?;
    if entry.is_some_and(|entry| entry.change == change && entry.parent == parent) {
        return Ok(());
    }
    let fields = ItemFields {
        kind: EntryKind::Folder,
        flags: EntryFlags::default(),
        change,
        size: 0,
        parent,
        sort: 0,
    };
    Ok(manifest.writer().put_item(key(&folder.id), fields, meta, ContentSource::None).await?)
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
