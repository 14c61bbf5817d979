//! What stands before every call: the token, the route, the limits, the roles.
//!
//! Invariant: a call is counted and charged before it is known whether it may be made.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde_json::Value;

use crate::faults::Luck;
use crate::http::{Arrival, Call, MAX_JSON, MAX_READ, Refusal, address, bandwidth, refuse};
use crate::ids::Form;
use crate::limits::{Cost, Flight, Scope};
use crate::options::SimOptions;
use crate::query::Query;
use crate::token::Claims;
use crate::workloads::Workload;
use crate::workloads::backend::Subject;
use crate::workloads::route::{self, Found};
use crate::world::World;

/// Authenticates, counts, admits.
pub(super) fn prepare(
    world: &Arc<World>,
    arrival: Arrival,
    luck: Luck,
) -> Result<(Call, Option<Flight>), Refusal> {
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
    let Subject { user, scope } = workload.backend().subject(world, &options, &params)?;
    let name = user.map_or("directory", |user| &world.people.user(user).user_principal_name);
    world.counters.request(name, route.kind);
    world.counters.with(|all| all.upload_bytes += body.len() as u64);
    let flight = match scope {
        Some(scope) => {
            let units = route.weight.units(&query);
            let cost = Cost { units, takes_place: true, ..Cost::of(&luck, body.len() as u64) };
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
    let most = if call.route.takes_content { MAX_READ } else { MAX_JSON };
    if call.body.len() > most {
        return Err(refuse(413, "RequestEntityTooLarge", "The request is too large."));
    }
    Ok((call, flight))
}

/// Lets a call in, or refuses it by the limits or by decree of the fault options.
pub(crate) fn admit(
    world: &World,
    options: &SimOptions,
    app: &str,
    scope: Scope,
    cost: &Cost,
    luck: &Luck,
) -> Result<Flight, Refusal> {
    let clock = &*world.clock;
    if scope == Scope::SharePoint && luck.strikes("509", options.faults.rate_509) {
        world.counters.fault("509");
        return Err(bandwidth().header("retry-after", "1"));
    }
    let refused = match world.limits.admit(&options.limits, clock, app, scope, cost) {
        Ok(flight) => {
            if !luck.strikes("429", options.faults.rate_429) {
                world.counters.with(|all| {
                    let most = all.max_in_flight.entry(scope.name(world).into()).or_default();
                    *most = (*most).max(u64::from(flight.together));
                    all.resource_units += if scope == Scope::SharePoint { cost.units } else { 0 };
                });
                return Ok(flight);
            }
            world.counters.fault("429");
            drop(flight);
            world.limits.refuse(clock, app, scope, cost.salt)
        }
        Err(refused) => refused,
    };
    let (early, reason) = (u64::from(refused.early), refused.reason.name());
    let refusal = Refusal::from(refused);
    world.counters.with(|all| {
        all.throttled_429 += u64::from(refusal.status == 429);
        all.early_after_429 += early;
        *all.throttled.entry(scope.name(world).into()).or_default().entry(reason.into()).or_default() += 1;
    });
    Err(refusal)
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
    let path = address::described(segments);
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
