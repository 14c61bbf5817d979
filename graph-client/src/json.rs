//! Reading Microsoft's JSON without losing anything of it.
//!
//! The one invariant to know: every object is kept as the bytes that came, unknown properties included; typed fields are
//! read beside it.

use std::fmt;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
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

/// The same object without some of its properties, everything else byte for byte.
pub(crate) fn without(raw: &[u8], names: &[&str]) -> Result<Bytes, serde_json::Error> {
    let object: RawObject<'_> = serde_json::from_slice(raw)?;
    let mut kept = Vec::with_capacity(raw.len());
    for (name, value) in object.0 {
        // The name is compared as it is written: one that is escaped is none of ours.
        if names.contains(&name.get().trim_matches('"')) {
            continue;
        }
        kept.push(if kept.is_empty() { b'{' } else { b',' });
        kept.extend_from_slice(name.get().as_bytes());
        kept.push(b':');
        kept.extend_from_slice(value.get().as_bytes());
    }
    if kept.is_empty() {
        kept.push(b'{');
    }
    kept.push(b'}');
    Ok(kept.into())
}

/// The properties of an object in their order, names and values as they are written.
struct RawObject<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawObject<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Properties;

        impl<'de> Visitor<'de> for Properties {
            type Value = RawObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut properties = Vec::new();
                while let Some(property) = map.next_entry()? {
                    properties.push(property);
                }
                Ok(RawObject(properties))
            }
        }

        deserializer.deserialize_map(Properties)
    }
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
    fn a_property_is_left_out_and_the_rest_is_as_it_came() {
        let raw = r#"{ "a" : 1.50, "url":"https:\/\/x", "b\u0031":[{"url":1}],"n":null }"#;
        assert_eq!(
            without(raw.as_bytes(), &["url"]).unwrap(),
            r#"{"a":1.50,"b\u0031":[{"url":1}],"n":null}"#
        );
        assert_eq!(without(br#"{"url":1}"#, &["url"]).unwrap(), "{}");
        assert_eq!(without(b"{}", &["url"]).unwrap(), "{}");
        assert!(without(b"[]", &["url"]).is_err());
    }

    #[test]
    fn a_cut_page_is_an_error_not_an_empty_page() {
        let body = Bytes::from_static(b"{\"value\":[{\"id\":\"1\"},{\"id\"");
        assert!(matches!(read_page::<Value>(&body, "a page"), Err(GraphError::Malformed { .. })));
    }
}
