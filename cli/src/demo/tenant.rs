//! The demo's tenant: a simulator in this process, and the calls to its control endpoint.

use std::{collections::HashSet, sync::Arc};

use holdfast_graph_sim::{
    Population, Sim, SimApp, SimHandle, SimOptions, TruthMessage, differences, differences_of,
};
use holdfast_model::Workload;
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
const ROLES: [&str; 7] = [
    "User.Read.All",
    "Mail.ReadWrite",
    "MailboxSettings.ReadWrite",
    "Calendars.ReadWrite",
    "Contacts.ReadWrite",
    "Tasks.ReadWrite.All",
    "Files.ReadWrite.All",
];
/// How much of the tenant's mail changes between the two runs.
const MAIL_CHANGES: [(&str, u64); 5] =
    [("new", 60), ("edited", 20), ("moved", 40), ("deleted", 30), ("flags", 50)];
/// The same of each other workload.
const OTHER_CHANGES: [(&str, u64); 3] = [("new", 10), ("edited", 10), ("deleted", 5)];
/// What a person has beside mail.
const CONTACTS_PER_USER: u32 = 40;
const TASKS_PER_USER: u32 = 20;
const EVENTS_PER_USER: u32 = 30;
const FILES_PER_USER: u32 = 20;

/// What the simulator counted.
pub struct Counters {
    pub mails_sent: u64,
    pub early_requests: u64,
}

/// Everything a person has, workload by workload.
pub struct Truth {
    mail: Vec<TruthMessage>,
    others: Vec<Vec<Value>>,
}

impl Truth {
    /// How many items it holds.
    pub fn items(&self) -> usize {
        self.mail.len() + self.others.iter().map(Vec::len).sum::<usize>()
    }

    /// What is not the same later.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let others = self.others.iter().zip(&later.others).flat_map(|(before, after)| {
            let (before, after) = without_invitations(before, after);
            differences_of(&before, &after)
        });
        differences(&self.mail, &later.mail).into_iter().chain(others).collect()
    }
}

/// Two truths without what a restore changes on purpose: a restored event invites nobody, and its text names who was invited.
fn without_invitations(before: &[Value], after: &[Value]) -> (Vec<Value>, Vec<Value>) {
    let mut invited = HashSet::new();
    let (mut before, mut after) = (before.to_vec(), after.to_vec());
    for event in &mut before {
        let identity = event["identity"].to_string();
        for_each_time(event, |day, time| {
            if time.get("attendees").and_then(Value::as_array).is_some_and(|all| !all.is_empty()) {
                invited.insert((identity.clone(), day.to_owned()));
                leave_out_invitation(time);
            }
        });
    }
    for event in &mut after {
        let identity = event["identity"].to_string();
        for_each_time(event, |day, time| {
            if invited.contains(&(identity.clone(), day.to_owned())) {
                leave_out_invitation(time);
            }
        });
    }
    (before, after)
}

fn leave_out_invitation(time: &mut Value) {
    time["attendees"] = json!([]);
    time["body"] = Value::Null;
}

/// An item, and each exception of a series.
fn for_each_time(item: &mut Value, mut with: impl FnMut(&str, &mut Value)) {
    with("", item);
    for (day, exception) in item.get_mut("exceptions").and_then(Value::as_object_mut).into_iter().flatten() {
        with(day, exception);
    }
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
        let app = SimApp {
            client_id: CLIENT_ID.to_owned(),
            client_secret: Some(CLIENT_SECRET.to_owned()),
            certificate_pem: None,
            roles: ROLES.map(str::to_owned).to_vec(),
        };
        let population = Population {
            users,
            messages_per_user,
            total_bytes,
            contacts_per_user: CONTACTS_PER_USER,
            tasks_per_user: TASKS_PER_USER,
            calendar_events_per_user: EVENTS_PER_USER,
            drive_files_per_user: FILES_PER_USER,
            // Links get new addresses, and versions are kept where settings ask for them: neither is compared here.
            drive_shared_percent: 0,
            drive_versioned_percent: 0,
            ..Population::default()
        };
        let options = SimOptions {
            tenant_id: MICROSOFT_TENANT.to_owned(),
            apps: vec![app],
            seed,
            population,
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
        let mut items = 0;
        for workload in Workload::OF_A_USER {
            let changes: &[(&str, u64)] =
                if *workload == Workload::Mail { &MAIL_CHANGES } else { &OTHER_CHANGES };
            let mut body = json!({ "seed": 1, "workload": word(*workload) });
            for (kind, count) in changes {
                body[*kind] = json!(count);
                items += count;
            }
            self.control("evolve", &body).await?;
        }
        Ok(Change { items })
    }

    /// Everything the person has is gone.
    pub async fn wipe(&self, user: &str) -> Result<(), CliError> {
        self.control("wipe", &json!({ "user": user })).await
    }

    /// What the person really has.
    pub async fn truth(&self, user: &str) -> Result<Truth, CliError> {
        let mut others = Vec::new();
        for workload in Workload::OF_A_USER.iter().filter(|workload| **workload != Workload::Mail) {
            let mut items = self.sim.truth_of(word(*workload), user).await.map_err(CliError::failed)?;
            items.iter_mut().for_each(forget_earlier_versions);
            others.push(items);
        }
        Ok(Truth { mail: self.mail_of(user).await?, others })
    }

    async fn mail_of(&self, user: &str) -> Result<Vec<TruthMessage>, CliError> {
        self.sim.truth(user).await.map_err(CliError::failed)
    }

    /// The person whose mailbox has the most bytes of attachments and stays below a size.
    pub async fn largest_mailbox_below(&self, bytes_max: u64) -> Result<String, CliError> {
        let mut largest: Option<(u64, String)> = None;
        for user in self.sim.users() {
            let name = user.user_principal_name;
            let messages = self.mail_of(&name).await?;
            let bytes = messages.iter().flat_map(|m| &m.attachments).map(|a| a.size).sum::<u64>();
            if bytes < bytes_max && largest.as_ref().is_none_or(|(most, _)| bytes > *most) {
                largest = Some((bytes, name));
            }
        }
        let none = || CliError::failed("every mailbox is too large to be wiped: lower --bytes");
        largest.map(|(_, name)| name).ok_or_else(none)
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

/// A snapshot holds what a file is, and what it was before only where a worker is told to keep it (`drive-versions`).
fn forget_earlier_versions(item: &mut Value) {
    if let Some(properties) = item.as_object_mut() {
        properties.remove("versions");
    }
}

/// What the simulator calls a workload.
fn word(workload: Workload) -> &'static str {
    match workload {
        Workload::Tasks => "todo",
        other => other.as_str(),
    }
}
