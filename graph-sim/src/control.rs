//! `/_control`: what tests and the demo do to the tenant behind Graph's back. No authentication.
//!
//! `truth` and `evolve` take a `workload` and mean mail when none is named; `wipe` and `expire-delta` then mean all.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::Method;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::evolve::{Evolution, Unknown, evolve};
use crate::http::plain;
use crate::options::SimOptions;
use crate::query::Query;
use crate::workloads::{self, Slice, Workload};
use crate::world::World;

/// Options that change while it runs; the population does not.
const CHANGEABLE: [&str; 14] = [
    "limits",
    "latency-ms",
    "token-lifetime-seconds",
    "page-size-default",
    "page-size-max",
    "attachments-on-non-drafts",
    "attachment-overhead",
    "per-calendar-delta",
    "download-url-seconds",
    "content-host",
    "drive-quota-bytes",
    "external-sharing",
    "recoverable-items",
    "faults",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForUser {
    user: String,
    /// None = all of them.
    workload: Option<String>,
}

enum Problem {
    BadRequest(String),
    NoSuchUser(String),
    NoSuchWorkload(String),
    NotFound,
}

impl From<Unknown> for Problem {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::User(name) => Self::NoSuchUser(name),
            Unknown::Workload(name) => Self::NoSuchWorkload(name),
        }
    }
}

/// Answers a control call; heavy ones run off the async threads.
pub(crate) async fn handle(world: Arc<World>, parts: &Parts, path: &[String], body: Bytes) -> Response {
    let name = path.join("/");
    let method = parts.method.clone();
    let query = Query::parse(parts.uri.query());
    let answered = tokio::task::spawn_blocking(move || answer(&world, &method, &name, &query, &body)).await;
    match answered.expect("control calls do not panic") {
        Ok(body) => plain(200, "application/json", body),
        Err(problem) => {
            let (status, text) = match problem {
                Problem::BadRequest(text) => (400, text),
                Problem::NoSuchUser(user) => (404, format!("no such user: {user}")),
                Problem::NoSuchWorkload(name) => (404, format!("no such workload: {name}")),
                Problem::NotFound => (404, "no such control call".into()),
            };
            plain(status, "application/json", json!({"error": text}).to_string().into_bytes())
        }
    }
}

fn answer(
    world: &World,
    method: &Method,
    name: &str,
    query: &Query,
    body: &Bytes,
) -> Result<Vec<u8>, Problem> {
    let post = *method == Method::POST;
    match name {
        "users" if !post => Ok(encode(&world.people.users().collect::<Vec<_>>())),
        "counters" if !post => Ok(encode(&world.counters.snapshot())),
        "options" if !post => {
            let mut shown = (*world.options()).clone();
            for app in &mut shown.apps {
                app.client_secret = None;
            }
            Ok(encode(&shown))
        }
        "truth" if !post => list_truth(world, query),
        "evolve" if post => {
            let evolution: Evolution = decode(body)?;
            Ok(encode(&evolve(world, &evolution)?))
        }
        "wipe" if post => {
            let (user, workloads) = addressed(world, body)?;
            let gone: serde_json::Map<String, Value> = workloads
                .iter()
                .filter_map(|workload| {
                    Some((workload.items().to_owned(), workload.wipe(world, user)?.into()))
                })
                .collect();
            world.blobs.collect();
            Ok(encode(&gone))
        }
        "reset-counters" if post => {
            world.counters.reset();
            world.faults.reset();
            Ok(b"{}".to_vec())
        }
        "options" if post => change_options(world, decode(body)?),
        "expire-tokens" if post => {
            world.tokens.expire_all();
            Ok(b"{}".to_vec())
        }
        "expire-delta" if post => {
            let (user, workloads) = addressed(world, body)?;
            workloads.iter().for_each(|workload| workload.expire_delta(world, user));
            Ok(b"{}".to_vec())
        }
        _ => Err(Problem::NotFound),
    }
}

fn change_options(world: &World, change: Value) -> Result<Vec<u8>, Problem> {
    let bad = |error: serde_json::Error| Problem::BadRequest(error.to_string());
    let fixed =
        change.as_object().and_then(|change| change.keys().find(|name| !CHANGEABLE.contains(&name.as_str())));
    if let Some(name) = fixed {
        return Err(Problem::BadRequest(format!("{name} does not change while the simulator runs")));
    }
    let mut options = serde_json::to_value(&*world.options()).map_err(bad)?;
    merge(&mut options, change);
    let options: SimOptions = serde_json::from_value(options).map_err(bad)?;
    world.set_options(options);
    Ok(b"{}".to_vec())
}

fn list_truth(world: &World, query: &Query) -> Result<Vec<u8>, Problem> {
    let name = query.get("user").ok_or_else(|| Problem::BadRequest("user is missing".into()))?;
    let user = world.people.find(name).ok_or_else(|| Problem::NoSuchUser(name.into()))?;
    let skip = query.number("skip").map_err(Problem::BadRequest)?.unwrap_or(0);
    let top = query.number("top").map_err(Problem::BadRequest)?.unwrap_or(usize::MAX);
    let with_body = query.get("body").is_some_and(|value| value == "1" || value == "true");
    let workload = workload(query.get("workload").unwrap_or(workloads::DEFAULT))?;
    Ok(encode(&workload.truth(world, user, &Slice { skip, top, with_body })))
}

fn workload(name: &str) -> Result<&'static dyn Workload, Problem> {
    workloads::find(name).ok_or_else(|| Problem::NoSuchWorkload(name.into()))
}

/// Whom and what a call is about.
fn addressed(world: &World, body: &Bytes) -> Result<(u32, Vec<&'static dyn Workload>), Problem> {
    let ForUser { user, workload: name } = decode(body)?;
    let number = world.people.find(&user).ok_or(Problem::NoSuchUser(user))?;
    let workloads = match name {
        Some(name) => vec![workload(&name)?],
        None => workloads::ALL.to_vec(),
    };
    Ok((number, workloads))
}

fn decode<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::BadRequest(error.to_string()))
}

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("control answers are json")
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (name, value) in change {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}
