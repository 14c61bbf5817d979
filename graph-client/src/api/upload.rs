//! Upload sessions for attachments of 3 to 150 MB.
//!
//! The one invariant to know: pieces go in order, and without our token unless the session is Graph's own; after a lost answer
//! the session itself is asked how far it got.

use std::fmt;

use bytes::Bytes;
use reqwest::{Method, header::LOCATION};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    ErrorClass, GraphClient, GraphError, Scope,
    json::read_object,
    request::{Call, Repeat, Reply},
};

use super::{calendar::UnattendedEvent, outlook::mailbox};

/// The largest piece Outlook takes.
const MAX_PIECE_BYTES: usize = 4 << 20;

/// An attachment that is to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttachment {
    /// Its file name.
    pub name: String,
    /// Its exact length.
    pub size: u64,
    /// Its media type.
    pub content_type: Option<String>,
    /// Whether the body shows it.
    pub is_inline: bool,
    /// What the body's `cid:` names.
    pub content_id: Option<String>,
}

/// An open upload.
pub struct UploadSession {
    upload_url: Zeroizing<String>,
    host: Host,
    size: u64,
    next: u64,
    scope: Scope,
}

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    /// Elsewhere; its address is all it takes.
    Outlook,
    /// In Graph, with our token: attachments of tasks.
    Graph,
}

impl fmt::Debug for UploadSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadSession")
            .field("size", &self.size)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl UploadSession {
    /// The offset of the next piece.
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    /// The largest piece that may be sent.
    pub fn max_piece(&self) -> usize {
        MAX_PIECE_BYTES
    }

    fn status_call(&self) -> Call {
        let (url, scope) = (self.upload_url.to_string(), self.scope.clone());
        match self.host {
            Host::Outlook => Call::upload(Method::GET, url, None, scope),
            Host::Graph => Call::upload_with_token(Method::GET, url, None, scope),
        }
    }

    fn piece_call(&self, piece: Bytes, end: u64) -> Call {
        let (url, scope) = (self.upload_url.to_string(), self.scope.clone());
        let call = match self.host {
            Host::Outlook => Call::upload(Method::PUT, url, Some(piece), scope),
            Host::Graph => Call::upload_with_token(Method::PUT, format!("{url}/content"), Some(piece), scope),
        };
        call.content_range(self.next, end, self.size)
    }
}

/// How far an upload got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadProgress {
    /// The next piece starts here.
    More {
        /// The offset.
        next: u64,
    },
    /// All is there.
    Done {
        /// The attachment's id, where Microsoft named it.
        attachment_id: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Opened {
    upload_url: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Ranges {
    #[serde(alias = "NextExpectedRanges")]
    next_expected_ranges: Vec<String>,
}

impl GraphClient {
    /// Opens an upload session for an attachment of a message.
    pub async fn create_upload_session(
        &self,
        user: &str,
        message: &str,
        attachment: &NewAttachment,
    ) -> Result<UploadSession, GraphError> {
        self.open_outlook_upload(user, &["messages", message], attachment).await
    }

    /// Opens an upload session for an attachment of an event.
    pub async fn create_event_upload_session(
        &self,
        user: &str,
        event: &UnattendedEvent,
        attachment: &NewAttachment,
    ) -> Result<UploadSession, GraphError> {
        self.open_outlook_upload(user, &["events", event.id()], attachment).await
    }

    /// Opens an upload session for an attachment of a task. Tasks show none in their text.
    pub async fn create_task_upload_session(
        &self,
        user: &str,
        (list, task): (&str, &str),
        attachment: &NewAttachment,
    ) -> Result<UploadSession, GraphError> {
        let owner = ["todo", "lists", list, "tasks", task];
        let mut info = json!({ "attachmentType": "file", "name": attachment.name, "size": attachment.size });
        if let Some(kind) = &attachment.content_type {
            info["contentType"] = Value::from(kind.as_str());
        }
        let body = json!({ "attachmentInfo": info });
        self.open_upload(user, &owner, &body, (Host::Graph, attachment.size)).await
    }

    async fn open_outlook_upload(
        &self,
        user: &str,
        owner: &[&str],
        attachment: &NewAttachment,
    ) -> Result<UploadSession, GraphError> {
        let mut item = json!({
            "attachmentType": "file",
            "name": attachment.name,
            "size": attachment.size,
            "isInline": attachment.is_inline,
        });
        if let Some(id) = &attachment.content_id {
            item["contentId"] = Value::from(id.as_str());
        }
        if let Some(kind) = &attachment.content_type {
            item["contentType"] = Value::from(kind.as_str());
        }
        let body = json!({ "AttachmentItem": item });
        self.open_upload(user, owner, &body, (Host::Outlook, attachment.size)).await
    }

    async fn open_upload(
        &self,
        user: &str,
        owner: &[&str],
        body: &Value,
        (host, size): (Host, u64),
    ) -> Result<UploadSession, GraphError> {
        let path = [&["users", user], owner, &["attachments", "createUploadSession"]].concat();
        let call =
            Call::post(self.url(&path, &[]), body, Repeat::Safe, mailbox(user)).immutable_ids().on_fresh();
        let opened: Opened = read_object(&self.send(call).await?.body, "an upload session")?;
        Ok(UploadSession { upload_url: opened.upload_url.into(), host, size, next: 0, scope: mailbox(user) })
    }

    /// Sends the piece that starts at [`UploadSession::next_offset`], of at most 4 MiB.
    ///
    /// When the answer to the last piece is lost the outcome is [`GraphError::Ambiguous`]: list the attachments first.
    pub async fn upload_piece(
        &self,
        session: &mut UploadSession,
        piece: Bytes,
    ) -> Result<UploadProgress, GraphError> {
        let end = session.next + piece.len() as u64;
        if piece.is_empty() || piece.len() > MAX_PIECE_BYTES || end > session.size {
            return Err(GraphError::Config {
                setting: "upload piece",
                reason: "it is empty, too large or past the end",
            });
        }
        let error = match self.send(session.piece_call(piece, end)).await {
            Ok(reply) => return progress(session, &reply, end),
            Err(error) => error,
        };
        if !matches!(error.class(), ErrorClass::Reread | ErrorClass::Gone) {
            return Err(error);
        }
        match self.session_status(session).await {
            Ok(Some(next)) if next > session.next && next <= session.size => {
                session.next = next;
                Ok(UploadProgress::More { next })
            }
            // A session ends with its last piece: its end and its loss look the same.
            _ if end == session.size => Err(GraphError::Ambiguous { source: Box::new(error) }),
            _ => Err(error),
        }
    }

    /// After a lost answer a piece may be there all the same.
    async fn session_status(&self, session: &UploadSession) -> Result<Option<u64>, GraphError> {
        self.send(session.status_call()).await.map(|reply| next_expected(&reply))
    }

    /// Sends the whole content, piece by piece.
    pub async fn upload(
        &self,
        session: &mut UploadSession,
        content: &Bytes,
    ) -> Result<Option<String>, GraphError> {
        if content.len() as u64 != session.size {
            return Err(GraphError::Config {
                setting: "upload",
                reason: "the content has another length than announced",
            });
        }
        loop {
            let start =
                usize::try_from(session.next).map_err(|_| GraphError::TooLarge { limit: session.size })?;
            let end = content.len().min(start + MAX_PIECE_BYTES);
            if let UploadProgress::Done { attachment_id } =
                self.upload_piece(session, content.slice(start..end)).await?
            {
                return Ok(attachment_id);
            }
        }
    }
}

fn progress(session: &mut UploadSession, reply: &Reply, end: u64) -> Result<UploadProgress, GraphError> {
    if reply.status == 201 || (reply.status == 200 && end == session.size && next_expected(reply).is_none()) {
        session.next = session.size;
        let location = reply.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        return Ok(UploadProgress::Done { attachment_id: location.and_then(attachment_id) });
    }
    let next = next_expected(reply).unwrap_or(end);
    // Backwards would never end, and there is nothing after the end.
    if next <= session.next || next > end {
        return Err(GraphError::Incomplete { what: "the upload answer", field: "a range that follows" });
    }
    session.next = next;
    Ok(UploadProgress::More { next })
}

/// The start of the first expected range: `"26-"`, `"12345-55232"` or, from Outlook, `"2097152"`.
pub(super) fn next_expected(reply: &Reply) -> Option<u64> {
    let ranges: Ranges = serde_json::from_slice(&reply.body).unwrap_or_default();
    ranges.next_expected_ranges.first()?.split('-').next()?.trim().parse().ok()
}

/// The id in `…/Attachments('<id>')` or, of tasks, in `…/Attachments/<id>`.
fn attachment_id(location: &str) -> Option<String> {
    const COLLECTION: &str = "attachments";
    let start = location.to_ascii_lowercase().rfind(COLLECTION)? + COLLECTION.len();
    let rest = location.get(start..)?;
    let id = match rest.strip_prefix("('") {
        Some(quoted) => &quoted[..quoted.find('\'')?],
        None => rest.strip_prefix('/')?.split(['/', '?']).next()?,
    };
    let decoded = percent_encoding::percent_decode_str(id).decode_utf8_lossy().into_owned();
    (!decoded.is_empty()).then_some(decoded)
}
