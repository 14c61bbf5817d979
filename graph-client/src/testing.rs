//! What the tests share: a clock that follows tokio's, numbers that repeat, and Graph as a small server.

mod description;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use holdfast_model::{Clock, JobClass, Millis, Random};
use tokio::time::Instant;

use crate::{
    AccessToken, Claims, Cloud, GraphClient, GraphError, GraphOptions, LocalLedger, QuotaLedger, QuotaLimits,
    TokenSource,
};

pub(crate) struct TestClock {
    started: Instant,
    /// In milliseconds.
    pushed: AtomicU64,
}

impl TestClock {
    pub fn shared() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), pushed: AtomicU64::new(0) })
    }

    /// Lets time pass for whoever asks this clock, and for nobody else.
    pub fn push(&self, by: Duration) {
        self.pushed.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> Millis {
        1_800_000_000_000 + u64::try_from(self.monotonic().as_millis()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed() + Duration::from_millis(self.pushed.load(Ordering::SeqCst))
    }
}

/// A counter, well mixed.
#[derive(Default)]
pub(crate) struct TestRandom(AtomicU64);

impl Random for TestRandom {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let mut x = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(x ^ (x >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Gives `token-1`, then `token-2` when that is rejected, and so on.
#[derive(Default)]
pub(crate) struct CountingTokens(AtomicU64);

impl CountingTokens {
    fn current(&self) -> AccessToken {
        AccessToken::new(format!("token-{}", self.0.load(Ordering::SeqCst) + 1), u64::MAX)
    }
}

#[async_trait]
impl TokenSource for CountingTokens {
    async fn token(&self) -> Result<AccessToken, GraphError> {
        Ok(self.current())
    }

    async fn renew(&self, rejected: &AccessToken, _: Option<&Claims>) -> Result<AccessToken, GraphError> {
        if self.current().is_same(rejected) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Ok(self.current())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

type Answer = Box<dyn Fn(usize, &Seen) -> Response + Send + Sync>;
type ServerState = (Arc<Mutex<Vec<Seen>>>, Arc<Answer>);

/// A server that answers by a function of (how many requests came before, the request), and remembers them all.
pub(crate) struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(answer: impl Fn(usize, &Seen) -> Response + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let state: ServerState = (seen.clone(), Arc::new(Box::new(answer)));
        let router = Router::new().fallback(serve).layer(DefaultBodyLimit::disable()).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, task }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Each call exists in Microsoft's description of Graph, where that is at hand.
    pub fn assert_described(&self) {
        assert_eq!(description::not_described(&self.seen()), Vec::<String>::new());
    }

    pub fn client(&self) -> GraphClient {
        self.client_with(|_| {})
    }

    pub fn client_with(&self, change: impl FnOnce(&mut GraphOptions)) -> GraphClient {
        let clock = TestClock::shared();
        let ledger = Arc::new(LocalLedger::new(QuotaLimits::default(), clock.clone()));
        self.client_on(ledger, clock, change)
    }

    pub fn client_on(
        &self,
        ledger: Arc<dyn QuotaLedger>,
        clock: Arc<TestClock>,
        change: impl FnOnce(&mut GraphOptions),
    ) -> GraphClient {
        let mut options = GraphOptions::new(Cloud::Global, "tenant", "app");
        options.graph_url = self.url.clone();
        change(&mut options);
        let tokens = Arc::new(CountingTokens::default());
        GraphClient::new(
            options,
            tokens,
            ledger,
            JobClass::Incremental,
            clock,
            Arc::new(TestRandom::default()),
        )
        .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    State((seen, answer)): State<ServerState>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = Seen { method, uri, headers, body, at: Instant::now() };
    let before = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    answer(before, &request)
}

/// A JSON answer.
pub(crate) fn json(status: u16, body: impl Into<String>) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("content-type", "application/json")], body.into()).into_response()
}

/// A refusal with a code.
pub(crate) fn refusal(status: u16, code: &str) -> Response {
    json(status, format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#))
}

/// The same with a header.
pub(crate) fn with_header(mut response: Response, name: &'static str, value: &str) -> Response {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}
