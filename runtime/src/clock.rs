//! The real clock and the real randomness: the only place where a process reads them.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use holdfast_model::{Clock, Millis, Random};

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where time enters the process")]
    fn now_ms(&self) -> Millis {
        // A clock before 1970 reads as 1970: expiry then freezes instead of running ahead.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis::try_from(since_epoch.as_millis()).unwrap_or(Millis::MAX)
    }

    #[expect(clippy::disallowed_methods, reason = "this is where time enters the process")]
    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// The operating system's random numbers, good enough for keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system always has random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_random_bytes_differ() {
        let clock = SystemClock;
        assert!(clock.now_ms() > 1_700_000_000_000);
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
        assert_ne!(SystemRandom.next_u64(), SystemRandom.next_u64());
    }
}
