//! The worker's token source: a token that the coordinator sends with each heartbeat.
//!
//! The one invariant to know: while the coordinator is away the job pauses here, for a bounded time, and keeps its place.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use holdfast_model::{Clock, Millis};
use tokio::sync::watch;

use super::{AccessToken, TokenSource};
use crate::GraphError;

/// How long a call waits for the next token before it gives up.
pub const MAX_TOKEN_WAIT: Duration = Duration::from_mins(5);

/// A token this close to its end is not used for a new request …
const MARGIN_MS: u64 = 30_000;
/// … but one that lives only shortly is used for all but this part of what was left when it came.
const MARGIN_FRACTION: u64 = 8;

/// How often the clock is looked at again while waiting.
const RECHECK: Duration = Duration::from_secs(1);

/// A token that somebody else renews.
pub struct HeldToken {
    /// The token, and until when it is used for new requests.
    current: watch::Sender<(AccessToken, Millis)>,
    clock: Arc<dyn Clock>,
}

impl HeldToken {
    /// Starts with the token of the lease.
    pub fn new(token: AccessToken, clock: Arc<dyn Clock>) -> Self {
        let until_ms = usable_until(&token, clock.now_ms());
        Self { current: watch::Sender::new((token, until_ms)), clock }
    }

    /// Puts the next token in place; calls that wait for it go on.
    pub fn set(&self, token: AccessToken) {
        let until_ms = usable_until(&token, self.clock.now_ms());
        // The same token again must not look fresher than it did.
        self.current.send_modify(|held| {
            let until_ms = if held.0.is_same(&token) { until_ms.min(held.1) } else { until_ms };
            *held = (token, until_ms);
        });
    }

    async fn wait_for(&self, accept: impl Fn(&AccessToken) -> bool) -> Result<AccessToken, GraphError> {
        let mut receiver = self.current.subscribe();
        let deadline = tokio::time::Instant::now() + MAX_TOKEN_WAIT;
        loop {
            let (token, until_ms) = receiver.borrow_and_update().clone();
            if accept(&token) && self.clock.now_ms() < until_ms {
                return Ok(token);
            }
            let now = tokio::time::Instant::now();
            if now >= deadline {
                return Err(GraphError::NoToken { waited: MAX_TOKEN_WAIT });
            }
            // The sender lives as long as we do, and a timeout only means: look again.
            let _elapsed_or_changed =
                tokio::time::timeout(RECHECK.min(deadline - now), receiver.changed()).await;
        }
    }
}

fn usable_until(token: &AccessToken, now_ms: Millis) -> Millis {
    let left = token.expires_at_ms.saturating_sub(now_ms);
    token.expires_at_ms - MARGIN_MS.min(left / MARGIN_FRACTION)
}

#[async_trait]
impl TokenSource for HeldToken {
    async fn token(&self) -> Result<AccessToken, GraphError> {
        self.wait_for(|_| true).await
    }

    async fn renew(&self, rejected: &AccessToken) -> Result<AccessToken, GraphError> {
        self.wait_for(|token| !token.is_same(rejected)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestClock;

    #[tokio::test(start_paused = true)]
    async fn an_expired_token_makes_calls_wait_until_the_next_one_comes() {
        let clock = TestClock::shared();
        let held = Arc::new(HeldToken::new(AccessToken::new("old".into(), clock.now_ms()), clock.clone()));
        let waiting = tokio::spawn({
            let held = held.clone();
            async move { held.token().await }
        });
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(!waiting.is_finished());
        held.set(AccessToken::new("new".into(), clock.now_ms() + 3_600_000));
        assert_eq!(waiting.await.unwrap().unwrap().secret.as_str(), "new");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_lives_shorter_than_the_margin_is_used_nearly_to_its_end() {
        let clock = TestClock::shared();
        let short = AccessToken::new("short".into(), clock.now_ms() + 20_000);
        let held = HeldToken::new(short.clone(), clock.clone());
        assert_eq!(held.token().await.unwrap().secret.as_str(), "short");
        tokio::time::sleep(Duration::from_secs(18)).await;
        held.set(short);
        let asked = tokio::time::timeout(Duration::from_secs(10), held.token()).await;
        assert!(asked.is_err(), "two seconds before its end it is not used for anything new");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_and_a_rejected_token_is_not_given_again() {
        let clock = TestClock::shared();
        let token = AccessToken::new("old".into(), clock.now_ms() + 3_600_000);
        let held = HeldToken::new(token.clone(), clock.clone());
        assert!(matches!(held.renew(&token).await, Err(GraphError::NoToken { .. })));
        held.set(AccessToken::new("new".into(), clock.now_ms() + 3_600_000));
        assert_eq!(held.renew(&token).await.unwrap().secret.as_str(), "new");
    }
}
