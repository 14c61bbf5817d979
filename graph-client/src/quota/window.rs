//! A sliding window made of buckets.
//!
//! The one invariant to know: the sum counts one bucket more than the window has, so that no window of its length, wherever
//! it starts, holds more than was allowed. The Lua script of the Redis ledger does exactly the same.

use std::{collections::VecDeque, time::Duration};

/// Buckets per window at most. The one that is counted beside the window is quota that nobody gets: half a percent.
pub(super) const MAX_BUCKETS: u64 = 240;

/// What was charged lately.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// (bucket number, charged), ascending. What was used before the clock began has a number below zero.
    buckets: VecDeque<(i64, u64)>,
}

fn width_ms(window: Duration) -> i64 {
    signed(millis(window).div_ceil(MAX_BUCKETS).max(1))
}

/// How many buckets are at least the window.
fn buckets(window: Duration) -> i64 {
    let width = width_ms(window);
    (signed(millis(window)) + width - 1) / width
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// No clock and no window comes near the end of either.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Window {
    /// What counts at this moment.
    pub fn used(&mut self, now: Duration, window: Duration) -> u64 {
        let oldest = signed(millis(now)) / width_ms(window) - buckets(window);
        while self.buckets.front().is_some_and(|(bucket, _)| *bucket < oldest) {
            self.buckets.pop_front();
        }
        self.buckets.iter().map(|(_, charged)| charged).sum()
    }

    /// How long until `cost` fits under `limit`; zero when it does now. The cost itself must not exceed the limit.
    pub fn wait_for(&mut self, cost: u64, limit: u64, now: Duration, window: Duration) -> Duration {
        let mut excess = (self.used(now, window) + cost).saturating_sub(limit);
        if excess == 0 {
            return Duration::ZERO;
        }
        let width = width_ms(window);
        for (bucket, charged) in &self.buckets {
            excess = excess.saturating_sub(*charged);
            if excess == 0 {
                let freed_at = u64::try_from((bucket + buckets(window) + 1) * width).unwrap_or(0);
                return Duration::from_millis(freed_at).saturating_sub(now);
            }
        }
        window
    }

    /// Charges, whatever the limit.
    pub fn charge(&mut self, cost: u64, now: Duration, window: Duration) {
        self.charge_since(cost, Duration::ZERO, now, window);
    }

    /// Charges what was used a while ago, so that it is forgotten as much earlier.
    pub fn charge_since(&mut self, cost: u64, ago: Duration, now: Duration, window: Duration) {
        if cost == 0 {
            return;
        }
        let bucket = (signed(millis(now)) - signed(millis(ago))).div_euclid(width_ms(window));
        let index = self.buckets.partition_point(|(known, _)| *known < bucket);
        match self.buckets.get_mut(index) {
            Some((known, charged)) if *known == bucket => *charged += cost,
            _ => self.buckets.insert(index, (bucket, cost)),
        }
    }
}
