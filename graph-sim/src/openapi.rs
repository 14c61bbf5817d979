//! Checks requests and answers against an OpenAPI description of Graph: paths, query names, bodies.
//!
//! Invariant: existence is checked, behaviour is not; a property may be missing, but never unknown, unless its type
//! is open or its name is an annotation.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

const MAX_DEPTH: usize = 24;
const METHODS: [&str; 5] = ["get", "post", "patch", "put", "delete"];
/// Never an id: else an unsupported path would pass as one.
const RESERVED: [&str; 7] =
    ["delta", "getallmessages", "$value", "$count", "$ref", "$batch", "createuploadsession"];
const LINK_QUERIES: [&str; 3] = ["$skiptoken", "$deltatoken", "token"];
const EXTRA_QUERIES: [&str; 2] = ["includeHiddenFolders", "@microsoft.graph.conflictBehavior"];

/// The description was not usable.
#[derive(Debug, thiserror::Error)]
pub enum OpenApiError {
    /// Not readable.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Not JSON.
    #[error("parse {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// JSON, but no OpenAPI.
    #[error("no paths in {path}")]
    NoPaths {
        /// The file.
        path: PathBuf,
    },
}

/// One deviation from the description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{method} {path}: {detail}")]
pub struct Violation {
    /// HTTP method.
    pub method: String,
    /// Template of the path, or the path when there is none.
    pub path: String,
    /// What is wrong, and where.
    pub detail: String,
}

/// A loaded description.
pub struct OpenApi {
    document: Value,
    paths: Vec<(Vec<String>, String)>,
    documented_only: Vec<(String, Vec<String>)>,
}

/// What a path turned out to be.
enum Match<'a> {
    Described { template: &'a str, item: &'a Value },
    DocumentedOnly,
    Nothing,
}

impl OpenApi {
    /// Reads a description.
    pub fn load(path: &Path) -> Result<Self, OpenApiError> {
        let bytes =
            std::fs::read(path).map_err(|source| OpenApiError::Read { path: path.to_path_buf(), source })?;
        let document: Value = serde_json::from_slice(&bytes)
            .map_err(|source| OpenApiError::Parse { path: path.to_path_buf(), source })?;
        let described = document
            .get("paths")
            .and_then(Value::as_object)
            .ok_or_else(|| OpenApiError::NoPaths { path: path.to_path_buf() })?;
        let paths = described.keys().map(|key| (split(key), key.clone())).collect();
        let documented_only = document
            .pointer("/info/x-documented-only")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .flat_map(documented_rule)
            .collect();
        Ok(Self { document, paths, documented_only })
    }

    /// Checks what a client is about to send. `path` is what follows `/v1.0`, without the query.
    pub fn check_request(
        &self,
        method: &str,
        path: &str,
        query: &[&str],
        body: Option<&Value>,
    ) -> Vec<Violation> {
        let mut report = Report::new(method, path);
        let (template, item) = match self.find(method, path) {
            Match::Described { template, item } => (template, item),
            Match::DocumentedOnly => return Vec::new(),
            Match::Nothing => {
                report.say("", "the path is not described");
                return report.found;
            }
        };
        report.path = template.into();
        let Some(operation) = item.get(method.to_ascii_lowercase()) else {
            report.say("", "the method is not described");
            return report.found;
        };
        let parameters: Vec<&Value> =
            operation.get("parameters").and_then(Value::as_array).into_iter().flatten().collect();
        let names: Vec<&str> = parameters.iter().filter_map(|one| one.get("name")?.as_str()).collect();
        for name in query {
            let known =
                names.iter().chain(&LINK_QUERIES).chain(&EXTRA_QUERIES).any(|n| n.eq_ignore_ascii_case(name));
            if !known {
                report.say("query", &format!("{name} is not described"));
            }
        }
        // A link that Graph issued carries the first call's options in its token.
        let is_link =
            query.iter().any(|given| LINK_QUERIES.iter().any(|link| link.eq_ignore_ascii_case(given)));
        let required = |one: &&&Value| !is_link && one.get("required") == Some(&Value::Bool(true));
        for parameter in parameters.iter().filter(required) {
            let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
            let in_query = parameter.get("in").and_then(Value::as_str) == Some("query");
            if in_query && !query.iter().any(|given| given.eq_ignore_ascii_case(name)) {
                report.say("query", &format!("{name} is required"));
            }
        }
        if let (Some(body), Some(schema)) =
            (body, operation.pointer("/requestBody/content/application~1json/schema"))
        {
            self.check(schema, body, "body", &mut report, 0);
        }
        report.found
    }

    /// Checks that `$select` and `$expand` name properties of what the path answers with.
    pub fn check_select(&self, method: &str, path: &str, names: &[&str]) -> Vec<Violation> {
        let mut report = Report::new(method, path);
        let Match::Described { template, item } = self.find(method, path) else { return Vec::new() };
        report.path = template.into();
        let method = method.to_ascii_lowercase();
        let pointer = "/responses/2XX/content/application~1json/schema";
        let Some(schema) = item.get(&method).and_then(|operation| operation.pointer(pointer)) else {
            return report.found;
        };
        let mut known = Properties::default();
        self.collect(schema, None, &mut known, 0);
        let of_collection = known.find("value").and_then(|value| value.get("items"));
        if let Some(items) = of_collection {
            known = Properties::default();
            self.collect(items, None, &mut known, 0);
        }
        for name in names {
            let cast = name.to_ascii_lowercase().starts_with("microsoft.graph.");
            let annotation = name.starts_with('@') || *name == "content.downloadUrl";
            if !cast && !annotation && !known.open && known.find(name).is_none() {
                report.say("$select", &format!("{name} is not a property"));
            }
        }
        report.found
    }

    /// Checks an answer. `path` is what follows `/v1.0`, without the query.
    pub fn check_response(&self, method: &str, path: &str, status: u16, body: &Value) -> Vec<Violation> {
        let mut report = Report::new(method, path);
        let Match::Described { template, item } = self.find(method, path) else { return Vec::new() };
        report.path = template.into();
        if status >= 400 {
            let error = body.get("error");
            for name in ["code", "message"] {
                if error.and_then(|error| error.get(name)).and_then(Value::as_str).is_none() {
                    report.say("error", &format!("{name} is missing"));
                }
            }
        }
        let class = if status >= 400 { "4XX" } else { "2XX" };
        let Some(answer) =
            item.get(method.to_ascii_lowercase()).and_then(|one| one.pointer(&format!("/responses/{class}")))
        else {
            return report.found;
        };
        if let Some(schema) = self.resolve(answer).pointer("/content/application~1json/schema") {
            self.check(schema, body, "body", &mut report, 0);
        }
        report.found
    }

    /// An item addressed by path, `{item}:`, is described where the same call by id is; Microsoft documents the others.
    fn find(&self, method: &str, path: &str) -> Match<'_> {
        let mut segments = split(path);
        let by_path = segments.iter_mut().find(|segment| segment.ends_with(':') && segment.len() > 1);
        if let Some(segment) = by_path {
            segment.pop();
            return match self.find(method, &segments.join("/")) {
                Match::Described { template, item } if item.get(method.to_ascii_lowercase()).is_some() => {
                    Match::Described { template, item }
                }
                Match::Described { .. } | Match::DocumentedOnly => Match::DocumentedOnly,
                Match::Nothing => Match::Nothing,
            };
        }
        let best = self
            .paths
            .iter()
            .filter_map(|(template, key)| Some((matches(template, &segments)?, key)))
            .max_by_key(|(literals, _)| *literals);
        if let Some((_, key)) = best {
            return Match::Described { template: key, item: &self.document["paths"][key] };
        }
        let documented = self.documented_only.iter().any(|(allowed, template)| {
            allowed.eq_ignore_ascii_case(method) && matches(template, &segments).is_some()
        });
        if documented { Match::DocumentedOnly } else { Match::Nothing }
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        for _ in 0..MAX_DEPTH {
            let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { break };
            let Some(target) = reference.strip_prefix('#').and_then(|at| self.document.pointer(at)) else {
                break;
            };
            schema = target;
        }
        schema
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, report: &mut Report, depth: usize) {
        let schema = self.resolve(schema);
        if depth > MAX_DEPTH || schema.get("x-pruned-reference").is_some() {
            return;
        }
        if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
            self.check_branches(branches, value, at, report, depth);
            return;
        }
        if value.is_null() {
            return;
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
            check_enum(schema, allowed, value, at, report);
            return;
        }
        let kind = schema.get("type").and_then(Value::as_str).unwrap_or(match schema.get("allOf") {
            Some(_) => "object",
            None => "any",
        });
        let fits = match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number() || value.is_string(),
            "boolean" => value.is_boolean(),
            _ => true,
        };
        if !fits {
            report.say(at, &format!("is not of type {kind}"));
            return;
        }
        match value {
            Value::Array(list) => {
                if let Some(items) = schema.get("items") {
                    for one in list {
                        self.check(items, one, &format!("{at}[]"), report, depth + 1);
                    }
                }
            }
            Value::Object(object) => self.check_object(schema, object, at, report, depth),
            _ => {}
        }
    }

    /// Right if any branch is; the first real branch says what is wrong.
    fn check_branches(&self, branches: &[Value], value: &Value, at: &str, report: &mut Report, depth: usize) {
        if value.is_null() {
            return;
        }
        let mut first: Option<Vec<Violation>> = None;
        for branch in branches {
            // `{"type": "object", "nullable": true}` is how "or null" is written; it accepts nothing else.
            if branch.get("nullable").is_some()
                && branch.get("$ref").is_none()
                && branch.get("properties").is_none()
            {
                continue;
            }
            let mut trial =
                Report { method: report.method.clone(), path: report.path.clone(), found: Vec::new() };
            self.check(branch, value, at, &mut trial, depth + 1);
            if trial.found.is_empty() {
                return;
            }
            first.get_or_insert(trial.found);
        }
        report.found.extend(first.unwrap_or_default());
    }

    fn check_object(
        &self,
        schema: &Value,
        object: &Map<String, Value>,
        at: &str,
        report: &mut Report,
        depth: usize,
    ) {
        if object.contains_key("@removed") {
            return;
        }
        let subtype = object.get("@odata.type").and_then(Value::as_str);
        let mut known = Properties::default();
        self.collect(schema, subtype, &mut known, 0);
        if known.by_name.is_empty() {
            return;
        }
        for (name, value) in object {
            if name.starts_with('@') || name.contains("@odata.") || name.contains("@microsoft.graph.") {
                continue;
            }
            match known.find(name) {
                Some(property) => self.check(property, value, &format!("{at}.{name}"), report, depth + 1),
                None if known.open => {}
                None => report.say(&format!("{at}.{name}"), "is not a property"),
            }
        }
    }

    /// All properties of a type, of its parents, and of the subtype its value claims.
    fn collect<'a>(
        &'a self,
        schema: &'a Value,
        subtype: Option<&str>,
        into: &mut Properties<'a>,
        depth: usize,
    ) {
        let schema = self.resolve(schema);
        if depth > MAX_DEPTH {
            return;
        }
        into.open |= schema.get("x-open-type") == Some(&Value::Bool(true));
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            into.by_name.extend(properties.iter().map(|(name, property)| (name.as_str(), property)));
        }
        let mapped =
            subtype.and_then(|name| schema.get("discriminator")?.get("mapping")?.get(name)?.as_str());
        if let Some(target) = mapped.and_then(|at| self.document.pointer(at.strip_prefix('#')?)) {
            self.collect(target, None, into, depth + 1);
        }
        for parent in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.collect(parent, subtype, into, depth + 1);
        }
    }
}

#[derive(Default)]
struct Properties<'a> {
    by_name: Vec<(&'a str, &'a Value)>,
    open: bool,
}

impl<'a> Properties<'a> {
    fn find(&self, name: &str) -> Option<&'a Value> {
        self.by_name.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

struct Report {
    method: String,
    path: String,
    found: Vec<Violation>,
}

impl Report {
    fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_ascii_uppercase(), path: path.into(), found: Vec::new() }
    }

    fn say(&mut self, at: &str, what: &str) {
        let detail = if at.is_empty() { what.into() } else { format!("{at}: {what}") };
        self.found.push(Violation { method: self.method.clone(), path: self.path.clone(), detail });
    }
}

fn check_enum(schema: &Value, allowed: &[Value], value: &Value, at: &str, report: &mut Report) {
    let Some(text) = value.as_str() else {
        report.say(at, "is not an enumeration member");
        return;
    };
    let known = |one: &str| allowed.iter().any(|member| member.as_str() == Some(one));
    let fits = match schema.get("x-flag-members") {
        Some(_) => text.split(',').all(|one| known(one.trim())),
        None => known(text),
    };
    if !fits {
        report.say(at, &format!("{text} is not an enumeration member"));
    }
}

/// Segments without case, `()`, and namespace.
fn split(path: &str) -> Vec<String> {
    path.trim_matches('/')
        .split('/')
        .map(|segment| {
            if segment.starts_with('{') {
                return segment.to_owned();
            }
            let bare = segment.strip_suffix("()").unwrap_or(segment);
            let lower = bare.to_ascii_lowercase();
            let cast = lower.strip_prefix("microsoft.graph.").or_else(|| lower.strip_prefix("graph."));
            cast.map_or_else(|| bare.to_owned(), ToOwned::to_owned)
        })
        .collect()
}

/// The number of literal segments, when a path fits a template.
fn matches(template: &[String], path: &[String]) -> Option<usize> {
    if template.len() != path.len() {
        return None;
    }
    let mut literals = 0;
    for (wanted, given) in template.iter().zip(path) {
        if wanted.starts_with('{') {
            if given.is_empty() || RESERVED.iter().any(|word| given.eq_ignore_ascii_case(word)) {
                return None;
            }
        } else if wanted.eq_ignore_ascii_case(given) {
            literals += 1;
        } else {
            return None;
        }
    }
    Some(literals)
}

/// `GET, PATCH /a/{id}/b  [source]` → one rule per method; prose and colon paths are left out.
fn documented_rule(line: &str) -> Vec<(String, Vec<String>)> {
    let Some(at) = line.find(" /") else { return Vec::new() };
    let methods = line[..at].split(',').map(|one| one.trim().to_ascii_lowercase());
    let Some(path) = line[at + 1..].split_whitespace().next().filter(|path| !path.contains(':')) else {
        return Vec::new();
    };
    methods.filter(|method| METHODS.contains(&method.as_str())).map(|method| (method, split(path))).collect()
}
