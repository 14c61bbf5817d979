//! Which properties a type has, and what may be written into them.
//!
//! Invariant: a property that is not in the schema is refused, one of the wrong shape too.

use serde_json::{Map, Value};

use crate::http::{Refusal, refuse};

/// What a property holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Text,
    Texts,
    Flag,
    Number,
    /// One of these; the first is the default.
    Choice(&'static [&'static str]),
    Object,
    Objects,
    /// Set by the service; given values are ignored without a word, as Exchange does.
    Fixed,
    /// Its workload reads and writes it apart.
    Apart,
}

impl Shape {
    fn is_writable(self) -> bool {
        !matches!(self, Self::Fixed | Self::Apart)
    }

    fn default(self) -> Value {
        match self {
            Self::Texts | Self::Objects => Value::Array(Vec::new()),
            Self::Flag => Value::Bool(false),
            Self::Choice(members) => members.first().map_or(Value::Null, |first| (*first).into()),
            Self::Text | Self::Number | Self::Object | Self::Fixed | Self::Apart => Value::Null,
        }
    }

    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Texts => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            Self::Flag => value.is_boolean(),
            Self::Number => value.is_i64() || value.is_u64(),
            Self::Choice(members) => value.as_str().is_some_and(|text| members.contains(&text)),
            Self::Object => value.is_object(),
            Self::Objects => value.as_array().is_some_and(|list| list.iter().all(Value::is_object)),
            Self::Fixed | Self::Apart => true,
        }
    }
}

/// A type of Graph's.
pub(crate) struct Schema {
    /// Without `microsoft.graph.`.
    pub name: &'static str,
    pub properties: &'static [(&'static str, Shape)],
}

impl Schema {
    /// A property by its name, whose case does not matter.
    pub(crate) fn find(&self, name: &str) -> Option<(&'static str, Shape)> {
        self.properties.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).copied()
    }

    /// What may be written, and by which names truths compare it.
    pub(crate) fn writable(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.properties.iter().filter(|(_, shape)| shape.is_writable()).map(|(name, _)| *name)
    }

    /// Every property that may be written, with its default.
    pub(crate) fn blank(&self) -> Map<String, Value> {
        let writable = self.properties.iter().filter(|(_, shape)| shape.is_writable());
        writable.map(|(name, shape)| ((*name).to_owned(), shape.default())).collect()
    }

    /// Writes what is given; `null` is the default.
    pub(crate) fn apply(
        &self,
        fields: &mut Map<String, Value>,
        body: &Map<String, Value>,
    ) -> Result<(), Refusal> {
        for (given, value) in body {
            if given.starts_with('@') || given.contains("@odata.") {
                continue;
            }
            let (name, shape) = self.find(given).ok_or_else(|| self.unknown(given))?;
            if !shape.is_writable() {
                continue;
            }
            if value.is_null() {
                fields.insert(name.into(), shape.default());
                continue;
            }
            if !shape.takes(value) {
                let text = format!("Cannot convert the value of '{name}'");
                return Err(refuse(400, "RequestBodyRead", text));
            }
            fields.insert(name.into(), value.clone());
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> Refusal {
        let text = format!("The property '{name}' does not exist on type 'microsoft.graph.{}'.", self.name);
        refuse(400, "RequestBodyRead", text)
    }
}

/// The object a body is.
pub(crate) fn object(body: &Value) -> Result<&Map<String, Value>, Refusal> {
    body.as_object().ok_or_else(|| refuse(400, "RequestBodyRead", "the body is not an object"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SCHEMA: Schema = Schema {
        name: "thing",
        properties: &[
            ("title", Shape::Text),
            ("tags", Shape::Texts),
            ("state", Shape::Choice(&["open", "done"])),
            ("id", Shape::Fixed),
        ],
    };

    #[test]
    fn only_known_properties_of_the_right_shape_are_taken() {
        let mut fields = SCHEMA.blank();
        assert_eq!(Value::Object(fields.clone()), json!({"title": null, "tags": [], "state": "open"}));
        let body = json!({"TITLE": "x", "state": "done", "id": "ignored", "@odata.etag": "e"});
        SCHEMA.apply(&mut fields, object(&body).unwrap()).unwrap();
        assert_eq!(Value::Object(fields.clone()), json!({"title": "x", "tags": [], "state": "done"}));
        for wrong in
            [json!({"title": 1}), json!({"state": "lost"}), json!({"tags": [1]}), json!({"colour": "x"})]
        {
            assert_eq!(
                SCHEMA.apply(&mut fields, object(&wrong).unwrap()).unwrap_err().status,
                400,
                "{wrong}"
            );
        }
        SCHEMA.apply(&mut fields, object(&json!({"state": null})).unwrap()).unwrap();
        assert_eq!(fields["state"], "open");
    }
}
