//! Upload sessions for large attachments, on a host path that refuses the bearer token.
//!
//! Invariant: pieces come in order; the attachment exists only after the last one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;
use bytes::Bytes;
use http::{Method, header};
use serde_json::{Value, json};

use crate::content::{Attachment, Kind};
use crate::http::attachments::check_draft;
use crate::http::messages::{field, target};
use crate::http::{Answer, Call, Refusal, Reply, admit, error, plain, refuse, set};
use crate::ids::Id;
use crate::limits::Cost;
use crate::world::World;

const MAX_SESSIONS: usize = 512;
const MAX_ATTACHMENT: u64 = 150_000_000;
const MAX_PIECE: usize = 4 * 1024 * 1024;
const LIFE_MS: u64 = 60 * 60 * 1000;

#[derive(Default)]
pub(crate) struct Uploads {
    sessions: Mutex<HashMap<String, Session>>,
}

struct Session {
    user: u32,
    app: String,
    message: u64,
    size: u64,
    expires_ms: u64,
    received: Vec<u8>,
    attachment: Attachment,
}

impl Session {
    /// In Outlook's form: a bare number.
    fn status(&self) -> Vec<u8> {
        let next = self.received.len().to_string();
        json!({"expirationDateTime": crate::json::timestamp(self.expires_ms), "nextExpectedRanges": [next]})
            .to_string()
            .into_bytes()
    }
}

/// Opens a session.
pub(crate) fn create(call: &Call) -> Answer {
    let body = call.json()?;
    let item = field(&body, "AttachmentItem");
    let size = field(item, "size").as_u64().unwrap_or(0);
    let name = field(item, "name").as_str().unwrap_or_default().to_owned();
    let is_file =
        field(item, "attachmentType").as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("file"));
    if size == 0 || name.is_empty() || !is_file {
        return Err(refuse(
            400,
            "ErrorInvalidArgument",
            "AttachmentItem needs attachmentType file, name and size.",
        ));
    }
    if size > MAX_ATTACHMENT {
        return Err(refuse(413, "ErrorAttachmentSizeLimitExceeded", "The attachment is too large."));
    }
    let (head, content) = target(call)?;
    check_draft(call, &content)?;
    let now = call.world.clock.now_ms();
    let attachment = Attachment {
        key: 0,
        name,
        content_type: field(item, "contentType").as_str().unwrap_or("application/octet-stream").into(),
        is_inline: field(item, "isInline").as_bool().unwrap_or(false),
        content_id: field(item, "contentId").as_str().map(Into::into),
        // Replaced when the last piece has come.
        kind: Kind::Reference,
    };
    let session = Session {
        user: call.user,
        app: call.claims.appid.clone(),
        message: head.key,
        size,
        expires_ms: now + LIFE_MS,
        received: Vec::new(),
        attachment,
    };
    let number = call.world.requests.load(std::sync::atomic::Ordering::Relaxed);
    let secret = blake3::hash(format!("{} {number} {now} {size}", head.id).as_bytes()).to_hex();
    let mut sessions = call.world.uploads.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    sessions.retain(|_, session| session.expires_ms > now);
    if sessions.len() >= MAX_SESSIONS {
        return Err(refuse(503, "serviceNotAvailable", "Too many upload sessions."));
    }
    let body = json!({
        "@odata.context": format!("{}/v1.0/$metadata#microsoft.graph.uploadSession", call.base),
        "uploadUrl": format!("{}/_upload/{secret}", call.base),
        "expirationDateTime": crate::json::timestamp(session.expires_ms),
        "nextExpectedRanges": ["0-"],
    });
    sessions.insert(secret.to_string(), session);
    Ok(Reply::Created(body.to_string().into_bytes()))
}

/// Answers on the upload host.
pub(crate) fn handle(
    world: &Arc<World>,
    parts: &http::request::Parts,
    id: &str,
    base: &str,
    body: Bytes,
) -> Response {
    answer(world, parts, id, base, body).unwrap_or_else(|refusal| error(world, &parts.headers, &refusal))
}

fn answer(
    world: &Arc<World>,
    parts: &http::request::Parts,
    id: &str,
    base: &str,
    body: Bytes,
) -> Result<Response, Refusal> {
    if parts.headers.contains_key(header::AUTHORIZATION) {
        return Err(refuse(401, "InvalidAuthenticationToken", "The upload URL takes no bearer token."));
    }
    let luck = world.faults.luck(
        world.options().faults.seed,
        parts.method.as_str(),
        &format!("upload {}", body.len()),
    );
    let now = world.clock.now_ms();
    let gone = || refuse(404, "uploadSessionNotFound", "The upload session was not found.");
    let (user, app) = {
        let sessions = world.uploads.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(id).filter(|session| session.expires_ms > now).ok_or_else(gone)?;
        if parts.method == Method::GET {
            return Ok(plain(200, "application/json", session.status()));
        }
        (session.user, session.app.clone())
    };
    let owner = world.people.user(user).user_principal_name.clone();
    world.counters.request(&owner, "upload");
    if parts.method == Method::DELETE {
        world.uploads.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        return Ok(plain(204, "text/plain", Vec::new()));
    }
    if parts.method != Method::PUT {
        return Err(refuse(405, "Request_BadRequest", "The method is not allowed here."));
    }
    world.counters.with(|all| all.upload_bytes += body.len() as u64);
    let cost = Cost { upload_bytes: body.len() as u64, salt: luck.salt("429"), takes_place: false };
    let _flight = admit(world, &world.options(), &app, user, &cost, &luck)?;
    let mut sessions = world.uploads.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    let session = sessions.get_mut(id).ok_or_else(gone)?;
    accept(session, parts, &body)?;
    if (session.received.len() as u64) < session.size {
        return Ok(plain(200, "application/json", session.status()));
    }
    let session = sessions.remove(id).ok_or_else(gone)?;
    drop(sessions);
    complete(world, session, base)
}

fn accept(session: &mut Session, parts: &http::request::Parts, body: &Bytes) -> Result<(), Refusal> {
    let range =
        parts.headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).and_then(parse_range);
    let (first, last, total) =
        range.ok_or_else(|| refuse(400, "invalidRequest", "Content-Range is missing or wrong."))?;
    if total != session.size || last < first || last >= total || last - first + 1 != body.len() as u64 {
        return Err(refuse(400, "invalidRequest", "Content-Range does not fit the body or the session."));
    }
    if body.len() > MAX_PIECE {
        return Err(refuse(413, "RequestEntityTooLarge", "A piece has 4 MB at most."));
    }
    let have = session.received.len() as u64;
    if first != have {
        let code = if first < have { "fragmentOverlap" } else { "fragmentOutOfOrder" };
        return Err(refuse(416, code, format!("The next expected byte is {have}.")));
    }
    session.received.extend_from_slice(body);
    Ok(())
}

/// `bytes a-b/n`
fn parse_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?, total.trim().parse().ok()?))
}

fn complete(world: &Arc<World>, session: Session, base: &str) -> Result<Response, Refusal> {
    let Session { user, message, received, mut attachment, .. } = session;
    attachment.kind = Kind::File(world.blobs.keep(Bytes::from(received)));
    let mut mailbox = world.mailbox(user);
    let key = mailbox.next_attachment();
    attachment.key = key;
    let found = mailbox.messages.get(&message);
    let found = found.ok_or_else(|| refuse(404, "ErrorItemNotFound", "The message is gone."))?;
    let message_id = mailbox.message_id(found, crate::ids::Form::Mutable);
    let mut content = (*world.content(&mailbox, found)).clone();
    content.raw_mime = None;
    content.attachments.push(attachment);
    mailbox.rewrite(message, content, world.clock.now_ms());
    let id = Id::Attachment { user, message, key }.encode();
    let owner = &world.people.user(user).id;
    let mut response =
        plain(201, "application/json", Value::Object(serde_json::Map::new()).to_string().into_bytes());
    let location = format!("{base}/v1.0/Users('{owner}')/Messages('{message_id}')/Attachments('{id}')");
    set(&mut response, "location", &location);
    Ok(response)
}
