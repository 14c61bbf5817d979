//! What of a stored rule is written, and by what two rules are the same.

use serde_json::{Map, Value, json};

/// Parts of a rule that are created as they were; all others are Exchange's own.
const COPIED: &[&str] = &["displayName", "sequence", "isEnabled", "conditions", "exceptions", "actions"];
/// Actions that send nothing to anybody. One that is not known may.
const SENDS_NOTHING: &[&str] = &[
    "assignCategories",
    "copyToFolder",
    "delete",
    "markAsRead",
    "markImportance",
    "moveToFolder",
    "permanentDelete",
    "stopProcessingRules",
];
/// Actions that name a folder.
pub(super) const NAMES_FOLDER: [&str; 2] = ["moveToFolder", "copyToFolder"];

/// The body of a create.
pub(super) fn body(stored: &Map<String, Value>) -> Map<String, Value> {
    let copy = |name: &&str| {
        let value = stored.get(*name).map(without_nulls).filter(|value| !is_nothing(value))?;
        Some(((*name).to_owned(), value))
    };
    let mut body: Map<String, Value> = COPIED.iter().filter_map(copy).collect();
    // Left out, it would be switched on.
    body.insert("isEnabled".to_owned(), json!(stored.get("isEnabled") != Some(&json!(false))));
    body
}

/// Whether a rule sends mail when it is switched on.
pub(super) fn sends_mail(body: &Map<String, Value>) -> bool {
    let actions = body.get("actions").and_then(Value::as_object).into_iter().flatten();
    actions
        .filter(|(name, _)| !name.starts_with('@'))
        .any(|(name, value)| !SENDS_NOTHING.contains(&name.as_str()) && !is_nothing(value))
}

/// What a rule does, whoever wrote it down: without what is not set, people by their address.
pub(super) fn meaning(rule: &Map<String, Value>) -> Value {
    let parts = ["conditions", "exceptions", "actions"].map(|name| rule.get(name).map(normal));
    parts.map(|part| part.filter(|part| !is_nothing(part)).unwrap_or_default()).to_vec().into()
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(all) => all.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

fn normal(value: &Value) -> Value {
    if let Some(address) = value.pointer("/emailAddress/address").and_then(Value::as_str) {
        return address.to_lowercase().into();
    }
    match value {
        Value::Object(fields) => {
            let said = fields.iter().map(|(name, value)| (name.clone(), normal(value)));
            Value::Object(said.filter(|(name, value)| !name.starts_with('@') && !is_nothing(value)).collect())
        }
        Value::Array(all) => all.iter().map(normal).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn only_what_exchange_takes_is_written() {
        let stored = fields(json!({ "id": "r", "displayName": "R", "sequence": 2, "hasError": false,
            "isReadOnly": false, "conditions": { "sentToMe": true, "importance": null }, "exceptions": null,
            "actions": { "moveToFolder": "f", "forwardTo": [] }, "_holdfast": {} }));
        let expected = json!({ "displayName": "R", "sequence": 2, "isEnabled": true,
            "conditions": { "sentToMe": true }, "actions": { "moveToFolder": "f", "forwardTo": [] } });
        assert_eq!(Value::Object(body(&stored)), expected);
    }

    #[test]
    fn a_rule_sends_mail_unless_all_its_actions_are_known_to_send_none() {
        let sends = |actions: Value| sends_mail(&fields(json!({ "actions": actions })));
        assert!(sends(json!({ "forwardTo": [{}] })) && sends(json!({ "redirectTo": [{}], "delete": true })));
        assert!(sends(json!({ "replyWithTemplate": "of a later version" })));
        assert!(!sends(json!({ "forwardTo": [], "moveToFolder": "f", "forwardAsAttachmentTo": null })));
    }

    #[test]
    fn rules_are_the_same_by_what_they_do() {
        let rule = |name: &str, importance: Value| {
            fields(json!({ "conditions": { "importance": importance, "sentToMe": false },
                "actions": { "forwardTo": [{ "emailAddress": { "name": name, "address": "A@b" } }] } }))
        };
        assert_eq!(meaning(&rule("Ann", Value::Null)), meaning(&rule("ann", Value::Null)));
        assert_ne!(meaning(&rule("Ann", Value::Null)), meaning(&rule("Ann", json!("high"))));
    }
}
