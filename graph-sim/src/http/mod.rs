//! Graph over HTTP: authentication, limits, faults, dispatch, and the shape of answers and errors.
//!
//! Invariant: a request holds its place in flight from admission until the last byte of its answer is handed over.

mod body;
pub(crate) mod upload;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::faults::Luck;
use crate::http::body::{Outgoing, Reader};
use crate::ids::{Form, Missing};
use crate::limits::{Cost, Flight, Reason, Scope, Throttled};
use crate::options::SimOptions;
use crate::query::{Query, decode, form};
use crate::serve::Connection;
use crate::token::Claims;
use crate::workloads::Workload;
use crate::workloads::backend::Subject;
use crate::workloads::mail::create::Invalid;
use crate::workloads::mail::mime::Mime;
use crate::workloads::route::{self, Found, Params, Route};
use crate::world::World;

/// What is read of a request at most, so that a client learns of the refusal instead of a broken pipe.
const MAX_READ: usize = 48 * 1024 * 1024;
/// What Graph takes in one JSON request.
const MAX_JSON: usize = 4 * 1024 * 1024;
const JSON_TYPE: &str =
    "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8";

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
}

/// An error answer.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
    pub retry_after: Option<String>,
}

pub(crate) fn refuse(status: u16, code: &str, message: impl Into<String>) -> Refusal {
    Refusal { status, code: code.into(), message: message.into(), retry_after: None }
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
        let (code, message) = match throttled.reason {
            Reason::Concurrency => {
                ("ApplicationThrottled", "Application is over its MailboxConcurrency limit.")
            }
            Reason::Window | Reason::Upload => {
                ("activityLimitReached", "The app exceeded a limit of the mailbox.")
            }
            Reason::StillBlocked | Reason::Fault => ("TooManyRequests", "Too many requests."),
        };
        Self { status: 429, code: code.into(), message: message.into(), retry_after: throttled.retry_after }
    }
}

pub(crate) type Answer = Result<Reply, Refusal>;

/// Answers any request.
pub(crate) async fn handle(world: Arc<World>, connection: Connection, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let segments: Vec<String> =
        parts.uri.path().split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let base = format!("http://{host}");
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
        _ => error(&world, &parts.headers, &refuse(404, "ResourceNotFound", "Resource not found.")),
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
    let template = format!("/{}", arrival.segments.join("/"));
    let luck = world.faults.luck(world.options().faults.seed, method.as_str(), arrival.parts.uri.path());
    if world.options().faults.rate_reset > 0.0 && luck.strikes("reset", world.options().faults.rate_reset) {
        world.counters.fault("reset");
        connection.kill();
        return plain(500, "text/plain", Vec::new());
    }
    if let Some(response) = gateway_fault(world, &luck) {
        return response;
    }
    let (reply, flight) = match prepare(world, arrival, luck) {
        Err(refusal) => (Err(refusal), None),
        Ok((call, flight)) => {
            if call.options.latency_ms > 0 {
                tokio::time::sleep(Duration::from_millis(call.options.latency_ms)).await;
            }
            ((call.route.handler)(&call), flight)
        }
    };
    let cut = luck.strikes("truncate", world.options().faults.rate_truncate);
    finish(world, &headers, Finish { method: &method, path: &template, cut }, reply, flight)
}

fn gateway_fault(world: &World, luck: &Luck) -> Option<Response> {
    let faults = &world.options().faults;
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

/// Authenticates, counts, admits.
fn prepare(world: &Arc<World>, arrival: Arrival, luck: Luck) -> Result<(Call, Option<Flight>), Refusal> {
    let options = world.options();
    let Arrival { parts, segments, base, body } = arrival;
    let query = Query::parse(parts.uri.query());
    check_request(world, &parts.method, &segments, &query, &body, &parts.headers);
    let claims = authenticate(world, &parts.headers)?;
    if luck.strikes("401", options.faults.rate_401) {
        world.counters.fault("401");
        return Err(refuse(
            401,
            "InvalidAuthenticationToken",
            "Access token has expired or is not yet valid.",
        ));
    }
    let Found { workload, route, params } = route::find(&parts.method, &segments)?;
    let Subject { user, scope } = workload.backend().subject(world, &options, params.get("user"))?;
    let scope_name = scope.map_or("directory", |scope| scope.name(world));
    world.counters.request(scope_name, route.kind);
    world.counters.with(|all| all.upload_bytes += body.len() as u64);
    let flight = match scope {
        Some(scope) => {
            let cost = Cost { upload_bytes: body.len() as u64, salt: salt(&luck), takes_place: true };
            Some(admit(world, &options, &claims.appid, scope, &cost, &luck)?)
        }
        None => None,
    };
    let preferences = Preferences::of(&parts.headers);
    let is_json = content_type(&parts.headers).is_none_or(|kind| kind.contains("json"));
    let call = Call {
        world: Arc::clone(world),
        options,
        method: parts.method,
        route,
        params,
        query,
        headers: parts.headers,
        body,
        is_json,
        base,
        path: parts.uri.path().to_owned(),
        luck,
        form: preferences.form,
        page_size: preferences.page_size,
        time_zone: preferences.time_zone,
        user: user.unwrap_or(0),
        scope,
        claims,
    };
    authorize(&call, workload)?;
    if call.body.len() > MAX_JSON {
        return Err(refuse(413, "RequestEntityTooLarge", "The request is too large."));
    }
    Ok((call, flight))
}

fn salt(luck: &Luck) -> u64 {
    luck.salt("429") ^ u64::from(luck.call)
}

fn admit(
    world: &World,
    options: &SimOptions,
    app: &str,
    scope: Scope,
    cost: &Cost,
    luck: &Luck,
) -> Result<Flight, Refusal> {
    let clock = &*world.clock;
    let refused = match world.limits.admit(&options.limits, clock, app, scope, cost) {
        Ok(flight) => {
            if !luck.strikes("429", options.faults.rate_429) {
                world.counters.with(|all| {
                    let most = all.max_in_flight.entry(scope.name(world).into()).or_default();
                    *most = (*most).max(u64::from(flight.together));
                });
                return Ok(flight);
            }
            world.counters.fault("429");
            drop(flight);
            world.limits.refuse(clock, app, scope, cost.salt)
        }
        Err(refused) => refused,
    };
    world.counters.with(|all| {
        all.throttled_429 += 1;
        all.early_after_429 += u64::from(refused.early);
    });
    Err(refused.into())
}

fn authenticate(world: &World, headers: &HeaderMap) -> Result<Claims, Refusal> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| refuse(401, "InvalidAuthenticationToken", "Access token is empty."))?;
    world.tokens.check(token, world.clock.now_ms()).ok_or_else(|| {
        refuse(401, "InvalidAuthenticationToken", "Lifetime validation failed, the token is expired.")
    })
}

fn authorize(call: &Call, workload: &dyn Workload) -> Result<(), Refusal> {
    let roles = workload.roles();
    let of_method = if call.method == Method::GET { roles.read } else { roles.write };
    if call.has_role(call.route.roles.unwrap_or(of_method)) {
        return Ok(());
    }
    Err(workload.backend().access_denied())
}

/// What `Prefer` asks for.
struct Preferences {
    form: Form,
    page_size: Option<usize>,
    time_zone: Option<String>,
}

impl Preferences {
    fn of(headers: &HeaderMap) -> Self {
        let mut found = Self { form: Form::Mutable, page_size: None, time_zone: None };
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for one in values.flat_map(|value| value.split(',')) {
            let Some((name, value)) = one.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "idtype" if value.eq_ignore_ascii_case("immutableid") => found.form = Form::Immutable,
                "odata.maxpagesize" => found.page_size = value.parse().ok(),
                "outlook.timezone" => found.time_zone = Some(value.to_owned()),
                _ => {}
            }
        }
        found
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

fn check_request(
    world: &World,
    method: &Method,
    segments: &[String],
    query: &Query,
    body: &Bytes,
    headers: &HeaderMap,
) {
    let Some(openapi) = &world.openapi else { return };
    let path = format!("/{}", segments.join("/"));
    let is_json = content_type(headers).is_some_and(|kind| kind.contains("json"));
    let body: Option<Value> = if is_json { serde_json::from_slice(body).ok() } else { None };
    for violation in openapi.check_request(method.as_str(), &path, &query.names(), body.as_ref()) {
        world.counters.violation(format!("request {violation}"));
    }
    if let Some(select) = query.get("$select") {
        let names: Vec<&str> = select.split(',').map(str::trim).collect();
        for violation in openapi.check_select(method.as_str(), &path, &names) {
            world.counters.violation(format!("request {violation}"));
        }
    }
}

struct Finish<'a> {
    method: &'a Method,
    path: &'a str,
    cut: bool,
}

fn finish(
    world: &Arc<World>,
    headers: &HeaderMap,
    how: Finish<'_>,
    reply: Answer,
    flight: Option<Flight>,
) -> Response {
    let (status, kind, reader, length) = match reply {
        Err(refusal) => {
            check_response(world, &how, refusal.status, &error_body(world, headers, &refusal));
            return error(world, headers, &refusal);
        }
        Ok(Reply::Empty(status)) => {
            let mut response = plain(status, "text/plain", Vec::new());
            identify(world, headers, &mut response);
            return response;
        }
        Ok(Reply::Located(location)) => {
            let mut response = plain(201, "text/plain", Vec::new());
            set(&mut response, "location", &location);
            identify(world, headers, &mut response);
            return response;
        }
        Ok(Reply::Json(status, body)) => json_reader(world, &how, status, body),
        Ok(Reply::Created(body)) => json_reader(world, &how, 201, body),
        Ok(Reply::Mime(mime)) => {
            let length = mime.len();
            (200, "text/plain".to_owned(), Reader::mime(mime), length)
        }
        Ok(Reply::Data(data, kind)) => {
            let length = data.len();
            (200, kind, Reader::data(data), length)
        }
    };
    if how.cut {
        world.counters.fault("truncate");
    }
    let cut_at = how.cut.then_some(length / 2);
    let body = Outgoing::new(Arc::clone(world), reader, length, cut_at, flight);
    let mut response = Response::new(Body::from_stream(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    set(&mut response, "content-type", &kind);
    set(&mut response, "content-length", &length.to_string());
    identify(world, headers, &mut response);
    response
}

fn json_reader(world: &World, how: &Finish<'_>, status: u16, body: Vec<u8>) -> (u16, String, Reader, u64) {
    check_response(world, how, status, &body);
    let length = body.len() as u64;
    (status, JSON_TYPE.to_owned(), Reader::whole(body), length)
}

fn check_response(world: &World, how: &Finish<'_>, status: u16, body: &[u8]) {
    let Some(openapi) = &world.openapi else { return };
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        world.counters.violation(format!("response {} {}: the body is not json", how.method, how.path));
        return;
    };
    for violation in openapi.check_response(how.method.as_str(), how.path, status, &value) {
        world.counters.violation(format!("response {violation}"));
    }
}

fn error_body(world: &World, headers: &HeaderMap, refusal: &Refusal) -> Vec<u8> {
    let client = headers.get("client-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let number = world.requests.load(Ordering::Relaxed);
    let body = json!({"error": {
        "code": refusal.code,
        "message": refusal.message,
        "innerError": {
            "date": crate::json::timestamp(world.clock.now_ms()),
            "request-id": request_id(number),
            "client-request-id": client,
        },
    }});
    body.to_string().into_bytes()
}

fn request_id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// An error answer in Graph's form.
pub(crate) fn error(world: &World, headers: &HeaderMap, refusal: &Refusal) -> Response {
    let mut response = plain(refusal.status, JSON_TYPE, error_body(world, headers, refusal));
    if let Some(value) = &refusal.retry_after {
        set(&mut response, "retry-after", value);
    }
    if refusal.status == 401 {
        set(&mut response, "www-authenticate", "Bearer realm=\"\", error=\"invalid_token\"");
    }
    identify(world, headers, &mut response);
    response
}

fn identify(world: &World, headers: &HeaderMap, response: &mut Response) {
    let number = world.requests.fetch_add(1, Ordering::Relaxed);
    set(response, "request-id", &request_id(number));
    if let Some(id) = headers.get("client-request-id") {
        response.headers_mut().insert("client-request-id", id.clone());
    }
}

pub(crate) fn set(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = http::HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// An answer with a body in memory.
pub(crate) fn plain(status: u16, kind: &str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    set(&mut response, "content-type", kind);
    response
}
