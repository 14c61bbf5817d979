//! Query strings and the small part of OData that a backup client uses.
//!
//! Invariant: what is not understood is refused, never ignored, so a client cannot come to rely on it.

use percent_encoding::percent_decode_str;

use crate::json::View;

/// A decoded query string.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(pub Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(raw: Option<&str>) -> Self {
        Self(form(raw.unwrap_or_default().as_bytes()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<usize>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| format!("Invalid value for {name}")),
        }
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Which fields of messages to show.
    pub(crate) fn view(&self) -> Result<View, String> {
        let mut view = View::new(self.get("$select")).map_err(|name| {
            format!("Could not find a property named '{name}' on type 'microsoft.graph.message'.")
        })?;
        if let Some(expand) = self.get("$expand") {
            let lower = expand.to_ascii_lowercase();
            if lower.contains("singlevalueextendedproperties") {
                view.extended = literals(expand, "id eq ");
                if view.extended.is_empty() {
                    return Err("singleValueExtendedProperties needs a filter by id".into());
                }
            }
            view.attachments = lower.contains("attachments");
            if view.extended.is_empty() && !view.attachments {
                return Err(format!("Cannot expand '{expand}'"));
            }
        }
        Ok(view)
    }

    /// The query again, without paging.
    pub(crate) fn without(&self, names: &[&str]) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(key, _)| !names.iter().any(|n| key.eq_ignore_ascii_case(n)))
                .cloned()
                .collect(),
        )
    }

    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.0 {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(&name.replace('$', "%24"));
            out.push('=');
            out.extend(percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC));
        }
        out
    }
}

/// Decodes `a=b&c=d`.
pub(crate) fn form(raw: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(raw);
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        })
        .collect()
}

pub(crate) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The quoted strings that follow `before`, with `''` undone.
fn literals(text: &str, before: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(before) {
        rest = rest[at + before.len()..].trim_start();
        let Some(inner) = rest.strip_prefix('\'') else { continue };
        let (value, after) = quoted(inner);
        found.push(value);
        rest = after;
    }
    found
}

fn quoted(inner: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = inner;
    loop {
        match rest.find('\'') {
            None => return (value + rest, ""),
            Some(at) => {
                value.push_str(&rest[..at]);
                rest = &rest[at + 1..];
                match rest.strip_prefix('\'') {
                    Some(after) => {
                        value.push('\'');
                        rest = after;
                    }
                    None => return (value, rest),
                }
            }
        }
    }
}

/// What a message list can be filtered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Extended property, and its value when one is asked for.
    Extended(String, Option<String>),
    InternetMessageId(String),
    Subject(String),
    IsRead(bool),
    Received {
        above: bool,
        equal: bool,
        ms: u64,
    },
}

impl Filter {
    /// Parses one condition; conjunctions are not supported.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let unsupported = || format!("The filter '{text}' is not supported");
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("singlevalueextendedproperties/any(") {
            let id = literals(text, "/id eq ").into_iter().next().ok_or_else(unsupported)?;
            let value = literals(text, "/value eq ").into_iter().next();
            return Ok(Self::Extended(id, value));
        }
        if lower.contains(" and ") || lower.contains(" or ") {
            return Err(unsupported());
        }
        let mut words = text.splitn(3, ' ');
        let (Some(field), Some(operator), Some(value)) = (words.next(), words.next(), words.next()) else {
            return Err(unsupported());
        };
        let literal = value.strip_prefix('\'').map(|inner| quoted(inner).0);
        match (field.to_ascii_lowercase().as_str(), operator, literal) {
            ("internetmessageid", "eq", Some(value)) => Ok(Self::InternetMessageId(value)),
            ("subject", "eq", Some(value)) => Ok(Self::Subject(value)),
            ("isread", "eq", None) => value.parse().map(Self::IsRead).map_err(|_| unsupported()),
            ("receiveddatetime", "ge" | "gt" | "le" | "lt", None) => {
                let ms = crate::json::parse_timestamp(value).ok_or_else(unsupported)?;
                Ok(Self::Received { above: operator.starts_with('g'), equal: operator.ends_with('e'), ms })
            }
            _ => Err(unsupported()),
        }
    }

    pub(crate) fn accepts(&self, content: &crate::content::Content) -> bool {
        match self {
            Self::Extended(id, value) => {
                let found = crate::json::extended(content, id);
                found.is_some() && (value.is_none() || found == *value)
            }
            Self::InternetMessageId(id) => content.internet_message_id == *id,
            Self::Subject(subject) => content.subject == *subject,
            Self::IsRead(read) => content.is_read == *read,
            Self::Received { above, equal, ms } => {
                (*equal && content.received_ms == *ms)
                    || if *above { content.received_ms > *ms } else { content.received_ms < *ms }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_understood_or_refused() {
        let id = "String {00020329-0000-0000-c000-000000000046} Name Key";
        let text = format!("singleValueExtendedProperties/any(ep: ep/id eq '{id}' and ep/value eq 'a''b')");
        assert_eq!(Filter::parse(&text), Ok(Filter::Extended(id.into(), Some("a'b".into()))));
        assert!(Filter::parse("subject eq 'x' and isRead eq true").is_err());
        assert!(Filter::parse("importance eq 'high'").is_err());
        assert_eq!(Filter::parse("isRead eq false"), Ok(Filter::IsRead(false)));
    }

    #[test]
    fn expansion_takes_several_properties() {
        let query = Query::parse(Some(
            "$select=id&$expand=singleValueExtendedProperties($filter=id%20eq%20'A%201'%20or+id+eq+'B')",
        ));
        assert_eq!(query.view().unwrap().extended, ["A 1", "B"]);
    }
}
