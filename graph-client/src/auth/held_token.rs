//! The worker's token source: a token that the coordinator sends with each heartbeat.
//!
//! The one invariant to know: while the coordinator is away the job pauses here, for a bounded time, and keeps its place.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use holdfast_model::{Clock, Millis};
use tokio::sync::watch;

use super::{AccessToken, Rejection, TokenSource};
use crate::{Claims, GraphError};

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
    current: watch::Sender<Held>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
struct Held {
    token: AccessToken,
    /// Until when it is used for new requests.
    until_ms: Millis,
    /// That Microsoft refuses it although it has not expired.
    rejection: Option<Rejection>,
}

impl HeldToken {
    /// Starts with the token of the lease.
    pub fn new(token: AccessToken, clock: Arc<dyn Clock>) -> Self {
        let until_ms = usable_until(&token, clock.now_ms());
        Self { current: watch::Sender::new(Held { token, until_ms, rejection: None }), clock }
    }

    /// Puts the next token in place; calls that wait for it go on.
    pub fn set(&self, token: AccessToken) {
        let until_ms = usable_until(&token, self.clock.now_ms());
        self.current.send_modify(|held| {
            // The same token again looks no fresher than it did, and is as rejected as it was.
            let is_same = held.token.is_same(&token);
            let until_ms = if is_same { until_ms.min(held.until_ms) } else { until_ms };
            let rejection = held.rejection.take().filter(|_| is_same);
            *held = Held { token, until_ms, rejection };
        });
    }

    /// That Microsoft refuses the present token; whoever renews it has to know.
    pub fn rejection(&self) -> Option<Rejection> {
        self.current.borrow().rejection.clone()
    }

    /// Waits until Microsoft refuses the present token. Cancel safe.
    pub async fn rejected(&self) {
        let mut receiver = self.current.subscribe();
        // The sender lives as long as we do, so the wait ends with a rejection only.
        let _held = receiver.wait_for(|held| held.rejection.is_some()).await;
    }

    /// Remembers the refusal, unless another token came meanwhile. Claims that were demanded once stay demanded.
    fn reject(&self, rejected: &AccessToken, claims: Option<&Claims>) {
        self.current.send_if_modified(|held| {
            if !held.token.is_same(rejected) {
                return false;
            }
            let known = held.rejection.take().and_then(|rejection| rejection.claims);
            let fingerprint = rejected.fingerprint();
            held.rejection = Some(Rejection { fingerprint, claims: claims.cloned().or(known) });
            true
        });
    }

    async fn usable(&self) -> Result<AccessToken, GraphError> {
        let mut receiver = self.current.subscribe();
        let deadline = tokio::time::Instant::now() + MAX_TOKEN_WAIT;
        loop {
            let held = receiver.borrow_and_update().clone();
            if held.rejection.is_none() && self.clock.now_ms() < held.until_ms {
                return Ok(held.token);
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
        self.usable().await
    }

    async fn renew(
        &self,
        rejected: &AccessToken,
        claims: Option<&Claims>,
    ) -> Result<AccessToken, GraphError> {
        self.reject(rejected, claims);
        self.usable().await
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
        assert!(matches!(held.renew(&token, None).await, Err(GraphError::NoToken { .. })));
        held.set(token.clone());
        assert!(matches!(held.token().await, Err(GraphError::NoToken { .. })), "it is as rejected as it was");
        held.set(AccessToken::new("new".into(), clock.now_ms() + 3_600_000));
        assert_eq!(held.renew(&token, None).await.unwrap().secret.as_str(), "new");
        assert_eq!(held.rejection(), None, "a late refusal of the old token says nothing of the new one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_is_told_at_once_with_the_claims_that_were_demanded() {
        let clock = TestClock::shared();
        let token = AccessToken::new("old".into(), clock.now_ms() + 3_600_000);
        let held = Arc::new(HeldToken::new(token.clone(), clock.clone()));
        let told = tokio::spawn({
            let held = held.clone();
            async move { held.rejected().await }
        });
        let claims = Claims::from_json(r#"{"access_token":{}}"#).unwrap();
        let waiting = [Some(claims.clone()), None].map(|claims| {
            let (held, token) = (held.clone(), token.clone());
            tokio::spawn(async move { held.renew(&token, claims.as_ref()).await })
        });
        told.await.unwrap();
        tokio::task::yield_now().await;
        let rejection = Rejection { fingerprint: token.fingerprint(), claims: Some(claims) };
        assert_eq!(held.rejection(), Some(rejection));
        held.set(AccessToken::new("new".into(), clock.now_ms() + 3_600_000));
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap().unwrap().secret.as_str(), "new");
        }
    }
}
