//! Slow corrections by time: what no listing tells of is looked at again, a share of the items at a time.
//!
//! The invariant: an item is looked at at least once in [`N_SHARES`] times [`SHARE_EVERY`], as long as runs are not further
//! apart than that; and not more often, however often they are.

use std::time::Duration;

use holdfast_model::Millis;
use serde::{Deserialize, Serialize};

use super::id_hash;

/// Items are divided into so many shares.
const N_SHARES: u8 = 7;
/// A share is due so often, and with the seven of them each item once a week.
const SHARE_EVERY: Duration = Duration::from_hours(24);

/// How far a slow correction got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shares {
    /// Up to when shares were taken; 0: before the first run.
    #[serde(default)]
    until_ms: Millis,
    /// The share that is due next.
    #[serde(default)]
    next: u8,
}

/// Shares that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueShares {
    first: u8,
    n_due: u8,
}

impl Shares {
    /// The shares that are due now; they are taken by it. In a first run none is: everything was just read.
    pub fn take_due(&mut self, now_ms: Millis) -> DueShares {
        let every_ms = Millis::try_from(SHARE_EVERY.as_millis()).unwrap_or(Millis::MAX);
        // A clock that went back starts the time again.
        let elapsed_ms = if self.until_ms == 0 { 0 } else { now_ms.saturating_sub(self.until_ms) };
        let n_due = u8::try_from(elapsed_ms / every_ms).unwrap_or(N_SHARES).min(N_SHARES);
        let due = DueShares { first: self.next, n_due };
        self.next = (self.next + n_due) % N_SHARES;
        self.until_ms = match n_due {
            0 if self.until_ms != 0 && self.until_ms <= now_ms => self.until_ms,
            0 | N_SHARES => now_ms,
            n => self.until_ms + Millis::from(n) * every_ms,
        };
        due
    }
}

impl DueShares {
    /// Whether there is nothing to do.
    pub fn is_empty(self) -> bool {
        self.n_due == 0
    }

    /// Whether an item is to be looked at.
    pub fn contains(self, id: &str) -> bool {
        let share = id_hash(id)[0] % N_SHARES;
        (share + N_SHARES - self.first % N_SHARES) % N_SHARES < self.n_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = 86_400_000;

    fn ids(due: DueShares) -> Vec<u32> {
        (0..200).filter(|n: &u32| due.contains(&n.to_string())).collect()
    }

    #[test]
    fn with_a_run_a_day_each_item_is_looked_at_once_a_week() {
        let (mut shares, start) = (Shares::default(), 40 * DAY);
        assert!(shares.take_due(start).is_empty(), "all was just read");
        let mut seen: Vec<u32> = Vec::new();
        for day in 1..=7 {
            let due = ids(shares.take_due(start + day * DAY));
            assert!((5..80).contains(&due.len()), "about a seventh: {}", due.len());
            seen.extend(due);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn many_runs_a_day_do_not_look_more_often_and_few_look_at_all() {
        let (mut shares, start) = (Shares::default(), 40 * DAY);
        shares.take_due(start);
        let n: usize = (1..=24).map(|hour| ids(shares.take_due(start + hour * DAY / 24)).len()).sum();
        assert!((5..80).contains(&n), "one share in a day: {n}");
        assert_eq!(ids(shares.take_due(start + 90 * DAY)).len(), 200);
        assert!(shares.take_due(start + 90 * DAY).is_empty());
    }

    #[test]
    fn a_clock_that_went_back_delays_nothing_for_good() {
        let mut shares = Shares::default();
        shares.take_due(900 * DAY);
        assert!(shares.take_due(40 * DAY).is_empty());
        assert!(!shares.take_due(42 * DAY).is_empty());
    }
}
