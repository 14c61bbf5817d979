//! The client of one job: its options, its token source, its ledger.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_model::{Clock, JobClass, Random};
use reqwest::Url;

use crate::{Cloud, GraphError, QuotaKey, QuotaLedger, Scope, TokenSource, request::segment};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Whom a client talks to, and how patiently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphOptions {
    /// The cloud, for the quota key.
    pub cloud: Cloud,
    /// The root of Graph, without a version. The only place that ever gets the token.
    pub graph_url: String,
    /// Microsoft's id of the tenant, for the quota key.
    pub microsoft_tenant: String,
    /// The app registration, for the quota key.
    pub client_id: String,
    /// `ISV|<Company>|<App>/<version>`.
    pub user_agent: String,
    /// How long Microsoft may be silent, before the headers and between two pieces of a body. Default 60 s.
    pub request_timeout: Duration,
    /// Attempts per call. Default 6.
    pub max_attempts: u32,
    /// A longer wait is returned as [`GraphError::Throttled`], so that the job is deferred. Default 60 s.
    pub max_wait: Duration,
}

impl GraphOptions {
    /// Options for a tenant, with the defaults for everything else.
    pub fn new(cloud: Cloud, microsoft_tenant: &str, client_id: &str) -> Self {
        Self {
            cloud,
            graph_url: cloud.graph_url().to_owned(),
            microsoft_tenant: microsoft_tenant.to_owned(),
            client_id: client_id.to_owned(),
            user_agent: format!("ISV|Holdfast|Holdfast/{}", env!("CARGO_PKG_VERSION")),
            request_timeout: Duration::from_mins(1),
            max_attempts: 6,
            max_wait: Duration::from_mins(1),
        }
    }
}

/// Talks to Microsoft for one job. Clones are cheap and share everything, the count of requests too.
#[derive(Clone)]
pub struct GraphClient {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub options: GraphOptions,
    pub base: Url,
    pub http: reqwest::Client,
    pub tokens: Arc<dyn TokenSource>,
    pub ledger: Arc<dyn QuotaLedger>,
    pub class: JobClass,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub requests: AtomicU64,
    /// The properties that attachments are listed with; none until one list has shown which Microsoft takes.
    pub attachment_fields: tokio::sync::Mutex<Option<&'static str>>,
}

impl GraphClient {
    /// Makes a client; nothing is sent yet.
    pub fn new(
        options: GraphOptions,
        tokens: Arc<dyn TokenSource>,
        ledger: Arc<dyn QuotaLedger>,
        class: JobClass,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, GraphError> {
        let base = Url::parse(&options.graph_url)
            .map_err(|_| GraphError::Config { setting: "graph-url", reason: "it is not a URL" })?;
        if base.host_str().is_none() {
            return Err(GraphError::Config { setting: "graph-url", reason: "it has no host" });
        }
        let http = http_client(&options.user_agent)?;
        let requests = AtomicU64::new(0);
        let attachment_fields = tokio::sync::Mutex::new(None);
        let inner =
            Inner { options, base, http, tokens, ledger, class, clock, random, requests, attachment_fields };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Attempts sent so far by this client and its clones.
    pub fn requests(&self) -> u64 {
        self.inner.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn quota_key(&self, scope: Scope) -> QuotaKey {
        let options = &self.inner.options;
        QuotaKey {
            cloud: options.cloud,
            microsoft_tenant: options.microsoft_tenant.clone(),
            client_id: options.client_id.clone(),
            scope,
        }
    }

    /// `{root}/v1.0/{segments}?{query}`, everything percent-encoded.
    pub(crate) fn url(&self, segments: &[&str], query: &[(&str, &str)]) -> String {
        let mut url = format!("{}/v1.0", self.inner.options.graph_url.trim_end_matches('/'));
        for part in segments {
            url.push('/');
            url.push_str(&segment(part));
        }
        for (index, (name, value)) in query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.push_str(&crate::request::query_value(value));
        }
        url
    }
}

impl fmt::Debug for GraphClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphClient").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

/// An HTTP client that follows no redirect: the token must not travel.
pub(crate) fn http_client(user_agent: &str) -> Result<reqwest::Client, GraphError> {
    reqwest::Client::builder()
        .user_agent(user_agent)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .gzip(true)
        .build()
        .map_err(GraphError::transport)
}
