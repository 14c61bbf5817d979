//! The simulator as a client sees it.
#![allow(clippy::disallowed_methods)]

mod calendar;
mod contacts;
mod description;
mod drive;
mod faults;
mod mailbox_settings;
mod read;
mod todo;
mod tokens;
mod workloads;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_model::{Clock, Millis};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::{Population, Sim, SimApp, SimHandle, SimOptions};

const CLIENT: &str = "11111111-2222-4333-8444-555555555555";
const SECRET: &str = "not so secret";
const RESTORE_KEY: &str = "String {8f1d2c3b-4a59-4e68-8877-9a0b1c2d3e4f} Name RestoreKey";

/// The machine's clock, which a test can push forward.
struct TestClock {
    start: Instant,
    ahead_ms: AtomicU64,
}

impl TestClock {
    fn push(&self, ms: u64) {
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> Millis {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        real + self.ahead_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed() + Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed))
    }
}

/// A simulator, a client with a token, and the first mailbox.
struct Bench {
    sim: SimHandle,
    clock: Arc<TestClock>,
    http: Client,
    token: String,
    user: String,
}

fn options() -> SimOptions {
    SimOptions {
        apps: vec![SimApp {
            client_id: CLIENT.into(),
            client_secret: Some(SECRET.into()),
            certificate_pem: None,
            roles: vec!["Mail.ReadWrite".into(), "User.Read.All".into()],
        }],
        population: Population { users: 3, messages_per_user: 40, ..Population::default() },
        ..SimOptions::default()
    }
}

async fn start(options: SimOptions) -> Bench {
    let clock = Arc::new(TestClock { start: Instant::now(), ahead_ms: AtomicU64::new(0) });
    let tenant = options.tenant_id.clone();
    let sim = Sim::start(options, clock.clone()).await.unwrap();
    let http = Client::builder().no_proxy().build().unwrap();
    let (status, body) =
        grant(&http, &sim, &tenant, &[("client_id", CLIENT), ("client_secret", SECRET)]).await;
    assert_eq!(status, 200, "{body}");
    let user = sim.users()[0].id.clone();
    Bench { sim, clock, http, token: body["access_token"].as_str().unwrap().into(), user }
}

async fn grant(http: &Client, sim: &SimHandle, tenant: &str, fields: &[(&str, &str)]) -> (u16, Value) {
    let mut form =
        vec![("grant_type", "client_credentials"), ("scope", "https://graph.microsoft.com/.default")];
    form.retain(|(name, _)| !fields.iter().any(|(given, _)| given == name));
    form.extend_from_slice(fields);
    let url = format!("{}/{tenant}/oauth2/v2.0/token", sim.base_url());
    let response = http.post(url).form(&form).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

impl Bench {
    fn url(&self, path: &str) -> String {
        if path.starts_with("http") {
            return path.into();
        }
        format!("{}/v1.0/users/{}{path}", self.sim.base_url(), self.user)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, self.url(path))
            .bearer_auth(&self.token)
            .header("prefer", "IdType=\"ImmutableId\"")
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{path}: {body}");
        body
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let response = self.request(method, path).json(body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn control(&self, name: &str, body: Value) -> Value {
        let url = format!("{}/_control/{name}", self.sim.base_url());
        let response = self.http.post(url).json(&body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{name}");
        response.json().await.unwrap()
    }

    /// All pages of a list or round: the items and the delta link.
    async fn all(&self, path: &str, size: usize) -> (Vec<Value>, Option<String>) {
        let mut items = Vec::new();
        let mut at = path.to_owned();
        for _ in 0..10_000 {
            let response = self
                .http
                .get(self.url(&at))
                .bearer_auth(&self.token)
                .header("prefer", format!("odata.maxpagesize={size}, IdType=\"ImmutableId\""))
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 200, "{at}: {}", response.text().await.unwrap());
            let page: Value = response.json().await.unwrap();
            items.extend(page["value"].as_array().unwrap().clone());
            match page["@odata.nextLink"].as_str() {
                Some(next) => at = next.into(),
                None => return (items, page["@odata.deltaLink"].as_str().map(Into::into)),
            }
        }
        panic!("the round does not end");
    }
}

fn ids(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["id"].as_str().unwrap()).collect()
}
