//! The JSON of one create: everything of a message that Microsoft takes, in one call.
//!
//! The invariant: nothing here can send mail, and a message that was no draft is created as none: the flags and dates only
//! stick when they are part of the create.

use serde_json::{Value, json};

use crate::workload::write_back::{copied, restore_key_property};

/// Properties that are created as they were.
const COPIED: &[&str] = &[
    "subject",
    "body",
    "from",
    "sender",
    "toRecipients",
    "ccRecipients",
    "bccRecipients",
    "internetMessageId",
    "importance",
    "categories",
    "flag",
    "isRead",
    "inferenceClassification",
];

/// Whether a message is created as what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateAs {
    /// As it was.
    Original,
    /// As a draft, because Microsoft refuses attachments on anything else.
    Draft,
}

/// The body of the create, without attachments.
pub fn create_body(stored: &Value, key: &str, create_as: CreateAs) -> Value {
    let mut body = copied(|name| stored.get(name), COPIED);
    let reply_to: Vec<Value> =
        reply_to(stored).filter(|recipient| is_valid_recipient(recipient)).cloned().collect();
    if !reply_to.is_empty() {
        body.insert("replyTo".to_owned(), reply_to.into());
    }
    body.insert("singleValueExtendedProperties".to_owned(), properties(stored, key, create_as).into());
    Value::Object(body)
}

fn reply_to(stored: &Value) -> impl Iterator<Item = &Value> {
    stored.get("replyTo").and_then(Value::as_array).into_iter().flatten()
}

/// Whether a message has a reply address that Microsoft would refuse, so that it comes back without.
pub fn loses_reply_to(stored: &Value) -> bool {
    reply_to(stored).any(|recipient| !is_valid_recipient(recipient))
}

fn properties(stored: &Value, key: &str, create_as: CreateAs) -> Vec<Value> {
    let mut properties = vec![restore_key_property(key)];
    properties.extend(original_properties(stored, create_as));
    properties
}

/// The extended properties that make a created message what it was: not a draft, and of its own dates. They also work
/// on a message inside an item attachment.
pub fn original_properties(stored: &Value, create_as: CreateAs) -> Vec<Value> {
    let is_set = |name: &str| stored.get(name).and_then(Value::as_bool).unwrap_or(false);
    let mut properties = Vec::new();
    if !is_set("isDraft") && create_as == CreateAs::Original {
        let flags = if is_set("isRead") { "5" } else { "4" };
        properties.push(json!({ "id": "Integer 0x0E07", "value": flags }));
    }
    for (id, name) in [("SystemTime 0x0039", "sentDateTime"), ("SystemTime 0x0E06", "receivedDateTime")] {
        if let Some(time) = stored.get(name).and_then(Value::as_str) {
            properties.push(json!({ "id": id, "value": time }));
        }
    }
    properties
}

/// An SMTP address, or a legacy distinguished name.
fn is_valid_recipient(recipient: &Value) -> bool {
    let address = recipient.pointer("/emailAddress/address").and_then(Value::as_str).unwrap_or_default();
    let is_smtp = address.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && !domain.is_empty()
            && !address.contains(|c: char| c.is_whitespace() || c.is_control())
    });
    is_smtp
        || (address.to_ascii_lowercase().starts_with("/o=") && address.to_ascii_lowercase().contains("/cn="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::write_back::RESTORE_KEY_PROPERTY;

    fn property<'a>(body: &'a Value, id: &str) -> Option<&'a str> {
        let all = body["singleValueExtendedProperties"].as_array().unwrap();
        all.iter().find(|property| property["id"] == id).and_then(|property| property["value"].as_str())
    }

    #[test]
    fn a_read_message_is_created_complete_in_one_call_and_a_draft_stays_one() {
        let stored = json!({
            "id": "x", "subject": "s", "isRead": true, "isDraft": false, "categories": [], "from": null,
            "sentDateTime": "2024-05-01T10:00:00Z", "receivedDateTime": "2024-05-01T10:00:05Z",
        });
        let body = create_body(&stored, "k", CreateAs::Original);
        assert_eq!(property(&body, "Integer 0x0E07"), Some("5"));
        assert_eq!(property(&body, "SystemTime 0x0E06"), Some("2024-05-01T10:00:05Z"));
        assert_eq!(property(&body, RESTORE_KEY_PROPERTY), Some("k"));
        assert!(body.get("id").is_none() && body.get("from").is_none());
        let draft = json!({ "isDraft": true });
        assert_eq!(property(&create_body(&draft, "k", CreateAs::Original), "Integer 0x0E07"), None);
        assert_eq!(property(&create_body(&stored, "k", CreateAs::Draft), "Integer 0x0E07"), None);
    }

    #[test]
    fn invalid_reply_addresses_are_left_out_and_said_to_be() {
        let to = |address: &str| json!({ "emailAddress": { "address": address } });
        let stored = json!({ "replyTo": [to("a@b"), to("nonsense"), to("a b@c"), to("/o=X/ou=Y/cn=Z")] });
        let body = create_body(&stored, "k", CreateAs::Original);
        assert_eq!(body["replyTo"].as_array().unwrap().len(), 2);
        assert!(loses_reply_to(&stored) && !loses_reply_to(&json!({ "replyTo": [to("a@b")] })));
    }
}
