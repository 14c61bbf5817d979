//! Writing messages back. Nothing here sends mail: a create only stores.
//!
//! The one invariant to know: a create whose outcome is unknown returns [`GraphError::Ambiguous`]; the caller looks for its
//! restore key before it creates again.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    GraphClient, GraphError,
    json::read_object,
    request::{Call, Repeat},
};

use super::outlook::{Created, mailbox};

/// What a create made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedMessage {
    /// Its immutable id.
    pub id: String,
    /// Whether Exchange made it a draft.
    #[serde(default)]
    pub is_draft: bool,
}

impl GraphClient {
    /// Creates a message in a folder, complete in one call.
    pub async fn create_message(
        &self,
        user: &str,
        folder_id: &str,
        body: &Value,
    ) -> Result<CreatedMessage, GraphError> {
        let url = self.url(&["users", user, "mailFolders", folder_id, "messages"], &[]);
        let call = Call::post(url, body, Repeat::Never, mailbox(user)).immutable_ids();
        let reply = self.send(call).await?;
        // It was created, whatever the answer looks like.
        read_object(&reply.body, "a created message")
            .map_err(|error| GraphError::Ambiguous { source: Box::new(error) })
    }

    /// Moves a message to another folder; returns its id there.
    pub async fn move_message(&self, user: &str, id: &str, destination: &str) -> Result<String, GraphError> {
        let url = self.url(&["users", user, "messages", id, "move"], &[]);
        let body = json!({ "destinationId": destination });
        // Immutable ids survive a move, so a second one only finds the message where it is.
        let reply = self.send(Call::post(url, &body, Repeat::Safe, mailbox(user)).immutable_ids()).await?;
        let moved: Created = read_object(&reply.body, "a moved message")?;
        Ok(moved.id)
    }

    /// Deletes a message. One that is gone already is deleted.
    pub async fn delete_message(&self, user: &str, id: &str) -> Result<(), GraphError> {
        let url = self.url(&["users", user, "messages", id], &[]);
        self.delete_gone(Call::delete(url, mailbox(user)).immutable_ids()).await
    }
}
