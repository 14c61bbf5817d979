//! Compares a mailbox after a restore with the truth before the loss, property by property.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::TruthMessage;

/// Says what differs between two truths of a mailbox; empty when nothing does.
///
/// Messages are matched by folder and internet message id, because a restored message has a new id. Attachments are
/// a set: their order and ids are Microsoft's.
pub fn differences(before: &[TruthMessage], after: &[TruthMessage]) -> Vec<String> {
    let (before, after) = (by_identity(before), by_identity(after));
    differing(before, after, |original, copy| differing_properties(&plain(original), &plain(copy)))
}

/// What differs between items of one identity, of how many there are first.
fn differing<T>(
    before: BTreeMap<String, Vec<T>>,
    mut after: BTreeMap<String, Vec<T>>,
    differences: impl Fn(&T, &T) -> Vec<String>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (identity, originals) in before {
        let restored = after.remove(&identity).unwrap_or_default();
        if originals.len() != restored.len() {
            found.push(format!("{identity}: {} before, {} after", originals.len(), restored.len()));
            continue;
        }
        for (original, copy) in originals.iter().zip(&restored) {
            found.extend(
                differences(original, copy).into_iter().map(|difference| format!("{identity}: {difference}")),
            );
        }
    }
    found.extend(after.into_iter().map(|(identity, extra)| format!("{identity}: {} too many", extra.len())));
    found
}

fn by_identity(messages: &[TruthMessage]) -> BTreeMap<String, Vec<&TruthMessage>> {
    let mut map = BTreeMap::<String, Vec<&TruthMessage>>::new();
    for message in messages {
        let identity = format!("{} {}", message.folder_path, message.internet_message_id);
        map.entry(identity).or_default().push(message);
    }
    for same in map.values_mut() {
        same.sort_by(|a, b| {
            (&a.received_date_time, &a.body_blake3).cmp(&(&b.received_date_time, &b.body_blake3))
        });
    }
    map
}

/// A message without its id, its attachments in an order of their own.
fn plain(message: &TruthMessage) -> Value {
    let mut message = message.clone();
    message.id.clear();
    message.attachments.sort_by(|a, b| (&a.name, &a.blake3, &a.kind).cmp(&(&b.name, &b.blake3, &b.kind)));
    serde_json::to_value(message).expect("a truth is plain data")
}

/// Says what differs between two truths of another workload; empty when nothing does.
///
/// Records are matched by their `identity`, because a restored item has a new id.
pub fn differences_of(before: &[Value], after: &[Value]) -> Vec<String> {
    let (before, after) = (records_by_identity(before), records_by_identity(after));
    differing(before, after, differing_properties)
}

/// Records without their ids; those with one identity are in an order of their own.
fn records_by_identity(records: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut map = BTreeMap::<String, Vec<Value>>::new();
    for record in records {
        let mut record = record.clone();
        record["id"] = Value::Null;
        let identity = record["identity"].as_str().unwrap_or_default().to_owned();
        map.entry(identity).or_default().push(record);
    }
    for same in map.values_mut() {
        same.sort_by_cached_key(Value::to_string);
    }
    map
}

fn differing_properties(original: &Value, copy: &Value) -> Vec<String> {
    let properties = original.as_object().into_iter().flatten();
    properties
        .filter(|(name, value)| **value != copy[name.as_str()])
        .map(|(name, value)| format!("{name} was {value}, is {}", copy[name.as_str()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str) -> TruthMessage {
        let value = serde_json::json!({
            "id": "1", "folderPath": "/Inbox", "subject": subject, "bodyContentType": "text", "bodyBlake3": "",
            "from": null, "sender": null, "to": [], "cc": [], "bcc": [], "replyTo": [], "internetMessageId": "<a>",
            "importance": "normal", "categories": [], "flag": "notFlagged", "isRead": true, "isDraft": false,
            "sentDateTime": "", "receivedDateTime": "", "attachments": []
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_changed_property_is_named() {
        let found = differences(&[message("x")], &[message("y")]);
        assert_eq!(found, ["/Inbox <a>: subject was \"x\", is \"y\""]);
        assert!(differences(&[message("x")], &[message("x")]).is_empty());
    }

    #[test]
    fn a_missing_and_an_extra_message_are_named() {
        assert_eq!(differences(&[message("x")], &[]), ["/Inbox <a>: 1 before, 0 after"]);
        assert_eq!(differences(&[], &[message("x")]), ["/Inbox <a>: 1 too many"]);
    }

    #[test]
    fn records_are_compared_property_by_property() {
        let record = |id: u32, title: &str| serde_json::json!({"id": id, "identity": "a", "title": title});
        assert!(
            differences_of(&[record(1, "x"), record(2, "y")], &[record(3, "y"), record(4, "x")]).is_empty()
        );
        assert_eq!(differences_of(&[record(1, "x")], &[record(2, "y")]), ["a: title was \"x\", is \"y\""]);
        assert_eq!(differences_of(&[record(1, "x")], &[]), ["a: 1 before, 0 after"]);
        assert_eq!(differences_of(&[], &[record(1, "x")]), ["a: 1 too many"]);
    }
}
