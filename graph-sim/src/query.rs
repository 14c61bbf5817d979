//! Query strings and the small part of OData that a backup client uses.
//!
//! Invariant: what is not understood is refused, never ignored, so a client cannot come to rely on it.

use percent_encoding::percent_decode_str;

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

    /// The ids of the extended properties that `$expand` asks for; none when it asks for no such properties.
    pub(crate) fn extended(&self) -> Result<Vec<String>, String> {
        let Some(expand) = self.get("$expand") else { return Ok(Vec::new()) };
        if !expand.to_ascii_lowercase().contains("singlevalueextendedproperties") {
            return Ok(Vec::new());
        }
        let ids = literals(expand, "id eq ");
        if ids.is_empty() {
            return Err("singleValueExtendedProperties needs a filter by id".into());
        }
        Ok(ids)
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
pub(crate) fn literals(text: &str, before: &str) -> Vec<String> {
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

pub(crate) fn quoted(inner: &str) -> (String, &str) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_takes_several_properties() {
        let query = Query::parse(Some(
            "$select=id&$expand=singleValueExtendedProperties($filter=id%20eq%20'A%201'%20or+id+eq+'B')",
        ));
        assert_eq!(query.extended().unwrap(), ["A 1", "B"]);
        assert!(Query::parse(Some("$expand=singleValueExtendedProperties")).extended().is_err());
    }
}
