//! The folders of contacts: read whole, put into the manifest where they changed.

use std::collections::HashMap;

use holdfast_graph_client::ContactFolder;

use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        collect::Container,
        stored::{FolderToPut, ROOT_ID, ROOT_RAW},
    },
};

/// The well-known name of the folder that every mailbox has.
pub(super) const DEFAULT_FOLDER: &str = "contacts";

/// Reads the folders and puts what changed into the manifest.
pub(super) async fn sync(context: &BackupContext) -> Result<Vec<Container>, JobError> {
    let listed = context.graph.contact_folders(&context.user).await?;
    FolderToPut::root(ROOT_RAW).put(&context.manifest).await?;
    let mut containers = Vec::with_capacity(listed.len());
    for (folder, Place { parent_id, path }) in listed.iter().zip(places(&listed)) {
        let put = FolderToPut {
            id: &folder.id,
            parent_id: Some(&parent_id),
            raw: &folder.raw.to_string(),
            well_known: folder.is_default.then_some(DEFAULT_FOLDER),
        };
        put.put(&context.manifest).await?;
        containers.push(Container::new(&folder.id, path));
    }
    Ok(containers)
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
