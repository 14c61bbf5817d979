//! What a place of the target holds already, so that a restore can leave it, or replace it.
//!
//! The invariant: what is there answers for one item of the snapshot at most. The one with its own id comes first, then one
//! that looks the same.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

/// The items of one place.
#[derive(Default)]
pub(super) struct Existing {
    /// Those that the snapshot knows by their id.
    by_id: HashSet<String>,
    others: Mutex<Others>,
}

#[derive(Default)]
struct Others {
    by_look: HashMap<String, VecDeque<String>>,
    taken: HashSet<String>,
}

impl Existing {
    /// Adds an item by what it looks like; `is_in_snapshot` says whether the snapshot has one with its id.
    pub fn add(&mut self, id: String, looks: Vec<String>, is_in_snapshot: bool) {
        if is_in_snapshot {
            self.by_id.insert(id);
            return;
        }
        let others = self.others.get_mut().unwrap_or_else(PoisonError::into_inner);
        for look in looks {
            others.by_look.entry(look).or_default().push_back(id.clone());
        }
    }

    /// The id of the one that is the same as this stored item.
    pub fn take(&self, id: &str, look: &str) -> Option<String> {
        if self.by_id.contains(id) {
            return Some(id.to_owned());
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let Others { by_look, taken } = &mut *others;
        let same = by_look.get_mut(look)?;
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
    use super::*;

    #[test]
    fn what_is_there_answers_for_one_item_of_the_snapshot() {
        let mut existing = Existing::default();
        existing.add("b".into(), vec!["n".into()], true);
        existing.add("x".into(), vec!["n".into()], false);
        assert_eq!(existing.take("a", "n").as_deref(), Some("x"));
        assert_eq!(existing.take("b", "n").as_deref(), Some("b"));
        assert_eq!(existing.take("c", "n"), None);
    }

    #[test]
    fn one_that_was_taken_by_one_look_is_not_taken_by_another() {
        let mut existing = Existing::default();
        existing.add("x".into(), vec!["name".into(), "time".into()], false);
        assert_eq!(existing.take("a", "other"), None);
        assert_eq!(existing.take("a", "time").as_deref(), Some("x"));
        assert_eq!(existing.take("b", "name"), None);
    }
}
