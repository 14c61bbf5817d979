//! What happened, for tests to assert on.
//!
//! Invariant: keys are user principal names of generated people, so nothing here grows without bound.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

const MAX_VIOLATIONS: usize = 200;

/// Counts since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CountersSnapshot {
    /// Person (or `directory`) → kind of request → how many, refused ones too.
    pub requests: BTreeMap<String, BTreeMap<String, u64>>,
    /// Mailbox → `$value` requests of messages that were answered with content.
    pub content_requests: BTreeMap<String, u64>,
    /// Mailbox (or `sharepoint`) → most requests in flight at once.
    pub max_in_flight: BTreeMap<String, u64>,
    /// Resource units of the calls to drives that were let in.
    pub resource_units: u64,
    /// 429 answers.
    pub throttled_429: u64,
    /// Mailbox (or `sharepoint`) → why → 429 and 509 answers.
    pub throttled: BTreeMap<String, BTreeMap<String, u64>>,
    /// Requests to a mailbox or a drive before the Retry-After it was told had passed (300 ms of grace).
    pub early_after_429: u64,
    /// Calls that would have sent mail to people.
    pub would_have_sent_mail: u64,
    /// The same by what they were, such as `send` or `calendar_event_create`.
    pub would_have_sent: BTreeMap<String, u64>,
    /// What did not match Microsoft's description, at most 200.
    pub openapi_violations: Vec<String>,
    /// Access tokens given.
    pub tokens_issued: u64,
    /// Token requests refused.
    pub tokens_refused: u64,
    /// Injected faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Messages created through the API.
    pub messages_created: u64,
    /// Bytes of MIME, attachments and files given out.
    pub content_bytes: u64,
    /// Bytes of request bodies received.
    pub upload_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Counters(Mutex<CountersSnapshot>);

impl Counters {
    pub(crate) fn snapshot(&self) -> CountersSnapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = CountersSnapshot::default();
    }

    pub(crate) fn with(&self, change: impl FnOnce(&mut CountersSnapshot)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn request(&self, mailbox: &str, kind: &str) {
        self.with(|all| {
            let kinds = all.requests.entry(mailbox.into()).or_default();
            *kinds.entry(kind.into()).or_default() += 1;
        });
    }

    /// Something that would have sent mail to people.
    pub(crate) fn would_send(&self, kind: &str) {
        self.with(|all| {
            all.would_have_sent_mail += 1;
            *all.would_have_sent.entry(kind.into()).or_default() += 1;
        });
    }

    pub(crate) fn fault(&self, kind: &str) {
        self.with(|all| *all.faults.entry(kind.into()).or_default() += 1);
    }

    pub(crate) fn violation(&self, text: String) {
        self.with(|all| {
            if all.openapi_violations.len() < MAX_VIOLATIONS && !all.openapi_violations.contains(&text) {
                all.openapi_violations.push(text);
            }
        });
    }
}
