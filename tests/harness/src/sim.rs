//! The simulated tenant of the scenarios.

use std::sync::Arc;

use holdfast_graph_sim::{Population, Sim, SimApp, SimHandle, SimOptions, TruthMessage};
use holdfast_runtime::SystemClock;
use serde_json::Value;

pub const MICROSOFT_TENANT: &str = "6d1b1c52-5f0a-4c37-9a52-0a5f4c1d7e11";
pub const CLIENT_ID: &str = "b7c6a2f4-2d1e-4c0b-8f43-9d5b7d1e2a33";
/// An application that may read no mail.
pub const POOR_CLIENT_ID: &str = "c1f5de20-9a0c-4a55-8c0e-2b61f3d0ab77";
pub const CLIENT_SECRET: &str = "a-secret-only-for-tests";

/// What an application needs to back up and restore everything of a person.
const ROLES: [&str; 7] = [
    "User.Read.All",
    "Mail.ReadWrite",
    "MailboxSettings.ReadWrite",
    "Calendars.ReadWrite",
    "Contacts.ReadWrite",
    "Tasks.ReadWrite.All",
    "Files.ReadWrite.All",
];

/// Options of a tenant with the application of [`CLIENT_ID`] and every permission it needs.
pub fn options(users: u32, messages_per_user: u32, total_bytes: u64) -> SimOptions {
    SimOptions {
        tenant_id: MICROSOFT_TENANT.to_owned(),
        apps: vec![app(CLIENT_ID, &ROLES), app(POOR_CLIENT_ID, &["User.Read.All"])],
        seed: 20_261_124,
        population: Population { users, messages_per_user, total_bytes, ..Population::default() },
        ..SimOptions::default()
    }
}

fn app(client_id: &str, roles: &[&str]) -> SimApp {
    SimApp {
        client_id: client_id.to_owned(),
        client_secret: Some(CLIENT_SECRET.to_owned()),
        certificate_pem: None,
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
    }
}

/// A running simulator with its control endpoint.
pub struct SimTenant {
    pub handle: SimHandle,
    http: reqwest::Client,
}

impl SimTenant {
    pub async fn start(options: SimOptions) -> Self {
        let handle = Sim::start(options, Arc::new(SystemClock)).await.expect("start the simulator");
        Self { handle, http: reqwest::Client::new() }
    }

    pub fn url(&self) -> String {
        self.handle.base_url()
    }

    /// Calls the control endpoint.
    pub async fn control(&self, path: &str, body: Value) -> Value {
        let url = format!("{}/_control/{path}", self.url());
        let answer = self.http.post(url).json(&body).send().await.expect("the simulator answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap_or(Value::Null)
    }

    pub async fn get(&self, path: &str) -> Value {
        let url = format!("{}/_control/{path}", self.url());
        let answer = self.http.get(url).send().await.expect("the simulator answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.expect("the simulator speaks JSON")
    }

    /// The user principal names of the tenant.
    pub fn users(&self) -> Vec<String> {
        self.handle.users().into_iter().map(|user| user.user_principal_name).collect()
    }

    /// Every message of a mailbox, as it really is.
    pub async fn truth(&self, user: &str) -> Vec<TruthMessage> {
        self.handle.truth(user).await.expect("the user exists")
    }

    pub async fn wipe(&self, user: &str) {
        self.control("wipe", serde_json::json!({ "user": user })).await;
    }
}
