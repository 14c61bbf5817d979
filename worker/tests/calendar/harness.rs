//! A person with calendars, and what a snapshot of them holds.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_graph_sim::{Population, SimOptions};
use holdfast_model::Workload;
use serde_json::{Value, json};

pub use crate::support::{World, blake3_hex, failures, outcome};

/// What is compared by other means.
const APART: [&str; 12] = [
    "identity",
    "calendar",
    "timeZone",
    "start",
    "end",
    "attachments",
    "exceptions",
    "cancelled",
    "recurrence",
    "attendees",
    "transactionId",
    "seriesMasterId",
];

/// How Microsoft tells of changes in calendars other than the default one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Told {
    ByDelta,
    NotAtAll,
}

impl World {
    pub async fn new(events: u32) -> Self {
        Self::with(events, Told::ByDelta).await
    }

    pub async fn with(events: u32, told: Told) -> Self {
        let population = Population {
            users: 6,
            messages_per_user: 0,
            calendar_events_per_user: events,
            ..Population::default()
        };
        let per_calendar_delta = told == Told::ByDelta;
        Self::start(
            Workload::Calendar,
            SimOptions { population, per_calendar_delta, ..SimOptions::default() },
        )
        .await
    }

    /// Compares the newest snapshot with what the calendars hold, to the last byte of every attachment.
    pub async fn check_snapshot(&self) {
        let truth = self.truth_by_id().await;
        self.check_all_but(&truth, &BTreeSet::new()).await;
    }

    /// The same, but for these events.
    pub async fn check_all_but(&self, truth: &BTreeMap<String, Value>, except: &BTreeSet<String>) {
        let stored = self.stored().await;
        let ids: BTreeSet<&str> = stored.iter().map(|event| event.id.as_str()).collect();
        let lacking: Vec<_> = truth.keys().filter(|id| !ids.contains(id.as_str())).collect();
        assert!(lacking.iter().all(|id| except.contains(*id)), "not stored: {lacking:?}");
        for event in stored.iter().filter(|event| !except.contains(&event.id)) {
            let expected = truth.get(&event.id).unwrap_or_else(|| panic!("{} is not there", event.id));
            assert_eq!(event.path, format!("/{}", expected["calendar"].as_str().unwrap()));
            check_part((&event.meta, &event.meta["_holdfast"]["attachments"]), &event.parts, expected);
            assert_eq!(event.meta["recurrence"], expected["recurrence"]);
            check_series(&event.meta["_holdfast"]["series"], &event.parts, expected);
        }
    }

    pub fn n_files_read(&self) -> u64 {
        self.n_requests("calendar_event_attachment_value")
    }

    pub fn n_requests(&self, kind: &str) -> u64 {
        self.requests().get(kind).copied().unwrap_or(0)
    }
}

/// What an event and an exception have alike.
fn check_part((event, attachments): (&Value, &Value), parts: &[Vec<u8>], expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        if !APART.contains(&name.as_str()) {
            assert_eq!(event[name], *value, "{name} of {}", expected["subject"]);
        }
    }
    for name in ["start", "end"] {
        assert_eq!(event[name]["dateTime"], format!("{}.0000000", expected[name].as_str().unwrap()));
    }
    let emails = |event: &Value| -> Vec<Value> {
        event["attendees"].as_array().into_iter().flatten().map(|one| one["emailAddress"].clone()).collect()
    };
    assert_eq!(emails(event), emails(expected));
    let mut files: Vec<(String, String)> = Vec::new();
    for one in attachments.as_array().unwrap() {
        let bytes = &parts[usize::try_from(one["source"]["part"].as_u64().unwrap()).unwrap()];
        files.push((one["info"]["name"].as_str().unwrap().to_owned(), blake3_hex(bytes)));
    }
    let mut wanted: Vec<(String, String)> = Vec::new();
    for one in expected["attachments"].as_array().unwrap() {
        wanted.push((one["name"].as_str().unwrap().to_owned(), one["blake3"].as_str().unwrap().to_owned()));
    }
    files.sort();
    wanted.sort();
    assert_eq!(files, wanted, "attachments of {}", expected["subject"]);
}

fn check_series(series: &Value, parts: &[Vec<u8>], expected: &Value) {
    let wanted = expected["exceptions"].as_object().unwrap();
    if expected["recurrence"].is_null() {
        assert!(series.is_null() && wanted.is_empty());
        return;
    }
    let in_part = series["exceptionsPart"]["part"].as_u64();
    let exceptions: Value = match in_part {
        Some(part) => serde_json::from_slice(&parts[usize::try_from(part).unwrap()]).unwrap(),
        None => series["exceptions"].clone(),
    };
    let exceptions = exceptions.as_array().unwrap();
    assert_eq!(exceptions.len(), wanted.len(), "exceptions of {}", expected["subject"]);
    for exception in exceptions {
        let event = &exception["event"];
        let day = &event["originalStart"].as_str().unwrap()[..10];
        // The day by the series' own zone may be the one before or after that of the time in UTC.
        let subject = &event["subject"];
        let found = wanted.get(day).filter(|one| one["subject"] == *subject);
        let found = found.or_else(|| wanted.values().find(|one| one["subject"] == *subject)).unwrap();
        check_part((event, &exception["attachments"]), parts, found);
    }
    let cancelled: Vec<Value> = series["cancelled"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| json!(one.as_str().unwrap().rsplit('.').next().unwrap()))
        .collect();
    assert_eq!(json!(cancelled), expected["cancelled"], "cancelled times of {}", expected["subject"]);
}
