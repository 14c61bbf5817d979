//! Contacts: folders, contacts, photos.
//!
//! The one invariant to know: the default folder is in no listing, and its name is in the mailbox's language; it is asked for by
//! its well-known name and comes first.

mod folders;

use bytes::Bytes;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ErrorClass, GraphClient, GraphError, Page,
    error::Operation,
    json::{FromObject, read_object},
    request::{Body, Call, Repeat},
};

use super::outlook::{Change, Created, MarkedItem, etag_key, mailbox};

/// The default folder's well-known name.
const DEFAULT_FOLDER: &str = "contacts";

/// Folders per page.
const FOLDER_PAGE_SIZE: &str = "250";

/// Contacts per page.
const DELTA_PAGE_SIZE: u32 = 250;

/// By what a contact is recognised.
const MARKED_PROPERTIES: &str = "id,displayName,companyName,emailAddresses";

/// A mailbox has no more contact folders, and none lies deeper: what goes on longer is a circle.
const MAX_FOLDERS: usize = 10_000;

/// Microsoft takes no larger photo.
const MAX_PHOTO_BYTES: usize = 4 << 20;

/// A folder of contacts.
#[derive(Debug, Clone, PartialEq)]
pub struct ContactFolder {
    /// Its id. Folders have no immutable form.
    pub id: String,
    /// Its name, in the mailbox's language.
    pub display_name: String,
    /// The folder it is in.
    pub parent_id: Option<String>,
    /// Whether it is the one that every mailbox has.
    pub is_default: bool,
    /// Everything Microsoft said.
    pub raw: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FolderFields {
    id: String,
    display_name: Option<String>,
    parent_folder_id: Option<String>,
}

impl FromObject for ContactFolder {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: Value = serde_json::from_slice(raw)?;
        let fields = FolderFields::deserialize(&raw)?;
        Ok(Self {
            id: fields.id,
            display_name: fields.display_name.unwrap_or_default(),
            parent_id: fields.parent_folder_id,
            is_default: false,
            raw,
        })
    }
}

/// A contact without its photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its immutable id.
    pub id: String,
    /// Says whether anything but the photo changed since it was read last.
    pub change_key: String,
    /// The folder it is in; empty when the delta named only what changed.
    pub parent_folder_id: String,
    /// The name people see.
    pub display_name: Option<String>,
    /// The delta named only what changed: read the contact before it is stored.
    pub is_partial: bool,
    /// The whole object as it came, unknown properties included.
    pub raw: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContactFields {
    id: String,
    change_key: Option<String>,
    #[serde(rename = "@odata.etag")]
    etag: Option<String>,
    parent_folder_id: Option<String>,
    display_name: Option<String>,
}

impl FromObject for Contact {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: ContactFields = serde_json::from_slice(raw)?;
        let from_etag = fields.etag.as_deref().map(etag_key);
        Ok(Self {
            id: fields.id,
            change_key: fields.change_key.or(from_etag).unwrap_or_default(),
            is_partial: fields.parent_folder_id.is_none(),
            parent_folder_id: fields.parent_folder_id.unwrap_or_default(),
            display_name: fields.display_name,
            raw: Bytes::copy_from_slice(raw),
        })
    }
}

/// What a delta says about a contact.
pub type ContactChange = Change<Contact>;

impl GraphClient {
    /// One page of a folder's changes; `link` is the last page's, or none for the initial round.
    pub async fn contacts_delta(
        &self,
        user: &str,
        folder_id: &str,
        link: Option<&str>,
    ) -> Result<Page<ContactChange>, GraphError> {
        let path = ["users", user, "contactFolders", folder_id, "contacts", "delta"];
        let url = link.map_or_else(|| self.url(&path, &[]), str::to_owned);
        let call = Call::get(url, Operation::List, mailbox(user)).page_size(DELTA_PAGE_SIZE).immutable_ids();
        self.page(call, "a page of contacts").await
    }

    /// One contact.
    pub async fn contact(&self, user: &str, id: &str) -> Result<Contact, GraphError> {
        let url = self.url(&["users", user, "contacts", id], &[]);
        self.object(Call::get(url, Operation::Item, mailbox(user)).immutable_ids(), "a contact").await
    }

    /// One page of a folder's contacts: id, name, company, addresses, and one extended property, such as a restore key.
    pub async fn contacts_by_property(
        &self,
        user: &str,
        folder_id: &str,
        property_id: &str,
        link: Option<&str>,
    ) -> Result<Page<MarkedItem>, GraphError> {
        let path = ["contactFolders", folder_id, "contacts"];
        self.marked_items(user, (&path, MARKED_PROPERTIES), property_id, link).await
    }

    /// A contact's photo; none where it has none. A new photo does not show in the delta.
    pub async fn contact_photo(&self, user: &str, id: &str) -> Result<Option<Bytes>, GraphError> {
        let url = self.url(&["users", user, "contacts", id, "photo", "$value"], &[]);
        self.photo(Call::get(url, Operation::Item, mailbox(user)).immutable_ids()).await
    }

    /// The photo of a person; none where they have none.
    pub async fn user_photo(&self, user: &str) -> Result<Option<Bytes>, GraphError> {
        let url = self.url(&["users", user, "photo", "$value"], &[]);
        self.photo(Call::get(url, Operation::Item, mailbox(user))).await
    }

    async fn photo(&self, call: Call) -> Result<Option<Bytes>, GraphError> {
        match self.stream(call).await {
            Ok(photo) => photo.read_all(MAX_PHOTO_BYTES).await.map(Some),
            Err(error) if error.class() == ErrorClass::Gone => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a folder of contacts in another one.
    pub async fn create_contact_folder(
        &self,
        user: &str,
        parent_id: &str,
        name: &str,
    ) -> Result<ContactFolder, GraphError> {
        let url = self.url(&["users", user, "contactFolders", parent_id, "childFolders"], &[]);
        let call = Call::post(url, &json!({ "displayName": name }), Repeat::Never, mailbox(user));
        read_object(&self.send(call).await?.body, "a created contact folder")
            .map_err(|error| GraphError::Ambiguous { source: Box::new(error) })
    }

    /// Deletes a folder with what is in it. One that is gone already is deleted.
    pub async fn delete_contact_folder(&self, user: &str, id: &str) -> Result<(), GraphError> {
        let url = self.url(&["users", user, "contactFolders", id], &[]);
        self.delete_gone(Call::delete(url, mailbox(user))).await
    }

    /// Creates a contact in a folder; returns its immutable id.
    pub async fn create_contact(
        &self,
        user: &str,
        folder_id: &str,
        body: &Value,
    ) -> Result<String, GraphError> {
        let url = self.url(&["users", user, "contactFolders", folder_id, "contacts"], &[]);
        let call = Call::post(url, body, Repeat::Never, mailbox(user)).immutable_ids();
        let created: Created = read_object(&self.send(call).await?.body, "a created contact")
            .map_err(|error| GraphError::Ambiguous { source: Box::new(error) })?;
        Ok(created.id)
    }

    /// Gives a contact a photo of at most 4 MB.
    pub async fn set_contact_photo(
        &self,
        user: &str,
        id: &str,
        photo: Bytes,
        media_type: &str,
    ) -> Result<(), GraphError> {
        let content_type = HeaderValue::from_str(media_type)
            .map_err(|_| GraphError::Config { setting: "photo", reason: "it has no media type" })?;
        let url = self.url(&["users", user, "contacts", id, "photo", "$value"], &[]);
        let body = Body { bytes: photo, content_type };
        let call = Call::put(url, body, Repeat::Safe, mailbox(user)).immutable_ids().on_fresh();
        self.send(call).await.map(drop)
    }

    /// Deletes a contact. One that is gone already is deleted.
    pub async fn delete_contact(&self, user: &str, id: &str) -> Result<(), GraphError> {
        let url = self.url(&["users", user, "contacts", id], &[]);
        self.delete_gone(Call::delete(url, mailbox(user)).immutable_ids()).await
    }
}

#[cfg(test)]
mod tests;
