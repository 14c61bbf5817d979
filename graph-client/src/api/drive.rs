//! Drives: OneDrive of a person, and the libraries of a SharePoint site, which are drives too.
//!
//! The one invariant to know: a download address is used, never kept. It opens the file to whoever has it, so it is cut out of
//! what is stored and shows in no log.

mod content;
mod item;
mod permission;
mod upload;
mod version;
mod write;

#[cfg(test)]
mod tests;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    GraphClient, GraphError, Page, Scope, Weight,
    error::Operation,
    json::FromObject,
    request::{Call, segment},
};

use super::outlook::Change;

pub use content::{ContentCheck, DriveContent, DriveDownload};
pub use item::{DownloadUrl, DriveItem, DriveItemKind};
pub use permission::{DrivePermission, NewGrant, NewLink, SharingLink};
pub use upload::{DriveUpload, DriveUploadProgress, NewDriveFile};
pub use version::DriveItemVersion;
pub use write::{DriveItemUpdate, FileTimes, NameConflict};

/// Items per page of a delta.
const DELTA_PAGE_SIZE: &str = "500";

/// Items per page of a folder.
const CHILDREN_PAGE_SIZE: &str = "200";

/// A drive.
#[derive(Debug, Clone, PartialEq)]
pub struct Drive {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// `business` for OneDrive, `documentLibrary` for a library.
    pub drive_type: Option<String>,
    /// Bytes used, where Microsoft says so.
    pub used_bytes: Option<u64>,
    /// Everything Microsoft said.
    pub raw: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DriveFields {
    id: String,
    name: Option<String>,
    drive_type: Option<String>,
    quota: Option<Quota>,
}

#[derive(Deserialize)]
struct Quota {
    used: Option<u64>,
}

impl FromObject for Drive {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: Value = serde_json::from_slice(raw)?;
        let fields = DriveFields::deserialize(&raw)?;
        Ok(Self {
            id: fields.id,
            name: fields.name,
            drive_type: fields.drive_type,
            used_bytes: fields.quota.and_then(|quota| quota.used),
            raw,
        })
    }
}

/// What a delta says about an item of a drive.
pub type DriveItemChange = Change<DriveItem>;

impl GraphClient {
    /// A person's OneDrive; none where it was never opened, and where there is no such person, which looks the same.
    pub async fn user_drive(&self, user: &str) -> Result<Option<Drive>, GraphError> {
        // What refuses the drive refuses the resource, not an item.
        let call = listing(self.url(&["users", user, "drive"], &[])).costs(Weight::Single);
        match self.object(call, "a drive").await {
            Ok(drive) => Ok(Some(drive)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All drives of a person.
    pub async fn user_drives(&self, user: &str) -> Result<Vec<Drive>, GraphError> {
        self.whole(self.url(&["users", user, "drives"], &[]), listing, "the list of drives").await
    }

    /// One page of a drive's changes; `link` is the last page's, or none for the initial round. Only the delta is complete:
    /// listing folders can miss what is moved meanwhile.
    ///
    /// It says who has rights of their own, and reports an item when something else than its sharing has changed: of changes of
    /// the sharing alone it would tell only an app with `Sites.FullControl.All`.
    ///
    /// When the token has died the error's `restart_link` is the first page of the enumeration from scratch.
    pub async fn drive_delta(
        &self,
        drive: &str,
        link: Option<&str>,
    ) -> Result<Page<DriveItemChange>, GraphError> {
        let first = || self.url(&["drives", drive, "root", "delta"], &[("$top", DELTA_PAGE_SIZE)]);
        let weight = if link.is_some() { Weight::Single } else { Weight::Listing };
        let call = listing(link.map_or_else(first, str::to_owned)).costs(weight);
        self.page(call.prefer("hierarchicalsharing"), "a page of drive items").await
    }

    /// The delta link of this moment: what changes from now on, without what is there.
    pub async fn drive_delta_from_now(&self, drive: &str) -> Result<String, GraphError> {
        let url = self.url(&["drives", drive, "root", "delta"], &[("token", "latest")]);
        let page: Page<DriveItemChange> = self.page(listing(url), "the latest delta link").await?;
        page.delta.ok_or(GraphError::Incomplete { what: "the latest delta link", field: "@odata.deltaLink" })
    }

    /// One item as it is now.
    pub async fn drive_item(&self, drive: &str, item: &str) -> Result<DriveItem, GraphError> {
        self.object(single(self.item_url(drive, item, &[])), "a drive item").await
    }

    /// One page of what is directly in a folder. Somebody who writes meanwhile can make it miss something: only the delta is
    /// complete.
    pub async fn drive_children(
        &self,
        drive: &str,
        folder: &str,
        link: Option<&str>,
    ) -> Result<Page<DriveItem>, GraphError> {
        let first =
            || self.url(&["drives", drive, "items", folder, "children"], &[("$top", CHILDREN_PAGE_SIZE)]);
        let call = listing(link.map_or_else(first, str::to_owned));
        self.page(call, "a page of a folder").await
    }

    fn item_url(&self, drive: &str, item: &str, below: &[&str]) -> String {
        self.url(&[&["drives", drive, "items", item], below].concat(), &[])
    }

    /// What is addressed by its folder and its name.
    fn named_url(&self, drive: &str, parent: &str, name: &str, below: &str) -> String {
        format!("{}:/{}:/{below}", self.item_url(drive, parent, &[]), segment(name))
    }
}

fn single(url: String) -> Call {
    Call::get(url, Operation::Item, Scope::SharePoint).costs(Weight::Single)
}

fn listing(url: String) -> Call {
    Call::get(url, Operation::List, Scope::SharePoint).costs(Weight::Listing)
}
