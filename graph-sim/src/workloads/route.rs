//! Which call a path is.
//!
//! Invariant: literals compare without case, ids with it; of two patterns that fit, the one with more literals wins,
//! so `delta` is never taken for an id.

use std::sync::OnceLock;

use http::Method;

use crate::http::{Answer, Call, Refusal, refuse};
use crate::query::Query;
use crate::workloads::{ALL, Workload};

/// What answers a call.
pub(crate) type Handler = fn(&Call) -> Answer;

/// A method Graph knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    Post,
    Patch,
    Put,
    Delete,
}

impl Verb {
    fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET => Some(Self::Get),
            Method::POST => Some(Self::Post),
            Method::PATCH => Some(Self::Patch),
            Method::PUT => Some(Self::Put),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }
}

/// One kind of call: a method, a path, and who answers.
pub(crate) struct Route {
    verb: Verb,
    /// In lower case; `{name}` takes any one segment.
    pattern: Vec<String>,
    /// The name it is counted by.
    pub kind: &'static str,
    pub handler: Handler,
    /// Roles that let an app in, when they are not the workload's.
    pub roles: Option<&'static [&'static str]>,
    /// What it costs SharePoint.
    pub weight: Weight,
    /// Whether its body may be content, which is larger than JSON.
    pub takes_content: bool,
}

/// What a call costs where resource units are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// One item, or content.
    Single,
    /// A list, or anything that writes.
    Listing,
    /// A list without a token, a single item with one.
    Delta,
    Permissions,
}

impl Weight {
    /// Resource units.
    pub(crate) fn units(self, query: &Query) -> u64 {
        let has_token = query.get("token").is_some_and(|token| !token.eq_ignore_ascii_case("latest"));
        match self {
            Self::Permissions => 5,
            _ if query.get("$expand").is_some_and(|expand| expand.contains("permissions")) => 5,
            Self::Single => 1,
            Self::Delta if has_token => 1,
            Self::Listing | Self::Delta => 2,
        }
    }
}

impl Route {
    pub(crate) fn get(path: &str, kind: &'static str, handler: Handler) -> Self {
        Self::new(Verb::Get, path, kind, handler)
    }

    pub(crate) fn post(path: &str, kind: &'static str, handler: Handler) -> Self {
        Self::new(Verb::Post, path, kind, handler)
    }

    pub(crate) fn patch(path: &str, kind: &'static str, handler: Handler) -> Self {
        Self::new(Verb::Patch, path, kind, handler)
    }

    pub(crate) fn put(path: &str, kind: &'static str, handler: Handler) -> Self {
        Self::new(Verb::Put, path, kind, handler)
    }

    pub(crate) fn delete(path: &str, kind: &'static str, handler: Handler) -> Self {
        Self::new(Verb::Delete, path, kind, handler)
    }

    fn new(verb: Verb, path: &str, kind: &'static str, handler: Handler) -> Self {
        let lower = |segment: &str| {
            if segment.starts_with('{') { segment.to_owned() } else { segment.to_ascii_lowercase() }
        };
        let pattern = path.split('/').map(lower).collect();
        let weight = if verb == Verb::Get { Weight::Single } else { Weight::Listing };
        Self { verb, pattern, kind, handler, roles: None, weight, takes_content: false }
    }

    /// Costs something else than its method says.
    pub(crate) fn weighs(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }

    /// Takes content.
    pub(crate) fn with_content(self) -> Self {
        Self { takes_content: true, ..self }
    }

    /// Lets other roles in than the workload's.
    pub(crate) fn with_roles(mut self, roles: &'static [&'static str]) -> Self {
        self.roles = Some(roles);
        self
    }

    /// The number of literal segments, when the path fits.
    fn fits(&self, lower: &[String]) -> Option<usize> {
        if self.pattern.len() != lower.len() {
            return None;
        }
        let mut literals = 0;
        for (wanted, given) in self.pattern.iter().zip(lower) {
            if wanted.starts_with('{') {
                continue;
            }
            if wanted != given {
                return None;
            }
            literals += 1;
        }
        Some(literals)
    }

    fn params(&self, segments: &[String]) -> Params {
        let named = self.pattern.iter().zip(segments).filter_map(|(wanted, given)| {
            let name = wanted.strip_prefix('{')?.strip_suffix('}')?;
            Some((name.to_owned(), given.clone()))
        });
        Params(named.collect())
    }
}

/// The ids a path names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A call that was understood.
pub(crate) struct Found {
    pub workload: &'static dyn Workload,
    pub route: &'static Route,
    pub params: Params,
}

fn all() -> &'static [(&'static dyn Workload, Route)] {
    static ROUTES: OnceLock<Vec<(&'static dyn Workload, Route)>> = OnceLock::new();
    ROUTES.get_or_init(|| {
        let of = |workload: &&'static dyn Workload| {
            let workload = *workload;
            workload.routes().into_iter().map(move |route| (workload, route))
        };
        ALL.iter().flat_map(of).collect()
    })
}

/// Finds the call; `segments` are decoded and start with `users`.
pub(crate) fn find(method: &Method, segments: &[String]) -> Result<Found, Refusal> {
    let lower: Vec<String> = segments
        .iter()
        .map(|segment| segment.to_ascii_lowercase())
        .map(|segment| segment.strip_suffix("()").map_or(segment.clone(), ToOwned::to_owned))
        .collect();
    let fitting: Vec<_> =
        all().iter().filter_map(|(workload, route)| Some((route.fits(&lower)?, *workload, route))).collect();
    let most = fitting.iter().map(|(literals, ..)| *literals).max().ok_or_else(|| unknown(segments))?;
    let verb = Verb::of(method);
    let best = fitting.into_iter().find(|(literals, _, route)| *literals == most && Some(route.verb) == verb);
    let (_, workload, route) = best.ok_or_else(|| {
        refuse(405, "Request_BadRequest", format!("The method {method} is not allowed here."))
    })?;
    Ok(Found { workload, route, params: route.params(segments) })
}

fn unknown(segments: &[String]) -> Refusal {
    let last = segments.last().map_or("", String::as_str);
    refuse(400, "BadRequest", format!("Resource not found for the segment '{last}'."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(method: &Method, path: &str) -> Result<&'static str, u16> {
        let segments: Vec<String> = path.split('/').map(ToOwned::to_owned).collect();
        find(method, &segments).map(|found| found.route.kind).map_err(|refusal| refusal.status)
    }

    #[test]
    fn the_pattern_with_more_literals_wins() {
        assert_eq!(kind(&Method::GET, "users/delta"), Ok("user_delta"));
        assert_eq!(kind(&Method::GET, "Users/Somebody"), Ok("user_get"));
        assert_eq!(kind(&Method::GET, "users/u/mailFolders/delta()"), Ok("folder_delta"));
        assert_eq!(kind(&Method::GET, "users/u/MAILFOLDERS/delta/messages"), Ok("message_list"));
        assert_eq!(kind(&Method::PUT, "users/u/mailFolders"), Err(405));
        assert_eq!(kind(&Method::GET, "users/u/nonsense"), Err(400));
    }

    #[test]
    fn no_two_routes_are_the_same_call() {
        let mut seen = std::collections::HashSet::new();
        for (workload, route) in all() {
            let shape: Vec<&str> =
                route.pattern.iter().map(|one| if one.starts_with('{') { "{}" } else { one }).collect();
            assert!(
                seen.insert((format!("{:?}", route.verb), shape.join("/"))),
                "{}: {shape:?}",
                workload.name()
            );
        }
    }
}
