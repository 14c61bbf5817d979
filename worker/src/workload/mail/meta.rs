//! The meta of a stored message: Microsoft's JSON, kept verbatim, with `_holdfast` added; and what decides whether its content
//! has to be fetched again.
//!
//! The invariant: the fingerprint covers every property that content depends on, and none that can change without it.

use holdfast_graph_client::MailMessage;
use holdfast_repository::ContentPart;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

pub use crate::workload::attachments::{AttachmentSource, StoredAttachment};
use crate::{
    JobError,
    workload::stored::{Setting, StoredFolder, broken, holdfast_of},
};

/// What Holdfast adds to a message.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredMessage {
    /// The content's fingerprint in hexadecimal.
    pub content: String,
    /// How long the MIME is: the first part of the content.
    pub mime_len: u64,
    /// Where each attachment is.
    #[serde(default)]
    pub attachments: Vec<StoredAttachment>,
}

/// Properties that the content depends on. Kept as text: the same property read twice is the same text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContentProperties<'a> {
    #[serde(borrow)]
    subject: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    from: Option<&'a RawValue>,
    #[serde(borrow)]
    sender: Option<&'a RawValue>,
    #[serde(borrow)]
    to_recipients: Option<&'a RawValue>,
    #[serde(borrow)]
    cc_recipients: Option<&'a RawValue>,
    #[serde(borrow)]
    bcc_recipients: Option<&'a RawValue>,
    #[serde(borrow)]
    reply_to: Option<&'a RawValue>,
    #[serde(borrow)]
    internet_message_id: Option<&'a RawValue>,
    #[serde(borrow)]
    has_attachments: Option<&'a RawValue>,
    #[serde(borrow)]
    sent_date_time: Option<&'a RawValue>,
    #[serde(borrow)]
    received_date_time: Option<&'a RawValue>,
    #[serde(borrow)]
    is_draft: Option<&'a RawValue>,
}

/// Properties that change without the content.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MarkProperties<'a> {
    #[serde(borrow)]
    is_read: Option<&'a RawValue>,
    #[serde(borrow)]
    flag: Option<&'a RawValue>,
    #[serde(borrow)]
    categories: Option<&'a RawValue>,
    #[serde(borrow)]
    importance: Option<&'a RawValue>,
    #[serde(borrow)]
    inference_classification: Option<&'a RawValue>,
    #[serde(borrow)]
    parent_folder_id: Option<&'a RawValue>,
}

fn hash_all(properties: &[Option<&RawValue>]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for property in properties {
        let text = property.map_or("", RawValue::get);
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize()
}

/// The fingerprint of what the content depends on.
pub fn fingerprint(raw: &str) -> Result<blake3::Hash, JobError> {
    let p: ContentProperties<'_> = serde_json::from_str(raw).map_err(broken("message"))?;
    Ok(hash_all(&[
        p.subject,
        p.body,
        p.from,
        p.sender,
        p.to_recipients,
        p.cc_recipients,
        p.bcc_recipients,
        p.reply_to,
        p.internet_message_id,
        p.has_attachments,
        p.sent_date_time,
        p.received_date_time,
        p.is_draft,
    ]))
}

/// The hash of what changes without the content: read, flag, categories, importance, folder.
pub fn marks(raw: &str) -> Result<blake3::Hash, JobError> {
    let p: MarkProperties<'_> = serde_json::from_str(raw).map_err(broken("message"))?;
    Ok(hash_all(&[
        p.is_read,
        p.flag,
        p.categories,
        p.importance,
        p.inference_classification,
        p.parent_folder_id,
    ]))
}

/// A message's JSON as text.
pub fn raw_text(message: &MailMessage) -> &str {
    // JSON that was parsed is UTF-8.
    std::str::from_utf8(&message.raw).unwrap_or("{}")
}

/// A message's `change` and its content fingerprint.
pub fn change_of(message: &MailMessage) -> Result<([u8; 16], blake3::Hash), JobError> {
    let content = fingerprint(raw_text(message))?;
    let mut change = [0; 16];
    change[..8].copy_from_slice(&blake3::hash(message.change_key.as_bytes()).as_bytes()[..8]);
    change[8..].copy_from_slice(&content.as_bytes()[..8]);
    Ok((change, content))
}

/// What Holdfast added to a stored message.
pub fn stored_message(meta: &[u8]) -> Result<StoredMessage, JobError> {
    holdfast_of(meta)
}

/// Whether a stored message and its content fit together; else what is wrong, as a code.
pub fn fit_together(stored: &StoredMessage, parts: &[ContentPart]) -> Result<(), &'static str> {
    if parts.first().map(|mime| mime.len) != Some(stored.mime_len) {
        return Err("mime-length");
    }
    match stored.attachments.iter().all(|one| one.source.fits(parts)) {
        true => Ok(()),
        false => Err("attachment"),
    }
}

/// Whether an entry without content has what it is for, where it is more than a folder; else what is wrong, as a code.
pub fn is_whole_definition(meta: &[u8]) -> Result<(), &'static str> {
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "@odata.type", default)]
        kind: Option<String>,
        #[serde(rename = "_holdfast", default)]
        holdfast: StoredFolder,
        #[serde(flatten)]
        fields: Map<String, Value>,
    }
    let Meta { kind, holdfast, fields } = serde_json::from_slice(meta).map_err(|_| "meta")?;
    let is_search = kind.is_some_and(|kind| kind.ends_with("mailSearchFolder"));
    let (is_whole, code) = match holdfast.setting {
        None if is_search => (fields.get("sourceFolderIds").is_some_and(Value::is_array), "search-folder"),
        None | Some(Setting::Unknown) => return Ok(()),
        Some(Setting::Rule) => (fields.get("actions").is_some_and(Value::is_object), "rule"),
        Some(Setting::Category) => (fields.get("displayName").is_some_and(Value::is_string), "category"),
        Some(Setting::Mailbox) => (fields.get("mailboxSettings").is_some_and(Value::is_object), "settings"),
    };
    if is_whole { Ok(()) } else { Err(code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{mail::mime_parts::Encoding, stored::with_holdfast};

    const RAW: &str = r#"{"id":"a","subject":"s","isRead":false,"isDraft":false,"lastModifiedDateTime":"1","flag":{"x":1}}"#;

    #[test]
    fn read_flag_and_modification_time_do_not_touch_the_fingerprint_but_the_subject_does() {
        let read = RAW.replace("false,\"isDraft\"", "true,\"isDraft\"").replace(":\"1\"", ":\"2\"");
        assert_eq!(fingerprint(RAW).unwrap(), fingerprint(&read).unwrap());
        assert_ne!(marks(RAW).unwrap(), marks(&read).unwrap());
        let edited = RAW.replace("\"s\"", "\"t\"");
        assert_ne!(fingerprint(RAW).unwrap(), fingerprint(&edited).unwrap());
        assert_eq!(marks(RAW).unwrap(), marks(&edited).unwrap());
    }

    #[test]
    fn a_definition_without_what_it_defines_is_found() {
        let check = |meta: &str| is_whole_definition(meta.as_bytes());
        assert_eq!(check(r#"{"displayName":"Inbox","_holdfast":{"wellKnown":"inbox"}}"#), Ok(()));
        let search = r##"{"@odata.type":"#microsoft.graph.mailSearchFolder","sourceFolderIds":[]}"##;
        assert_eq!(check(search), Ok(()));
        assert_eq!(check(&search.replace("source", "other")), Err("search-folder"));
        assert_eq!(check(r#"{"actions":{},"_holdfast":{"setting":"rule"}}"#), Ok(()));
        assert_eq!(check(r#"{"_holdfast":{"setting":"rule"}}"#), Err("rule"));
        assert_eq!(check(r#"{"_holdfast":{"setting":"category"}}"#), Err("category"));
        assert_eq!(check(r#"{"_holdfast":{"setting":"mailbox"}}"#), Err("settings"));
        assert_eq!(check(r#"{"_holdfast":{"setting":"of a later version"}}"#), Ok(()));
        assert_eq!(check("no json"), Err("meta"));
    }

    #[test]
    fn what_holdfast_adds_reads_back_and_the_rest_is_verbatim() {
        let added = StoredMessage {
            content: "ab".into(),
            mime_len: 7,
            attachments: vec![StoredAttachment {
                info: RawValue::from_string("{\"name\":\"x\"}".into()).unwrap(),
                content_id: None,
                source: AttachmentSource::Mime { start: 1, len: 2, encoding: Encoding::Base64, decoded: 1 },
            }],
        };
        let meta = with_holdfast(RAW, &added).unwrap();
        assert!(meta.starts_with(&RAW.as_bytes()[..RAW.len() - 1]));
        let back = stored_message(&meta).unwrap();
        assert_eq!(
            (back.mime_len, back.attachments[0].source.clone()),
            (7, added.attachments[0].source.clone())
        );
        assert!(stored_message(&with_holdfast("{}", &added).unwrap()).is_ok());
    }
}
