//! What a mailbox really holds, in a form tests compare: one plain record per message.
//!
//! Invariant: hashes are over decoded content (body text in UTF-8, attachment bytes), never over MIME, which is
//! rebuilt on each read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::workloads::Slice;
use crate::workloads::mail::content::{Attachment, Content, Kind, Person};
use crate::workloads::mail::mime;
use crate::world::World;

/// One message as it is, whatever Graph calls show of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TruthMessage {
    /// Immutable id.
    pub id: String,
    /// Such as `/Inbox/Projects`.
    pub folder_path: String,
    /// Subject.
    pub subject: String,
    /// `html` or `text`.
    pub body_content_type: String,
    /// BLAKE3 of the body's text, hex.
    pub body_blake3: String,
    /// The text itself, when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_content: Option<String>,
    /// Author.
    pub from: Option<TruthPerson>,
    /// Who sent it on the author's behalf.
    pub sender: Option<TruthPerson>,
    /// Recipients.
    pub to: Vec<TruthPerson>,
    /// Copies.
    pub cc: Vec<TruthPerson>,
    /// Blind copies.
    pub bcc: Vec<TruthPerson>,
    /// Where answers go.
    pub reply_to: Vec<TruthPerson>,
    /// RFC 5322 Message-ID.
    pub internet_message_id: String,
    /// `low`, `normal`, `high`.
    pub importance: String,
    /// Category names.
    pub categories: Vec<String>,
    /// `notFlagged`, `flagged`, `complete`.
    pub flag: String,
    /// When a flagged message is due, as given.
    pub flag_due_date_time: Option<String>,
    /// Read flag.
    pub is_read: bool,
    /// Draft flag.
    pub is_draft: bool,
    /// UTC, whole seconds.
    pub sent_date_time: String,
    /// UTC, whole seconds.
    pub received_date_time: String,
    /// Attachments in their order.
    pub attachments: Vec<TruthAttachment>,
}

/// A name and an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TruthPerson {
    /// Display name.
    pub name: String,
    /// SMTP address.
    pub address: String,
}

/// One attachment as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TruthAttachment {
    /// File name or title.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// Shown inside the body.
    pub is_inline: bool,
    /// The `cid:` it is shown by.
    pub content_id: Option<String>,
    /// Bytes of the content, without Exchange's overhead.
    pub size: u64,
    /// BLAKE3 of the content, hex: the bytes of a file, the MIME of an item, the name of a reference.
    pub blake3: String,
    /// `file`, `item`, `reference`.
    pub kind: String,
}

impl From<&Person> for TruthPerson {
    fn from(person: &Person) -> Self {
        Self { name: person.name.clone(), address: person.address.clone() }
    }
}

/// A slice of a mailbox's truth, in the order of immutable ids.
pub(crate) fn list(world: &World, user: u32, slice: &Slice) -> Vec<TruthMessage> {
    let rows: Vec<(String, String, Arc<Content>)> = {
        let mailbox = world.mailbox(user);
        let mut keys: Vec<u64> = mailbox.messages.keys().copied().collect();
        keys.sort_unstable();
        keys.into_iter()
            .skip(slice.skip)
            .take(slice.top)
            .filter_map(|key| {
                let message = mailbox.messages.get(&key)?;
                let id = mailbox.message_id(message, crate::ids::Form::Immutable);
                Some((id, mailbox.folder_path(message.folder), world.content(&mailbox, message)))
            })
            .collect()
    };
    rows.into_iter()
        .map(|(id, folder_path, content)| describe(world, id, folder_path, &content, slice.with_body))
        .collect()
}

fn describe(
    world: &World,
    id: String,
    folder_path: String,
    content: &Content,
    with_body: bool,
) -> TruthMessage {
    let people = |list: &[Person]| list.iter().map(TruthPerson::from).collect::<Vec<_>>();
    TruthMessage {
        id,
        folder_path,
        subject: content.subject.clone(),
        body_content_type: content.body_type().into(),
        body_blake3: blake3::hash(content.body.as_bytes()).to_hex().to_string(),
        body_content: with_body.then(|| content.body.clone()),
        from: content.from.as_ref().map(TruthPerson::from),
        sender: content.sender.as_ref().map(TruthPerson::from),
        to: people(&content.to),
        cc: people(&content.cc),
        bcc: people(&content.bcc),
        reply_to: people(&content.reply_to),
        internet_message_id: content.internet_message_id.clone(),
        importance: content.importance.clone(),
        categories: content.categories.clone(),
        flag: content.flag_status().into(),
        flag_due_date_time: content.flag_due().map(Into::into),
        is_read: content.is_read,
        is_draft: content.is_draft,
        sent_date_time: crate::json::timestamp(content.sent_ms),
        received_date_time: crate::json::timestamp(content.received_ms),
        attachments: content.attachments.iter().map(|one| attachment(world, one)).collect(),
    }
}

/// One attachment with the hash of its content.
pub(crate) fn attachment(world: &World, attachment: &Attachment) -> TruthAttachment {
    let (kind, size, hash) = match &attachment.kind {
        Kind::File(data) => ("file", data.len(), world.blobs.hash_of(data)),
        Kind::Item(item) => {
            let bytes = mime::item_bytes(item);
            ("item", bytes.len() as u64, *blake3::hash(&bytes).as_bytes())
        }
        Kind::Reference => ("reference", 0, *blake3::hash(attachment.name.as_bytes()).as_bytes()),
    };
    TruthAttachment {
        name: attachment.name.clone(),
        content_type: attachment.content_type.clone(),
        is_inline: attachment.is_inline,
        content_id: attachment.content_id.clone(),
        size,
        blake3: hex::encode(hash),
        kind: kind.into(),
    }
}
