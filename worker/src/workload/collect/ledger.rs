//! The account of a run, kept per item: every id that was listed ends in exactly one outcome.
//!
//! Two invariants: an id has at most one entry, so that duplicates, replays and moves between containers count once; and the ids
//! of entries without an outcome are known, so that a job checkpoint can name them.

use std::collections::{BTreeMap, HashMap, HashSet};

use holdfast_model::Account;

use crate::JobError;

/// Where an item ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    Stored = 1,
    Unchanged = 2,
    Gone = 3,
    FailedRetryable = 4,
    FailedPermanent = 5,
    /// Stored, with a part missing that Microsoft would not give.
    Incomplete = 6,
}

impl Outcome {
    /// Whether this run wrote it.
    pub fn is_stored(self) -> bool {
        matches!(self, Self::Stored | Self::Incomplete)
    }

    fn from_code(code: u8) -> Option<Self> {
        let all = [
            Self::Stored,
            Self::Unchanged,
            Self::Gone,
            Self::FailedRetryable,
            Self::FailedPermanent,
            Self::Incomplete,
        ];
        all.into_iter().find(|outcome| *outcome as u8 == code)
    }
}

/// An id's short form: 128 bits of its hash.
pub type IdHash = [u8; 16];

/// The short form of an id.
pub fn id_hash(id: &str) -> IdHash {
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
    hash
}

/// The container of entries that were made before the job was resumed.
pub const BEFORE_RESUME: u32 = u32::MAX;
/// The container of entries that come from the failed list.
pub const RETRIED: u32 = u32::MAX - 1;

/// One listed item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// None while its content is being fetched.
    pub outcome: Option<Outcome>,
    /// Whether the snapshot holds a version of it.
    pub is_held: bool,
    /// The container it was listed in last, by position.
    pub container: u32,
    /// In which round of that container.
    pub round: u32,
    /// The version that was listed.
    pub change: [u8; 16],
}

impl Listed {
    /// Without an outcome yet.
    pub fn new(container: u32, round: u32, change: [u8; 16]) -> Self {
        Self { outcome: None, is_held: false, container, round, change }
    }
}

/// All listed items of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    listed: HashMap<IdHash, Listed>,
    /// The ids of entries without an outcome: what is being fetched.
    unsettled: HashMap<IdHash, String>,
    pub removed: u64,
    pub bytes_read: u64,
}

/// One entry in a job checkpoint: hash, outcome, whether held.
const PACKED_BYTES: usize = 18;
/// Stands in place of an outcome.
const WITHOUT_OUTCOME: u8 = 0;

impl Ledger {
    pub fn get(&self, id: &IdHash) -> Option<&Listed> {
        self.listed.get(id)
    }

    /// Whether this version was listed last and has no outcome.
    pub fn lacks(&self, id: &IdHash, change: &[u8; 16]) -> bool {
        self.listed.get(id).is_some_and(|listed| listed.outcome.is_none() && listed.change == *change)
    }

    pub fn list(&mut self, id: &str, listed: Listed) {
        let hash = id_hash(id);
        if listed.outcome.is_none() {
            self.unsettled.insert(hash, id.to_owned());
        } else {
            self.unsettled.remove(&hash);
        }
        self.listed.insert(hash, listed);
    }

    /// What has no outcome: id and container.
    pub fn unsettled(&self) -> impl Iterator<Item = (&str, u32)> {
        self.unsettled
            .iter()
            .filter_map(|(hash, id)| self.listed.get(hash).map(|listed| (id.as_str(), listed.container)))
    }

    /// The item turned out to be removed: it does not count as listed.
    pub fn unlist(&mut self, id: &IdHash) {
        self.listed.remove(id);
        self.unsettled.remove(id);
    }

    /// Ends an item. False when it was removed in the meantime.
    pub fn settle(&mut self, id: &IdHash, outcome: Outcome, is_held: bool) -> bool {
        match self.listed.get_mut(id) {
            None => false,
            Some(listed) => {
                listed.outcome = Some(outcome);
                listed.is_held = is_held;
                self.unsettled.remove(id);
                true
            }
        }
    }

    /// The sums. `items` is how many items the snapshot holds.
    pub fn account(&self, items: u64) -> Account {
        let mut account = Account {
            listed: self.listed.len() as u64,
            removed: self.removed,
            bytes_read: self.bytes_read,
            ..Account::default()
        };
        let mut held = 0;
        for listed in self.listed.values() {
            held += u64::from(listed.is_held);
            match listed.outcome {
                None => {}
                Some(Outcome::Stored) => account.stored += 1,
                Some(Outcome::Incomplete) => {
                    account.stored += 1;
                    account.incomplete += 1;
                }
                Some(Outcome::Unchanged) => account.unchanged += 1,
                Some(Outcome::Gone) => account.gone += 1,
                Some(Outcome::FailedRetryable) => account.failed_retryable += 1,
                Some(Outcome::FailedPermanent) => account.failed_permanent += 1,
            }
        }
        account.carried = items.saturating_sub(held);
        account
    }

    /// The final sums: they add up, or the job fails.
    pub fn close(&self, items: u64) -> Result<Account, JobError> {
        let account = self.account(items);
        if account.adds_up() {
            Ok(account)
        } else {
            Err(JobError::DoesNotAddUp { listed: account.listed, accounted: account.accounted() })
        }
    }

    /// For a job checkpoint, which names what has no outcome besides: see [`Self::unpack`].
    pub fn pack(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.listed.len() * PACKED_BYTES);
        for (id, listed) in &self.listed {
            out.extend_from_slice(id);
            out.push(listed.outcome.map_or(WITHOUT_OUTCOME, |outcome| outcome as u8));
            out.push(u8::from(listed.is_held));
        }
        out
    }

    /// From a job checkpoint; none when it is damaged.
    ///
    /// An entry without an outcome is left out: its id must be pending, and is asked for again. Or it is in a shard: then it
    /// stays, and its id comes from there. (A reader that does not know of pending ids or of shards refuses such an entry, and
    /// the job starts from its base.)
    pub fn unpack(bytes: &[u8], pending: &BTreeMap<String, String>, has_shards: bool) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<PACKED_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let pending: HashSet<IdHash> = pending.keys().map(|id| id_hash(id)).collect();
        let mut ledger = Self::default();
        for entry in entries {
            let mut id = [0; 16];
            id.copy_from_slice(&entry[..16]);
            if entry[16] == WITHOUT_OUTCOME && pending.contains(&id) {
                continue;
            }
            let outcome = match entry[16] {
                WITHOUT_OUTCOME if has_shards => None,
                code => Some(Outcome::from_code(code)?),
            };
            let listed =
                Listed { outcome, is_held: entry[17] == 1, ..Listed::new(BEFORE_RESUME, 0, [0; 16]) };
            ledger.listed.insert(id, listed);
        }
        Some(ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(outcome: Option<Outcome>) -> Listed {
        Listed { outcome, is_held: true, ..Listed::new(0, 0, [0; 16]) }
    }

    #[test]
    fn an_item_without_outcome_fails_the_job() {
        let mut ledger = Ledger::default();
        ledger.list("a", listed(Some(Outcome::Stored)));
        ledger.list("b", listed(None));
        assert!(matches!(ledger.close(2), Err(JobError::DoesNotAddUp { listed: 2, accounted: 1 })));
        assert!(ledger.settle(&id_hash("b"), Outcome::Gone, false));
        let account = ledger.close(5).unwrap();
        assert_eq!((account.listed, account.stored, account.gone, account.carried), (2, 1, 1, 4));
    }

    #[test]
    fn a_ledger_survives_a_checkpoint() {
        let mut ledger = Ledger::default();
        let outcomes = [Outcome::FailedRetryable, Outcome::Incomplete, Outcome::Unchanged];
        for (id, outcome) in ["a", "b", "c"].into_iter().zip(outcomes) {
            ledger.list(id, listed(Some(outcome)));
        }
        let back = Ledger::unpack(&ledger.pack(), &BTreeMap::new(), false).unwrap();
        assert_eq!(back.account(3), ledger.account(3));
        assert_eq!((back.account(3).stored, back.account(3).incomplete), (1, 1));
        assert!(Ledger::unpack(&[1, 2, 3], &BTreeMap::new(), false).is_none());
    }

    #[test]
    fn what_has_no_outcome_is_pending_after_a_checkpoint_or_the_checkpoint_is_refused() {
        let mut ledger = Ledger::default();
        for id in ["a", "b", "c"] {
            ledger.list(id, listed(None));
        }
        ledger.settle(&id_hash("a"), Outcome::Stored, true);
        ledger.unlist(&id_hash("b"));
        assert_eq!(ledger.unsettled().collect::<Vec<_>>(), [("c", 0)]);
        let pending = BTreeMap::from([("c".to_owned(), String::new())]);
        let back = Ledger::unpack(&ledger.pack(), &pending, false).unwrap();
        assert_eq!(back.close(1).unwrap().listed, 1, "what is pending is listed when it is asked for again");
        assert!(
            Ledger::unpack(&ledger.pack(), &BTreeMap::new(), false).is_none(),
            "nothing is lost in silence"
        );
    }
}
