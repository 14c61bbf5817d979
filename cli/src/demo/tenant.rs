//! The demo's tenant: a simulator in this process, and the calls to its control endpoint.

use std::sync::Arc;

use holdfast_graph_sim::{Population, Sim, SimApp, SimHandle, SimOptions, TruthMessage};
use holdfast_proto::coordinator::{AppRegistration, ConnectTenantRequest};
use holdfast_runtime::SystemClock;
use serde_json::{Value, json};

use super::report::Change;
use crate::error::CliError;

/// The name the demo's tenant is connected with.
pub const TENANT: &str = "contoso";
const MICROSOFT_TENANT: &str = "3e0f2a5c-7c1d-4b8e-9f60-1d2c3b4a5e6f";
const CLIENT_ID: &str = "0c9d8e7f-6a5b-4c3d-8e2f-1a0b9c8d7e6f";
const CLIENT_SECRET: &str = "only-for-the-demo";
/// How much of the tenant changes between the two runs.
const CHANGES: [(&str, u64); 5] =
    [("new", 60), ("edited", 20), ("moved", 40), ("deleted", 30), ("flags", 50)];

/// What the simulator counted.
pub struct Counters {
    pub mails_sent: u64,
    pub early_requests: u64,
}

/// The simulated tenant.
pub struct DemoTenant {
    sim: SimHandle,
    http: reqwest::Client,
    mailboxes: u32,
}

impl DemoTenant {
    pub async fn start(
        users: u32,
        messages_per_user: u32,
        total_bytes: u64,
        seed: u64,
    ) -> Result<Self, CliError> {
        let roles = ["Mail.Read", "Mail.ReadWrite", "User.Read.All"].map(str::to_owned).to_vec();
        let app = SimApp {
            client_id: CLIENT_ID.to_owned(),
            client_secret: Some(CLIENT_SECRET.to_owned()),
            certificate_pem: None,
            roles,
        };
        let options = SimOptions {
            tenant_id: MICROSOFT_TENANT.to_owned(),
            apps: vec![app],
            seed,
            population: Population { users, messages_per_user, total_bytes, ..Population::default() },
            ..SimOptions::default()
        };
        let sim = Sim::start(options, Arc::new(SystemClock)).await.map_err(CliError::failed)?;
        Ok(Self { sim, http: reqwest::Client::new(), mailboxes: users })
    }

    pub fn mailboxes(&self) -> u32 {
        self.mailboxes
    }

    pub fn connect_request(&self) -> ConnectTenantRequest {
        ConnectTenantRequest {
            name: TENANT.to_owned(),
            microsoft_tenant: MICROSOFT_TENANT.to_owned(),
            backup_app: Some(AppRegistration {
                client_id: CLIENT_ID.to_owned(),
                client_secret: CLIENT_SECRET.to_owned(),
                certificate_pem: String::new(),
            }),
            restore_app: None,
            cloud: "global".to_owned(),
            graph_url: self.sim.base_url(),
            login_url: self.sim.base_url(),
        }
    }

    pub async fn evolve(&self) -> Result<Change, CliError> {
        let mut body = json!({ "seed": 1 });
        for (kind, count) in CHANGES {
            body[kind] = json!(count);
        }
        self.control("evolve", &body).await?;
        Ok(Change { messages: CHANGES.iter().map(|(_, count)| count).sum() })
    }

    pub async fn wipe(&self, user: &str) -> Result<(), CliError> {
        self.control("wipe", &json!({ "user": user })).await
    }

    pub async fn truth(&self, user: &str) -> Result<Vec<TruthMessage>, CliError> {
        self.sim.truth(user).await.map_err(CliError::failed)
    }

    /// The mailbox with the most bytes of attachments that stays below a size, with its messages.
    pub async fn largest_mailbox_below(
        &self,
        bytes_max: u64,
    ) -> Result<(String, Vec<TruthMessage>), CliError> {
        let mut largest: Option<(u64, String, Vec<TruthMessage>)> = None;
        for user in self.sim.users() {
            let name = user.user_principal_name;
            let messages = self.truth(&name).await?;
            let bytes = messages.iter().flat_map(|m| &m.attachments).map(|a| a.size).sum::<u64>();
            if bytes < bytes_max && largest.as_ref().is_none_or(|(most, ..)| bytes > *most) {
                largest = Some((bytes, name, messages));
            }
        }
        let (_, name, messages) = largest
            .ok_or_else(|| CliError::failed("every mailbox is too large to be wiped: lower --bytes"))?;
        Ok((name, messages))
    }

    pub async fn counters(&self) -> Result<Counters, CliError> {
        let counters = serde_json::to_value(self.sim.counters()).map_err(CliError::failed)?;
        let number = |name: &str| {
            counters[name].as_u64().ok_or_else(|| CliError::failed(format!("no counter {name}")))
        };
        Ok(Counters {
            mails_sent: number("would_have_sent_mail")?,
            early_requests: number("early_after_429")?,
        })
    }

    pub async fn stop(self) {
        self.sim.shutdown().await;
    }

    async fn control(&self, path: &str, body: &Value) -> Result<(), CliError> {
        let url = format!("{}/_control/{path}", self.sim.base_url());
        let answer = self.http.post(url).json(body).send().await.map_err(CliError::failed)?;
        answer.error_for_status().map(drop).map_err(CliError::failed)
    }
}

pub use holdfast_graph_sim::differences;
