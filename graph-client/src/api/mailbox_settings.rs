//! What a mailbox does by itself: inbox rules, categories, settings.
//!
//! The one invariant to know: nothing here decides whether a rule or a reply may send mail; whoever writes one has to.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    GraphClient, GraphError,
    error::Operation,
    json::{FromObject, read_object},
    request::{Call, Repeat},
};

use super::outlook::mailbox;

/// Rules or categories per page.
const PAGE_SIZE: &str = "250";

/// The only folder that has rules.
const INBOX: &str = "inbox";

/// A rule of the Inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct InboxRule {
    /// Its id.
    pub id: String,
    /// Its name; several rules may have the same.
    pub display_name: String,
    /// Whether it was made by something that Graph may not change.
    pub is_read_only: bool,
    /// Everything Microsoft said.
    pub raw: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleFields {
    id: String,
    display_name: Option<String>,
    is_read_only: Option<bool>,
}

impl FromObject for InboxRule {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: Value = serde_json::from_slice(raw)?;
        let fields = RuleFields::deserialize(&raw)?;
        Ok(Self {
            id: fields.id,
            display_name: fields.display_name.unwrap_or_default(),
            is_read_only: fields.is_read_only.unwrap_or_default(),
            raw,
        })
    }
}

/// A category: a name and a colour.
#[derive(Debug, Clone, PartialEq)]
pub struct MailCategory {
    /// Its id.
    pub id: String,
    /// Its name, which no other category of the mailbox has in any case.
    pub display_name: String,
    /// Its colour, such as `preset3`.
    pub color: String,
    /// Everything Microsoft said.
    pub raw: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CategoryFields {
    id: String,
    display_name: Option<String>,
    color: Option<String>,
}

impl FromObject for MailCategory {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: Value = serde_json::from_slice(raw)?;
        let fields = CategoryFields::deserialize(&raw)?;
        Ok(Self {
            id: fields.id,
            display_name: fields.display_name.unwrap_or_default(),
            color: fields.color.unwrap_or_default(),
            raw,
        })
    }
}

impl GraphClient {
    /// The rules of the Inbox.
    pub async fn inbox_rules(&self, user: &str) -> Result<Vec<InboxRule>, GraphError> {
        let first = self.url(&["users", user, "mailFolders", INBOX, "messageRules"], &[("$top", PAGE_SIZE)]);
        let call = |url| Call::get(url, Operation::Item, mailbox(user));
        self.whole(first, call, "the list of inbox rules").await
    }

    /// Makes a rule.
    pub async fn create_inbox_rule(&self, user: &str, body: &Value) -> Result<InboxRule, GraphError> {
        let url = self.url(&["users", user, "mailFolders", INBOX, "messageRules"], &[]);
        let reply = self.send(Call::post(url, body, Repeat::Never, mailbox(user))).await?;
        read_object(&reply.body, "a created inbox rule")
            .map_err(|error| GraphError::Ambiguous { source: Box::new(error) })
    }

    /// Changes a rule.
    pub async fn change_inbox_rule(&self, user: &str, id: &str, body: &Value) -> Result<(), GraphError> {
        let url = self.url(&["users", user, "mailFolders", INBOX, "messageRules", id], &[]);
        self.send(Call::patch(url, body, mailbox(user))).await.map(drop)
    }

    /// The categories of a mailbox.
    pub async fn mail_categories(&self, user: &str) -> Result<Vec<MailCategory>, GraphError> {
        let first = self.url(&["users", user, "outlook", "masterCategories"], &[("$top", PAGE_SIZE)]);
        let call = |url| Call::get(url, Operation::Item, mailbox(user));
        self.whole(first, call, "the list of categories").await
    }

    /// Makes a category.
    pub async fn create_mail_category(
        &self,
        user: &str,
        name: &str,
        color: &str,
    ) -> Result<MailCategory, GraphError> {
        let url = self.url(&["users", user, "outlook", "masterCategories"], &[]);
        let body = json!({ "displayName": name, "color": color });
        let reply = self.send(Call::post(url, &body, Repeat::Never, mailbox(user))).await?;
        read_object(&reply.body, "a created category")
            .map_err(|error| GraphError::Ambiguous { source: Box::new(error) })
    }

    /// Gives a category another colour. Its name is for life.
    pub async fn recolor_mail_category(&self, user: &str, id: &str, color: &str) -> Result<(), GraphError> {
        let url = self.url(&["users", user, "outlook", "masterCategories", id], &[]);
        self.send(Call::patch(url, &json!({ "color": color }), mailbox(user))).await.map(drop)
    }

    /// The settings of a mailbox, without what says where they were read.
    pub async fn mailbox_settings(&self, user: &str) -> Result<Value, GraphError> {
        let url = self.url(&["users", user, "mailboxSettings"], &[]);
        let call = Call::get(url, Operation::Item, mailbox(user));
        let mut settings: Value = self.object(call, "the mailbox settings").await?;
        if let Some(fields) = settings.as_object_mut() {
            fields.remove("@odata.context");
        }
        Ok(settings)
    }

    /// Changes those settings that are given.
    pub async fn change_mailbox_settings(&self, user: &str, body: &Value) -> Result<(), GraphError> {
        let url = self.url(&["users", user, "mailboxSettings"], &[]);
        self.send(Call::patch(url, body, mailbox(user))).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
