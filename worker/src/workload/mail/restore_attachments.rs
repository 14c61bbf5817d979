//! A stored message's attachments on their way back: as JSON inside a request, or as a stream of upload pieces.
//!
//! Memory: what goes inside a request is below 3.5 MB; what is larger streams through one piece.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use holdfast_graph_client::{NewAttachment, UploadProgress};
use holdfast_repository::ContentPart;
use serde_json::{Map, Value, json};

use super::{
    Decoder,
    meta::{AttachmentSource, StoredAttachment},
    mime_parts::Encoding,
    restore_message::{CreateAs, original_properties},
};
use crate::{JobError, restore::RestoreContext};

/// Attachments below this go as JSON.
pub const SESSION_FROM_BYTES: u64 = 3_000_000;
/// Twelve times 320 KiB: the largest multiple below 4 MB.
const PIECE_BYTES: usize = 12 * 327_680;
/// The largest JSON of an item that is read at all.
const MAX_JSON_BYTES: u64 = 8 << 20;

/// Microsoft takes no such attachment.
const NOT_RESTORABLE: &str = "AttachmentNotRestorable";
/// An attached message comes back without what is attached to it.
const NESTED_NOT_RESTORED: &str = "NestedAttachmentsNotRestored";

/// An attachment of a stored message with its parts at hand.
pub struct Attachment<'a> {
    pub stored: &'a StoredAttachment,
    pub info: Value,
    pub parts: &'a [ContentPart],
}

impl<'a> Attachment<'a> {
    pub fn new(stored: &'a StoredAttachment, parts: &'a [ContentPart]) -> Result<Self, JobError> {
        let info = serde_json::from_str(stored.info.get())
            .map_err(|source| JobError::Stored { what: "attachment", source })?;
        Ok(Self { stored, info, parts })
    }

    /// How long the content is.
    pub fn len(&self) -> u64 {
        match &self.stored.source {
            AttachmentSource::Mime { decoded, .. } => *decoded,
            AttachmentSource::Part { len, .. } | AttachmentSource::Json { len, .. } => *len,
            AttachmentSource::Missing { .. } => 0,
        }
    }

    /// How much it adds to a request.
    pub fn request_len(&self) -> u64 {
        match &self.stored.source {
            AttachmentSource::Json { len, .. } => *len,
            _ => self.len().div_ceil(3) * 4 + 512,
        }
    }

    /// Whether it has bytes that may be streamed.
    pub fn is_file(&self) -> bool {
        matches!(self.stored.source, AttachmentSource::Mime { .. } | AttachmentSource::Part { .. })
    }

    /// The code, where Microsoft would not give it when it was backed up.
    pub fn missing(&self) -> Option<&str> {
        match &self.stored.source {
            AttachmentSource::Missing { code } => Some(code),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.info.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// For an upload session.
    pub fn announcement(&self) -> NewAttachment {
        NewAttachment {
            name: self.text("name").unwrap_or("attachment").to_owned(),
            size: self.len(),
            content_type: self.text("contentType").map(str::to_owned),
            is_inline: self.info.get("isInline").and_then(Value::as_bool).unwrap_or_default(),
            content_id: self.stored.content_id.clone().or_else(|| self.text("contentId").map(str::to_owned)),
        }
    }

    /// As JSON with its content, none when there is nothing to give; and what of it is lost.
    pub async fn to_json(
        &self,
        context: &RestoreContext,
    ) -> Result<(Option<Value>, Option<&'static str>), JobError> {
        match &self.stored.source {
            AttachmentSource::Missing { .. } => Ok((None, None)),
            AttachmentSource::Json { part, len } => {
                let Some(part) = self.parts.get(*part as usize).filter(|_| *len <= MAX_JSON_BYTES) else {
                    return Ok((None, Some(NOT_RESTORABLE)));
                };
                let bytes = context.reader.read_range(part, 0, *len).await?;
                let value: Value = serde_json::from_slice(&bytes)
                    .map_err(|source| JobError::Stored { what: "attachment", source })?;
                let loss = if has_nested(&value) { Some(NESTED_NOT_RESTORED) } else { None };
                match sanitised(&value) {
                    Some(value) => Ok((Some(value), loss)),
                    None => Ok((None, Some(NOT_RESTORABLE))),
                }
            }
            AttachmentSource::Mime { .. } | AttachmentSource::Part { .. } => {
                let mut bytes = Vec::new();
                let mut pieces = self.stream(context)?;
                while let Some(piece) = pieces.try_next().await? {
                    bytes.extend_from_slice(&piece);
                }
                let new = self.announcement();
                let mut value = json!({
                    "@odata.type": "#microsoft.graph.fileAttachment",
                    "name": new.name,
                    "isInline": new.is_inline,
                    "contentBytes": STANDARD.encode(&bytes),
                });
                if let Some(kind) = new.content_type {
                    value["contentType"] = kind.into();
                }
                if let Some(id) = new.content_id {
                    value["contentId"] = id.into();
                }
                Ok((Some(value), None))
            }
        }
    }

    /// Sends it through an upload session, piece by piece.
    pub async fn upload(&self, context: &RestoreContext, message: &str) -> Result<(), JobError> {
        let mut session =
            context.graph.create_upload_session(&context.user, message, &self.announcement()).await?;
        let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
        let mut is_done = false;
        let mut pieces = self.stream(context)?;
        while let Some(piece) = pieces.try_next().await? {
            buffer.extend_from_slice(&piece);
            while buffer.len() >= PIECE_BYTES {
                is_done = send(context, &mut session, buffer.split_to(PIECE_BYTES).freeze()).await?;
            }
        }
        if !buffer.is_empty() {
            is_done = send(context, &mut session, buffer.freeze()).await?;
        }
        if is_done { Ok(()) } else { Err(JobError::ShortAttachment) }
    }

    /// The content piece by piece, decoded.
    fn stream(
        &self,
        context: &RestoreContext,
    ) -> Result<BoxStream<'static, Result<Bytes, JobError>>, JobError> {
        let (part, start, len, encoding) = match &self.stored.source {
            AttachmentSource::Mime { start, len, encoding, .. } => (0, *start, *len, *encoding),
            AttachmentSource::Part { part, len } => (*part as usize, 0, *len, Encoding::Identity),
            AttachmentSource::Json { .. } | AttachmentSource::Missing { .. } => {
                return Ok(stream::empty().boxed());
            }
        };
        let part = self.parts.get(part).ok_or(JobError::ShortAttachment)?;
        let pieces = context.reader.read_range_stream(part, start, len);
        let start = Some((pieces, Decoder::new(encoding)));
        Ok(stream::try_unfold(start, |state| async move {
            let Some((mut pieces, mut decoder)) = state else { return Ok(None) };
            match pieces.try_next().await? {
                Some(piece) => Ok(Some((Bytes::from(decoder.push(&piece)), Some((pieces, decoder))))),
                None => Ok(Some((Bytes::from(decoder.finish()), None))),
            }
        })
        .boxed())
    }
}

async fn send(
    context: &RestoreContext,
    session: &mut holdfast_graph_client::UploadSession,
    mut piece: Bytes,
) -> Result<bool, JobError> {
    while !piece.is_empty() {
        let before = session.next_offset();
        match context.graph.upload_piece(session, piece.clone()).await? {
            UploadProgress::Done { .. } => return Ok(true),
            UploadProgress::More { next } => {
                let taken = usize::try_from(next.saturating_sub(before)).unwrap_or(usize::MAX);
                piece = piece.split_off(taken.min(piece.len()));
            }
        }
    }
    Ok(false)
}

/// Whether the item in an item attachment has attachments of its own.
fn has_nested(value: &Value) -> bool {
    let item = |name: &str| value.get("item").and_then(|item| item.get(name));
    item("hasAttachments").and_then(Value::as_bool).unwrap_or_default()
        || item("attachments").and_then(Value::as_array).is_some_and(|all| !all.is_empty())
}

/// An item or a reference attachment as a create takes it; none when its JSON holds no item.
fn sanitised(value: &Value) -> Option<Value> {
    /// What Microsoft refuses or fills in by itself.
    const REFUSED: &[&str] = &[
        "id",
        "parentFolderId",
        "changeKey",
        "conversationId",
        "conversationIndex",
        "internetMessageHeaders",
        "isDraft",
        "isOrganizer",
        "attachments",
        "hasAttachments",
        "createdDateTime",
        "lastModifiedDateTime",
        "receivedDateTime",
        "sentDateTime",
        "webLink",
        "size",
    ];
    let fields = value.as_object()?;
    let clean = |fields: &Map<String, Value>| -> Map<String, Value> {
        let is_kept = |name: &str| {
            !REFUSED.contains(&name)
                && (name == "@odata.type" || !name.contains('@'))
                && !name.starts_with('_')
        };
        let kept = fields.iter().filter(|(name, value)| is_kept(name) && !value.is_null());
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let mut out = clean(fields);
    let kind = fields.get("@odata.type").and_then(Value::as_str).unwrap_or_default();
    if kind.ends_with("itemAttachment") {
        out.remove("contentType");
        let stored = fields.get("item")?;
        let mut item = clean(stored.as_object()?);
        if item.get("@odata.type").and_then(Value::as_str).is_none_or(|kind| kind.ends_with(".message")) {
            let properties = original_properties(stored, CreateAs::Original);
            item.insert("singleValueExtendedProperties".to_owned(), properties.into());
        }
        out.insert("item".to_owned(), Value::Object(item));
    }
    Some(Value::Object(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_attachment_loses_what_microsoft_refuses() {
        let value = json!({
            "@odata.type": "#microsoft.graph.itemAttachment", "id": "1", "name": "n", "size": 3,
            "item": { "@odata.type": "#microsoft.graph.message", "id": "2", "subject": "s", "isDraft": false,
                      "attachments": [1], "subject@odata.x": 1 }
        });
        let clean = sanitised(&value).unwrap();
        let flags = json!([{ "id": "Integer 0x0E07", "value": "4" }]);
        let item = json!({ "@odata.type": "#microsoft.graph.message", "subject": "s", "singleValueExtendedProperties": flags });
        assert_eq!(clean["item"], item);
        assert!(clean.get("id").is_none());
        assert!(has_nested(&value) && !has_nested(&json!({ "item": { "attachments": [] } })));
        assert!(sanitised(&json!({ "@odata.type": "#microsoft.graph.itemAttachment" })).is_none());
    }
}
