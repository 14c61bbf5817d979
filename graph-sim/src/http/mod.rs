//! Graph over HTTP: dispatch and faults.
//!
//! `address` reads paths · `admission` authenticates, limits and authorises · `answer` shapes answers and errors, `body`
//! their bytes · `upload` takes large attachments.
//!
//! Invariant: a request holds its place in flight from admission until the last byte of its answer is handed over.

mod address;
mod admission;
mod answer;
pub(crate) mod body;
pub(crate) mod upload;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde_json::Value;

use crate::faults::Luck;
use crate::http::answer::{Finish, finish};
use crate::ids::{Form, Missing};
use crate::limits::{Reason, Scope, Throttled};
use crate::options::SimOptions;
use crate::query::{Query, form};
use crate::serve::Connection;
use crate::token::Claims;
use crate::workloads::mail::create::Invalid;
use crate::workloads::mail::mime::Mime;
use crate::workloads::route::{Params, Route};
use crate::world::World;

pub(crate) use admission::admit;
pub(crate) use answer::{error, identify, plain, say_left, set};

/// What is read of a request at most, so that a client learns of the refusal instead of a broken pipe.
/// A fragment of a file has less than 60 MiB.
const MAX_READ: usize = 64 * 1024 * 1024;
/// What Graph takes in one JSON request.
const MAX_JSON: usize = 4 * 1024 * 1024;
/// One authenticated call.
pub(crate) struct Call {
    pub world: Arc<World>,
    pub options: Arc<SimOptions>,
    pub method: Method,
    pub route: &'static Route,
    pub params: Params,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub is_json: bool,
    /// `http://host`, as the client wrote it.
    pub base: String,
    /// The path as it came.
    pub path: String,
    pub luck: Luck,
    pub form: Form,
    pub page_size: Option<usize>,
    /// As `Prefer: outlook.timezone` has it.
    pub time_zone: Option<String>,
    /// Number of the person; 0 for calls about the tenant.
    pub user: u32,
    pub scope: Option<Scope>,
    pub claims: Claims,
}

impl Call {
    pub(crate) fn json(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(&self.body)
            .map_err(|_| refuse(400, "BadRequest", "Unable to read JSON request payload."))
    }

    /// Page size: `$top`, else `odata.maxpagesize`, else the default, never above the maximum.
    pub(crate) fn size(&self) -> Result<usize, Refusal> {
        let top = self.query.number("$top").map_err(|text| refuse(400, "BadRequest", text))?;
        let wanted = top.or(self.page_size).unwrap_or(self.options.page_size_default as usize);
        Ok(wanted.clamp(1, self.options.page_size_max.max(1) as usize))
    }

    /// An id of the path.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name)
    }

    /// Counts a call that would have sent mail to people.
    pub(crate) fn would_send(&self, kind: &str) {
        self.world.counters.would_send(kind);
    }

    pub(crate) fn has_role(&self, roles: &[&str]) -> bool {
        self.claims.roles.iter().any(|role| roles.contains(&role.as_str()))
    }

    pub(crate) fn link(&self, query: &Query) -> String {
        format!("{}{}?{}", self.base, self.path, query.encode())
    }
}

/// A good answer.
pub(crate) enum Reply {
    Json(u16, Vec<u8>),
    Created(Vec<u8>),
    Mime(Mime),
    Data(crate::blob::Data, String),
    Empty(u16),
    /// 201 without a body, and where the new thing is.
    Located(String),
    /// 302: what was asked for is there.
    Redirect(String),
}

/// An error answer.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
    /// The more exact code.
    pub inner: Option<&'static str>,
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn inner(self, code: &'static str) -> Self {
        Self { inner: Some(code), ..self }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

pub(crate) fn refuse(status: u16, code: &str, message: impl Into<String>) -> Refusal {
    Refusal { status, code: code.into(), message: message.into(), inner: None, headers: Vec::new() }
}

/// The refusal of more bytes than an hour has.
fn bandwidth() -> Refusal {
    refuse(509, "bandwidthLimitExceeded", "The app exceeded the bandwidth limit of the tenant.")
}

impl From<Missing> for Refusal {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Malformed => refuse(400, "ErrorInvalidIdMalformed", "Id is malformed."),
            Missing::Gone => {
                refuse(404, "ErrorItemNotFound", "The specified object was not found in the store.")
            }
        }
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        refuse(400, invalid.code, invalid.message)
    }
}

impl From<Throttled> for Refusal {
    fn from(throttled: Throttled) -> Self {
        let refusal = match throttled.reason {
            Reason::Concurrency => {
                refuse(429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.")
            }
            Reason::Window | Reason::Upload => {
                refuse(429, "activityLimitReached", "The app exceeded a limit of the service.")
            }
            Reason::Bandwidth => bandwidth(),
            Reason::StillBlocked | Reason::Fault => refuse(429, "TooManyRequests", "Too many requests."),
        };
        match throttled.retry_after {
            Some(value) => refusal.header("retry-after", value),
            None => refusal,
        }
    }
}

pub(crate) type Answer = Result<Reply, Refusal>;

/// Answers any request.
pub(crate) async fn handle(world: Arc<World>, connection: Connection, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let segments = address::segments(parts.uri.path());
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    // A proxy that speaks TLS for the simulator says so.
    let scheme = text(header::HeaderName::from_static("x-forwarded-proto")).unwrap_or("http");
    let base = format!("{scheme}://{}", text(header::HOST).unwrap_or("localhost"));
    let lower: Vec<String> = segments.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let names: Vec<&str> = lower.iter().map(String::as_str).collect();
    let Ok(body) = axum::body::to_bytes(body, MAX_READ).await else {
        return error(
            &world,
            &parts.headers,
            &refuse(413, "RequestEntityTooLarge", "The request is too large."),
        );
    };
    match names.as_slice() {
        ["_control", ..] => crate::control::handle(world, &parts, &segments[1..], body).await,
        ["_upload", _] => upload::handle(&world, &parts, &segments[1], &base, body),
        [_, "oauth2", "v2.0", "token"] if parts.method == Method::POST => {
            let (status, body) = crate::token::answer(&world, &segments[0], &form(&body), &base);
            plain(status, "application/json; charset=utf-8", body)
        }
        ["v1.0", ..] => {
            let arrival = Arrival { parts, segments: segments[1..].to_vec(), base, body };
            graph(&world, connection, arrival).await
        }
        [host, rest @ ..] if host.starts_with('_') => {
            let path = &segments[segments.len() - rest.len()..];
            outside(&world, &host[1..], Outside { connection, parts: &parts, path, base: &base, body }).await
        }
        _ => error(&world, &parts.headers, &no_such_host()),
    }
}

/// A call to a host that a workload has beside Graph.
pub(crate) struct Outside<'a> {
    pub connection: Connection,
    pub parts: &'a http::request::Parts,
    /// What follows the host.
    pub path: &'a [String],
    pub base: &'a str,
    pub body: Bytes,
}

async fn outside(world: &Arc<World>, name: &str, call: Outside<'_>) -> Response {
    let Some(workload) = crate::workloads::find(name) else {
        return error(world, &call.parts.headers, &no_such_host());
    };
    delay(&world.options()).await;
    let headers = &call.parts.headers;
    workload.outside(world, &call).unwrap_or_else(|refusal| error(world, headers, &refusal))
}

/// The answer where nobody is.
pub(crate) fn no_such_host() -> Refusal {
    refuse(404, "ResourceNotFound", "Resource not found.")
}

async fn delay(options: &SimOptions) {
    if options.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(options.latency_ms)).await;
    }
}

struct Arrival {
    parts: http::request::Parts,
    /// Without `v1.0`, decoded.
    segments: Vec<String>,
    base: String,
    body: Bytes,
}

async fn graph(world: &Arc<World>, connection: Connection, arrival: Arrival) -> Response {
    let method = arrival.parts.method.clone();
    let headers = arrival.parts.headers.clone();
    let path = address::described(&arrival.segments);
    let options = world.options();
    let luck = world.faults.luck(options.faults.seed, method.as_str(), arrival.parts.uri.path());
    if let Some(response) = broken(world, &connection, &luck) {
        return response;
    }
    let (reply, flight) = match admission::prepare(world, arrival, luck) {
        Err(refusal) => (Err(refusal), None),
        Ok((call, flight)) => {
            delay(&options).await;
            ((call.route.handler)(&call), flight)
        }
    };
    if method != Method::GET {
        lose_answer(world, &connection, &luck);
    }
    let cut = luck.strikes("truncate", options.faults.rate_truncate);
    finish(world, &headers, Finish { method: &method, path: &path, cut }, reply, flight)
}

/// Resets the connection although everything was done.
pub(crate) fn lose_answer(world: &World, connection: &Connection, luck: &Luck) {
    if luck.strikes("lost answer", world.options().faults.rate_lost_answer) {
        world.counters.fault("lost_answer");
        connection.kill();
    }
}

/// What goes wrong before a call gets anywhere.
pub(crate) fn broken(world: &World, connection: &Connection, luck: &Luck) -> Option<Response> {
    let faults = &world.options().faults;
    if luck.strikes("reset", faults.rate_reset) {
        world.counters.fault("reset");
        connection.kill();
        return Some(plain(500, "text/plain", Vec::new()));
    }
    if luck.strikes("503", faults.rate_503) {
        world.counters.fault("503");
        let html = b"<html><body><h1>Service unavailable</h1></body></html>".to_vec();
        return Some(match luck.salt("503 form") % 3 {
            0 => plain(503, "text/plain", Vec::new()),
            1 => plain(503, "text/html", html),
            _ => error(world, &HeaderMap::new(), &refuse(503, "serviceNotAvailable", "Service unavailable.")),
        });
    }
    if luck.strikes("504", faults.rate_504) {
        world.counters.fault("504");
        return Some(plain(504, "text/html", b"<html><body>Gateway timeout</body></html>".to_vec()));
    }
    None
}
