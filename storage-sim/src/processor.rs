//! How long this thread had a processor: unlike the time on the clock, other load on the machine hardly changes it.

use std::{fs, time::Duration};

/// So far; none where the system does not say.
pub fn time_used() -> Option<Duration> {
    // Nanoseconds on a processor, nanoseconds of waiting for one, and how often.
    let numbers = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    numbers.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_is_used_counts_and_time_that_is_waited_does_not() {
        let Some(before) = time_used() else { return };
        let mut hash = blake3::hash(b"");
        while time_used().is_some_and(|now| now == before) {
            hash = blake3::hash(hash.as_bytes());
        }
        assert!(time_used() > Some(before), "{hash}");
    }
}
