//! Stored attachments on their way back: as JSON inside a request, or as a stream of upload pieces.
//!
//! Memory: what goes inside a request is below 3.5 MB; what is larger streams through one piece.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use holdfast_graph_client::{
    AttachmentOwner, ErrorClass, GraphError, NewAttachment, UnattendedEvent, UploadProgress, UploadSession,
};
use holdfast_repository::ContentPart;
use serde_json::{Map, Value, json};

use super::CREATE_ATTEMPTS;
use crate::{
    JobError,
    restore::RestoreContext,
    workload::{
        attachments::{AttachmentSource, StoredAttachment, missing_attachment},
        mail::{CreateAs, Decoder, mime_parts::Encoding, original_properties},
    },
};

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

/// What an attachment is given back to.
#[derive(Clone, Copy)]
pub enum AttachTo<'a> {
    /// A message.
    Message(&'a str),
    /// An event that invites nobody.
    CalendarEvent(&'a UnattendedEvent),
    /// A task: list and id.
    TodoTask(&'a str, &'a str),
}

impl AttachTo<'_> {
    async fn add(self, context: &RestoreContext, value: &Value) -> Result<String, GraphError> {
        let (graph, user) = (&context.graph, &context.user);
        match self {
            Self::Message(id) => graph.add_attachment(user, id, value).await,
            Self::CalendarEvent(event) => graph.add_event_attachment(user, event, value).await,
            Self::TodoTask(list, task) => graph.add_task_attachment(user, (list, task), value).await,
        }
    }

    async fn open_session(
        self,
        context: &RestoreContext,
        new: &NewAttachment,
    ) -> Result<UploadSession, GraphError> {
        let (graph, user) = (&context.graph, &context.user);
        match self {
            Self::Message(id) => graph.create_upload_session(user, id, new).await,
            Self::CalendarEvent(event) => graph.create_event_upload_session(user, event, new).await,
            Self::TodoTask(list, task) => graph.create_task_upload_session(user, (list, task), new).await,
        }
    }

    fn owner(&self) -> AttachmentOwner<'_> {
        match self {
            Self::Message(id) => AttachmentOwner::Message(id),
            Self::CalendarEvent(event) => AttachmentOwner::CalendarEvent(event.id()),
            Self::TodoTask(list, task) => AttachmentOwner::TodoTask { list, task },
        }
    }

    /// The type of a file among its attachments.
    fn file_type(self) -> &'static str {
        match self {
            Self::Message(_) | Self::CalendarEvent(_) => "#microsoft.graph.fileAttachment",
            Self::TodoTask(..) => "#microsoft.graph.taskFileAttachment",
        }
    }
}

/// A stored attachment with its parts at hand.
pub struct Attachment<'a> {
    stored: &'a StoredAttachment,
    info: Value,
    parts: &'a [ContentPart],
}

/// Gives a created item all its attachments; returns the codes of what could not be brought back.
///
/// What an attempt that was killed gave it already, or a call whose answer was lost, is not given twice; an item that is new
/// (`is_new`) is known to have none.
pub async fn attach_all(
    context: &RestoreContext,
    to: AttachTo<'_>,
    (stored, parts): (&[StoredAttachment], &[ContentPart]),
    is_new: bool,
) -> Result<Vec<String>, JobError> {
    let mut there = match is_new || stored.is_empty() {
        true => Names::default(),
        false => Names::of(context, to).await?,
    };
    let (mut given, mut losses) = (Names::default(), Vec::new());
    for one in stored {
        let attachment = Attachment::new(one, parts)?;
        if let Some(code) = attachment.missing() {
            losses.push(missing_attachment(code));
            continue;
        }
        let name = attachment.text("name").unwrap_or_default().to_owned();
        let n_wanted = given.add(name.clone());
        let mut attempt = 0;
        while there.count(&name) < n_wanted {
            attempt += 1;
            match attachment.give(context, to).await {
                Ok(loss) => {
                    losses.extend(loss.map(str::to_owned));
                    there.add(name.clone());
                    break;
                }
                Err(JobError::Graph(GraphError::Ambiguous { .. })) if attempt < CREATE_ATTEMPTS => {
                    there = Names::of(context, to).await?;
                }
                Err(JobError::Graph(error)) if error.class() == ErrorClass::SkipItem => {
                    losses.push(missing_attachment(error.code()));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(losses)
}

/// How many attachments there are of each name.
#[derive(Default)]
struct Names(HashMap<String, usize>);

impl Names {
    async fn of(context: &RestoreContext, to: AttachTo<'_>) -> Result<Self, GraphError> {
        let mut names = Self::default();
        for info in context.graph.attachments_of(&context.user, to.owner()).await? {
            names.add(info.name);
        }
        Ok(names)
    }

    fn count(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// How many there are with this one.
    fn add(&mut self, name: String) -> usize {
        let count = self.0.entry(name).or_default();
        *count += 1;
        *count
    }
}

impl<'a> Attachment<'a> {
    /// Reads its description.
    pub fn new(stored: &'a StoredAttachment, parts: &'a [ContentPart]) -> Result<Self, JobError> {
        let info = serde_json::from_str(stored.info.get())
            .map_err(|source| JobError::Stored { what: "attachment", source })?;
        Ok(Self { stored, info, parts })
    }

    /// How long the content is.
    pub fn n_bytes(&self) -> u64 {
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
            _ => self.n_bytes().div_ceil(3) * 4 + 512,
        }
    }

    /// Gives it to an item, in one request or in pieces; tells what of it is lost.
    pub async fn give(
        &self,
        context: &RestoreContext,
        to: AttachTo<'_>,
    ) -> Result<Option<&'static str>, JobError> {
        if self.is_file() && self.n_bytes() >= SESSION_FROM_BYTES {
            self.upload(context, to).await?;
            return Ok(None);
        }
        let (value, loss) = self.to_json(context, to.file_type()).await?;
        if let Some(value) = value {
            to.add(context, &value).await?;
        }
        Ok(loss)
    }

    /// As a part of the create of a message, none when there is nothing to give; and what of it is lost.
    pub async fn in_message(
        &self,
        context: &RestoreContext,
    ) -> Result<(Option<Value>, Option<&'static str>), JobError> {
        self.to_json(context, AttachTo::Message("").file_type()).await
    }

    /// Whether it has bytes that may be streamed.
    fn is_file(&self) -> bool {
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
    fn announcement(&self) -> NewAttachment {
        NewAttachment {
            name: self.text("name").unwrap_or("attachment").to_owned(),
            size: self.n_bytes(),
            content_type: self.text("contentType").map(str::to_owned),
            is_inline: self.info.get("isInline").and_then(Value::as_bool).unwrap_or_default(),
            content_id: self.stored.content_id.clone().or_else(|| self.text("contentId").map(str::to_owned)),
        }
    }

    /// As JSON with its content, none when there is nothing to give; and what of it is lost.
    async fn to_json(
        &self,
        context: &RestoreContext,
        file_type: &str,
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
                    "@odata.type": file_type,
                    "name": new.name,
                    "contentBytes": STANDARD.encode(&bytes),
                });
                // Tasks know no such thing.
                if new.is_inline || new.content_id.is_some() {
                    value["isInline"] = new.is_inline.into();
                }
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
    async fn upload(&self, context: &RestoreContext, to: AttachTo<'_>) -> Result<(), JobError> {
        let mut session = to.open_session(context, &self.announcement()).await?;
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
    session: &mut UploadSession,
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
