//! Loads message files as messages: their MIME is given back byte for byte, their properties are parsed from it.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mail_parser::{Address, MessageParser, MimeHeaders};

use crate::SimError;
use crate::blob::BlobStore;
use crate::workloads::mail::content::{Attachment, Content, Kind, Person};

const MAX_TOTAL_BYTES: u64 = 512 * 1024 * 1024;

/// Loads every `*.eml` of a folder, in the order of names.
pub(crate) fn load(folder: &Path, blobs: &BlobStore) -> Result<Vec<Arc<Content>>, SimError> {
    let unreadable = |source| SimError::Read { path: folder.to_path_buf(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("eml")) {
            paths.push(path);
        }
    }
    paths.sort();
    let mut total = 0;
    let mut loaded = Vec::new();
    for path in paths {
        let raw = std::fs::read(&path).map_err(|source| SimError::Read { path: path.clone(), source })?;
        total += raw.len() as u64;
        if total > MAX_TOTAL_BYTES {
            return Err(SimError::EmlTooLarge { limit: MAX_TOTAL_BYTES });
        }
        match parse(Bytes::from(raw), blobs) {
            Some(content) => loaded.push(Arc::new(content)),
            None => tracing::warn!(path = %path.display(), "not a message file, left out"),
        }
    }
    Ok(loaded)
}

/// A message from its MIME; the MIME is kept.
pub(crate) fn parse(raw: Bytes, blobs: &BlobStore) -> Option<Content> {
    let message = MessageParser::default().parse(&raw[..])?;
    let html = message.body_html(0).filter(|_| message.html_body.first() != message.text_body.first());
    let is_html = html.is_some();
    let body = html.or_else(|| message.body_text(0)).unwrap_or(Cow::Borrowed("")).into_owned();
    let date = message.date().map_or(0, |date| date.to_timestamp());
    let sent_ms = u64::try_from(date).unwrap_or(0) * 1000;
    let mut content = Content {
        subject: message.subject().unwrap_or_default().to_owned(),
        is_html,
        body,
        from: people(message.from()).into_iter().next(),
        to: people(message.to()),
        cc: people(message.cc()),
        bcc: people(message.bcc()),
        reply_to: people(message.reply_to()),
        internet_message_id: message.message_id().map(|id| format!("<{id}>")).unwrap_or_default(),
        importance: "normal".into(),
        is_read: true,
        sent_ms,
        received_ms: sent_ms,
        created_ms: sent_ms,
        conversation: crate::rng::mix(raw.len() as u64 ^ sent_ms),
        ..Content::default()
    };
    content.sender = people(message.sender()).into_iter().next().or_else(|| content.from.clone());
    for (key, part) in message.attachments().enumerate() {
        let key = key as u32;
        let kind = match part
            .message()
            .and_then(|inner| parse(Bytes::copy_from_slice(inner.raw_message()), blobs))
        {
            Some(inner) => Kind::Item(Arc::new(inner)),
            None => Kind::File(blobs.keep(Bytes::copy_from_slice(part.contents()))),
        };
        let content_type = part.content_type().map_or_else(
            || "application/octet-stream".to_owned(),
            |kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("octet-stream")),
        );
        content.attachments.push(Attachment {
            key,
            name: part.attachment_name().unwrap_or("attachment").to_owned(),
            content_type,
            is_inline: part.content_disposition().is_some_and(mail_parser::ContentType::is_inline),
            content_id: part.content_id().map(ToOwned::to_owned),
            kind,
        });
    }
    content.raw_mime = Some(raw);
    Some(content)
}

fn people(address: Option<&Address<'_>>) -> Vec<Person> {
    address
        .into_iter()
        .flat_map(Address::iter)
        .map(|one| {
            let address = one.address().unwrap_or_default().to_owned();
            Person { name: one.name().map_or_else(|| address.clone(), ToOwned::to_owned), address }
        })
        .collect()
}
