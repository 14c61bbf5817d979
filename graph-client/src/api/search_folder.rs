//! Mail folders outside the visible tree: search folders, and what can still be recovered after it was deleted.
//!
//! The one invariant to know: no listing of the tree has them; each is reached by a well-known name.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    ErrorClass, GraphClient, GraphError,
    error::Operation,
    json::{FromObject, read_object},
    request::{Call, Repeat},
};

use super::{
    mail_folder::MailFolder,
    outlook::{Created, ExtendedProperty, expand_property, mailbox},
};

/// Where Outlook keeps search folders.
pub const SEARCH_FOLDERS: &str = "searchfolders";

/// What was deleted from Deleted Items too. Purges, versions and holds cannot be reached.
pub const RECOVERABLE_ITEMS: &str = "recoverableitemsdeletions";

/// Folders per page.
const PAGE_SIZE: &str = "250";

/// A folder with the value of the extended property that was asked for, such as a restore key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedFolder {
    /// Its id.
    pub id: String,
    /// Its name.
    pub display_name: String,
    /// The value; none where the folder lacks the property.
    pub value: Option<String>,
    /// Whether it is a search folder.
    pub is_search_folder: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    id: String,
    display_name: Option<String>,
    #[serde(rename = "@odata.type")]
    kind: Option<String>,
    single_value_extended_properties: Option<Vec<ExtendedProperty>>,
}

impl FromObject for MarkedFolder {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: Fields = serde_json::from_slice(raw)?;
        let properties = fields.single_value_extended_properties.unwrap_or_default();
        Ok(Self {
            id: fields.id,
            display_name: fields.display_name.unwrap_or_default(),
            value: properties.into_iter().find_map(|property| property.value),
            is_search_folder: fields.kind.is_some_and(|kind| kind.ends_with("mailSearchFolder")),
        })
    }
}

impl GraphClient {
    /// The search folders that Outlook shows, which are outside the tree of folders.
    pub async fn search_folders(&self, user: &str) -> Result<Vec<MailFolder>, GraphError> {
        match self.child_folders(user, SEARCH_FOLDERS).await {
            // A mailbox that never had one has no place for them.
            Err(error) if error.class() == ErrorClass::Gone => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// The folders directly in one, with one extended property.
    pub async fn marked_folders(
        &self,
        user: &str,
        parent: &str,
        property_id: &str,
    ) -> Result<Vec<MarkedFolder>, GraphError> {
        let expand = expand_property(property_id);
        let query = [("includeHiddenFolders", "true"), ("$top", PAGE_SIZE), ("$expand", expand.as_str())];
        let first = self.url(&["users", user, "mailFolders", parent, "childFolders"], &query);
        let call = |url| Call::get(url, Operation::List, mailbox(user));
        self.whole(first, call, "the list of mail folders").await
    }

    /// Makes a search folder; returns its id.
    pub async fn create_search_folder(
        &self,
        user: &str,
        parent: &str,
        body: &Value,
    ) -> Result<String, GraphError> {
        let url = self.url(&["users", user, "mailFolders", parent, "childFolders"], &[]);
        let reply = self.send(Call::post(url, body, Repeat::Never, mailbox(user))).await?;
        let created: Created = read_object(&reply.body, "a created search folder")
            .map_err(|error| GraphError::Ambiguous { source: Box::new(error) })?;
        Ok(created.id)
    }

    /// Changes what a search folder searches for.
    pub async fn change_search_folder(&self, user: &str, id: &str, body: &Value) -> Result<(), GraphError> {
        let url = self.url(&["users", user, "mailFolders", id], &[]);
        self.send(Call::patch(url, body, mailbox(user))).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::*;
    use crate::testing::{Server, json, refusal};

    #[tokio::test]
    async fn search_folders_are_listed_made_and_changed_as_microsoft_describes() {
        let marked = value!({"id": "s", "displayName": "S", "@odata.type": "#microsoft.graph.mailSearchFolder",
            "sourceFolderIds": ["i"], "filterQuery": "q", "singleValueExtendedProperties": [{"id": "x", "value": "k"}]});
        let server = Server::start(move |_, seen| match seen.method.as_str() {
            "POST" => json(201, r#"{"id":"new"}"#),
            "PATCH" => json(200, "{}"),
            _ => json(200, value!({"value": [marked, {"id": "f", "displayName": "F"}]}).to_string()),
        })
        .await;
        let client = server.client();
        let listed = client.search_folders("u").await.unwrap();
        assert!(listed[0].is_search_folder && !listed[1].is_search_folder);
        let marked = client.marked_folders("u", SEARCH_FOLDERS, "String {x} Name Key").await.unwrap();
        assert_eq!((marked[0].value.as_deref(), marked[0].is_search_folder), (Some("k"), true));
        assert_eq!((marked[1].value.as_deref(), marked[1].is_search_folder), (None, false));
        let body = value!({"@odata.type": "#microsoft.graph.mailSearchFolder", "displayName": "S",
            "includeNestedFolders": true, "sourceFolderIds": ["i"], "filterQuery": "q"});
        assert_eq!(client.create_search_folder("u", SEARCH_FOLDERS, &body).await.unwrap(), "new");
        let change = value!({"@odata.type": "#microsoft.graph.mailSearchFolder", "filterQuery": "p"});
        client.change_search_folder("u", "s", &change).await.unwrap();
        server.assert_described();
    }

    #[tokio::test]
    async fn a_mailbox_without_a_place_for_search_folders_has_none() {
        let server = Server::start(|_, _| refusal(404, "ErrorItemNotFound")).await;
        assert!(server.client().search_folders("u").await.unwrap().is_empty());
    }
}
