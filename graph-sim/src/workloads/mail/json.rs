//! A message as Graph's JSON.
//!
//! Invariant: which fields are written is a bit mask worked out once per request from `$select`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::blob::Data;
use crate::ids::Id;
use crate::json::{change_key, flag, key, list_of, literal, string, text, timestamp};
use crate::query::Query;
use crate::workloads::mail::content::{Attachment, Content, Kind, Person};
use crate::workloads::mail::mime::plain_text;

const FIELDS: [&str; 31] = [
    "createdDateTime",
    "lastModifiedDateTime",
    "changeKey",
    "categories",
    "receivedDateTime",
    "sentDateTime",
    "hasAttachments",
    "internetMessageId",
    "subject",
    "bodyPreview",
    "importance",
    "parentFolderId",
    "conversationId",
    "conversationIndex",
    "isDeliveryReceiptRequested",
    "isReadReceiptRequested",
    "isRead",
    "isDraft",
    "webLink",
    "inferenceClassification",
    "body",
    "sender",
    "from",
    "toRecipients",
    "ccRecipients",
    "bccRecipients",
    "replyTo",
    "flag",
    "internetMessageHeaders",
    "uniqueBody",
    "id",
];
const ONLY_WHEN_SELECTED: [usize; 2] = [28, 29];

/// Which fields and expansions of a message an answer shows.
#[derive(Clone, Debug)]
pub(crate) struct View {
    mask: u64,
    /// Extended property ids to show.
    pub extended: Vec<String>,
    pub attachments: bool,
    /// Says `@odata.type` of each item, as delta does.
    pub typed: bool,
}

impl View {
    /// From `$select`'s list; none = Graph's default set. Unknown names are given back as the error.
    fn new(select: Option<&str>) -> Result<Self, String> {
        let mask = match select {
            None => {
                (0..FIELDS.len()).filter(|at| !ONLY_WHEN_SELECTED.contains(at)).fold(0, |m, at| m | 1 << at)
            }
            Some(list) => {
                let mut mask = 0_u64;
                for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    match FIELDS.iter().position(|field| field.eq_ignore_ascii_case(name)) {
                        Some(at) => mask |= 1 << at,
                        None => return Err(name.into()),
                    }
                }
                mask
            }
        };
        Ok(Self { mask, extended: Vec::new(), attachments: false, typed: false })
    }

    /// From the whole query, with what `$expand` asks for.
    pub(crate) fn of(query: &Query) -> Result<Self, String> {
        let mut view = Self::new(query.get("$select")).map_err(|name| {
            format!("Could not find a property named '{name}' on type 'microsoft.graph.message'.")
        })?;
        if let Some(expand) = query.get("$expand") {
            view.extended = query.extended()?;
            view.attachments = expand.to_ascii_lowercase().contains("attachments");
            if view.extended.is_empty() && !view.attachments {
                return Err(format!("Cannot expand '{expand}'"));
            }
        }
        Ok(view)
    }

    /// Whether a message that was never changed can be shown without making its content.
    pub(crate) fn is_light(&self) -> bool {
        let light = ["id", "isRead", "changeKey", "parentFolderId"];
        let heavy =
            FIELDS.iter().enumerate().any(|(at, name)| self.mask & (1 << at) != 0 && !light.contains(name));
        !heavy && !self.attachments && self.extended.iter().all(|id| id.contains('{'))
    }
}

/// What of a message is not in its content.
pub(crate) struct Head {
    pub user: u32,
    pub key: u64,
    pub id: String,
    pub folder_id: String,
    pub change: u64,
    pub modified_ms: u64,
}

fn person(out: &mut Vec<u8>, person: &Person) {
    out.extend_from_slice(b"{\"emailAddress\":{\"name\":");
    string(out, &person.name);
    out.extend_from_slice(b",\"address\":");
    string(out, &person.address);
    out.extend_from_slice(b"}}");
}

fn people(out: &mut Vec<u8>, name: &str, list: &[Person]) {
    key(out, name);
    list_of(out, list, person);
}

fn one_person(out: &mut Vec<u8>, name: &str, value: Option<&Person>) {
    if let Some(value) = value {
        key(out, name);
        person(out, value);
    }
}

/// Appends a message.
pub(crate) fn message(out: &mut Vec<u8>, head: &Head, content: &Content, view: &View, overhead: u32) {
    out.push(b'{');
    if view.typed {
        text(out, "@odata.type", "#microsoft.graph.message");
    }
    text(out, "@odata.etag", &format!("W/\"{}\"", change_key(head.change)));
    text(out, "id", &head.id);
    for (at, name) in FIELDS.iter().enumerate() {
        if view.mask & (1 << at) != 0 {
            field(out, name, head, content);
        }
    }
    if !view.extended.is_empty() {
        let found: Vec<(&str, String)> =
            view.extended.iter().filter_map(|id| Some((id.as_str(), extended(content, id)?))).collect();
        if !found.is_empty() {
            key(out, "singleValueExtendedProperties");
            list_of(out, &found, |out, (id, value)| {
                out.push(b'{');
                text(out, "id", id);
                text(out, "value", value);
                out.push(b'}');
            });
        }
    }
    if view.attachments {
        key(out, "attachments");
        list_of(out, &content.attachments, |out, one| {
            attachment(
                out,
                head,
                one,
                &AttachmentView { content: true, item: false, select: None, overhead },
            );
        });
    }
    out.push(b'}');
}

fn field(out: &mut Vec<u8>, name: &str, head: &Head, content: &Content) {
    match name {
        "createdDateTime" => text(out, name, &timestamp(content.created_ms)),
        "lastModifiedDateTime" => text(out, name, &timestamp(head.modified_ms.max(content.created_ms))),
        "changeKey" => text(out, name, &change_key(head.change)),
        "categories" => {
            key(out, name);
            list_of(out, &content.categories, |out, one| string(out, one));
        }
        "receivedDateTime" => text(out, name, &timestamp(content.received_ms)),
        "sentDateTime" => text(out, name, &timestamp(content.sent_ms)),
        "hasAttachments" => flag(out, name, content.has_attachments()),
        "internetMessageId" => text(out, name, &content.internet_message_id),
        "subject" => text(out, name, &content.subject),
        "bodyPreview" => text(out, name, &preview(content)),
        "importance" => text(out, name, &content.importance),
        "parentFolderId" => text(out, name, &head.folder_id),
        "conversationId" => text(out, name, &format!("AAQkAG{:016x}AA=", content.conversation)),
        "conversationIndex" => text(out, name, &STANDARD.encode(content.conversation.to_be_bytes())),
        "isDeliveryReceiptRequested" => flag(out, name, content.is_delivery_receipt_requested),
        "isReadReceiptRequested" => flag(out, name, content.is_read_receipt_requested),
        "isRead" => flag(out, name, content.is_read),
        "isDraft" => flag(out, name, content.is_draft),
        "webLink" => text(out, name, &format!("https://outlook.office365.com/owa/?ItemID={}", head.id)),
        "inferenceClassification" => text(out, name, "focused"),
        "body" | "uniqueBody" => {
            key(out, name);
            out.push(b'{');
            text(out, "contentType", content.body_type());
            text(out, "content", &content.body);
            out.push(b'}');
        }
        "sender" => one_person(out, name, content.sender.as_ref()),
        "from" => one_person(out, name, content.from.as_ref()),
        "toRecipients" => people(out, name, &content.to),
        "ccRecipients" => people(out, name, &content.cc),
        "bccRecipients" => people(out, name, &content.bcc),
        "replyTo" => people(out, name, &content.reply_to),
        "flag" => match &content.flag {
            Some(value) => literal(out, name, &value.to_string()),
            None => literal(out, name, "{\"flagStatus\":\"notFlagged\"}"),
        },
        "internetMessageHeaders" => {
            key(out, name);
            list_of(out, &content.headers, |out, (name, value)| {
                out.push(b'{');
                text(out, "name", name);
                text(out, "value", value);
                out.push(b'}');
            });
        }
        _ => {}
    }
}

fn preview(content: &Content) -> String {
    let plain = if content.is_html { plain_text(&content.body, 700) } else { content.body.clone() };
    plain.trim().chars().take(255).collect()
}

/// An extended property's value: what MAPI derives, else what was stored.
pub(crate) fn extended(content: &Content, id: &str) -> Option<String> {
    let stored = content.extended.iter().find(|(stored, _)| stored.eq_ignore_ascii_case(id));
    let lower = id.to_ascii_lowercase();
    match lower.as_str() {
        "integer 0x0e07" | "integer 0xe07" => {
            Some((u32::from(content.is_read) | if content.is_draft { 8 } else { 0 }).to_string())
        }
        "systemtime 0x0039" | "systemtime 0x39" => Some(timestamp(content.sent_ms)),
        "systemtime 0x0e06" | "systemtime 0xe06" => Some(timestamp(content.received_ms)),
        "string 0x0037" | "string 0x37" => Some(content.subject.clone()),
        "string 0x1035" => Some(content.internet_message_id.clone()),
        "string 0x1042" => content.in_reply_to.clone(),
        _ => stored.map(|(_, value)| value.clone()),
    }
}

/// How an attachment is shown.
pub(crate) struct AttachmentView<'a> {
    pub content: bool,
    pub item: bool,
    pub select: Option<&'a [String]>,
    pub overhead: u32,
}

/// Appends an attachment.
pub(crate) fn attachment(out: &mut Vec<u8>, head: &Head, attachment: &Attachment, view: &AttachmentView<'_>) {
    let shows =
        |name: &str| view.select.is_none_or(|list| list.iter().any(|one| one.eq_ignore_ascii_case(name)));
    let kind = match &attachment.kind {
        Kind::File(_) => "#microsoft.graph.fileAttachment",
        Kind::Item(_) => "#microsoft.graph.itemAttachment",
        Kind::Reference => "#microsoft.graph.referenceAttachment",
    };
    out.push(b'{');
    text(out, "@odata.type", kind);
    text(out, "@odata.mediaContentType", &attachment.content_type);
    text(out, "id", &Id::Attachment { user: head.user, message: head.key, key: attachment.key }.encode());
    if shows("lastModifiedDateTime") {
        text(out, "lastModifiedDateTime", &timestamp(head.modified_ms));
    }
    if shows("name") {
        text(out, "name", &attachment.name);
    }
    if shows("contentType") {
        text(out, "contentType", &attachment.content_type);
    }
    if shows("size") {
        let size = content_size(attachment) + u64::from(view.overhead) + 2 * attachment.name.len() as u64;
        literal(out, "size", &size.to_string());
    }
    if shows("isInline") {
        flag(out, "isInline", attachment.is_inline);
    }
    if let Kind::File(data) = &attachment.kind {
        if let Some(id) = attachment.content_id.as_ref().filter(|_| shows("contentId")) {
            text(out, "contentId", id);
        }
        if view.content && shows("contentBytes") {
            content_bytes(out, data);
        }
    }
    if let Kind::Item(item) = &attachment.kind
        && view.item
    {
        key(out, "item");
        nested(out, item);
    }
    out.push(b'}');
}

fn content_size(attachment: &Attachment) -> u64 {
    match &attachment.kind {
        Kind::File(data) => data.len(),
        Kind::Item(item) => item.body.len() as u64 + 1000,
        Kind::Reference => 0,
    }
}

fn content_bytes(out: &mut Vec<u8>, data: &Data) {
    key(out, "contentBytes");
    out.push(b'"');
    let raw = data.to_vec();
    out.extend_from_slice(STANDARD.encode(&raw).as_bytes());
    out.push(b'"');
}

fn nested(out: &mut Vec<u8>, item: &Content) {
    out.push(b'{');
    text(out, "@odata.type", "#microsoft.graph.message");
    let head = Head {
        user: 0,
        key: 0,
        id: String::new(),
        folder_id: String::new(),
        change: 1,
        modified_ms: item.created_ms,
    };
    for name in FIELDS {
        if !matches!(name, "id" | "parentFolderId" | "webLink" | "changeKey" | "uniqueBody") {
            field(out, name, &head, item);
        }
    }
    out.push(b'}');
}
