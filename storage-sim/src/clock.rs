//! The clocks of a machine: simulated time for all, and a wall clock that may be wrong on each.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use holdfast_model::{Clock, Millis};
use tokio::time::Instant;

/// The wall clock at the beginning of every world.
pub const START_MS: Millis = 1_800_000_000_000;

/// One machine's clocks.
pub struct SimClock {
    start: Instant,
    off_by_ms: AtomicI64,
}

impl SimClock {
    /// A right clock, in a world that begins now.
    pub fn new(start: Instant) -> Self {
        Self { start, off_by_ms: AtomicI64::new(0) }
    }

    /// Makes the wall clock wrong by so much.
    pub fn set_off_by_ms(&self, off_by_ms: i64) {
        self.off_by_ms.store(off_by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> Millis {
        let elapsed_ms = u64::try_from(self.monotonic().as_millis()).unwrap_or(u64::MAX);
        (START_MS + elapsed_ms).saturating_add_signed(self.off_by_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
