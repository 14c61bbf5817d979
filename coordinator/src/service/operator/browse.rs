//! Browsing one page of one folder. It costs the folder, whatever the snapshot's size.

use futures::TryStreamExt as _;
use holdfast_proto::coordinator::{BrowseRequest, BrowseResponse};
use holdfast_repository::{ChildCursor, FolderKey, ItemEntry, ItemKey, MAX_PAGE, SnapshotReader};

use super::{
    OperatorService,
    backup::snapshot_id,
    folders::{Named, folders_in, key_of},
    page_size,
    properties::Properties,
};
use crate::{catalog::audit::Actor, error::Error, folder_key::ROOT_PARENT};

const DEFAULT_ENTRIES: u32 = 200;

impl OperatorService {
    pub(super) async fn browse_folder(
        &self,
        actor: &Actor,
        request: BrowseRequest,
    ) -> Result<BrowseResponse, Error> {
        let row = self.core.catalog.snapshot(snapshot_id(&request.snapshot)?).await?;
        let cursor = match request.page_token.as_str() {
            "" => None,
            token => Some(ChildCursor(hex::decode(token).map_err(|_| bad_token(token))?)),
        };
        let reader = self.open_snapshot(actor, "snapshot.browse", &row).await?;
        let folder = match find(&reader, &request.path).await? {
            Found::Folder(folder) => folder,
            Found::Item(key, item) => {
                let entry = Properties::read(&reader.meta(&item).await?).entry(&key, &item);
                return Ok(BrowseResponse { entries: vec![entry], next_page_token: String::new() });
            }
        };
        if cursor.as_ref().is_some_and(|cursor| !cursor.0.starts_with(&folder.0)) {
            return Err(bad_token(&request.page_token));
        }
        let limit = page_size(request.limit, DEFAULT_ENTRIES, u32::try_from(MAX_PAGE).unwrap_or(u32::MAX));
        let page = reader.children_page(folder, cursor.as_ref(), limit as usize).await?;
        let mut entries = Vec::with_capacity(page.children.len());
        for child in &page.children {
            if let Some(item) = reader.item(&child.key).await? {
                entries.push(Properties::read(&reader.meta(&item).await?).entry(&child.key, &item));
            }
        }
        let next_page_token = page.next.map(|cursor| hex::encode(cursor.0)).unwrap_or_default();
        Ok(BrowseResponse { entries, next_page_token })
    }
}

/// What a path names.
enum Found {
    Folder(FolderKey),
    Item(ItemKey, ItemEntry),
}

/// A folder by its path, or anything by its id.
async fn find(reader: &SnapshotReader, path: &str) -> Result<Found, Error> {
    if let Some(folder) = find_folder(reader, path).await? {
        return Ok(Found::Folder(folder));
    }
    let key = ItemKey(path.as_bytes().to_vec());
    match reader.item(&key).await? {
        Some(item) if item.kind.is_container() => Ok(Found::Folder(key_of(&key))),
        Some(item) => Ok(Found::Item(key, item)),
        None => Err(no_such_path(path)),
    }
}

/// Walks a path down from the root, one folder at a time; names are compared without case.
async fn find_folder(reader: &SnapshotReader, path: &str) -> Result<Option<FolderKey>, Error> {
    // The top level holds one invisible root; what people call the root is what is in it.
    let top = folders_in(reader, FolderKey(ROOT_PARENT)).try_next().await?;
    let mut at = top.map_or(FolderKey(ROOT_PARENT), |folder| folder.key);
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let wanted = name.to_lowercase();
        let is_wanted = |folder: &Named| futures::future::ready(folder.name.to_lowercase() == wanted);
        let Some(found) = folders_in(reader, at).try_filter(is_wanted).try_next().await? else {
            return Ok(None);
        };
        at = found.key;
    }
    Ok(Some(at))
}

/// Says how to find out what there is.
pub(super) fn no_such_path(path: &str) -> Error {
    Error::NotFound {
        what: "folder or item",
        name: path.to_owned(),
        hint: "run `holdfast browse SNAPSHOT` to see what is in it".to_owned(),
    }
}

fn bad_token(token: &str) -> Error {
    Error::Invalid {
        field: "page token",
        value: token.chars().take(64).collect(),
        problem: "it does not belong to this folder: start without one".to_owned(),
    }
}
