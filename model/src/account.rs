//! The account of a run: every item ends in exactly one place, and the sum is checked.

use serde::{Deserialize, Serialize};

/// What became of the items of one round.
///
/// `stored + unchanged + skipped + gone + failed_retryable + failed_permanent == listed`; `removed` and `carried` are
/// counted beside, and `incomplete` within `stored`. A restore, an export and a verification use the same account: *stored* is what they wrote or proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// Distinct ids listed and not marked removed.
    pub listed: u64,
    /// Written by this run.
    pub stored: u64,
    /// Those of `stored` that lack a part, such as an attachment Microsoft refused; the failed list says which.
    #[serde(default)]
    pub incomplete: u64,
    /// Listed, and the same as in the base.
    pub unchanged: u64,
    /// Left out by a rule.
    pub skipped: u64,
    /// 404 after it was listed.
    pub gone: u64,
    /// Failed; the next run tries again.
    pub failed_retryable: u64,
    /// Failed for good, with a code.
    pub failed_permanent: u64,
    /// Marked removed by Microsoft.
    pub removed: u64,
    /// In the base, not listed: carried over as it is.
    pub carried: u64,
    /// Content bytes read from the source (backup) or from storage (restore, export, verify).
    pub bytes_read: u64,
    /// Sealed bytes sent to storage, before replication.
    pub bytes_stored: u64,
    /// Requests sent to Microsoft, each attempt counted.
    pub requests: u64,
}

impl Account {
    /// Whether every listed item ended in exactly one place (promise 1).
    pub fn adds_up(&self) -> bool {
        self.accounted() == self.listed
    }

    /// How many listed items have an outcome.
    pub fn accounted(&self) -> u64 {
        self.stored
            + self.unchanged
            + self.skipped
            + self.gone
            + self.failed_retryable
            + self.failed_permanent
    }

    /// Whether something is missing that should be there.
    pub fn has_exceptions(&self) -> bool {
        self.failed_retryable + self.failed_permanent + self.incomplete > 0
    }

    /// Adds another account to this one, field by field.
    pub fn add(&mut self, other: &Self) {
        self.listed += other.listed;
        self.stored += other.stored;
        self.incomplete += other.incomplete;
        self.unchanged += other.unchanged;
        self.skipped += other.skipped;
        self.gone += other.gone;
        self.failed_retryable += other.failed_retryable;
        self.failed_permanent += other.failed_permanent;
        self.removed += other.removed;
        self.carried += other.carried;
        self.bytes_read += other.bytes_read;
        self.bytes_stored += other.bytes_stored;
        self.requests += other.requests;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_with_a_part_missing_is_an_exception_and_counts_once() {
        let account = Account { listed: 3, stored: 3, incomplete: 1, ..Account::default() };
        assert!(account.adds_up() && account.has_exceptions());
        assert!(!Account { incomplete: 0, ..account }.has_exceptions());
        let mut sum = account;
        sum.add(&account);
        assert_eq!((sum.listed, sum.stored, sum.incomplete), (6, 6, 2));
        assert!(sum.adds_up());
    }

    #[test]
    fn an_account_from_before_incomplete_items_were_counted_still_reads() {
        let mut value = serde_json::to_value(Account { listed: 2, stored: 2, ..Account::default() }).unwrap();
        value.as_object_mut().unwrap().remove("incomplete");
        let account: Account = serde_json::from_value(value).unwrap();
        assert_eq!((account.stored, account.incomplete), (2, 0));
    }
}
