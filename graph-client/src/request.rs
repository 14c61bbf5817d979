//! One call: quota, token, attempt, classification, and again where that helps.
//!
//! The one invariant to know: a create whose outcome is unknown is never sent twice, and no attempt is made before the time
//! that Microsoft named.

use std::{borrow::Cow, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use holdfast_model::Random;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Response, Url, header};

use crate::{
    AccessToken, Cost, ErrorClass, GraphClient, GraphError, LedgerError, MimeStream, Page, Permit, QuotaKey,
    Scope, Shortage,
    body::read_bounded,
    challenge::{Challenge, challenge},
    error::{Operation, classify},
    json::{FromObject, read_object, read_page},
    metrics,
    retry_after::retry_after,
};

/// A JSON answer is never larger.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// An error body is read no further.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// A listing has no more pages.
pub(crate) const MAX_PAGES: usize = 100_000;

/// Back-off starts here and doubles up to the limit.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_mins(5);

/// Added to waits that many share, so that they do not all come back in the same instant.
const MAX_JITTER_MS: u64 = 250;

/// How often a slot is kept from expiring while an answer is waited for.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// How often a missing slot is asked for again.
const SLOT_POLL: Duration = Duration::from_millis(100);

/// The smallest page that a slow query is shrunk to.
const MIN_PAGE_SIZE: u32 = 10;

/// A GET that answers 404 with an empty body is believed at this attempt.
const SPURIOUS_404_ATTEMPTS: u32 = 2;

/// A 404 on something created a moment ago is believed at this attempt.
const FRESH_404_ATTEMPTS: u32 = 4;

/// A GET of one item that answers 400 is believed at this attempt.
const BAD_ITEM_ATTEMPTS: u32 = 2;

/// A GET whose answer cannot be read is given up at this attempt.
const MALFORMED_ATTEMPTS: u32 = 4;

/// Whether a call may be repeated when its outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    Safe,
    Never,
}

/// A request, as often as it takes.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub method: Method,
    pub url: String,
    pub operation: Operation,
    pub scope: Scope,
    repeat: Repeat,
    requests: u32,
    prefer: Vec<&'static str>,
    page_size: Option<u32>,
    body: Option<Bytes>,
    /// `Content-Range`, for a piece of an upload.
    pub range: Option<String>,
    bearer: Bearer,
    /// It concerns something created a moment ago, which Microsoft may not find yet.
    is_fresh: bool,
    /// A 400 is an answer to what was asked: it is not repeated.
    is_probe: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bearer {
    Send,
    Withhold,
}

impl Call {
    fn new(method: Method, url: String, operation: Operation, scope: Scope) -> Self {
        Self {
            method,
            url,
            operation,
            scope,
            repeat: Repeat::Safe,
            requests: 1,
            prefer: Vec::new(),
            page_size: None,
            body: None,
            range: None,
            bearer: Bearer::Send,
            is_fresh: false,
            is_probe: false,
        }
    }

    pub fn get(url: String, operation: Operation, scope: Scope) -> Self {
        Self::new(Method::GET, url, operation, scope)
    }

    pub fn delete(url: String, scope: Scope) -> Self {
        Self::new(Method::DELETE, url, Operation::Item, scope)
    }

    pub fn post(url: String, body: &serde_json::Value, repeat: Repeat, scope: Scope) -> Self {
        let call = Self::new(Method::POST, url, Operation::Write, scope);
        Self { body: Some(body.to_string().into()), repeat, ..call }
    }

    /// A call to an upload address: it authorises itself, our token would only leak.
    pub fn upload(method: Method, url: String, body: Option<Bytes>, scope: Scope) -> Self {
        Self { body, bearer: Bearer::Withhold, ..Self::new(method, url, Operation::Write, scope) }
    }

    pub fn costs(self, requests: u32) -> Self {
        Self { requests, ..self }
    }

    pub fn page_size(self, size: u32) -> Self {
        Self { page_size: Some(size), ..self }
    }

    /// Believes a 404 only at [`FRESH_404_ATTEMPTS`].
    pub fn on_fresh(self) -> Self {
        Self { is_fresh: true, ..self }
    }

    /// Believes a 400 at once.
    pub fn probing(self) -> Self {
        Self { is_probe: true, ..self }
    }

    /// Ids that survive moves. Must go with every page of a round.
    pub fn immutable_ids(mut self) -> Self {
        self.prefer.push(r#"IdType="ImmutableId""#);
        self
    }

    fn prefer_header(&self) -> Option<String> {
        let size = self.page_size.map(|size| Cow::Owned(format!("odata.maxpagesize={size}")));
        let all: Vec<_> =
            size.into_iter().chain(self.prefer.iter().map(|text| Cow::Borrowed(*text))).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: header::HeaderMap,
    pub body: Bytes,
}

/// How an attempt failed, with what the loop needs to know.
struct Failure {
    error: GraphError,
    /// The token it was sent with.
    token: Option<AccessToken>,
    /// What Microsoft demands of the next one.
    challenge: Option<Challenge>,
}

impl From<GraphError> for Failure {
    fn from(error: GraphError) -> Self {
        Self { error, token: None, challenge: None }
    }
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
    pub(crate) async fn stream(&self, mut call: Call) -> Result<MimeStream, GraphError> {
        let timeout = self.inner.options.request_timeout;
        let mut state = Attempts::default();
        loop {
            match self.attempt(&call).await {
                Ok((response, permit)) => return Ok(MimeStream::new(response, permit, timeout)),
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
        let upload_bytes = call.body.as_ref().map_or(0, |body| body.len() as u64);
        let key = self.quota_key(call.scope.clone());
        let permit = self.acquire(&key, Cost { requests: call.requests, upload_bytes }).await?;
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
        if response.status().is_success() {
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
        if let Some(body) = &call.body {
            let kind = if call.range.is_some() { "application/octet-stream" } else { "application/json" };
            request = request.header(header::CONTENT_TYPE, kind).body(body.clone());
        }
        if let Some(range) = &call.range {
            request = request.header(header::CONTENT_RANGE, range);
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
            // Upload addresses lead elsewhere by design, but content never goes out in the clear.
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
        // Where the body cannot be read, the status has to do.
        let body = read_bounded(response, MAX_ERROR_BYTES, self.inner.options.request_timeout, |_| {}).await;
        let mut error = classify(status, &body.unwrap_or_default(), call.operation, text("request-id"), wait);
        if challenge.is_some() {
            error.class = ErrorClass::ReAuth;
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

    /// Decides whether there is another attempt, and waits until it may be made.
    async fn prepare_next(
        &self,
        call: &mut Call,
        state: &mut Attempts,
        failure: Failure,
    ) -> Result<(), GraphError> {
        state.made += 1;
        let is_last = state.made >= self.inner.options.max_attempts;
        let error = match failure.error.class() {
            // An upload address that refuses has nothing to do with our token: open another session.
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
            && status.status == 503
            && status.is_empty
        {
            call.page_size = call.page_size.map(|size| (size / 4).max(MIN_PAGE_SIZE));
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
                Err(LedgerError::NeverFits) => return Err(GraphError::TooLarge { limit: cost.upload_bytes }),
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

impl Call {
    /// Refusals that Microsoft is known to take back: each of them is a refusal for sure, so repeating does no harm.
    fn is_doubtful(&self, error: &GraphError, made: u32) -> bool {
        let GraphError::Status(status) = error else { return false };
        let is_get = self.method == Method::GET;
        match (status.class, status.status) {
            (ErrorClass::Gone, 404) if self.is_fresh => made < FRESH_404_ATTEMPTS,
            (ErrorClass::Gone, 404) if is_get && status.is_empty => made < SPURIOUS_404_ATTEMPTS,
            (ErrorClass::SkipItem, 400) if is_get && !self.is_probe => made < BAD_ITEM_ATTEMPTS,
            _ => false,
        }
    }

    fn unless_repeatable(&self, error: GraphError) -> GraphError {
        match self.repeat {
            Repeat::Safe => error,
            Repeat::Never => GraphError::Ambiguous { source: Box::new(error) },
        }
    }
}

#[derive(Default)]
struct Attempts {
    made: u32,
    has_renewed: bool,
    /// Whether Microsoft has demanded claims already.
    is_challenged: bool,
}

fn with_class(error: GraphError, class: ErrorClass) -> GraphError {
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

pub(crate) fn random_uuid(random: &dyn Random) -> uuid::Uuid {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'$');

/// What OData uses in a value and a query may hold as it is.
const QUERY_VALUE: &AsciiSet = &SEGMENT
    .remove(b'(')
    .remove(b')')
    .remove(b',')
    .remove(b'=')
    .remove(b'/')
    .remove(b':')
    .remove(b'\'')
    .remove(b';');

/// An id as a path segment: Exchange ids hold `=`, `/` and `+`. Dots alone would climb even when encoded once.
pub(crate) fn segment(id: &str) -> String {
    match id {
        "." => "%252E".to_owned(),
        ".." => "%252E%252E".to_owned(),
        _ => utf8_percent_encode(id, SEGMENT).to_string(),
    }
}

pub(crate) fn query_value(value: &str) -> String {
    utf8_percent_encode(value, QUERY_VALUE).to_string()
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
