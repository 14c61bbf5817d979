//! The coordinator's token source: the client credentials grant, with a secret or a certificate.
//!
//! The one invariant to know: single flight. However many calls find the token spent, one request asks for the next, and a
//! refusal is remembered for a moment so that they do not ask one after the other either. Whatever the callers report, a
//! token younger than [`MIN_RENEWAL_INTERVAL`] is not renewed, and no request is made before the endpoint's own `Retry-After`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use holdfast_model::{Clock, Random};
use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{AccessToken, AppCredentials, Credential, Rejection, TokenSource, assertion::Signer};
use crate::{Claims, GraphError, client::http_client, request::backoff, retry_after::retry_after};

/// A token is renewed this long before it ends, plus up to [`JITTER_MS`].
const MARGIN_MS: u64 = 300_000;
const JITTER_MS: u64 = 60_000;

/// Attempts at the token endpoint while it is throttled or broken.
const MAX_ATTEMPTS: u32 = 5;

/// The longest wait between two attempts: the endpoint may not park a whole tenant's jobs in here.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// A refusal is given to everybody who asks within this time.
const REFUSAL_HOLD: Duration = Duration::from_secs(5);

/// A token that Microsoft rejects is renewed at this age at the earliest, so that an app whose every token is rejected does not
/// hammer the token endpoint, however many workers report it.
const MIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(5);

/// How often the age of a rejected token is looked at, and how many times.
const RENEWAL_RECHECK: Duration = Duration::from_millis(500);
const MAX_RENEWAL_RECHECKS: u32 = 60;

/// A whole token request takes no longer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A token answer is small.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// AADSTS numbers that pass by themselves.
const TRANSIENT: &[u64] = &[90033, 50196];

/// Gets tokens with the client credentials grant.
pub struct ClientCredentials {
    token_url: String,
    scope: String,
    client_id: String,
    proof: Proof,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    state: Mutex<State>,
}

enum Proof {
    Secret(Zeroizing<String>),
    Certificate(Box<Signer>),
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    refusal: Option<(Duration, Refusal)>,
    /// The endpoint asked for quiet until then, on the monotonic clock.
    quiet_until: Duration,
}

struct Held {
    token: AccessToken,
    renew_at_ms: u64,
    /// On the monotonic clock.
    obtained_at: Duration,
    /// The claims it was asked for with.
    claims: Option<Claims>,
}

#[derive(Clone)]
struct Refusal {
    status: u16,
    error: String,
    codes: Vec<u64>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refused {
    error: String,
    error_codes: Vec<u64>,
}

impl ClientCredentials {
    /// Prepares the grant; nothing is sent yet.
    pub fn new(
        login_url: &str,
        graph_url: &str,
        microsoft_tenant: &str,
        credentials: AppCredentials,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, GraphError> {
        let tenant = crate::request::segment(microsoft_tenant);
        let proof = match credentials.secret {
            Credential::Secret(secret) => Proof::Secret(secret),
            Credential::Certificate { pem } => Proof::Certificate(Box::new(Signer::from_pem(&pem)?)),
        };
        Ok(Self {
            token_url: format!("{}/{tenant}/oauth2/v2.0/token", login_url.trim_end_matches('/')),
            scope: format!("{}/.default", graph_url.trim_end_matches('/')),
            client_id: credentials.client_id,
            proof,
            http: http_client("Holdfast")?,
            clock,
            random,
            state: Mutex::default(),
        })
    }

    /// A token instead of one that Microsoft rejected: at most one request, whoever else reports the same.
    ///
    /// None when the present token does not do either and is too young to be renewed: ask again in a moment.
    pub async fn replace(&self, rejection: &Rejection) -> Result<Option<AccessToken>, GraphError> {
        let mut state = self.state.lock().await;
        let now = self.clock.monotonic();
        if let Some(held) = &state.held
            && now.saturating_sub(held.obtained_at) < MIN_RENEWAL_INTERVAL
        {
            // Older ones are renewed even if it was another that was rejected: what revokes one revokes all before it.
            return Ok(held.answers(rejection).then(|| held.token.clone()));
        }
        self.obtain(&mut state, Some(rejection)).await.map(Some)
    }

    async fn current(&self) -> Result<AccessToken, GraphError> {
        let mut state = self.state.lock().await;
        match &state.held {
            Some(held) if self.clock.now_ms() < held.renew_at_ms => Ok(held.token.clone()),
            _ => self.obtain(&mut state, None).await,
        }
    }

    /// Asks for the next token, or gives the present one while the endpoint cannot be had and it is still good.
    async fn obtain(
        &self,
        state: &mut State,
        rejection: Option<&Rejection>,
    ) -> Result<AccessToken, GraphError> {
        let (now_ms, now) = (self.clock.now_ms(), self.clock.monotonic());
        if let Some((until, refusal)) = &state.refusal
            && now < *until
        {
            return Err(refusal.clone().into());
        }
        let claims = rejection.and_then(|rejection| rejection.claims.as_ref());
        let asked = match state.quiet_until.saturating_sub(now) {
            Duration::ZERO => self.request_with_retries(claims).await,
            retry_after => Err(GraphError::Throttled { retry_after, code: None, request_id: None }),
        };
        match asked {
            Ok(token) => {
                let life = token.expires_at_ms.saturating_sub(now_ms);
                // A token that lives shorter than the margin is renewed at half its life.
                let margin = (MARGIN_MS + self.random.next_u64() % JITTER_MS).min(life / 2);
                let renew_at_ms = token.expires_at_ms - margin;
                let obtained_at = self.clock.monotonic();
                state.refusal = None;
                state.held =
                    Some(Held { token: token.clone(), renew_at_ms, obtained_at, claims: claims.cloned() });
                Ok(token)
            }
            Err(error) => {
                let now = self.clock.monotonic();
                if let GraphError::TokenRefused { status, error, codes } = &error {
                    let refusal = Refusal { status: *status, error: error.clone(), codes: codes.clone() };
                    state.refusal = Some((now + REFUSAL_HOLD, refusal));
                }
                if let GraphError::Throttled { retry_after, .. } = &error {
                    state.quiet_until = state.quiet_until.max(now + *retry_after);
                }
                // A token in its margin is still good when the endpoint is not.
                let spare = state.held.as_ref().filter(|held| {
                    error.is_retryable()
                        && now_ms < held.token.expires_at_ms
                        && rejection.is_none_or(|rejection| held.answers(rejection))
                });
                spare.map(|held| held.token.clone()).ok_or(error)
            }
        }
    }

    async fn request_with_retries(&self, claims: Option<&Claims>) -> Result<AccessToken, GraphError> {
        let mut attempt = 1;
        loop {
            let error = match self.request(claims).await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            if !error.is_retryable() || attempt >= MAX_ATTEMPTS {
                return Err(error);
            }
            let wait = error.retry_after().unwrap_or_else(|| backoff(attempt, &*self.random));
            if wait > MAX_WAIT {
                return Err(GraphError::Throttled { retry_after: wait, code: None, request_id: None });
            }
            tracing::warn!(
                attempt,
                wait_ms = wait.as_millis(),
                code = error.code(),
                "token request failed, trying again"
            );
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    async fn request(&self, claims: Option<&Claims>) -> Result<AccessToken, GraphError> {
        match tokio::time::timeout(TIMEOUT, self.request_once(claims)).await {
            Ok(result) => result,
            Err(_) => Err(GraphError::Timeout { after: TIMEOUT }),
        }
    }

    async fn request_once(&self, claims: Option<&Claims>) -> Result<AccessToken, GraphError> {
        let asked_at_ms = self.clock.now_ms();
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("scope", &self.scope),
        ];
        if let Some(claims) = claims {
            form.push(("claims", claims.as_str()));
        }
        let assertion;
        match &self.proof {
            Proof::Secret(secret) => form.push(("client_secret", secret)),
            Proof::Certificate(signer) => {
                let id = crate::request::random_uuid(&*self.random);
                assertion = signer.sign(&self.token_url, &self.client_id, id, asked_at_ms)?;
                form.push((
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                ));
                form.push(("client_assertion", &assertion));
            }
        }
        crate::metrics::token_request();
        let response =
            self.http.post(&self.token_url).form(&form).send().await.map_err(GraphError::transport)?;
        let status = response.status().as_u16();
        let wait = retry_after(response.headers(), asked_at_ms);
        let body = crate::body::read_bounded(response, MAX_ANSWER_BYTES, TIMEOUT, |_| {}).await?;
        if status == 200 {
            let granted: Granted = serde_json::from_slice(&body)
                .map_err(|source| GraphError::Malformed { what: "the token answer", source })?;
            let life_ms = granted.expires_in.saturating_mul(1000);
            return Ok(AccessToken::new(granted.access_token, asked_at_ms.saturating_add(life_ms)));
        }
        let refused: Refused = serde_json::from_slice(&body).unwrap_or_default();
        let transient = refused.error_codes.iter().any(|code| TRANSIENT.contains(code));
        if status == 429 || status >= 500 || transient {
            let retry_after = wait.unwrap_or_else(|| backoff(1, &*self.random));
            return Err(GraphError::Throttled { retry_after, code: Some(refused.error), request_id: None });
        }
        Err(GraphError::TokenRefused { status, error: refused.error, codes: refused.error_codes })
    }
}

impl Held {
    /// Whether whoever holds the rejected token is helped with this one.
    fn answers(&self, rejection: &Rejection) -> bool {
        let has_claims = rejection.claims.is_none() || rejection.claims == self.claims;
        has_claims && self.token.fingerprint() != rejection.fingerprint
    }
}

impl From<Refusal> for GraphError {
    fn from(refusal: Refusal) -> Self {
        Self::TokenRefused { status: refusal.status, error: refusal.error, codes: refusal.codes }
    }
}

#[async_trait]
impl TokenSource for ClientCredentials {
    async fn token(&self) -> Result<AccessToken, GraphError> {
        self.current().await
    }

    async fn renew(
        &self,
        rejected: &AccessToken,
        claims: Option<&Claims>,
    ) -> Result<AccessToken, GraphError> {
        let rejection = Rejection { fingerprint: rejected.fingerprint(), claims: claims.cloned() };
        for _ in 0..MAX_RENEWAL_RECHECKS {
            if let Some(token) = self.replace(&rejection).await? {
                return Ok(token);
            }
            tokio::time::sleep(RENEWAL_RECHECK).await;
        }
        Err(GraphError::NoToken { waited: RENEWAL_RECHECK * MAX_RENEWAL_RECHECKS })
    }
}

#[cfg(test)]
mod tests;
