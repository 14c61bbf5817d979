//! Browsing one page of one folder. It costs the folder, whatever the snapshot's size.

use holdfast_proto::coordinator::{BrowseRequest, BrowseResponse};
use holdfast_repository::{ChildCursor, FolderKey, MAX_PAGE, SnapshotReader};

use super::{
    OperatorService,
    backup::snapshot_id,
    folders::{browse_entry, folders_in},
    page_size,
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
        let folder = find_folder(&reader, &request.path).await?;
        if cursor.as_ref().is_some_and(|cursor| !cursor.0.starts_with(&folder.0)) {
            return Err(bad_token(&request.page_token));
        }
        let limit = page_size(request.limit, DEFAULT_ENTRIES, u32::try_from(MAX_PAGE).unwrap_or(u32::MAX));
        let page = reader.children_page(folder, cursor.as_ref(), limit as usize).await?;
        let mut entries = Vec::with_capacity(page.children.len());
        for child in &page.children {
            if let Some(item) = reader.item(&child.key).await? {
                entries.push(browse_entry(&reader, &child.key, &item).await?);
            }
        }
        let next_page_token = page.next.map(|cursor| hex::encode(cursor.0)).unwrap_or_default();
        Ok(BrowseResponse { entries, next_page_token })
    }
}

/// Walks a path down from the root, one folder at a time; names are compared without case.
async fn find_folder(reader: &SnapshotReader, path: &str) -> Result<FolderKey, Error> {
    // The top level holds Microsoft's invisible root; what people call the root is what is in it.
    let top = folders_in(reader, FolderKey(ROOT_PARENT)).await?;
    let mut at = top.first().map_or(FolderKey(ROOT_PARENT), |(key, _)| *key);
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let inside = folders_in(reader, at).await?;
        let found = inside.into_iter().find(|(_, other)| other.to_lowercase() == name.to_lowercase());
        at = found.map(|(key, _)| key).ok_or_else(|| Error::NotFound {
            what: "folder",
            name: path.to_owned(),
            hint: "run `holdfast browse SNAPSHOT` without a path to see the folders".to_owned(),
        })?;
    }
    Ok(at)
}

fn bad_token(token: &str) -> Error {
    Error::Invalid {
        field: "page token",
        value: token.chars().take(64).collect(),
        problem: "it does not belong to this folder: start without one".to_owned(),
    }
}
