//! Turns the JSON of a create or an update into content, by Exchange's rules.
//!
//! Invariant: what is created is a draft of today unless the extended properties of the same call say otherwise.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdfast_model::Millis;
use serde_json::{Map, Value};

use crate::blob::BlobStore;
use crate::json::parse_timestamp;
use crate::workloads::mail::content::{Attachment, Content, Kind, Person};

const UNSENT: u64 = 8;
const READ: u64 = 1;
const MAX_HEADERS: usize = 5;
const MAX_NESTING: usize = 4;

/// Properties that only a draft lets change.
pub(crate) const SENSITIVE: [&str; 10] = [
    "subject",
    "body",
    "from",
    "sender",
    "torecipients",
    "ccrecipients",
    "bccrecipients",
    "replyto",
    "internetmessageid",
    "internetmessageheaders",
];

/// The create was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub code: &'static str,
    pub message: String,
}

pub(crate) fn invalid(code: &'static str, message: impl Into<String>) -> Invalid {
    Invalid { code, message: message.into() }
}

/// A new message.
pub(crate) fn message(
    body: &Value,
    now_ms: Millis,
    unique: u64,
    blobs: &BlobStore,
) -> Result<Content, Invalid> {
    nested_message(body, now_ms, unique, blobs, 0)
}

fn nested_message(
    body: &Value,
    now_ms: Millis,
    unique: u64,
    blobs: &BlobStore,
    depth: usize,
) -> Result<Content, Invalid> {
    let object = body.as_object().ok_or_else(|| invalid("RequestBodyRead", "the body is not an object"))?;
    if depth > MAX_NESTING {
        return Err(invalid("ErrorItemSave", "items are nested too deeply"));
    }
    let now_ms = now_ms - now_ms % 1000;
    let mut content = Content {
        importance: "normal".into(),
        is_draft: true,
        is_read: true,
        sent_ms: now_ms,
        received_ms: now_ms,
        created_ms: now_ms,
        conversation: crate::rng::mix(unique),
        internet_message_id: format!(
            "<{:016X}.created@mail.contoso.example>",
            crate::rng::mix(unique ^ now_ms)
        ),
        ..Content::default()
    };
    let read_given = object.get("isRead").is_some();
    apply(&mut content, object)?;
    let flags = extended_flags(&content);
    if let Some(flags) = flags {
        content.is_draft = flags & UNSENT != 0;
        if !read_given {
            content.is_read = flags & READ != 0;
        }
    }
    if depth > 0 {
        content.is_draft = false;
        for (name, field) in
            [("sentDateTime", &mut content.sent_ms), ("receivedDateTime", &mut content.received_ms)]
        {
            if let Some(ms) = object.get(name).and_then(Value::as_str).and_then(parse_timestamp) {
                *field = ms;
            }
        }
    }
    for (id, value) in &content.extended {
        let field = match id.to_ascii_lowercase().as_str() {
            "systemtime 0x0039" | "systemtime 0x39" => &mut content.sent_ms,
            "systemtime 0x0e06" | "systemtime 0xe06" => &mut content.received_ms,
            _ => continue,
        };
        *field = parse_timestamp(value)
            .ok_or_else(|| invalid("ErrorInvalidProperty", format!("{id} is not a time")))?;
    }
    content.created_ms = content.created_ms.min(content.received_ms.max(content.sent_ms));
    for one in array(object, "attachments")? {
        let key = content.attachments.len() as u32;
        content.attachments.push(nested_attachment(one, key, now_ms, blobs, depth)?);
    }
    Ok(content)
}

fn extended_flags(content: &Content) -> Option<u64> {
    let ids = ["integer 0x0e07", "integer 0xe07"];
    let found = content.extended.iter().find(|(id, _)| ids.contains(&id.to_ascii_lowercase().as_str()))?;
    found.1.parse().ok()
}

/// Writes the given properties into a message; unknown ones are refused.
pub(crate) fn apply(content: &mut Content, object: &Map<String, Value>) -> Result<(), Invalid> {
    for (name, value) in object {
        match name.to_ascii_lowercase().as_str() {
            "subject" => content.subject = string(name, value)?,
            "body" => {
                let kind = value.get("contentType").and_then(Value::as_str).unwrap_or("text");
                content.is_html = kind.eq_ignore_ascii_case("html");
                content.body = value.get("content").and_then(Value::as_str).unwrap_or_default().into();
            }
            "from" => content.from = person(value),
            "sender" => content.sender = person(value),
            "torecipients" => content.to = people(name, value)?,
            "ccrecipients" => content.cc = people(name, value)?,
            "bccrecipients" => content.bcc = people(name, value)?,
            "replyto" => content.reply_to = people(name, value)?,
            "internetmessageid" => content.internet_message_id = string(name, value)?,
            "importance" => content.importance = string(name, value)?.to_ascii_lowercase(),
            "categories" => {
                let list = value.as_array().ok_or_else(|| wrong(name))?;
                content.categories = list.iter().map(|one| string(name, one)).collect::<Result<_, _>>()?;
            }
            "flag" => content.flag = flag(value)?,
            "isread" => content.is_read = value.as_bool().ok_or_else(|| wrong(name))?,
            "isreadreceiptrequested" => content.is_read_receipt_requested = value.as_bool().unwrap_or(false),
            "isdeliveryreceiptrequested" => {
                content.is_delivery_receipt_requested = value.as_bool().unwrap_or(false)
            }
            "internetmessageheaders" => content.headers = headers(value)?,
            "singlevalueextendedproperties" => merge_extended(&mut content.extended, value)?,
            // Set by the service; given values are ignored without a word, as Exchange does.
            "isdraft"
            | "id"
            | "attachments"
            | "parentfolderid"
            | "conversationid"
            | "conversationindex"
            | "createddatetime"
            | "lastmodifieddatetime"
            | "receiveddatetime"
            | "sentdatetime"
            | "changekey"
            | "hasattachments"
            | "bodypreview"
            | "weblink"
            | "inferenceclassification"
            | "uniquebody" => {}
            other if other.starts_with('@') || other.contains("@odata.") => {}
            _ => {
                let text = format!("The property '{name}' does not exist on type 'microsoft.graph.message'.");
                return Err(invalid("RequestBodyRead", text));
            }
        }
    }
    Ok(())
}

fn wrong(name: &str) -> Invalid {
    invalid("RequestBodyRead", format!("Cannot convert the value of '{name}'"))
}

fn string(name: &str, value: &Value) -> Result<String, Invalid> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(wrong(name)),
    }
}

fn array<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a [Value], Invalid> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(wrong(name)),
    }
}

fn person(value: &Value) -> Option<Person> {
    let mail = value.get("emailAddress")?;
    let address = mail.get("address").and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = mail.get("name").and_then(Value::as_str).unwrap_or(&address).to_owned();
    Some(Person { name, address })
}

fn people(name: &str, value: &Value) -> Result<Vec<Person>, Invalid> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let list = value.as_array().ok_or_else(|| wrong(name))?;
    let people: Vec<Person> = list.iter().filter_map(person).collect();
    let valid = |one: &Person| one.address.contains('@') || one.address.starts_with("/o=");
    if name.eq_ignore_ascii_case("replyTo") && !people.iter().all(valid) {
        return Err(invalid("ErrorInvalidRecipients", "At least one recipient isn't valid."));
    }
    Ok(people)
}

fn flag(value: &Value) -> Result<Option<Value>, Invalid> {
    match value.get("flagStatus").and_then(Value::as_str) {
        None | Some("notFlagged") => Ok(None),
        Some("flagged" | "complete") => Ok(Some(value.clone())),
        Some(_) => Err(wrong("flag")),
    }
}

fn headers(value: &Value) -> Result<Vec<(String, String)>, Invalid> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let field =
        |one: &Value, name: &str| one.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let headers: Vec<_> = list.iter().map(|one| (field(one, "name"), field(one, "value"))).collect();
    let custom =
        headers.iter().all(|(name, _)| name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-")));
    if !custom || headers.len() > MAX_HEADERS {
        let text = "internet message headers must start with x-, five at most";
        return Err(invalid("InvalidInternetMessageHeader", text));
    }
    Ok(headers)
}

/// Adds extended properties by id; a later value wins.
pub(crate) fn merge_extended(into: &mut Vec<(String, String)>, value: &Value) -> Result<(), Invalid> {
    for one in value.as_array().map(Vec::as_slice).unwrap_or_default() {
        let id = one.get("id").and_then(Value::as_str).filter(|id| id.contains(' '));
        let id = id.ok_or_else(|| invalid("ErrorInvalidExtendedProperty", "the property id is not valid"))?;
        let value = one.get("value").and_then(Value::as_str).unwrap_or_default().to_owned();
        into.retain(|(known, _)| !known.eq_ignore_ascii_case(id));
        into.push((id.into(), value));
    }
    Ok(())
}

/// A new attachment.
pub(crate) fn attachment(
    body: &Value,
    key: u32,
    now_ms: Millis,
    blobs: &BlobStore,
) -> Result<Attachment, Invalid> {
    nested_attachment(body, key, now_ms, blobs, 0)
}

fn nested_attachment(
    body: &Value,
    key: u32,
    now_ms: Millis,
    blobs: &BlobStore,
    depth: usize,
) -> Result<Attachment, Invalid> {
    let field = |name: &str| body.get(name).and_then(Value::as_str);
    let kind = match field("@odata.type").map(|kind| kind.trim_start_matches('#').to_ascii_lowercase()) {
        Some(kind) if kind == "microsoft.graph.fileattachment" => {
            let encoded = field("contentBytes")
                .ok_or_else(|| invalid("ErrorRequiredPropertyMissing", "contentBytes is missing"))?;
            let bytes = STANDARD.decode(encoded).map_err(|_| wrong("contentBytes"))?;
            Kind::File(blobs.keep(Bytes::from(bytes)))
        }
        Some(kind) if kind == "microsoft.graph.itemattachment" => {
            let item =
                body.get("item").ok_or_else(|| invalid("ErrorRequiredPropertyMissing", "item is missing"))?;
            Kind::Item(Arc::new(nested_message(item, now_ms, u64::from(key), blobs, depth + 1)?))
        }
        Some(kind) if kind == "microsoft.graph.referenceattachment" => Kind::Reference,
        _ => return Err(invalid("RequestBodyRead", "the attachment needs an @odata.type")),
    };
    let fallback = match &kind {
        Kind::Item(_) => "message/rfc822",
        _ => "application/octet-stream",
    };
    Ok(Attachment {
        key,
        name: field("name").unwrap_or_default().into(),
        content_type: field("contentType").unwrap_or(fallback).into(),
        is_inline: body.get("isInline").and_then(Value::as_bool).unwrap_or(false),
        content_id: field("contentId").map(Into::into),
        kind,
    })
}

/// A property of the body, `Null` when absent.
pub(crate) fn field<'a>(body: &'a Value, name: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    body.as_object()
        .and_then(|object| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)))
        .map_or(&NULL, |(_, value)| value)
}
