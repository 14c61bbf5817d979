//! Retries with full jitter. Every retry has a limit, and a delay the other side dictates is never undercut.

use std::{future::Future, time::Duration};

use holdfast_model::Random;

/// A dictated delay above this is handed to the caller as the error instead of being slept through.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// No policy tries more often than this.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// An error that knows whether trying again can help.
pub trait Retryable {
    /// Whether the same request may succeed later.
    fn is_retryable(&self) -> bool;

    /// How long the other side asked to wait.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// A back-off policy makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackoffError {
    /// The first delay is zero.
    #[error("the first delay of a back-off must not be zero")]
    ZeroFirst,
    /// The largest delay is below the first.
    #[error("the largest delay {max:?} of a back-off is below its first {first:?}")]
    MaxBelowFirst {
        /// The first delay.
        first: Duration,
        /// The largest delay.
        max: Duration,
    },
    /// The number of attempts is out of range.
    #[error("a back-off makes 1 to {ATTEMPTS_MAX} attempts, not {attempts}")]
    Attempts {
        /// What was asked for.
        attempts: u32,
    },
}

/// How long to wait between attempts, and how many to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// Makes a policy: delays up to `first`, doubling up to `max`, for `attempts` attempts in all.
    pub const fn new(first: Duration, max: Duration, attempts: u32) -> Result<Self, BackoffError> {
        if first.is_zero() {
            return Err(BackoffError::ZeroFirst);
        }
        if max.as_nanos() < first.as_nanos() {
            return Err(BackoffError::MaxBelowFirst { first, max });
        }
        if attempts == 0 || attempts > ATTEMPTS_MAX {
            return Err(BackoffError::Attempts { attempts });
        }
        Ok(Self { first, max, attempts })
    }

    /// How many attempts are made in all.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The delay after failed attempt number `attempt` (from 0): uniform between zero and the doubled ceiling.
    pub fn delay(&self, attempt: u32, random: &dyn Random) -> Duration {
        let factor = 1_u32.checked_shl(attempt).unwrap_or(u32::MAX);
        fraction(self.first.saturating_mul(factor).min(self.max), random)
    }
}

/// A uniformly random part of `ceiling`.
pub(crate) fn fraction(ceiling: Duration, random: &dyn Random) -> Duration {
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(if nanos == u64::MAX { random.next_u64() } else { random.next_u64() % (nanos + 1) })
}

/// Calls `operation` with the attempt number (from 0) until it succeeds, fails for good, or the policy is used up.
///
/// The operation must be safe to repeat. Cancellation safe if the operation is.
pub async fn retry<T, E, F, Fut>(backoff: &Backoff, random: &dyn Random, mut operation: F) -> Result<T, E>
where
    E: Retryable,
    F: FnMut(u32) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let mut attempt = 0;
    loop {
        let error = match operation(attempt).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let dictated = error.retry_after();
        let last = attempt + 1 >= backoff.attempts;
        if last || !error.is_retryable() || dictated.is_some_and(|delay| delay > RETRY_AFTER_MAX) {
            return Err(error);
        }
        let delay = backoff.delay(attempt, random);
        tokio::time::sleep(dictated.map_or(delay, |dictated| dictated + delay.min(dictated / 10))).await;
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemRandom;

    #[derive(Debug, PartialEq)]
    struct Failure(bool, Option<Duration>);

    impl Retryable for Failure {
        fn is_retryable(&self) -> bool {
            self.0
        }

        fn retry_after(&self) -> Option<Duration> {
            self.1
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        assert_eq!(Backoff::new(Duration::ZERO, SECOND, 1), Err(BackoffError::ZeroFirst));
        assert!(matches!(Backoff::new(SECOND * 2, SECOND, 1), Err(BackoffError::MaxBelowFirst { .. })));
        assert!(matches!(Backoff::new(SECOND, SECOND, 0), Err(BackoffError::Attempts { attempts: 0 })));
    }

    #[test]
    fn delays_stay_under_their_doubling_ceiling() {
        let backoff = Backoff::new(SECOND, SECOND * 10, 5).unwrap();
        for attempt in [0, 1, 2, 3, 40, u32::MAX] {
            let ceiling = SECOND * 10_u32.min(1_u32.checked_shl(attempt).unwrap_or(u32::MAX));
            for _ in 0..50 {
                assert!(backoff.delay(attempt, &SystemRandom) <= ceiling);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retries_end_with_success_or_the_limit_or_a_permanent_error() {
        let backoff = Backoff::new(SECOND, SECOND, 4).unwrap();
        let ok = retry(&backoff, &SystemRandom, |attempt| async move {
            if attempt < 3 { Err(Failure(true, None)) } else { Ok(attempt) }
        });
        assert_eq!(ok.await, Ok(3));
        let mut calls = 0;
        let exhausted: Result<(), _> = retry(&backoff, &SystemRandom, |_| {
            calls += 1;
            async { Err(Failure(true, None)) }
        })
        .await;
        assert_eq!((exhausted, calls), (Err(Failure(true, None)), 4));
        let permanent: Result<(), _> =
            retry(&backoff, &SystemRandom, |attempt| async move { Err(Failure(attempt == 7, None)) }).await;
        assert_eq!(permanent, Err(Failure(false, None)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dictated_delay_is_never_undercut() {
        let backoff = Backoff::new(Duration::from_millis(1), SECOND, 2).unwrap();
        let started = tokio::time::Instant::now();
        let result: Result<(), _> =
            retry(&backoff, &SystemRandom, |_| async { Err(Failure(true, Some(SECOND * 30))) }).await;
        assert!(result.is_err() && started.elapsed() >= SECOND * 30);
        let started = tokio::time::Instant::now();
        let result: Result<(), _> =
            retry(&backoff, &SystemRandom, |_| async { Err(Failure(true, Some(RETRY_AFTER_MAX * 2))) }).await;
        assert!(result.is_err() && started.elapsed() < SECOND);
    }
}
