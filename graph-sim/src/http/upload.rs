//! Upload sessions for large attachments: pieces in order, and a finish that knows what they are for.
//!
//! Invariant: pieces come in order; what is uploaded exists only after the last one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde_json::json;

use crate::http::{Answer, Call, Refusal, Reply, admit, error, plain, refuse, set};
use crate::limits::{Cost, Scope};
use crate::world::World;

const MAX_SESSIONS: usize = 512;
const MAX_PIECE: usize = 4 * 1024 * 1024;
const LIFE_MS: u64 = 60 * 60 * 1000;

/// Makes the attachment of the bytes and says where it is; the text is the URL of the server.
pub(crate) type Finish = Box<dyn FnOnce(&World, Bytes, &str) -> Result<String, Refusal> + Send>;

#[derive(Default)]
pub(crate) struct Uploads {
    sessions: Mutex<HashMap<String, Session>>,
}

struct Session {
    app: String,
    scope: Option<Scope>,
    size: u64,
    expires_ms: u64,
    received: Vec<u8>,
    finish: Finish,
}

/// A session that was opened.
pub(crate) struct Opened {
    /// Nobody guesses it.
    pub id: String,
    pub expires_ms: u64,
}

/// What a piece led to.
pub(crate) enum Progress {
    /// The session's state, in Outlook's form: a bare number.
    More(Vec<u8>),
    /// Where the finished thing is.
    Done(String),
}

impl Session {
    fn status(&self) -> Vec<u8> {
        let next = self.received.len().to_string();
        json!({"expirationDateTime": crate::json::timestamp(self.expires_ms), "nextExpectedRanges": [next]})
            .to_string()
            .into_bytes()
    }
}

impl Opened {
    /// The answer to the call that opened the session.
    pub(crate) fn answer(&self, call: &Call, url: &str) -> Answer {
        let body = json!({
            "@odata.context": format!("{}/v1.0/$metadata#microsoft.graph.uploadSession", call.base),
            "uploadUrl": url,
            "expirationDateTime": crate::json::timestamp(self.expires_ms),
            "nextExpectedRanges": ["0-"],
        });
        Ok(Reply::Created(body.to_string().into_bytes()))
    }

    /// A URL on a host path of its own, which takes no bearer token.
    pub(crate) fn url(&self, call: &Call) -> String {
        format!("{}/_upload/{}", call.base, self.id)
    }
}

impl Uploads {
    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session for so many bytes.
    pub(crate) fn open(&self, call: &Call, size: u64, finish: Finish) -> Result<Opened, Refusal> {
        let now = call.world.clock.now_ms();
        let number = call.world.requests.load(std::sync::atomic::Ordering::Relaxed);
        let id = blake3::hash(format!("{} {number} {now} {size}", call.path).as_bytes()).to_hex().to_string();
        let mut sessions = self.locked();
        sessions.retain(|_, session| session.expires_ms > now);
        if sessions.len() >= MAX_SESSIONS {
            return Err(refuse(503, "serviceNotAvailable", "Too many upload sessions."));
        }
        let expires_ms = now + LIFE_MS;
        let app = call.claims.appid.clone();
        let session = Session { app, scope: call.scope, size, expires_ms, received: Vec::new(), finish };
        sessions.insert(id.clone(), session);
        Ok(Opened { id, expires_ms })
    }

    /// The state of a session.
    pub(crate) fn status(&self, id: &str, now_ms: u64) -> Result<Vec<u8>, Refusal> {
        let sessions = self.locked();
        let session = sessions.get(id).filter(|session| session.expires_ms > now_ms).ok_or_else(gone)?;
        Ok(session.status())
    }

    /// Ends a session before its time.
    pub(crate) fn cancel(&self, id: &str) -> Result<(), Refusal> {
        self.locked().remove(id).map(drop).ok_or_else(gone)
    }

    /// Takes a piece.
    pub(crate) fn put(
        &self,
        world: &World,
        id: &str,
        headers: &HeaderMap,
        body: &Bytes,
        base: &str,
    ) -> Result<Progress, Refusal> {
        let now = world.clock.now_ms();
        let mut sessions = self.locked();
        let session = sessions.get_mut(id).filter(|session| session.expires_ms > now).ok_or_else(gone)?;
        accept(session, headers, body)?;
        if (session.received.len() as u64) < session.size {
            return Ok(Progress::More(session.status()));
        }
        let session = sessions.remove(id).ok_or_else(gone)?;
        drop(sessions);
        (session.finish)(world, Bytes::from(session.received), base).map(Progress::Done)
    }
}

fn gone() -> Refusal {
    refuse(404, "uploadSessionNotFound", "The upload session was not found.")
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
    let (scope, app) = {
        let sessions = world.uploads.locked();
        let session = sessions.get(id).filter(|session| session.expires_ms > now).ok_or_else(gone)?;
        (session.scope, session.app.clone())
    };
    if parts.method == Method::GET {
        return Ok(plain(200, "application/json", world.uploads.status(id, now)?));
    }
    world.counters.request(scope.map_or("directory", |scope| scope.name(world)), "upload");
    if parts.method == Method::DELETE {
        world.uploads.cancel(id)?;
        return Ok(plain(204, "text/plain", Vec::new()));
    }
    if parts.method != Method::PUT {
        return Err(refuse(405, "Request_BadRequest", "The method is not allowed here."));
    }
    world.counters.with(|all| all.upload_bytes += body.len() as u64);
    let cost = Cost::of(&luck, body.len() as u64);
    let _flight = scope.map(|scope| admit(world, &world.options(), &app, scope, &cost, &luck)).transpose()?;
    match world.uploads.put(world, id, &parts.headers, &body, base)? {
        Progress::More(status) => Ok(plain(200, "application/json", status)),
        Progress::Done(location) => {
            let mut response = plain(201, "application/json", b"{}".to_vec());
            set(&mut response, "location", &location);
            Ok(response)
        }
    }
}

fn accept(session: &mut Session, headers: &HeaderMap, body: &Bytes) -> Result<(), Refusal> {
    let range =
        headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).and_then(parse_range);
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
