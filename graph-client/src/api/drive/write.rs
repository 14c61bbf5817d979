//! Writing items back: folders, small files, names, places and times.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::{
    GraphClient, GraphError, Scope, Weight,
    json::read_object,
    request::{Body, Call, OCTETS, Repeat},
};

use super::{DriveItem, DriveItemKind, single};

/// A larger file goes through an upload session.
const MAX_SMALL_FILE: usize = 10 << 20;

/// What Microsoft does when the name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameConflict {
    /// It refuses with 409.
    Fail,
    /// It replaces what has the name; of a file, the replaced one becomes an earlier version.
    Replace,
    /// It finds another name.
    Rename,
}

impl NameConflict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Replace => "replace",
            Self::Rename => "rename",
        }
    }
}

/// When a file was made and changed, as Microsoft writes it. These are kept; who did it is always the app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileTimes {
    /// When it was made.
    pub created: Option<String>,
    /// When it was changed.
    pub modified: Option<String>,
}

impl FileTimes {
    /// As `fileSystemInfo`; none where nothing is known.
    pub(super) fn to_json(&self) -> Option<Value> {
        let mut info = Map::new();
        for (name, time) in [("createdDateTime", &self.created), ("lastModifiedDateTime", &self.modified)] {
            if let Some(time) = time {
                info.insert(name.to_owned(), Value::from(time.as_str()));
            }
        }
        (!info.is_empty()).then_some(Value::Object(info))
    }
}

/// What is to be changed of an item; what is none stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DriveItemUpdate {
    /// Its name.
    pub name: Option<String>,
    /// The folder it is in.
    pub parent_id: Option<String>,
    /// Its times.
    pub times: FileTimes,
    /// Only while the item is this version; else 412.
    pub if_match: Option<String>,
}

impl GraphClient {
    /// Creates a folder. One of the same name that is there already, or a notebook, is returned instead.
    pub async fn create_drive_folder(
        &self,
        drive: &str,
        parent: &str,
        name: &str,
    ) -> Result<DriveItem, GraphError> {
        let body = json!({
            "name": name,
            "folder": {},
            "@microsoft.graph.conflictBehavior": NameConflict::Fail.word(),
        });
        let url = self.item_url(drive, parent, &["children"]);
        let call = Call::post(url, &body, Repeat::Safe, Scope::SharePoint).costs(Weight::Listing);
        let error = match self.send(call).await {
            Ok(reply) => return read_object(&reply.body, "a created folder"),
            Err(error) if error.status() == Some(409) => error,
            Err(error) => return Err(error),
        };
        match self.drive_item_named(drive, parent, name).await? {
            found if matches!(found.kind, DriveItemKind::Folder { .. } | DriveItemKind::Package { .. }) => {
                Ok(found)
            }
            // A file has the name.
            _ => Err(error),
        }
    }

    /// The item of this name in a folder.
    pub async fn drive_item_named(
        &self,
        drive: &str,
        parent: &str,
        name: &str,
    ) -> Result<DriveItem, GraphError> {
        let url = self.named_url(drive, parent, name, "");
        self.object(single(url.trim_end_matches(":/").to_owned()), "a drive item").await
    }

    /// Writes a file of at most 10 MiB in one call. Its times are set by [`Self::update_drive_item`].
    ///
    /// An unknown outcome is [`GraphError::Ambiguous`]: look for the name first, and at what it has: what is written twice has a
    /// version too many.
    pub async fn put_drive_file(
        &self,
        drive: &str,
        parent: &str,
        name: &str,
        content: Bytes,
        conflict: NameConflict,
    ) -> Result<DriveItem, GraphError> {
        if content.len() > MAX_SMALL_FILE {
            return Err(GraphError::Config { setting: "small file", reason: "it is larger than 10 MiB" });
        }
        let url = format!(
            "{}?@microsoft.graph.conflictBehavior={}",
            self.named_url(drive, parent, name, "content"),
            conflict.word()
        );
        let body = Body { bytes: content, content_type: OCTETS };
        let call = Call::put(url, body, Repeat::Never, Scope::SharePoint).costs(Weight::Listing);
        read_object(&self.send(call).await?.body, "a written file")
    }

    /// Renames, moves, or sets the times of an item. A name that is taken is a 409.
    pub async fn update_drive_item(
        &self,
        drive: &str,
        item: &str,
        update: &DriveItemUpdate,
    ) -> Result<DriveItem, GraphError> {
        let mut body = Map::new();
        if let Some(name) = &update.name {
            body.insert("name".to_owned(), Value::from(name.as_str()));
        }
        if let Some(parent) = &update.parent_id {
            body.insert("parentReference".to_owned(), json!({ "id": parent }));
        }
        if let Some(times) = update.times.to_json() {
            body.insert("fileSystemInfo".to_owned(), times);
        }
        let url = self.item_url(drive, item, &[]);
        let call = Call::patch(url, &Value::Object(body), Scope::SharePoint).costs(Weight::Listing);
        let call = match &update.if_match {
            Some(etag) => call.if_match(etag),
            None => call,
        };
        read_object(&self.send(call).await?.body, "a changed item")
    }

    /// Moves an item to the recycle bin. One that is gone already is deleted.
    pub async fn delete_drive_item(&self, drive: &str, item: &str) -> Result<(), GraphError> {
        let call = Call::delete(self.item_url(drive, item, &[]), Scope::SharePoint);
        self.delete_gone(call.costs(Weight::Listing)).await
    }
}
