//! After a failed attempt: whether there is another one, and when.
//!
//! The one invariant to know: no attempt is made before the time that Microsoft named, and a new token is asked for once.

use std::time::Duration;

use holdfast_model::Random;

use crate::{AccessToken, ErrorClass, GraphClient, GraphError, challenge::Challenge};

use super::call::{Bearer, Call};

/// Back-off starts here and doubles up to the limit.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_mins(5);

/// How an attempt failed, with what the loop needs to know.
pub(super) struct Failure {
    pub error: GraphError,
    /// The token it was sent with.
    pub token: Option<AccessToken>,
    /// What Microsoft demands of the next one.
    pub challenge: Option<Challenge>,
}

impl From<GraphError> for Failure {
    fn from(error: GraphError) -> Self {
        Self { error, token: None, challenge: None }
    }
}

#[derive(Default)]
pub(super) struct Attempts {
    made: u32,
    has_renewed: bool,
    /// Whether Microsoft has demanded claims already.
    is_challenged: bool,
}

impl GraphClient {
    /// Decides whether there is another attempt, and waits until it may be made.
    pub(super) async fn prepare_next(
        &self,
        call: &mut Call,
        state: &mut Attempts,
        failure: Failure,
    ) -> Result<(), GraphError> {
        state.made += 1;
        let is_last = state.made >= self.inner.options.max_attempts;
        let error = match failure.error.class() {
            // An address that authorises itself and refuses has nothing to do with our token: get another one.
            ErrorClass::ReAuth if call.bearer == Bearer::Withhold => {
                return Err(with_class(failure.error, ErrorClass::Reread));
            }
            ErrorClass::ReAuth => return self.renew_token(state, failure).await,
            // A 401 with this code is the catch-all for unlicensed users, but also for a spent token.
            ErrorClass::FailResource if failure.error.status() == Some(401) && !state.has_renewed => {
                return self.renew_token(state, failure).await;
            }
            _ => failure.error,
        };
        match error.class() {
            ErrorClass::Wait => self.wait_throttled(call, state, error, is_last).await,
            ErrorClass::Retry if !is_last => self.wait_backoff(call, state, error).await,
            _ if !is_last && call.is_doubtful(&error, state.made) => {
                self.wait_backoff(call, state, error).await
            }
            _ => Err(error),
        }
    }

    /// Gets a new token, once, and once more when Microsoft demands claims of it; the refusal after that is the tenant's failure.
    async fn renew_token(&self, state: &mut Attempts, failure: Failure) -> Result<(), GraphError> {
        let Failure { error, token, challenge } = failure;
        let Some(token) = token else { return Err(with_class(error, ErrorClass::FailTenant)) };
        if challenge.is_some() && state.is_challenged {
            return Err(GraphError::ClaimsDemanded { request_id: error.request_id().map(str::to_owned) });
        }
        if challenge.is_none() && state.has_renewed {
            return Err(with_class(error, ErrorClass::FailTenant));
        }
        state.has_renewed = true;
        state.is_challenged |= challenge.is_some();
        state.made -= 1;
        let claims = challenge.and_then(|challenge| challenge.claims);
        self.inner.tokens.renew(&token, claims.as_ref()).await.map(drop)
    }

    async fn wait_backoff(
        &self,
        call: &mut Call,
        state: &Attempts,
        error: GraphError,
    ) -> Result<(), GraphError> {
        if let GraphError::Status(status) = &error
            && matches!(status.status, 503 | 504)
            && status.is_empty
        {
            call.shrink_page();
        }
        let wait = backoff(state.made, &*self.inner.random).max(error.retry_after().unwrap_or_default());
        if wait > self.inner.options.max_wait {
            return Err(error);
        }
        tracing::debug!(
            attempt = state.made,
            wait_ms = wait.as_millis(),
            code = error.code(),
            "trying again"
        );
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Pauses everybody who shares the key; the wait itself is the ledger's, in the next attempt.
    async fn wait_throttled(
        &self,
        call: &Call,
        state: &Attempts,
        error: GraphError,
        is_last: bool,
    ) -> Result<(), GraphError> {
        let GraphError::Status(status) = &error else { return Err(error) };
        let wait = match status.retry_after {
            // The pause began with the answer's headers.
            Some(wait) => wait,
            None => {
                let wait = backoff(state.made, &*self.inner.random);
                self.pause(call, wait).await;
                wait
            }
        };
        if is_last || wait > self.inner.options.max_wait {
            return Err(GraphError::Throttled {
                retry_after: wait,
                code: Some(status.code.clone()),
                request_id: status.request_id.clone(),
            });
        }
        Ok(())
    }
}

pub(crate) fn with_class(error: GraphError, class: ErrorClass) -> GraphError {
    match error {
        GraphError::Status(status) => GraphError::Status(Box::new(crate::StatusError { class, ..*status })),
        other => other,
    }
}

/// Exponential back-off with full jitter, for the attempt that follows `made` failed ones.
pub(crate) fn backoff(made: u32, random: &dyn Random) -> Duration {
    let ceiling = FIRST_BACKOFF.saturating_mul(1 << made.saturating_sub(1).min(16)).min(MAX_BACKOFF);
    let millis = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(1 + random.next_u64() % millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_five_minutes_with_full_jitter() {
        let random = crate::testing::TestRandom::default();
        for made in 1..40 {
            let ceiling = Duration::from_secs(1 << (made - 1).min(20)).min(MAX_BACKOFF);
            assert!((0..50).all(|_| backoff(made, &random) <= ceiling));
        }
    }
}
