//! Items that are JSON objects in places (a folder, a list, a calendar): their numbering, and how they are shown.
//!
//! `schema` is which properties a type has · `view` what `$select` and `$expand` show · `filter` what lists are
//! filtered by · `page` lists and delta rounds.
//!
//! Invariant: every object has the number of its last change and leaves a tombstone where it was, so a delta from
//! position p is exactly "everything numbered above p".

pub(crate) mod filter;
pub(crate) mod page;
pub(crate) mod schema;
pub(crate) mod view;

use std::collections::BTreeMap;

use crate::delta::{Stand, Token};
use crate::http::{Call, Refusal, refuse};
use crate::ids::{Id, Missing};

/// The numbers a state gives out.
pub(crate) struct Numbers {
    seq: u64,
    pub epoch: u64,
    next_key: u64,
}

impl Numbers {
    /// Keys from `first` on.
    pub(crate) fn new(first: u64) -> Self {
        Self { seq: 0, epoch: 0, next_key: first }
    }

    pub(crate) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// The number the next change will have.
    pub(crate) fn upcoming_seq(&self) -> u64 {
        self.seq + 1
    }

    pub(crate) fn next_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key - 1
    }

    pub(crate) fn stand(&self) -> Stand {
        Stand { seq: self.seq, epoch: self.epoch }
    }
}

/// A thing with its place and its numbers.
#[derive(Clone)]
pub(crate) struct Object<T> {
    pub key: u64,
    pub place: u64,
    /// How often it changed its place: a mutable id dies with each.
    pub moves: u32,
    /// Number of the last change.
    pub seq: u64,
    pub created_ms: u64,
    pub modified_ms: u64,
    pub value: T,
}

/// What is left where an object was.
#[derive(Clone, Copy)]
struct Tombstone {
    place: u64,
    key: u64,
    moves: u32,
}

/// One line of a delta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Present(u64),
    /// The object and the moves it had made.
    Removed(u64, u32),
}

/// Objects by key.
pub(crate) struct Objects<T> {
    by_key: BTreeMap<u64, Object<T>>,
    /// By the number of the departure.
    tombstones: BTreeMap<u64, Tombstone>,
}

impl<T> Objects<T> {
    pub(crate) fn new() -> Self {
        Self { by_key: BTreeMap::new(), tombstones: BTreeMap::new() }
    }

    pub(crate) fn insert(&mut self, numbers: &mut Numbers, place: u64, now_ms: u64, value: T) -> u64 {
        let key = numbers.next_key();
        let seq = numbers.next_seq();
        let object = Object { key, place, moves: 0, seq, created_ms: now_ms, modified_ms: now_ms, value };
        self.by_key.insert(key, object);
        key
    }

    pub(crate) fn get(&self, key: u64) -> Option<&Object<T>> {
        self.by_key.get(&key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Object<T>> {
        self.by_key.values()
    }

    /// What is at a place.
    pub(crate) fn at(&self, place: u64) -> impl Iterator<Item = &Object<T>> {
        self.by_key.values().filter(move |object| object.place == place)
    }

    /// Changes an object without a word in delta.
    pub(crate) fn quietly(&mut self, key: u64) -> Option<&mut T> {
        self.by_key.get_mut(&key).map(|object| &mut object.value)
    }

    /// Changes an object: it gets a new number.
    pub(crate) fn change(&mut self, numbers: &mut Numbers, key: u64, now_ms: u64) -> Option<&mut T> {
        let object = self.by_key.get_mut(&key)?;
        object.seq = numbers.next_seq();
        object.modified_ms = now_ms;
        Some(&mut object.value)
    }

    pub(crate) fn move_to(&mut self, numbers: &mut Numbers, key: u64, place: u64, now_ms: u64) {
        let Some(object) = self.by_key.get_mut(&key).filter(|object| object.place != place) else { return };
        let left = Tombstone { place: object.place, key, moves: object.moves };
        self.tombstones.insert(numbers.next_seq(), left);
        object.seq = numbers.next_seq();
        object.place = place;
        object.moves += 1;
        object.modified_ms = now_ms;
    }

    pub(crate) fn remove(&mut self, numbers: &mut Numbers, key: u64) -> Option<Object<T>> {
        let object = self.by_key.remove(&key)?;
        let left = Tombstone { place: object.place, key, moves: object.moves };
        self.tombstones.insert(numbers.next_seq(), left);
        Some(object)
    }

    /// Changes after the token's position, at one place or anywhere, in order and with their numbers.
    pub(crate) fn numbered(&self, place: Option<u64>, token: &Token) -> Vec<(u64, Change)> {
        let after = token.position + 1;
        let present = self
            .by_key
            .values()
            .filter(|object| object.seq >= after && place.is_none_or(|place| place == object.place))
            .map(|object| (object.seq, Change::Present(object.key)));
        let removed = self
            .tombstones
            .range(after.max(token.start + 1)..)
            .filter(|(_, left)| match place {
                Some(place) => left.place == place,
                // Seen from everywhere a move is no departure.
                None => !self.by_key.contains_key(&left.key),
            })
            .map(|(seq, left)| (*seq, Change::Removed(left.key, left.moves)));
        let mut changes: Vec<_> = present.chain(removed).collect();
        changes.sort_unstable_by_key(|(seq, _)| *seq);
        changes
    }

    /// The first of them and whether there are more; moves the token.
    fn changes(&self, place: Option<u64>, token: &mut Token, size: usize) -> (Vec<Change>, bool) {
        let all = self.numbered(place, token);
        let more = all.len() > size;
        let taken: Vec<_> = all.into_iter().take(size).collect();
        if let Some((seq, _)) = taken.last() {
            token.position = *seq;
        }
        (taken.into_iter().map(|(_, change)| change).collect(), more)
    }
}

/// What an id of a path names: the object's key and which part of it.
pub(crate) struct Named {
    pub key: u64,
    pub extra: u32,
    moves: Option<u32>,
}

impl Named {
    pub(crate) fn of(id: &str, tag: u8, user: u32) -> Result<Self, Missing> {
        match Id::decode(id) {
            Some(Id::Object { tag: found, user: owner, key, extra, moves })
                if found == tag && owner == user =>
            {
                Ok(Self { key, extra, moves })
            }
            Some(_) => Err(Missing::Gone),
            None => Err(Missing::Malformed),
        }
    }

    /// The object, unless the id died with a move.
    pub(crate) fn among<'a, T>(&self, objects: &'a Objects<T>) -> Result<&'a Object<T>, Missing> {
        objects
            .get(self.key)
            .filter(|object| self.moves.is_none_or(|moves| moves == object.moves))
            .ok_or(Missing::Gone)
    }
}

/// Refuses a read by decree of the fault options.
pub(crate) fn read_fault(call: &Call) -> Result<(), Refusal> {
    let faults = &call.options.faults;
    if call.luck.strikes("404", faults.rate_404) {
        call.world.counters.fault("404");
        return Err(Missing::Gone.into());
    }
    if call.luck.dooms("corrupt item", faults.rate_corrupt_item) {
        call.world.counters.fault("corrupt_item");
        return Err(refuse(500, "ErrorCorruptData", "The item is corrupt."));
    }
    Ok(())
}
