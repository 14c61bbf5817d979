//! The account of a run, kept per item: every id that was listed ends in exactly one outcome.
//!
//! The invariant: an id has at most one entry, so that duplicates, replays and moves between folders count once.

use std::collections::HashMap;

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
}

/// An id's short form: 128 bits of its hash.
pub type IdHash = [u8; 16];

/// The short form of an id.
pub fn id_hash(id: &str) -> IdHash {
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
    hash
}

/// The folder of entries that were made before the job was resumed.
pub const BEFORE_RESUME: u32 = u32::MAX;
/// The folder of entries that come from the failed list.
pub const RETRIED: u32 = u32::MAX - 1;

/// One listed item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// None while its content is being fetched.
    pub outcome: Option<Outcome>,
    /// Whether the snapshot holds a version of it.
    pub is_held: bool,
    /// The folder it was listed in last, by position.
    pub folder: u32,
    /// In which round of that folder.
    pub round: u32,
    /// The version that was listed.
    pub change: [u8; 16],
}

/// All listed items of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    listed: HashMap<IdHash, Listed>,
    pub removed: u64,
    pub bytes_read: u64,
}

/// One entry in a job checkpoint: hash, outcome, whether held.
const PACKED_BYTES: usize = 18;

impl Ledger {
    pub fn get(&self, id: &IdHash) -> Option<&Listed> {
        self.listed.get(id)
    }

    pub fn list(&mut self, id: IdHash, listed: Listed) {
        self.listed.insert(id, listed);
    }

    /// The item turned out to be removed: it does not count as listed.
    pub fn unlist(&mut self, id: &IdHash) {
        self.listed.remove(id);
    }

    /// Ends an item. False when it was removed in the meantime.
    pub fn settle(&mut self, id: &IdHash, outcome: Outcome, is_held: bool) -> bool {
        match self.listed.get_mut(id) {
            None => false,
            Some(listed) => {
                listed.outcome = Some(outcome);
                listed.is_held = is_held;
                true
            }
        }
    }

    /// The sums. `items` is how many messages the snapshot holds.
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

    /// For a job checkpoint. Nothing is in flight then, so every entry has its outcome.
    pub fn pack(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.listed.len() * PACKED_BYTES);
        for (id, listed) in &self.listed {
            out.extend_from_slice(id);
            out.push(listed.outcome.map_or(0, |outcome| outcome as u8));
            out.push(u8::from(listed.is_held));
        }
        out
    }

    /// From a job checkpoint; none when it is damaged.
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<PACKED_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let mut ledger = Self::default();
        for entry in entries {
            let outcome = match entry[16] {
                1 => Outcome::Stored,
                2 => Outcome::Unchanged,
                3 => Outcome::Gone,
                4 => Outcome::FailedRetryable,
                5 => Outcome::FailedPermanent,
                _ => return None,
            };
            let mut id = [0; 16];
            id.copy_from_slice(&entry[..16]);
            let listed = Listed {
                outcome: Some(outcome),
                is_held: entry[17] == 1,
                folder: BEFORE_RESUME,
                round: 0,
                change: [0; 16],
            };
            ledger.list(id, listed);
        }
        Some(ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(outcome: Option<Outcome>) -> Listed {
        Listed { outcome, is_held: true, folder: 0, round: 0, change: [0; 16] }
    }

    #[test]
    fn an_item_without_outcome_fails_the_job() {
        let mut ledger = Ledger::default();
        ledger.list(id_hash("a"), listed(Some(Outcome::Stored)));
        ledger.list(id_hash("b"), listed(None));
        assert!(matches!(ledger.close(2), Err(JobError::DoesNotAddUp { listed: 2, accounted: 1 })));
        assert!(ledger.settle(&id_hash("b"), Outcome::Gone, false));
        let account = ledger.close(5).unwrap();
        assert_eq!((account.listed, account.stored, account.gone, account.carried), (2, 1, 1, 4));
    }

    #[test]
    fn a_ledger_survives_a_checkpoint() {
        let mut ledger = Ledger::default();
        ledger.list(id_hash("a"), listed(Some(Outcome::FailedRetryable)));
        let back = Ledger::unpack(&ledger.pack()).unwrap();
        assert_eq!(back.account(1), ledger.account(1));
        assert!(Ledger::unpack(&[1, 2, 3]).is_none());
    }
}
