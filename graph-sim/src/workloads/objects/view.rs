//! What of an object an answer shows.

use serde_json::{Map, Value, json};

use crate::http::{Refusal, refuse};
use crate::query::Query;
use crate::workloads::objects::schema::Schema;

const EXTENDED: &str = "singleValueExtendedProperties";

/// From `$select` and `$expand`.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    select: Option<Vec<&'static str>>,
    /// Extended property ids to show.
    extended: Vec<String>,
    /// Relations to show, in the schema's spelling.
    expand: Vec<&'static str>,
}

impl View {
    /// Relations that may be expanded are `relations`; extended properties always may.
    pub(crate) fn of(schema: &Schema, query: &Query, relations: &[&'static str]) -> Result<Self, Refusal> {
        let bad = |text: String| refuse(400, "BadRequest", text);
        let mut view = Self { extended: query.extended().map_err(bad)?, ..Self::default() };
        for one in query.get("$expand").map(split).unwrap_or_default() {
            if one.to_ascii_lowercase().starts_with(&EXTENDED.to_ascii_lowercase()) {
                continue;
            }
            let known = relations.iter().find(|relation| relation.eq_ignore_ascii_case(one));
            view.expand.push(*known.ok_or_else(|| bad(format!("Cannot expand '{one}'")))?);
        }
        if let Some(list) = query.get("$select") {
            let mut select = Vec::new();
            for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let known = schema.find(name).ok_or_else(|| {
                    let of = schema.name;
                    bad(format!("Could not find a property named '{name}' on type 'microsoft.graph.{of}'."))
                })?;
                select.push(known.0);
            }
            view.select = Some(select);
        }
        Ok(view)
    }

    pub(crate) fn has_select(&self) -> bool {
        self.select.is_some()
    }

    /// Whether `$select` names it.
    pub(crate) fn selects(&self, name: &str) -> bool {
        self.select.iter().flatten().any(|one| *one == name)
    }

    pub(crate) fn expands(&self, relation: &str) -> bool {
        self.expand.contains(&relation)
    }

    /// An object without extended properties as asked for.
    pub(crate) fn show(&self, object: Value) -> Value {
        match object {
            Value::Object(fields) => self.project(fields, &[]),
            other => other,
        }
    }

    /// The object as asked for.
    pub(crate) fn project(&self, mut object: Map<String, Value>, extended: &[(String, String)]) -> Value {
        if self.select.is_some() {
            object.retain(|name, _| {
                name.starts_with('@') || name == "id" || self.selects(name) || self.expands(name)
            });
        }
        let found: Vec<Value> = self
            .extended
            .iter()
            .filter_map(|id| {
                let (_, value) = extended.iter().find(|(known, _)| known.eq_ignore_ascii_case(id))?;
                Some(json!({"id": id, "value": value}))
            })
            .collect();
        if !found.is_empty() {
            object.insert(EXTENDED.into(), found.into());
        }
        Value::Object(object)
    }
}

/// Splits at commas that are not inside brackets.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0_usize, 0);
    for (at, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(list[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(list[from..].trim());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::objects::schema::Shape;

    const SCHEMA: Schema = Schema {
        name: "thing",
        properties: &[("title", Shape::Text), ("state", Shape::Text), ("parts", Shape::Apart)],
    };

    fn view(raw: &str) -> Result<View, Refusal> {
        View::of(&SCHEMA, &Query::parse(Some(raw)), &["parts"])
    }

    #[test]
    fn what_is_asked_for_is_shown() {
        let object = json!({"id": "1", "@odata.etag": "e", "title": "t", "state": "s", "parts": []});
        let object = object.as_object().unwrap();
        let extended = [("String {x} Name Key".to_owned(), "v".to_owned())];
        let raw =
            "$select=title&$expand=parts,singleValueExtendedProperties($filter=id eq 'String {x} Name Key')";
        assert_eq!(
            view(raw).unwrap().project(object.clone(), &extended),
            json!({"id": "1", "@odata.etag": "e", "title": "t", "parts": [],
                "singleValueExtendedProperties": [{"id": "String {x} Name Key", "value": "v"}]})
        );
        assert_eq!(view("").unwrap().project(object.clone(), &extended), Value::Object(object.clone()));
        assert_eq!(view("$select=colour").unwrap_err().status, 400);
        assert_eq!(view("$expand=owner").unwrap_err().status, 400);
    }
}
