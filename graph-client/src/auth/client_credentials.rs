//! The coordinator's token source: the client credentials grant, with a secret or a certificate.
//!
//! The one invariant to know: single flight. However many calls find the token spent, one request asks for the next, and a
//! refusal is remembered for a moment so that they do not ask one after the other either.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use holdfast_model::{Clock, Random};
use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{AccessToken, AppCredentials, Credential, TokenSource, assertion::Signer};
use crate::{GraphError, client::http_client, request::backoff, retry_after::retry_after};

/// A token is renewed this long before it ends, plus up to [`JITTER_MS`].
const MARGIN_MS: u64 = 300_000;
const JITTER_MS: u64 = 60_000;

/// Attempts at the token endpoint while it is throttled or broken.
const MAX_ATTEMPTS: u32 = 5;

/// The longest wait between two attempts: the endpoint may not park a whole tenant's jobs in here.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// A refusal is given to everybody who asks within this time.
const REFUSAL_HOLD: Duration = Duration::from_secs(5);

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
    token: Option<AccessToken>,
    renew_at_ms: u64,
    refusal: Option<(Duration, Refusal)>,
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

    async fn current(&self, rejected: Option<&AccessToken>) -> Result<AccessToken, GraphError> {
        let mut state = self.state.lock().await;
        let is_rejected = |token: &AccessToken| rejected.is_some_and(|rejected| rejected.is_same(token));
        let now_ms = self.clock.now_ms();
        if let Some(token) = state.token.as_ref().filter(|token| !is_rejected(token))
            && now_ms < state.renew_at_ms
        {
            return Ok(token.clone());
        }
        if let Some((until, refusal)) = &state.refusal
            && self.clock.monotonic() < *until
        {
            return Err(refusal.clone().into());
        }
        match self.request_with_retries().await {
            Ok(token) => {
                let life = token.expires_at_ms.saturating_sub(now_ms);
                // A token that lives shorter than the margin is renewed at half its life.
                let margin = (MARGIN_MS + self.random.next_u64() % JITTER_MS).min(life / 2);
                state.renew_at_ms = token.expires_at_ms - margin;
                state.refusal = None;
                state.token = Some(token.clone());
                Ok(token)
            }
            Err(error) => {
                if let GraphError::TokenRefused { status, error, codes } = &error {
                    let refusal = Refusal { status: *status, error: error.clone(), codes: codes.clone() };
                    state.refusal = Some((self.clock.monotonic() + REFUSAL_HOLD, refusal));
                }
                // A token in its margin is still good when the endpoint is not.
                let spare = state.token.clone().filter(|token| !is_rejected(token));
                spare.filter(|token| error.is_retryable() && now_ms < token.expires_at_ms).ok_or(error)
            }
        }
    }

    async fn request_with_retries(&self) -> Result<AccessToken, GraphError> {
        let mut attempt = 1;
        loop {
            let error = match self.request().await {
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

    async fn request(&self) -> Result<AccessToken, GraphError> {
        match tokio::time::timeout(TIMEOUT, self.request_once()).await {
            Ok(result) => result,
            Err(_) => Err(GraphError::Timeout { after: TIMEOUT }),
        }
    }

    async fn request_once(&self) -> Result<AccessToken, GraphError> {
        let asked_at_ms = self.clock.now_ms();
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("scope", &self.scope),
        ];
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

impl From<Refusal> for GraphError {
    fn from(refusal: Refusal) -> Self {
        Self::TokenRefused { status: refusal.status, error: refusal.error, codes: refusal.codes }
    }
}

#[async_trait]
impl TokenSource for ClientCredentials {
    async fn token(&self) -> Result<AccessToken, GraphError> {
        self.current(None).await
    }

    async fn renew(&self, rejected: &AccessToken) -> Result<AccessToken, GraphError> {
        self.current(Some(rejected)).await
    }
}

#[cfg(test)]
mod tests;
