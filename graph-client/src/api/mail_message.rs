//! Reading mail messages: delta per folder, MIME, and the slow listing of flags.
//!
//! The one invariant to know: ids are immutable ones, so `IdType` goes with every page; a page that lost it would mix two
//! kinds of ids in one data set.

use bytes::Bytes;
use holdfast_model::Millis;
use serde::Deserialize;

use crate::{GraphClient, GraphError, MimeStream, Page, error::Operation, json::FromObject, request::Call};

use super::outlook::{Change, ExtendedProperty, contains_cid, etag_key, expand_property, mailbox, millis};

/// Everything a restore writes back, and the change key.
const SELECT: &str = "bccRecipients,body,categories,ccRecipients,changeKey,conversationId,conversationIndex,\
createdDateTime,flag,from,hasAttachments,importance,inferenceClassification,internetMessageId,\
isDeliveryReceiptRequested,isDraft,isRead,isReadReceiptRequested,lastModifiedDateTime,parentFolderId,\
receivedDateTime,replyTo,sender,sentDateTime,subject,toRecipients";

/// Messages with their bodies per page.
const DELTA_PAGE_SIZE: u32 = 50;

/// Ids and flags per page.
const FLAGS_PAGE_SIZE: &str = "1000";

/// Messages with their bodies per page of a plain listing.
const LISTED_PAGE_SIZE: &str = "50";

/// What a restore recognises a message by.
const MARKED_SELECT: &str = "id,internetMessageId,receivedDateTime,subject";

/// Ids and one property per page.
const MARKED_PAGE_SIZE: &str = "500";

/// A mail message without its attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailMessage {
    /// Its immutable id.
    pub id: String,
    /// Says whether anything changed since it was read last.
    pub change_key: String,
    /// The folder it is in; empty when the delta named only what changed.
    pub parent_folder_id: String,
    /// False for inline attachments only: look at [`Self::body_has_cid`] too.
    pub has_attachments: bool,
    /// When it was received.
    pub received_ms: Option<Millis>,
    /// When it was sent.
    pub sent_ms: Option<Millis>,
    /// Whether it was read.
    pub is_read: bool,
    /// Whether it is a draft.
    pub is_draft: bool,
    /// Its subject.
    pub subject: Option<String>,
    /// The address it is from.
    pub from: Option<String>,
    /// Microsoft's name for its type, where it is not a plain message (a meeting request, for instance).
    pub odata_type: Option<String>,
    /// The delta named only what changed: read the message before it is stored.
    pub is_partial: bool,
    /// The whole object as it came, unknown properties included.
    pub raw: Bytes,
    has_cid: bool,
}

impl MailMessage {
    /// Whether the body shows inline attachments.
    pub fn body_has_cid(&self) -> bool {
        self.has_cid
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageFields {
    id: String,
    change_key: Option<String>,
    #[serde(rename = "@odata.etag")]
    etag: Option<String>,
    #[serde(rename = "@odata.type")]
    odata_type: Option<String>,
    parent_folder_id: Option<String>,
    has_attachments: Option<bool>,
    received_date_time: Option<String>,
    sent_date_time: Option<String>,
    is_read: Option<bool>,
    is_draft: Option<bool>,
    subject: Option<String>,
    from: Option<Recipient>,
    body: Option<Body>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recipient {
    email_address: Option<Address>,
}

#[derive(Deserialize)]
struct Address {
    address: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    content: Option<String>,
}

impl FromObject for MailMessage {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: MessageFields = serde_json::from_slice(raw)?;
        let etag_key = fields.etag.as_deref().map(etag_key);
        let is_partial =
            fields.parent_folder_id.is_none() || fields.is_draft.is_none() || fields.body.is_none();
        let from = fields.from.and_then(|from| from.email_address).and_then(|address| address.address);
        let body = fields.body.and_then(|body| body.content).unwrap_or_default();
        Ok(Self {
            id: fields.id,
            change_key: fields.change_key.or(etag_key).unwrap_or_default(),
            parent_folder_id: fields.parent_folder_id.unwrap_or_default(),
            has_attachments: fields.has_attachments.unwrap_or_default(),
            received_ms: fields.received_date_time.as_deref().and_then(millis),
            sent_ms: fields.sent_date_time.as_deref().and_then(millis),
            is_read: fields.is_read.unwrap_or_default(),
            is_draft: fields.is_draft.unwrap_or_default(),
            subject: fields.subject,
            from,
            odata_type: fields.odata_type,
            is_partial,
            raw: Bytes::copy_from_slice(raw),
            has_cid: contains_cid(&body),
        })
    }
}

/// What a delta says about a message.
pub type MessageChange = Change<MailMessage>;

/// A message's id and whether it was read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageFlags {
    /// Its immutable id.
    pub id: String,
    /// Whether it was read.
    #[serde(default)]
    pub is_read: bool,
}

/// A message's id, the value of the extended property that was asked for, and what tells the message from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedMessage {
    /// Its immutable id.
    pub id: String,
    /// The value; none where the message lacks the property.
    pub value: Option<String>,
    /// The name it travels under.
    pub internet_message_id: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// When it was received, as Microsoft writes it.
    pub received: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MarkedFields {
    id: String,
    #[serde(default)]
    internet_message_id: Option<String>,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    received_date_time: Option<String>,
    #[serde(default)]
    single_value_extended_properties: Option<Vec<ExtendedProperty>>,
}

impl FromObject for MarkedMessage {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: MarkedFields = serde_json::from_slice(raw)?;
        let properties = fields.single_value_extended_properties.unwrap_or_default();
        Ok(Self {
            id: fields.id,
            value: properties.into_iter().find_map(|property| property.value),
            internet_message_id: fields.internet_message_id,
            subject: fields.subject,
            received: fields.received_date_time,
        })
    }
}

impl GraphClient {
    /// One page of a folder's changes; `link` is the last page's, or none for the initial round.
    pub async fn messages_delta(
        &self,
        user: &str,
        folder_id: &str,
        link: Option<&str>,
    ) -> Result<Page<MessageChange>, GraphError> {
        let path = ["users", user, "mailFolders", folder_id, "messages", "delta"];
        let url = link.map_or_else(|| self.url(&path, &[("$select", SELECT)]), str::to_owned);
        let call = Call::get(url, Operation::List, mailbox(user)).page_size(DELTA_PAGE_SIZE).immutable_ids();
        self.page(call, "a page of messages").await
    }

    /// One message, with the same properties as the delta has.
    pub async fn message(&self, user: &str, id: &str) -> Result<MailMessage, GraphError> {
        let url = self.url(&["users", user, "messages", id], &[("$select", SELECT)]);
        let call = Call::get(url, Operation::Item, mailbox(user)).immutable_ids();
        self.object(call, "a message").await
    }

    /// A message as MIME. Exchange rebuilds it on each read: the bytes are no change key.
    pub async fn message_mime(&self, user: &str, id: &str) -> Result<MimeStream, GraphError> {
        let url = self.url(&["users", user, "messages", id, "$value"], &[]);
        self.stream(Call::get(url, Operation::Item, mailbox(user)).immutable_ids()).await
    }

    /// One page of a folder's ids and read flags: corrects what the delta does not report.
    pub async fn message_flags(
        &self,
        user: &str,
        folder_id: &str,
        link: Option<&str>,
    ) -> Result<Page<MessageFlags>, GraphError> {
        let query = [("$select", "id,isRead"), ("$top", FLAGS_PAGE_SIZE)];
        self.messages_page(user, folder_id, link, &query).await
    }

    /// One page of a folder's messages, all of them, for mailboxes whose delta does not work.
    pub async fn messages_listed(
        &self,
        user: &str,
        folder_id: &str,
        link: Option<&str>,
    ) -> Result<Page<MessageChange>, GraphError> {
        self.messages_page(user, folder_id, link, &[("$select", SELECT), ("$top", LISTED_PAGE_SIZE)]).await
    }

    /// One page of a folder's ids with the value of one extended property, such as a restore key.
    pub async fn find_by_property(
        &self,
        user: &str,
        folder_id: &str,
        property_id: &str,
        link: Option<&str>,
    ) -> Result<Page<MarkedMessage>, GraphError> {
        let expand = expand_property(property_id);
        let query = [("$select", MARKED_SELECT), ("$top", MARKED_PAGE_SIZE), ("$expand", expand.as_str())];
        self.messages_page(user, folder_id, link, &query).await
    }

    async fn messages_page<T: FromObject>(
        &self,
        user: &str,
        folder_id: &str,
        link: Option<&str>,
        query: &[(&str, &str)],
    ) -> Result<Page<T>, GraphError> {
        let path = ["users", user, "mailFolders", folder_id, "messages"];
        let url = link.map_or_else(|| self.url(&path, query), str::to_owned);
        let call = Call::get(url, Operation::List, mailbox(user)).immutable_ids();
        self.page(call, "a page of messages").await
    }
}
