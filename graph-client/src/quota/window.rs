//! A sliding window made of buckets.
//!
//! The one invariant to know: the sum counts one bucket more than the window has, so that no window of its length, wherever
//! it starts, holds more than was allowed. The Lua script of the Redis ledger does exactly the same.

use std::{collections::VecDeque, time::Duration};

/// Buckets per window.
pub(super) const BUCKETS: u64 = 60;

/// What was charged lately.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// (bucket number, charged), ascending.
    buckets: VecDeque<(u64, u64)>,
}

/// Rounded up: [`BUCKETS`] of them are at least the window.
fn width_ms(window: Duration) -> u64 {
    millis(window).div_ceil(BUCKETS).max(1)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Window {
    /// What counts at this moment.
    pub fn used(&mut self, now: Duration, window: Duration) -> u64 {
        let current = millis(now) / width_ms(window);
        while self.buckets.front().is_some_and(|(bucket, _)| bucket + BUCKETS < current) {
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
                return Duration::from_millis((bucket + BUCKETS + 1) * width).saturating_sub(now);
            }
        }
        window
    }

    /// Charges, whatever the limit.
    pub fn charge(&mut self, cost: u64, now: Duration, window: Duration) {
        if cost == 0 {
            return;
        }
        let current = millis(now) / width_ms(window);
        match self.buckets.back_mut() {
            Some((bucket, charged)) if *bucket >= current => *charged += cost,
            _ => self.buckets.push_back((current, cost)),
        }
    }
}
