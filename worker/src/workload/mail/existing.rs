//! What a target folder holds already, so that a restore can leave it, or replace it.
//!
//! The invariant: a message that is there answers for one message of the snapshot at most. The one with its own id comes
//! first, then one with the same internet message id, then one without any but the same subject and time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use holdfast_graph_client::MarkedMessage;
use serde_json::Value;

/// The messages of one folder.
#[derive(Default)]
pub struct Existing {
    /// Those that the snapshot knows by their id.
    by_id: HashSet<String>,
    others: Mutex<Others>,
}

#[derive(Default)]
struct Others {
    by_name: HashMap<String, VecDeque<String>>,
    by_look: HashMap<(String, String), VecDeque<String>>,
    taken: HashSet<String>,
}

impl Existing {
    /// Adds a message; `is_in_snapshot` says whether the snapshot has one with its id.
    pub fn add(&mut self, message: MarkedMessage, is_in_snapshot: bool) {
        if is_in_snapshot {
            self.by_id.insert(message.id);
            return;
        }
        let others = self.others.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = message.internet_message_id.filter(|name| !name.is_empty()) {
            others.by_name.entry(name).or_default().push_back(message.id.clone());
        }
        let look = (message.subject.unwrap_or_default(), message.received.unwrap_or_default());
        others.by_look.entry(look).or_default().push_back(message.id);
    }

    /// The id of the one that is the same as this stored message.
    pub fn take(&self, id: &str, stored: &Value) -> Option<String> {
        if self.by_id.contains(id) {
            return Some(id.to_owned());
        }
        let text = |name: &str| stored.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let Others { by_name, by_look, taken } = &mut *others;
        let same = match text("internetMessageId") {
            "" => by_look.get_mut(&(text("subject").to_owned(), text("receivedDateTime").to_owned())),
            name => by_name.get_mut(name),
        }?;
        while let Some(found) = same.pop_front() {
            if taken.insert(found.clone()) {
                return Some(found);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn there(id: &str, name: &str) -> MarkedMessage {
        MarkedMessage {
            id: id.into(),
            value: None,
            internet_message_id: Some(name.into()),
            subject: Some("s".into()),
            received: Some("t".into()),
        }
    }

    #[test]
    fn one_message_answers_for_one_of_the_snapshot() {
        let mut existing = Existing::default();
        existing.add(there("b", "<n>"), true);
        existing.add(there("x", "<n>"), false);
        let stored = json!({ "internetMessageId": "<n>" });
        assert_eq!(existing.take("a", &stored).as_deref(), Some("x"));
        assert_eq!(existing.take("b", &stored).as_deref(), Some("b"));
        assert_eq!(existing.take("c", &stored), None);
    }

    #[test]
    fn without_an_internet_message_id_subject_and_time_decide() {
        let mut existing = Existing::default();
        existing.add(there("x", "<given by exchange>"), false);
        let nameless = json!({ "internetMessageId": "", "subject": "s", "receivedDateTime": "t" });
        let other = json!({ "subject": "s", "receivedDateTime": "later" });
        assert_eq!(existing.take("b", &other), None);
        assert_eq!(existing.take("a", &nameless).as_deref(), Some("x"));
        assert_eq!(existing.take("c", &nameless), None);
        assert_eq!(existing.take("d", &json!({ "internetMessageId": "<given by exchange>" })), None);
    }
}
