//! Checks requests against Microsoft's own description of Graph, where that file is at hand: paths, methods, query names, what
//! is selected, and the names in bodies.

use std::{collections::HashMap, path::PathBuf};

use reqwest::Url;
use serde_json::Value;

use super::Seen;

const VARIABLE: &str = "HOLDFAST_OPENAPI";

/// Never an id: else a path that does not exist would pass as one that does.
const RESERVED: [&str; 5] = ["delta", "$value", "$count", "$ref", "createUploadSession"];

/// Issued by Graph in its own links, or taken by documented calls that the description lacks.
const EXTRA_QUERIES: [&str; 5] =
    ["$skiptoken", "$deltatoken", "token", "includeHiddenFolders", "@microsoft.graph.conflictBehavior"];

/// What is wrong with the calls to Graph among these; none where the description is not at hand.
pub(crate) fn not_described(seen: &[Seen]) -> Vec<String> {
    let path = std::env::var_os(VARIABLE).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/graph/openapi-subset.json"),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read(&path) else {
        println!("not checked: no openapi description at {}", path.display());
        return Vec::new();
    };
    let document: Value = serde_json::from_slice(&text).unwrap();
    seen.iter().filter_map(|call| check(&document, call)).collect()
}

fn check(document: &Value, call: &Seen) -> Option<String> {
    let path = call.uri.path().strip_prefix("/v1.0")?;
    let (method, given) = (call.method.as_str().to_lowercase(), split(path));
    let templates = document["paths"].as_object().unwrap();
    let found = templates.iter().filter_map(|(template, item)| Some((fit(&split(template), &given)?, item)));
    let wrong = |what: &str| Some(format!("{method} {path}: {what}"));
    let Some((_, item)) = found.max_by_key(|(literals, _)| *literals) else {
        let documented = document.pointer("/info/x-documented-only").and_then(Value::as_array).unwrap();
        let is_documented = documented.iter().filter_map(Value::as_str).any(|rule| {
            let Some((methods, rest)) = rule.split_once(" /") else { return false };
            let template = split(rest.split_whitespace().next().unwrap_or_default());
            let is_method = methods.split(", ").any(|known| known.eq_ignore_ascii_case(&method));
            // One rule stands for every colon path; the contract adds the commit of an upload to those that read.
            let is_read_or_commit = matches!(method.as_str(), "get" | "put");
            let is_colon =
                rest.contains("every other colon path") && path.contains(":/") && is_read_or_commit;
            is_colon || is_method && fit(&template, &given).is_some()
        });
        return if is_documented { None } else { wrong("the path is not described") };
    };
    let Some(operation) = item.get(&method) else { return wrong("the method is not described") };
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let known = |name: &str| {
        let described = parameters.iter().filter_map(|parameter| parameter["name"].as_str());
        described.chain(EXTRA_QUERIES).any(|known| known == name)
    };
    let pairs = call.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let names: Vec<_> = pairs.map(|pair| pair.split('=').next().unwrap().to_owned()).collect();
    if let Some(name) = names.iter().find(|name| !known(name)) {
        return wrong(&format!("{name} is not described"));
    }
    let required =
        parameters.iter().filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
    let missing = required.filter_map(|parameter| parameter["name"].as_str()).find(|name| {
        let is_link = names.iter().any(|given| given.ends_with("token"));
        !is_link && !names.iter().any(|given| given == name)
    });
    if let Some(name) = missing {
        return wrong(&format!("{name} is required"));
    }
    let schemas = Schemas(document);
    let query: HashMap<_, _> =
        Url::parse(&format!("http://x{}", call.uri)).unwrap().query_pairs().into_owned().collect();
    let answer = schemas.resolve(&operation["responses"]["2XX"]["content"]["application/json"]["schema"]);
    let object = match schemas.properties(answer).get("value") {
        Some(list) => schemas.resolve(&list["items"]),
        None => answer,
    };
    let selected = query.get("$select").into_iter().flat_map(|names| names.split(','));
    let expanded = query.get("$expand").into_iter().map(|name| name.split('(').next().unwrap_or_default());
    // A cast is a type's name.
    let named = selected.chain(expanded).filter(|name| !name.starts_with("microsoft.graph."));
    let properties = schemas.properties(object);
    if let Some(name) =
        named.into_iter().find(|name| !properties.is_empty() && !properties.contains_key(*name))
    {
        return wrong(&format!("{name} is not a property"));
    }
    let sent: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let wanted = &operation["requestBody"]["content"]["application/json"]["schema"];
    schemas.unknown(wanted, &sent).and_then(|name| wrong(&format!("{name} is not a property of the body")))
}

struct Schemas<'a>(&'a Value);

impl<'a> Schemas<'a> {
    /// Follows references, also those that are one of several and not "or null".
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        for _ in 0..16 {
            let several =
                schema["anyOf"].as_array().and_then(|all| all.iter().find(|one| one.get("$ref").is_some()));
            let reference = several.unwrap_or(schema)["$ref"].as_str().and_then(|at| at.strip_prefix('#'));
            match reference.and_then(|at| self.0.pointer(at)) {
                Some(target) => schema = target,
                None => return schema,
            }
        }
        schema
    }

    /// The type that an object says it is of.
    fn named(&self, name: &str) -> Option<&'a Value> {
        self.0["components"]["schemas"].get(name.trim_start_matches('#'))
    }

    /// The properties of a type and of those it is made from.
    fn properties(&self, schema: &'a Value) -> HashMap<&'a str, &'a Value> {
        let schema = self.resolve(schema);
        let parents = schema["allOf"].as_array().into_iter().flatten();
        let mut all: HashMap<_, _> = parents.flat_map(|parent| self.properties(parent)).collect();
        all.extend(
            schema["properties"].as_object().into_iter().flatten().map(|(name, one)| (name.as_str(), one)),
        );
        all
    }

    /// A name in a body that its type does not have; a type of which nothing is known takes everything.
    fn unknown(&self, schema: &'a Value, sent: &Value) -> Option<String> {
        let known = self.properties(schema);
        if let Some(items) = sent.as_array() {
            return items.iter().find_map(|item| self.unknown(&self.resolve(schema)["items"], item));
        }
        let known = match sent["@odata.type"].as_str().and_then(|name| self.named(name)) {
            Some(subtype) => self.properties(subtype),
            None => known,
        };
        let sent = sent.as_object().filter(|_| !known.is_empty())?;
        sent.iter().filter(|(name, _)| !name.starts_with('@')).find_map(|(name, value)| {
            match known.get(name.as_str()) {
                Some(schema) => self.unknown(schema, value),
                None => Some(name.clone()),
            }
        })
    }
}

fn split(path: &str) -> Vec<String> {
    path.trim_matches('/').split('/').map(|segment| segment.trim_end_matches("()").to_owned()).collect()
}

/// How many segments are the template's own words, when the path fits.
fn fit(template: &[String], path: &[String]) -> Option<usize> {
    if template.len() != path.len() {
        return None;
    }
    let mut literals = 0;
    for (wanted, given) in template.iter().zip(path) {
        let is_id = wanted.starts_with('{');
        if is_id && (given.is_empty() || RESERVED.contains(&given.as_str())) {
            return None;
        }
        // `{name}:` begins or ends a path by name.
        if is_id && wanted.ends_with(':') != given.ends_with(':') {
            return None;
        }
        if !is_id && !wanted.eq_ignore_ascii_case(given) {
            return None;
        }
        literals += usize::from(!is_id);
    }
    Some(literals)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn call(method: &str, uri: &str, body: &str) -> Seen {
        Seen {
            method: method.parse().unwrap(),
            uri: uri.parse().unwrap(),
            headers: axum::http::HeaderMap::new(),
            body: body.to_owned().into(),
            at: Instant::now(),
        }
    }

    #[test]
    fn what_microsoft_does_not_describe_is_found() {
        let good = [
            call("GET", "/v1.0/users/u/contacts/c?$select=displayName", ""),
            call("POST", "/v1.0/drives/d/items/i/invite", r#"{"recipients":[{"objectId":"x"}]}"#),
            call("PUT", "/elsewhere", ""),
        ];
        assert_eq!(not_described(&good), Vec::<String>::new());
        let bad = [
            call("GET", "/v1.0/users/u/messages/delta", ""),
            call("DELETE", "/v1.0/users/u/contacts", ""),
            call("GET", "/v1.0/users/u/contacts?$selct=id", ""),
            call("GET", "/v1.0/users/u/contacts?$select=id,photograph", ""),
            call("GET", "/v1.0/users/u/calendarView/delta?startDateTime=x", ""),
            call("POST", "/v1.0/drives/d/items/i/invite", r#"{"recipients":[{"objectid":"x"}]}"#),
        ];
        let found = not_described(&bad);
        // Nothing is found where the description is not at hand.
        assert!(found.len() == bad.len() || found.is_empty(), "{found:?}");
    }
}
