//! Fetches one message's content: the MIME as a stream, its parts found on the way, and what is not in it.
//!
//! Memory: a piece of the stream and the writer's budget, never a message. The invariant: a content is handed on only when
//! every byte of it was read; a body that ends early is asked for again, a bounded number of times.

use holdfast_graph_client::{AttachmentOwner, ErrorClass, GraphError, MailMessage, MimeStream};
use holdfast_repository::{ContentDraft, ContentWriter, MimeWriter};

use super::{
    attachments::{Place, place},
    meta::{AttachmentSource, StoredAttachment, StoredMessage, change_of, raw_text},
    mime_parts::{MimePart, MimeScanner},
};
use crate::{
    backup::BackupContext,
    metrics,
    workload::{
        collect::{Content, FetchError},
        parts::{BODY_ATTEMPTS, Parts},
        stored::with_holdfast,
    },
};

/// What one fetch takes of the memory budget: a chunk in the making, and one on its way or a part of one for each attached
/// message around it; the pieces of the network.
const FETCH_BYTES: u64 = 8 << 20;

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
    let Streamed { draft, len: mime_len, parts: in_mime, is_whole } = stream(context, open).await?;
    let mut parts = Parts::default();
    parts.push(draft);
    if !is_whole {
        parts.note_missing("MimeIncomplete".to_owned());
    }
    let mut attachments = Vec::new();
    if listed.is_none() && in_mime.iter().any(MimePart::is_attached) {
        listed = Some(list().await?);
    }
    if let Some(infos) = listed {
        let mut used = vec![false; in_mime.len()];
        for info in infos {
            let mut content_id = None;
            let source = match place(&info, &in_mime, &used) {
                Place::Mime(index) => {
                    used[index] = true;
                    content_id = in_mime[index].content_id.clone().filter(|_| info.content_id.is_none());
                    range_of(&in_mime[index])
                }
                Place::Call => {
                    parts.attachment(context, AttachmentOwner::Message(&message.id), &info).await?
                }
            };
            attachments.push(StoredAttachment::new(&info, content_id, source)?);
        }
    }
    let stored = StoredMessage { content: fingerprint.to_hex().to_string(), mime_len, attachments };
    Ok(parts.into_content(with_holdfast(raw_text(message), &stored)?, 0))
}

fn range_of(part: &MimePart) -> AttachmentSource {
    AttachmentSource::Mime {
        start: part.start,
        len: part.len,
        encoding: part.encoding,
        decoded: part.decoded_len,
    }
}

/// A message that was read to its end.
struct Streamed {
    draft: ContentDraft,
    len: u64,
    parts: Vec<MimePart>,
    /// False without the last boundary.
    is_whole: bool,
}

/// Streams a message into the writer, again from the beginning when it ends early.
///
/// A body that is neither counted nor chunked ends with its connection, whenever that is: MIME then still shows that its
/// last boundary is missing. One that lacks it every time is taken as it is, and said to be incomplete.
async fn stream<F, Fut>(context: &BackupContext, open: F) -> Result<Streamed, FetchError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<MimeStream, GraphError>>,
{
    let mut attempt = 0;
    let mut stored_as = StoredAs::Recipe;
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
            Ok(got) if !got.is_whole && attempt < BODY_ATTEMPTS => {
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

/// How a message is stored.
#[derive(Clone, Copy)]
enum StoredAs {
    /// Its attachments as the files they are.
    Recipe,
    /// As it came, where that cannot be done.
    Raw,
}

/// Reads a message once. Nothing comes out when its recipe does not make it.
async fn stream_once(
    context: &BackupContext,
    mut body: MimeStream,
    stored_as: StoredAs,
) -> Result<Option<Streamed>, FetchError> {
    let writer = context.manifest.writer();
    let mut sink = match stored_as {
        StoredAs::Recipe => Sink::Recipe(Box::new(writer.mime())),
        StoredAs::Raw => Sink::Plain(writer.content()),
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
