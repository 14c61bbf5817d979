//! One call: quota, token, attempt, classification, and again where that helps.
//!
//! The one invariant to know: a create whose outcome is unknown is never sent twice, and no attempt is made before the time
//! that Microsoft named.

mod call;
mod encode;
mod retry;

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use holdfast_model::Random;
use reqwest::{Method, Response, Url, header};

use crate::{
    AccessToken, Cost, ErrorClass, GraphClient, GraphError, LedgerError, MimeStream, Page, Permit, QuotaKey,
    Shortage,
    body::read_bounded,
    challenge::{Challenge, challenge},
    error::{MALWARE, classify},
    json::{FromObject, read_object, read_page},
    metrics,
    rate_limit::rate_limit,
    retry_after::retry_after,
};

use call::Bearer;
pub(crate) use call::{Body, Call, JSON, OCTETS, Repeat};
pub(crate) use encode::{query_value, segment};
use retry::{Attempts, Failure};
pub(crate) use retry::{backoff, with_class};

/// A JSON answer is never larger.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// An error body is read no further.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// A listing has no more pages.
pub(crate) const MAX_PAGES: usize = 100_000;

/// Added to waits that many share, so that they do not all come back in the same instant.
const MAX_JITTER_MS: u64 = 250;

/// How often a slot is kept from expiring while an answer is waited for.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// How often a missing slot is asked for again.
const SLOT_POLL: Duration = Duration::from_millis(100);

/// A GET whose answer cannot be read is given up at this attempt.
const MALFORMED_ATTEMPTS: u32 = 4;

/// Said of content that is infected, whatever the status.
const INFECTED: &str = "x-virus-infected";

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: header::HeaderMap,
    pub body: Bytes,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(crate) struct Opened {
    pub status: u16,
    pub headers: header::HeaderMap,
    pub body: MimeStream,
}

impl GraphClient {
    /// One page of a listing.
    pub(crate) async fn page<T: FromObject>(
        &self,
        call: Call,
        what: &'static str,
    ) -> Result<Page<T>, GraphError> {
        self.read(call, |body| read_page(body, what)).await
    }

    /// One object.
    pub(crate) async fn object<T: FromObject>(
        &self,
        call: Call,
        what: &'static str,
    ) -> Result<T, GraphError> {
        self.read(call, |body| read_object(body, what)).await
    }

    /// Sends and reads; what cannot be read was cut or mangled on its way and is asked for again.
    async fn read<T>(
        &self,
        call: Call,
        read: impl Fn(&Bytes) -> Result<T, GraphError>,
    ) -> Result<T, GraphError> {
        let mut made = 0;
        loop {
            made += 1;
            let reply = self.send(call.clone()).await?;
            match read(&reply.body) {
                Err(error @ GraphError::Malformed { .. })
                    if call.method == Method::GET && made < MALFORMED_ATTEMPTS =>
                {
                    tracing::debug!(attempt = made, code = error.code(), "trying again");
                    tokio::time::sleep(backoff(made, &*self.inner.random)).await;
                }
                result => return result,
            }
        }
    }

    /// Sends and reads the whole answer.
    pub(crate) async fn send(&self, mut call: Call) -> Result<Reply, GraphError> {
        let timeout = self.inner.options.request_timeout;
        let mut state = Attempts::default();
        loop {
            let result = match self.attempt(&call).await {
                Ok((response, permit)) => {
                    let (status, headers) = (response.status().as_u16(), response.headers().clone());
                    let body = read_bounded(response, MAX_PAGE_BYTES, timeout, |_| permit.renew()).await;
                    body.map(|body| Reply { status, headers, body })
                        .map_err(|error| call.unless_repeatable(error).into())
                }
                Err(failure) => Err(failure),
            };
            match result {
                Ok(reply) => return Ok(reply),
                Err(failure) => self.prepare_next(&mut call, &mut state, failure).await?,
            }
        }
    }

    /// Sends and hands the body on as it comes; what breaks later is the caller's to start again.
    pub(crate) async fn stream(&self, call: Call) -> Result<MimeStream, GraphError> {
        self.open(call).await.map(|opened| opened.body)
    }

    /// The same with what was said about the body.
    pub(crate) async fn open(&self, mut call: Call) -> Result<Opened, GraphError> {
        let timeout = self.inner.options.request_timeout;
        let mut state = Attempts::default();
        loop {
            match self.attempt(&call).await {
                Ok((response, permit)) => {
                    let (status, headers) = (response.status().as_u16(), response.headers().clone());
                    return Ok(Opened { status, headers, body: MimeStream::new(response, permit, timeout) });
                }
                Err(failure) => self.prepare_next(&mut call, &mut state, failure).await?,
            }
        }
    }

    async fn attempt(&self, call: &Call) -> Result<(Response, Permit), Failure> {
        let url = self.checked_url(call)?;
        let token = match call.bearer {
            Bearer::Send => Some(self.inner.tokens.token().await?),
            Bearer::Withhold => None,
        };
        let key = self.quota_key(call.scope.clone());
        let permit = self.acquire(&key, call.cost()).await?;
        self.inner.requests.fetch_add(1, Ordering::Relaxed);
        metrics::attempt();
        let sent = self.prepare(call, url, token.as_ref()).send();
        let timeout = self.inner.options.request_timeout;
        let response = match while_renewing(&permit, tokio::time::timeout(timeout, sent)).await {
            Ok(Ok(response)) => response,
            // Before the connection stood nothing can have been carried out.
            Ok(Err(error)) if error.is_connect() => return Err(GraphError::transport(error).into()),
            Ok(Err(error)) => return Err(call.unless_repeatable(GraphError::transport(error)).into()),
            Err(_) => return Err(call.unless_repeatable(GraphError::Timeout { after: timeout }).into()),
        };
        permit.renew();
        if let Some(said) = rate_limit(&call.scope, response.headers()) {
            self.inner.ledger.correct(&key, said).await;
        }
        let is_answer =
            response.status().is_success() || (call.expects_redirect && response.status().as_u16() == 302);
        if is_answer && !is_infected(&response) {
            return Ok((response, permit));
        }
        let (error, challenge) = self.refusal(call, response).await;
        drop(permit);
        Err(Failure { error, token, challenge })
    }

    fn prepare(&self, call: &Call, url: Url, token: Option<&AccessToken>) -> reqwest::RequestBuilder {
        let id = random_uuid(&*self.inner.random);
        let mut request =
            self.inner.http.request(call.method.clone(), url).header("client-request-id", id.to_string());
        if let Some(token) = token {
            request = request.bearer_auth(token.secret.as_str());
        }
        if let Some(prefer) = call.prefer_header() {
            request = request.header("prefer", prefer);
        }
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &call.body {
            request = request.header(header::CONTENT_TYPE, &body.content_type).body(body.bytes.clone());
        }
        request
    }

    /// The token goes to the configured Graph host only.
    fn checked_url(&self, call: &Call) -> Result<Url, GraphError> {
        let base = &self.inner.base;
        let foreign = |host: &str| GraphError::ForeignHost { host: host.to_owned() };
        let url = Url::parse(&call.url).map_err(|_| foreign("not a URL"))?;
        let same_host = (url.scheme(), url.host_str(), url.port_or_known_default())
            == (base.scheme(), base.host_str(), base.port_or_known_default());
        let allowed = match call.bearer {
            Bearer::Send => same_host && url.username().is_empty() && url.password().is_none(),
            // These addresses lead elsewhere by design, but content never travels in the clear.
            Bearer::Withhold => url.scheme() == "https" || url.scheme() == base.scheme(),
        };
        if allowed { Ok(url) } else { Err(foreign(url.host_str().unwrap_or_default())) }
    }

    async fn refusal(&self, call: &Call, response: Response) -> (GraphError, Option<Challenge>) {
        let headers = response.headers().clone();
        let status = response.status().as_u16();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let wait = retry_after(&headers, self.inner.clock.now_ms());
        // It holds for all who share the key from this moment, whatever the status and however long the body takes.
        if let Some(wait) = wait {
            self.pause(call, wait).await;
        }
        let challenge = if status == 401 { challenge(&headers) } else { None };
        let is_infected = is_infected(&response);
        // Where the body cannot be read, the status has to do.
        let body = read_bounded(response, MAX_ERROR_BYTES, self.inner.options.request_timeout, |_| {}).await;
        let mut error = classify(status, &body.unwrap_or_default(), call.operation, text("request-id"), wait);
        if challenge.is_some() {
            error.class = ErrorClass::ReAuth;
        }
        if is_infected {
            (error.code, error.class) = (MALWARE.to_owned(), ErrorClass::SkipItem);
        }
        if error.class == ErrorClass::Resync {
            error.restart_link = text("location");
        }
        tracing::debug!(
            status,
            code = error.code,
            class = ?error.class,
            request_id = error.request_id,
            date = text("date"),
            diagnostic = text("x-ms-ags-diagnostic"),
            "microsoft refused a request"
        );
        metrics::failure(error.class);
        // A refusal with a class of its own was not carried out; a broken gateway says nothing about that.
        let is_unknown = error.class == ErrorClass::Retry;
        let error = GraphError::Status(Box::new(error));
        (if is_unknown { call.unless_repeatable(error) } else { error }, challenge)
    }

    /// Nobody who shares the key sends anything before the wait is over.
    async fn pause(&self, call: &Call, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let until_ms = self.inner.clock.now_ms().saturating_add(wait_ms).saturating_add(1);
        self.inner.ledger.pause(&self.quota_key(call.scope.clone()), until_ms).await;
    }

    /// A permit, after at most `max_wait`.
    async fn acquire(&self, key: &QuotaKey, cost: Cost) -> Result<Permit, GraphError> {
        let max_wait = self.inner.options.max_wait;
        let started = tokio::time::Instant::now();
        loop {
            let (wait, shortage) = match self.inner.ledger.acquire(key, cost, self.inner.class).await {
                Ok(permit) => {
                    metrics::waited(started.elapsed());
                    return Ok(permit);
                }
                Err(LedgerError::WouldWait { wait, shortage }) => (wait, shortage),
                Err(LedgerError::NeverFits) => {
                    return Err(GraphError::TooLarge { limit: cost.upload_bytes.max(cost.download_bytes) });
                }
            };
            let left = max_wait.saturating_sub(started.elapsed());
            if wait > left || left.is_zero() {
                return Err(GraphError::Throttled { retry_after: wait, code: None, request_id: None });
            }
            if shortage == Shortage::Slots {
                self.inner.ledger.slot_freed(key, SLOT_POLL.min(left)).await;
            } else {
                let jitter = Duration::from_millis(1 + self.inner.random.next_u64() % MAX_JITTER_MS);
                tokio::time::sleep(wait + jitter).await;
            }
        }
    }
}

fn is_infected(response: &Response) -> bool {
    response.headers().get(INFECTED).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

pub(crate) fn random_uuid(random: &dyn Random) -> uuid::Uuid {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// Waits for an answer and keeps the slot meanwhile: the slot of a process that died is free again soon, that of one that waits is
/// not.
async fn while_renewing<F: Future>(permit: &Permit, answer: F) -> F::Output {
    tokio::pin!(answer);
    loop {
        tokio::select! {
            output = &mut answer => return output,
            () = tokio::time::sleep(RENEW_EVERY) => permit.renew(),
        }
    }
}

#[cfg(test)]
mod tests;
