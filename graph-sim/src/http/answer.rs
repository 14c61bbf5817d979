//! The shape of answers and errors.
//!
//! Invariant: every JSON answer is checked against Microsoft's description, where that is at hand.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use crate::http::body::{Outgoing, Reader};
use crate::http::{Answer, Refusal, Reply};
use crate::limits::{Flight, Left};
use crate::world::World;

const JSON_TYPE: &str =
    "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8";

/// How an answer is given.
pub(super) struct Finish<'a> {
    pub method: &'a Method,
    /// As Microsoft describes it.
    pub path: &'a str,
    /// Whether its body breaks off.
    pub cut: bool,
}

/// Makes the answer of a call.
pub(super) fn finish(
    world: &Arc<World>,
    headers: &HeaderMap,
    how: Finish<'_>,
    reply: Answer,
    flight: Option<Flight>,
) -> Response {
    let left = flight.as_ref().and_then(|flight| flight.left);
    let mut response = body_of(world, headers, how, reply, flight);
    if let Some(left) = left {
        say_left(&mut response, &left);
    }
    identify(world, headers, &mut response);
    response
}

/// What SharePoint says once little is left.
pub(crate) fn say_left(response: &mut Response, left: &Left) {
    set(response, "ratelimit-limit", &left.limit.to_string());
    set(response, "ratelimit-remaining", &left.remaining.to_string());
    set(response, "ratelimit-reset", &left.reset_seconds.to_string());
}

fn body_of(
    world: &Arc<World>,
    headers: &HeaderMap,
    how: Finish<'_>,
    reply: Answer,
    flight: Option<Flight>,
) -> Response {
    let (status, kind, reader, length) = match reply {
        Err(refusal) => {
            check_response(world, &how, refusal.status, &error_body(world, headers, &refusal));
            return refused(world, headers, &refusal);
        }
        Ok(Reply::Empty(status)) => return plain(status, "text/plain", Vec::new()),
        Ok(Reply::Located(location)) => return located(201, &location),
        Ok(Reply::Redirect(location)) => return located(302, &location),
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
    response
}

fn located(status: u16, location: &str) -> Response {
    let mut response = plain(status, "text/plain", Vec::new());
    set(&mut response, "location", location);
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
    let mut inner = json!({
        "date": crate::json::timestamp(world.clock.now_ms()),
        "request-id": request_id(number),
        "client-request-id": client,
    });
    if let Some(code) = refusal.inner {
        inner["code"] = code.into();
    }
    let body = json!({"error": {"code": refusal.code, "message": refusal.message, "innerError": inner}});
    body.to_string().into_bytes()
}

fn request_id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// An error answer in Graph's form.
pub(crate) fn error(world: &World, headers: &HeaderMap, refusal: &Refusal) -> Response {
    let mut response = refused(world, headers, refusal);
    identify(world, headers, &mut response);
    response
}

fn refused(world: &World, headers: &HeaderMap, refusal: &Refusal) -> Response {
    let mut response = plain(refusal.status, JSON_TYPE, error_body(world, headers, refusal));
    for (name, value) in &refusal.headers {
        set(&mut response, name, value);
    }
    if refusal.status == 401 {
        set(&mut response, "www-authenticate", "Bearer realm=\"\", error=\"invalid_token\"");
    }
    response
}

/// Names the request.
pub(crate) fn identify(world: &World, headers: &HeaderMap, response: &mut Response) {
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
