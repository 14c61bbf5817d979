//! What is created as it was.

use serde_json::{Map, Value};

/// These properties of an object, where they are set.
pub fn copied<'a>(object: impl Fn(&str) -> Option<&'a Value>, names: &[&str]) -> Map<String, Value> {
    let set = |name: &&str| {
        let value = object(name).filter(|value| !value.is_null())?;
        Some(((*name).to_owned(), value.clone()))
    };
    names.iter().filter_map(set).collect()
}
