//! Attachments of messages, events and tasks: one list without content, then the content of those that nothing else gives.
//!
//! The one invariant to know: the list is complete or it is an error; where Exchange cannot list them at once, they are listed
//! by id and read one by one.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    ErrorClass, GraphClient, GraphError, MimeStream,
    error::Operation,
    json::{FromObject, read_object},
    request::{Call, Repeat},
};

use super::{
    calendar::UnattendedEvent,
    outlook::{Created, mailbox},
};

/// A message has no more pages of attachments.
const MAX_PAGES: usize = 1_000;

const WITH_CONTENT_ID: &str =
    "id,name,contentType,size,isInline,lastModifiedDateTime,microsoft.graph.fileAttachment/contentId";
const PLAIN: &str = "id,name,contentType,size,isInline,lastModifiedDateTime";

/// Tasks have files only, and show none of them in their text.
const OF_TASK: &str = "id,name,contentType,size,lastModifiedDateTime";

/// What an attachment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachmentKind {
    /// Bytes.
    File,
    /// Another Outlook item.
    Item,
    /// A link.
    Reference,
    /// Something newer than this program: Microsoft's type name.
    Unknown(String),
}

/// An attachment without its content.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachmentInfo {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: AttachmentKind,
    /// Its file name.
    pub name: String,
    /// Its media type.
    pub content_type: Option<String>,
    /// The stored size with overhead, not the length of the content.
    pub size: u64,
    /// Whether the body shows it.
    pub is_inline: bool,
    /// What the body's `cid:` names; none also where Microsoft did not list it.
    pub content_id: Option<String>,
    /// Everything Microsoft said.
    pub raw: Value,
}

/// Whether an item attachment comes with its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpandItem {
    /// With it.
    Yes,
    /// Without it.
    No,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    id: String,
    #[serde(rename = "@odata.type", default)]
    kind: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    is_inline: Option<bool>,
    #[serde(default)]
    content_id: Option<String>,
}

impl FromObject for AttachmentInfo {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let mut raw: Value = serde_json::from_slice(raw)?;
        // Content is read elsewhere; a list that has it anyway must not keep it in memory.
        if let Some(fields) = raw.as_object_mut() {
            fields.remove("contentBytes");
        }
        let fields = Fields::deserialize(&raw)?;
        let kind = match fields.kind.as_deref().unwrap_or_default().trim_start_matches("#microsoft.graph.") {
            "fileAttachment" | "taskFileAttachment" => AttachmentKind::File,
            "itemAttachment" => AttachmentKind::Item,
            "referenceAttachment" => AttachmentKind::Reference,
            other => AttachmentKind::Unknown(other.to_owned()),
        };
        Ok(Self {
            id: fields.id,
            kind,
            name: fields.name.unwrap_or_default(),
            content_type: fields.content_type,
            size: fields.size.unwrap_or_default(),
            is_inline: fields.is_inline.unwrap_or_default(),
            content_id: fields.content_id.filter(|id| !id.is_empty()),
            raw,
        })
    }
}

/// What attachments hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentOwner<'a> {
    /// A mail message.
    Message(&'a str),
    /// An event; each exception of a series has its own.
    CalendarEvent(&'a str),
    /// A task.
    TodoTask {
        /// The list it is in.
        list: &'a str,
        /// Its id.
        task: &'a str,
    },
}

impl<'a> AttachmentOwner<'a> {
    fn path(self, user: &'a str, below: &[&'a str]) -> Vec<&'a str> {
        let owner: &[&str] = match &self {
            Self::Message(id) => &["messages", id],
            Self::CalendarEvent(id) => &["events", id],
            Self::TodoTask { list, task } => &["todo", "lists", list, "tasks", task],
        };
        [&["users", user], owner, &["attachments"], below].concat()
    }
}

impl GraphClient {
    /// A message's attachments without their content.
    pub async fn attachments(&self, user: &str, message: &str) -> Result<Vec<AttachmentInfo>, GraphError> {
        self.attachments_of(user, AttachmentOwner::Message(message)).await
    }

    /// The attachments of a message, an event or a task, without their content.
    pub async fn attachments_of(
        &self,
        user: &str,
        owner: AttachmentOwner<'_>,
    ) -> Result<Vec<AttachmentInfo>, GraphError> {
        if matches!(owner, AttachmentOwner::TodoTask { .. }) {
            return self.list_attachments(user, owner, OF_TASK).await;
        }
        let mut fields = self.inner.attachment_fields.lock().await;
        let known = *fields;
        if let Some(select) = known {
            drop(fields);
            let result = self.list_attachments(user, owner, select).await;
            return self.or_one_by_one(user, owner, result).await;
        }
        // Found out once: whoever asks at the same time waits for the answer.
        let result = match self.list_attachments(user, owner, WITH_CONTENT_ID).await {
            Err(error) if error.status() == Some(400) => {
                tracing::debug!(code = error.code(), "attachments cannot be listed with content ids");
                let result = self.list_attachments(user, owner, PLAIN).await;
                *fields = result.is_ok().then_some(PLAIN);
                result
            }
            result => {
                *fields = result.is_ok().then_some(WITH_CONTENT_ID);
                result
            }
        };
        drop(fields);
        self.or_one_by_one(user, owner, result).await
    }

    /// The content of a file, or the MIME, iCalendar or vCard of an item, that hangs on a message.
    pub async fn attachment_value(
        &self,
        user: &str,
        message: &str,
        attachment: &str,
    ) -> Result<MimeStream, GraphError> {
        self.attachment_value_of(user, AttachmentOwner::Message(message), attachment).await
    }

    /// The content of a file, or the MIME, iCalendar or vCard of an item. A link has none: Microsoft answers 405.
    pub async fn attachment_value_of(
        &self,
        user: &str,
        owner: AttachmentOwner<'_>,
        attachment: &str,
    ) -> Result<MimeStream, GraphError> {
        let url = self.url(&owner.path(user, &[attachment, "$value"]), &[]);
        self.stream(Call::get(url, Operation::Item, mailbox(user)).immutable_ids()).await
    }

    /// An attachment of a message as JSON, with the item in it where that is asked for. A file's content is in it too.
    pub async fn attachment_json(
        &self,
        user: &str,
        message: &str,
        attachment: &str,
        expand_item: ExpandItem,
    ) -> Result<Value, GraphError> {
        self.attachment_json_of(user, AttachmentOwner::Message(message), attachment, expand_item).await
    }

    /// An attachment as JSON, with the item in it where that is asked for. A file's content is in it too.
    pub async fn attachment_json_of(
        &self,
        user: &str,
        owner: AttachmentOwner<'_>,
        attachment: &str,
        expand_item: ExpandItem,
    ) -> Result<Value, GraphError> {
        let query: &[_] = match expand_item {
            ExpandItem::Yes => &[("$expand", "microsoft.graph.itemattachment/item")],
            ExpandItem::No => &[],
        };
        let url = self.url(&owner.path(user, &[attachment]), query);
        self.object(Call::get(url, Operation::Item, mailbox(user)).immutable_ids(), "an attachment").await
    }

    /// Adds an attachment of less than 3 MB to a message; returns its id.
    pub async fn add_attachment(
        &self,
        user: &str,
        message: &str,
        attachment: &Value,
    ) -> Result<String, GraphError> {
        self.add_attachment_to(user, AttachmentOwner::Message(message), attachment).await
    }

    /// Adds an attachment of less than 3 MB to an event that nobody is invited to; returns its id.
    pub async fn add_event_attachment(
        &self,
        user: &str,
        event: &UnattendedEvent,
        attachment: &Value,
    ) -> Result<String, GraphError> {
        self.add_attachment_to(user, AttachmentOwner::CalendarEvent(event.id()), attachment).await
    }

    /// Adds an attachment of less than 3 MB to a task; returns its id.
    pub async fn add_task_attachment(
        &self,
        user: &str,
        (list, task): (&str, &str),
        attachment: &Value,
    ) -> Result<String, GraphError> {
        self.add_attachment_to(user, AttachmentOwner::TodoTask { list, task }, attachment).await
    }

    async fn add_attachment_to(
        &self,
        user: &str,
        owner: AttachmentOwner<'_>,
        attachment: &Value,
    ) -> Result<String, GraphError> {
        let url = self.url(&owner.path(user, &[]), &[]);
        let call = Call::post(url, attachment, Repeat::Never, mailbox(user)).immutable_ids().on_fresh();
        let created: Created = read_object(&self.send(call).await?.body, "a created attachment")
            .map_err(|error| GraphError::Ambiguous { source: Box::new(error) })?;
        Ok(created.id)
    }

    async fn or_one_by_one(
        &self,
        user: &str,
        owner: AttachmentOwner<'_>,
        result: Result<Vec<AttachmentInfo>, GraphError>,
    ) -> Result<Vec<AttachmentInfo>, GraphError> {
        match result {
            Err(error) if matches!(error.class(), ErrorClass::SkipItem | ErrorClass::Retry) => {
                tracing::debug!(
                    code = error.code(),
                    "attachments cannot be listed at once, reading one by one"
                );
                let mut all = Vec::new();
                for found in self.list_attachments(user, owner, "id").await? {
                    let url = self.url(&owner.path(user, &[&found.id]), &[("$select", PLAIN)]);
                    let call = Call::get(url, Operation::Item, mailbox(user)).immutable_ids();
                    all.push(self.object(call, "an attachment").await?);
                }
                Ok(all)
            }
            result => result,
        }
    }

    /// Paging of this collection is unreliable: the same attachment may come twice.
    async fn list_attachments(
        &self,
        user: &str,
        owner: AttachmentOwner<'_>,
        select: &str,
    ) -> Result<Vec<AttachmentInfo>, GraphError> {
        let first = self.url(&owner.path(user, &[]), &[("$select", select)]);
        let (mut all, mut seen, mut next) = (Vec::new(), HashSet::new(), Some(first));
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { return Ok(all) };
            let call = Call::get(url, Operation::Item, mailbox(user)).immutable_ids();
            let call = if select == WITH_CONTENT_ID { call.probing() } else { call };
            let page = self.page::<AttachmentInfo>(call, "a page of attachments").await?;
            all.extend(page.items.into_iter().filter(|found| seen.insert(found.id.clone())));
            next = page.next;
        }
        Err(GraphError::TooMany { what: "the list of attachments", limit: MAX_PAGES })
    }
}
