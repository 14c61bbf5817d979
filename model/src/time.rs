//! Time and randomness are passed in, so that simulation and tests decide what they are.

use std::time::Duration;

/// Milliseconds since the Unix epoch, UTC.
pub type Millis = u64;

/// Tells the time.
///
/// Never a safety argument: what protects data are fences and epochs, which are numbers. Waiting is done with
/// `tokio::time`, which a simulation drives by itself.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, UTC.
    fn now_ms(&self) -> Millis;

    /// Time since an arbitrary start, never going back: for rates, deadlines and leases held locally.
    fn monotonic(&self) -> Duration;
}

/// Gives random bytes, good enough for keys and ids.
pub trait Random: Send + Sync + 'static {
    /// Fills the whole buffer.
    fn fill(&self, buffer: &mut [u8]);

    /// A uniformly random number, for jitter and ids.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}
