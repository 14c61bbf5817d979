//! Reading Microsoft's JSON without losing anything of it.
//!
//! The one invariant to know: every object is kept as the bytes that came, unknown properties included; typed fields are
//! read beside it.

use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{GraphError, Page};

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow, default)]
    value: Vec<&'a RawValue>,
    #[serde(rename = "@odata.nextLink", default)]
    next: Option<String>,
    #[serde(rename = "@odata.deltaLink", default)]
    delta: Option<String>,
}

/// A type that is read from one object of a listing.
pub(crate) trait FromObject: Sized {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error>;
}

impl<T: DeserializeOwned> FromObject for T {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(raw)
    }
}

/// Reads a page, object by object.
pub(crate) fn read_page<T: FromObject>(body: &Bytes, what: &'static str) -> Result<Page<T>, GraphError> {
    read_with(body, what, |body| {
        let page: RawPage<'_> = serde_json::from_slice(body)?;
        let items = page.value.iter().map(|raw| T::from_object(raw.get().as_bytes()));
        Ok(Page { items: items.collect::<Result<_, _>>()?, next: page.next, delta: page.delta })
    })
}

/// Reads one object.
pub(crate) fn read_object<T: FromObject>(body: &Bytes, what: &'static str) -> Result<T, GraphError> {
    read_with(body, what, |body| T::from_object(body))
}

/// Reads; where that fails, reads again with stray control characters escaped.
fn read_with<T>(
    body: &[u8],
    what: &'static str,
    read: impl Fn(&[u8]) -> Result<T, serde_json::Error>,
) -> Result<T, GraphError> {
    read(body).or_else(|source| {
        let repaired = escape_control_characters(body).ok_or(GraphError::Malformed { what, source })?;
        read(&repaired).map_err(|source| GraphError::Malformed { what, source })
    })
}

/// Escapes raw control characters inside strings, which Exchange sometimes sends; `None` where there are none.
fn escape_control_characters(body: &[u8]) -> Option<Vec<u8>> {
    let mut repaired = Vec::with_capacity(body.len() + 64);
    let (mut in_string, mut escaped, mut changed) = (false, false, false);
    for &byte in body {
        if in_string && byte < 0x20 && !escaped {
            repaired.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            changed = true;
            continue;
        }
        repaired.push(byte);
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
    changed.then_some(repaired)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_raw_control_character_in_a_string_is_repaired() {
        let body =
            Bytes::from_static(b"{\"value\":[{\"subject\":\"a\x01b\\\"\"}],\"@odata.deltaLink\":\"d\"}");
        let page = read_page::<Value>(&body, "a page").unwrap();
        assert_eq!(page.items[0]["subject"], "a\u{1}b\"");
        assert_eq!(page.delta.as_deref(), Some("d"));
    }

    #[test]
    fn a_cut_page_is_an_error_not_an_empty_page() {
        let body = Bytes::from_static(b"{\"value\":[{\"id\":\"1\"},{\"id\"");
        assert!(matches!(read_page::<Value>(&body, "a page"), Err(GraphError::Malformed { .. })));
    }
}
