//! A sliding window, in coarse steps.

use std::collections::VecDeque;

const BUCKETS: u64 = 60;

/// What was used lately.
#[derive(Default)]
pub(crate) struct Window {
    buckets: VecDeque<(u64, u64)>,
    total: u64,
}

impl Window {
    /// What counts now.
    pub(crate) fn used(&mut self, now_ms: u64, window_ms: u64) -> u64 {
        while let Some((at, count)) = self.buckets.front().copied() {
            if at + window_ms > now_ms {
                break;
            }
            self.total -= count;
            self.buckets.pop_front();
        }
        self.total
    }

    pub(crate) fn add(&mut self, now_ms: u64, window_ms: u64, count: u64) {
        let width = (window_ms / BUCKETS).max(1);
        let at = now_ms - now_ms % width + width - 1;
        self.total += count;
        match self.buckets.back_mut() {
            Some((last, sum)) if *last == at => *sum += count,
            _ => self.buckets.push_back((at, count)),
        }
    }

    /// When the oldest of it counts no more.
    pub(crate) fn free_in(&self, now_ms: u64, window_ms: u64) -> u64 {
        self.buckets.front().map_or(1, |(at, _)| (at + window_ms).saturating_sub(now_ms).max(1))
    }
}
