//! The folders of contacts: read whole, put into the manifest where they changed.

use std::collections::HashMap;

use holdfast_graph_client::ContactFolder;
use serde::Deserialize;

use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        collect::{Container, State},
        stored::{FolderToPut, ROOT_ID, ROOT_RAW, broken},
    },
};

/// The well-known name of the folder that every mailbox has.
pub(super) const DEFAULT_FOLDER: &str = "contacts";

/// Reads the folders and puts what changed into the manifest. The state keeps the id of the default folder, which is not asked
/// for again once its contacts were listed.
pub(super) async fn sync(context: &BackupContext, state: &mut State) -> Result<Vec<Container>, JobError> {
    let is_listed = |id: &&String| state.containers.get(*id).is_some_and(|one| !one.link.is_empty());
    let default = state.names.get(DEFAULT_FOLDER).filter(is_listed).cloned();
    let listed = context.graph.contact_folders_by_delta(&context.user, default.as_deref()).await?;
    let mut listed = listed;
    if let Some(folder) = listed.first_mut() {
        if folder.raw.is_null() {
            folder.display_name = stored_name(context, &folder.id).await?;
        }
        state.names.insert(DEFAULT_FOLDER.to_owned(), folder.id.clone());
    }
    FolderToPut::root(ROOT_RAW).put(&context.manifest).await?;
    let mut containers = Vec::with_capacity(listed.len());
    for (folder, Place { parent_id, path }) in listed.iter().zip(places(&listed)) {
        if !folder.raw.is_null() {
            let put = FolderToPut {
                id: &folder.id,
                parent_id: Some(&parent_id),
                raw: &folder.raw.to_string(),
                well_known: folder.is_default.then_some(DEFAULT_FOLDER),
            };
            put.put(&context.manifest).await?;
        }
        containers.push(Container::new(&folder.id, path));
    }
    Ok(containers)
}

/// What the default folder is called in the snapshot.
async fn stored_name(context: &BackupContext, id: &str) -> Result<String, JobError> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Named {
        display_name: String,
    }
    let Some(entry) = context.manifest.entry(id).await? else { return Ok(String::new()) };
    let named: Named =
        serde_json::from_slice(&context.manifest.meta(&entry).await?).map_err(broken("folder"))?;
    Ok(named.display_name)
}

/// Where a folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    parent_id: String,
    path: String,
}

/// The places of folders that are listed parents first. The default one is in a folder that nobody sees.
fn places(folders: &[ContactFolder]) -> Vec<Place> {
    let mut paths = HashMap::from([(ROOT_ID, String::new())]);
    let mut places = Vec::with_capacity(folders.len());
    for folder in folders {
        let parent_id = folder.parent_id.as_deref().filter(|id| paths.contains_key(id)).unwrap_or(ROOT_ID);
        let path = format!("{}/{}", paths[parent_id], folder.display_name.replace('/', "\u{2215}"));
        places.push(Place { parent_id: parent_id.to_owned(), path: path.clone() });
        paths.insert(&folder.id, path);
    }
    places
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(id: &str, parent: &str, name: &str) -> ContactFolder {
        ContactFolder {
            id: id.into(),
            display_name: name.into(),
            parent_id: Some(parent.into()),
            is_default: id == "d",
            raw: json!({}),
        }
    }

    #[test]
    fn folders_hang_below_their_parents_and_the_default_one_at_the_top() {
        let folders = [folder("d", "hidden", "Kontakte"), folder("a", "d", "x/y"), folder("b", "a", "B")];
        let places: Vec<(String, String)> =
            places(&folders).into_iter().map(|place| (place.parent_id, place.path)).collect();
        let expected =
            [(ROOT_ID, "/Kontakte"), ("d", "/Kontakte/x\u{2215}y"), ("a", "/Kontakte/x\u{2215}y/B")];
        assert_eq!(places, expected.map(|(parent, path)| (parent.to_owned(), path.to_owned())));
    }
}
