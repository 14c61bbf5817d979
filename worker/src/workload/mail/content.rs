//! Fetches one message's content: the MIME as a stream, its parts found on the way, and what is not in it.
//!
//! Memory: a piece of the stream and the writer's budget, never a message. The invariant: a content is handed on only when
//! every byte of it was read; a body that ends early is asked for again, a bounded number of times.

use bytes::Bytes;
use holdfast_graph_client::{AttachmentInfo, ErrorClass, GraphError, MailMessage, MimeStream};
use holdfast_repository::{ContentDraft, ContentWriter, MimeWriter};
use serde_json::value::RawValue;

use super::{
    attachments::{Place, place},
    meta::{AttachmentSource, StoredAttachment, StoredMessage, change_of, raw_text},
    mime_parts::{MimePart, MimeScanner},
};
use crate::{
    JobError,
    backup::BackupContext,
    metrics,
    workload::{
        collect::{Content, FetchError},
        stored::with_holdfast,
    },
};

/// How often a body that ends early is asked for.
const BODY_ATTEMPTS: u32 = 4;
/// What one fetch takes of the memory budget: a chunk in the making, and one on its way or a part of one for each attached
/// message around it; the pieces of the network.
const FETCH_BYTES: u64 = 8 << 20;

/// One message's content in the making.
struct Parts {
    drafts: Vec<ContentDraft>,
    stored: StoredMessage,
    /// Bytes of all parts.
    size: u64,
    /// Why something of it is missing; none when it is whole.
    missing: Option<String>,
}

/// Fetches everything of a message.
pub async fn fetch(context: &BackupContext, message: &MailMessage) -> Result<Content, FetchError> {
    let (_, fingerprint) = change_of(message)?;
    let _share = context.shared.memory.reserve(FETCH_BYTES).await;
    let list = || context.graph.attachments(&context.user, &message.id);
    // Asked for first where it is known to be needed: should it be throttled, no content was fetched in vain.
    let mut listed = None;
    if message.has_attachments || message.body_has_cid() {
        listed = Some(list().await?);
    }
    let open = || context.graph.message_mime(&context.user, &message.id);
    let Streamed { draft, len: mime_len, parts, is_whole } = stream(context, Body::Mime, open).await?;
    let mut content = Parts {
        drafts: vec![draft],
        stored: StoredMessage {
            content: fingerprint.to_hex().to_string(),
            mime_len,
            attachments: Vec::new(),
        },
        size: mime_len,
        missing: (!is_whole).then(|| "MimeIncomplete".to_owned()),
    };
    if listed.is_none() && parts.iter().any(MimePart::is_attached) {
        listed = Some(list().await?);
    }
    if let Some(infos) = listed {
        let mut used = vec![false; parts.len()];
        for info in infos {
            let place = place(&info, &parts, &used);
            let mut content_id = None;
            let source = match place {
                Place::Mime(index) => {
                    used[index] = true;
                    content_id = parts[index].content_id.clone().filter(|_| info.content_id.is_none());
                    in_mime(&parts[index])
                }
                Place::Value | Place::Json(_) => {
                    by_own_call(context, message, (&info, place), &mut content).await?
                }
            };
            if let AttachmentSource::Missing { code } = &source {
                content.missing = Some(missing_attachment(code));
            }
            let text = serde_json::to_string(&info.raw).and_then(RawValue::from_string);
            let info = text.map_err(|source| JobError::Stored { what: "attachment", source })?;
            content.stored.attachments.push(StoredAttachment { info, content_id, source });
        }
    }
    let Parts { drafts, stored, size, missing } = content;
    Ok(Content { meta: with_holdfast(raw_text(message), &stored)?, drafts, size, missing })
}

/// The code under which a missing attachment is reported.
pub fn missing_attachment(code: &str) -> String {
    format!("AttachmentMissing:{code}")
}

fn in_mime(part: &MimePart) -> AttachmentSource {
    AttachmentSource::Mime {
        start: part.start,
        len: part.len,
        encoding: part.encoding,
        decoded: part.decoded_len,
    }
}

/// Fetches an attachment that is not in the MIME.
async fn by_own_call(
    context: &BackupContext,
    message: &MailMessage,
    (info, place): (&AttachmentInfo, Place),
    content: &mut Parts,
) -> Result<AttachmentSource, FetchError> {
    let fetched = match place {
        Place::Mime(_) | Place::Value => {
            let open = || context.graph.attachment_value(&context.user, &message.id, &info.id);
            stream(context, Body::Bytes, open).await.map(|got| (got.draft, got.len, false))
        }
        Place::Json(expand) => {
            match context.graph.attachment_json(&context.user, &message.id, &info.id, expand).await {
                Ok(value) => {
                    let bytes = serde_json::to_vec(&value)
                        .map_err(|source| JobError::Stored { what: "attachment", source })?;
                    let len = bytes.len() as u64;
                    let writer = context.manifest.writer().content();
                    whole(writer, bytes.into()).await.map(|draft| (draft, len, true))
                }
                Err(error) => Err(FetchError::Graph(error)),
            }
        }
    };
    let (draft, len, is_json) = match fetched {
        Ok(fetched) => fetched,
        Err(FetchError::Graph(error)) if matches!(error.class(), ErrorClass::SkipItem | ErrorClass::Gone) => {
            return Ok(AttachmentSource::Missing { code: error.code().to_owned() });
        }
        Err(error) => return Err(error),
    };
    let part = u32::try_from(content.drafts.len()).unwrap_or(u32::MAX);
    content.drafts.push(draft);
    content.size += len;
    Ok(if is_json { AttachmentSource::Json { part, len } } else { AttachmentSource::Part { part, len } })
}

async fn whole(mut writer: ContentWriter, bytes: Bytes) -> Result<ContentDraft, FetchError> {
    writer.push(bytes).await?;
    Ok(writer.finish().await?)
}

/// What a body is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    /// A message, which says itself where it ends.
    Mime,
    /// Anything.
    Bytes,
}

/// A body that was read to its end.
struct Streamed {
    draft: ContentDraft,
    len: u64,
    parts: Vec<MimePart>,
    /// False for MIME without its last boundary.
    is_whole: bool,
}

/// Streams a body into the writer, again from the beginning when it ends early.
///
/// A body that is neither counted nor chunked ends with its connection, whenever that is: MIME then still shows that its
/// last boundary is missing. One that lacks it every time is taken as it is, and said to be incomplete.
async fn stream<F, Fut>(context: &BackupContext, body: Body, open: F) -> Result<Streamed, FetchError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<MimeStream, GraphError>>,
{
    let mut attempt = 0;
    let mut stored_as = if body == Body::Mime { StoredAs::Recipe } else { StoredAs::File };
    loop {
        attempt += 1;
        let streamed = match stream_once(context, open().await?, stored_as).await {
            Ok(None) => {
                // Its bytes are gone: they are asked for once more and stored as they come.
                metrics::content_retried();
                stored_as = StoredAs::Raw;
                continue;
            }
            Ok(Some(streamed)) => Ok(streamed),
            Err(error) => Err(error),
        };
        match streamed {
            Ok(got) if body == Body::Mime && !got.is_whole && attempt < BODY_ATTEMPTS => {
                metrics::content_retried();
                tracing::debug!(attempt, "message lacks its end, fetching it again");
                tokio::time::sleep(context.options.content_retry * attempt).await;
            }
            Err(FetchError::Graph(error))
                if error.class() == ErrorClass::Retry && attempt < BODY_ATTEMPTS =>
            {
                metrics::content_retried();
                tracing::debug!(code = error.code(), attempt, "content ended early, fetching it again");
                tokio::time::sleep(context.options.content_retry * attempt).await;
            }
            result => return result,
        }
    }
}

/// How a body is stored.
#[derive(Clone, Copy)]
enum StoredAs {
    /// A message, its attachments as the files they are.
    Recipe,
    /// A message of which that cannot be done.
    Raw,
    /// An attachment of its own, shared with every other copy of the file.
    File,
}

/// Reads a body once. Nothing comes out when it was a message that its recipe does not make.
async fn stream_once(
    context: &BackupContext,
    mut body: MimeStream,
    stored_as: StoredAs,
) -> Result<Option<Streamed>, FetchError> {
    let writer = context.manifest.writer();
    let mut sink = match stored_as {
        StoredAs::Recipe => Sink::Recipe(Box::new(writer.mime())),
        StoredAs::Raw => Sink::Plain(writer.content()),
        StoredAs::File => Sink::Plain(writer.file()),
    };
    let mut scanner = MimeScanner::new();
    while let Some(piece) = body.next().await? {
        scanner.push(&piece);
        match &mut sink {
            Sink::Recipe(writer) => writer.push(piece).await?,
            Sink::Plain(writer) => writer.push(piece).await?,
        }
    }
    let draft = match sink {
        Sink::Recipe(writer) => writer.finish().await?,
        Sink::Plain(writer) => Some(writer.finish().await?),
    };
    let (len, is_whole) = (scanner.bytes_seen(), scanner.is_whole());
    Ok(draft.map(|draft| Streamed { draft, len, parts: scanner.finish(), is_whole }))
}

enum Sink {
    Recipe(Box<MimeWriter>),
    Plain(ContentWriter),
}
