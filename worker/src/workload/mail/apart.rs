//! Folders outside the visible tree: search folders, which are stored as what they search for, and what can still be recovered
//! after it was deleted.

use std::collections::BTreeMap;

use holdfast_graph_client::{MailFolder, RECOVERABLE_ITEMS};
use holdfast_model::RECOVERABLE_PATH;

use super::settings::{Read, Unreadable, is_refusal, put_made};
use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        collect::{Container, State},
        stored::FolderToPut,
    },
};

/// The made folder of search folders.
pub(super) const SEARCH_FOLDERS_ID: &str = "holdfast:search-folders";
const SEARCH_FOLDERS_NAME: &str = "Search Folders";
/// The made folder of what can be recovered.
const RECOVERABLE_ID: &str = "holdfast:recoverable-items";
const RECOVERABLE_NAME: &str = "Recoverable Items";

/// The ids that [`Unreadable`] may name.
pub(super) const READ_AT_ONCE: [&str; 2] = [SEARCH_FOLDERS_ID, RECOVERABLE_ID];

/// What cannot be recovered for want of a right.
pub(super) fn not_recoverable(code: &str) -> Unreadable {
    Unreadable { id: RECOVERABLE_ID.to_owned(), path: RECOVERABLE_PATH.to_owned(), code: code.to_owned() }
}

/// Reads the search folders that are outside the tree.
pub(super) async fn search_folders(
    context: &BackupContext,
    root: &str,
    state: &State,
) -> Result<Read, JobError> {
    let mut read = Read::default();
    let path = format!("/{SEARCH_FOLDERS_NAME}");
    let folders = match context.graph.search_folders(&context.user).await {
        Ok(folders) => folders,
        Err(error) => {
            read.unreadable.push(Unreadable::of(SEARCH_FOLDERS_ID, &path, error)?);
            read.keep(&state.containers, SEARCH_FOLDERS_ID, &path);
            // Their own ids do not tell them from folders: the state does, by name.
            for id in state.names.iter().filter_map(|(name, id)| name.strip_prefix(KNOWN).map(|_| id)) {
                read.add(id, path.clone());
            }
            return Ok(read);
        }
    };
    if !folders.is_empty() {
        put_made(context, (SEARCH_FOLDERS_ID, root), SEARCH_FOLDERS_NAME).await?;
        read.add(SEARCH_FOLDERS_ID, path.clone());
    }
    for folder in &folders {
        put(context, folder, SEARCH_FOLDERS_ID).await?;
        read.add(&folder.id, format!("{path}/{}", folder.display_name.replace('/', "\u{2215}")));
    }
    Ok(read)
}

/// What the state's names of search folders begin with.
const KNOWN: &str = "searchfolders/";

/// The names that the state keeps of them.
pub(super) fn names_of(read: &Read) -> impl Iterator<Item = (String, String)> {
    let ids = read.containers.iter().map(|one| one.id.clone()).filter(|id| id != SEARCH_FOLDERS_ID);
    ids.enumerate().map(|(n, id)| (format!("{KNOWN}{n}"), id))
}

/// The folder of what can be recovered; its messages are listed like those of any other. Its id is asked for until its messages
/// were listed once, and remembered in `names`.
pub(super) async fn recoverable_items(
    context: &BackupContext,
    (root, names): (&str, &mut BTreeMap<String, String>),
    state: &State,
) -> Result<Read, JobError> {
    let mut read = Read::default();
    let known = state.names.get(RECOVERABLE_ITEMS).cloned();
    let is_listed = |id: &String| state.containers.get(id).is_some_and(|one| !one.link.is_empty());
    let mut container = known.clone().map(|id| Container::new(&id, RECOVERABLE_PATH.to_owned()));
    if !known.as_ref().is_some_and(is_listed) {
        match context.graph.mail_folder(&context.user, RECOVERABLE_ITEMS).await {
            Ok(folder) => {
                put_made(context, (RECOVERABLE_ID, root), RECOVERABLE_NAME).await?;
                put(context, &folder, RECOVERABLE_ID).await?;
                let n_items = folder.total_items;
                container =
                    Some(Container { n_items, ..Container::new(&folder.id, RECOVERABLE_PATH.to_owned()) });
            }
            Err(error) if !is_refusal(&error) => return Err(error.into()),
            Err(error) => {
                // What is stored of it stays.
                container = container.map(|one| Container { is_listable: false, ..one });
                // A mailbox without one lacks nothing.
                if error.class() != holdfast_graph_client::ErrorClass::Gone {
                    read.unreadable.push(Unreadable::of(RECOVERABLE_ID, RECOVERABLE_PATH, error)?);
                }
            }
        }
    }
    if let Some(container) = container {
        names.insert(RECOVERABLE_ITEMS.to_owned(), container.id.clone());
        read.add(RECOVERABLE_ID, RECOVERABLE_PATH.to_owned());
        read.containers.push(container);
    }
    Ok(read)
}

async fn put(context: &BackupContext, folder: &MailFolder, parent: &str) -> Result<(), JobError> {
    let put = FolderToPut {
        id: &folder.id,
        parent_id: Some(parent),
        raw: &folder.raw.to_string(),
        well_known: (parent == RECOVERABLE_ID).then_some(RECOVERABLE_ITEMS),
    };
    put.put(&context.manifest).await
}
