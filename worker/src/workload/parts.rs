//! The parts of an item's content that take calls of their own: attachments, pictures, JSON too large for the properties.
//!
//! Memory: a piece of a stream and the writer's budget, never a file. The invariant: a part is handed on only when every byte
//! of it was read; a body that ends early is asked for again, a bounded number of times.

use bytes::Bytes;
use holdfast_graph_client::{AttachmentInfo, AttachmentOwner, ErrorClass, GraphError, MimeStream};
use holdfast_repository::{ContentDraft, ContentWriter, MAX_PARTS};

use super::{
    attachments::{AttachmentCall, AttachmentSource, StoredAttachment, missing_attachment},
    collect::{Content, FetchError},
    stored::broken,
};
use crate::{JobError, backup::BackupContext, metrics};

/// How often a body that ends early is asked for.
pub const BODY_ATTEMPTS: u32 = 4;
/// What fetching the parts of one item takes of the memory budget: a chunk in the making, one on its way, the pieces of the
/// network.
pub const FETCH_BYTES: u64 = 8 << 20;
/// Attachments beyond this have no place in a content: a part is left for everything else.
const MAX_ATTACHMENT_PARTS: usize = MAX_PARTS - 1;

/// The content of an item in the making.
#[derive(Default)]
pub struct Parts {
    drafts: Vec<ContentDraft>,
    missing: Option<String>,
}

impl Parts {
    /// Adds a part; its position.
    pub fn push(&mut self, draft: ContentDraft) -> u32 {
        self.drafts.push(draft);
        u32::try_from(self.drafts.len() - 1).unwrap_or(u32::MAX)
    }

    /// Adds a part whose bytes are at hand; its position.
    pub async fn push_bytes(&mut self, context: &BackupContext, bytes: Bytes) -> Result<u32, JobError> {
        let draft = whole(context.manifest.writer().content(), bytes).await?;
        Ok(self.push(draft))
    }

    /// Something of the item cannot be had.
    pub fn note_missing(&mut self, code: String) {
        self.missing = Some(code);
    }

    /// Fetches attachments; their descriptions, and where their bytes are.
    pub async fn attachments(
        &mut self,
        context: &BackupContext,
        owner: AttachmentOwner<'_>,
        infos: &[AttachmentInfo],
    ) -> Result<Vec<StoredAttachment>, FetchError> {
        let mut stored = Vec::with_capacity(infos.len());
        for info in infos {
            let source = self.attachment(context, owner, info).await?;
            stored.push(StoredAttachment::new(info, None, source)?);
        }
        Ok(stored)
    }

    /// Fetches one attachment by a call of its own. One that Microsoft does not give is noted as missing.
    pub async fn attachment(
        &mut self,
        context: &BackupContext,
        owner: AttachmentOwner<'_>,
        info: &AttachmentInfo,
    ) -> Result<AttachmentSource, FetchError> {
        if self.drafts.len() >= MAX_ATTACHMENT_PARTS {
            return Ok(self.without_attachment("TooManyParts".to_owned()));
        }
        let call = AttachmentCall::of(info);
        let draft = match fetch(context, owner, info, call).await {
            Ok(draft) => draft,
            Err(FetchError::Graph(error))
                if matches!(error.class(), ErrorClass::SkipItem | ErrorClass::Gone) =>
            {
                return Ok(self.without_attachment(error.code().to_owned()));
            }
            Err(error) => return Err(error),
        };
        let len = draft.len();
        let part = self.push(draft);
        Ok(match call {
            AttachmentCall::Value => AttachmentSource::Part { part, len },
            AttachmentCall::Json(_) => AttachmentSource::Json { part, len },
        })
    }

    fn without_attachment(&mut self, code: String) -> AttachmentSource {
        self.note_missing(missing_attachment(&code));
        AttachmentSource::Missing { code }
    }

    /// The content with the item's properties. Of these, so many bytes count for its size beside the parts.
    pub fn into_content(self, meta: Bytes, counted: usize) -> Content {
        let size = counted as u64 + self.drafts.iter().map(ContentDraft::len).sum::<u64>();
        Content { meta, drafts: self.drafts, size, missing: self.missing }
    }
}

async fn fetch(
    context: &BackupContext,
    owner: AttachmentOwner<'_>,
    info: &AttachmentInfo,
    call: AttachmentCall,
) -> Result<ContentDraft, FetchError> {
    let (graph, user) = (&context.graph, &context.user);
    match call {
        AttachmentCall::Value => file(context, || graph.attachment_value_of(user, owner, &info.id)).await,
        AttachmentCall::Json(expand) => {
            let value = graph.attachment_json_of(user, owner, &info.id, expand).await?;
            let bytes = serde_json::to_vec(&value).map_err(broken("attachment"))?;
            Ok(whole(context.manifest.writer().content(), bytes.into()).await?)
        }
    }
}

async fn whole(mut writer: ContentWriter, bytes: Bytes) -> Result<ContentDraft, holdfast_repository::Error> {
    writer.push(bytes).await?;
    writer.finish().await
}

/// Streams a file into the writer, again from the beginning when it ends early.
async fn file<F, Fut>(context: &BackupContext, open: F) -> Result<ContentDraft, FetchError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<MimeStream, GraphError>>,
{
    let mut attempt = 0;
    loop {
        attempt += 1;
        match file_once(context, open().await?).await {
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

async fn file_once(context: &BackupContext, mut body: MimeStream) -> Result<ContentDraft, FetchError> {
    let mut writer = context.manifest.writer().file();
    while let Some(piece) = body.next().await? {
        writer.push(piece).await?;
    }
    Ok(writer.finish().await?)
}
