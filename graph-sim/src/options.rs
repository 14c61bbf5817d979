//! What a simulated tenant looks like and how badly it behaves: one serialisable options tree.
//!
//! Invariant: the same options give the same population and the same faults; nothing here reads the environment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Options of the simulator; every field has a default that gives a small, well-behaved tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SimOptions {
    /// Address to listen on; port 0 takes any free port. Default `127.0.0.1:0`.
    pub listen: String,
    /// The directory's id; the token endpoint answers only for it.
    pub tenant_id: String,
    /// App registrations that get tokens.
    pub apps: Vec<SimApp>,
    /// Seed of the population.
    pub seed: u64,
    /// Who and what is in the tenant.
    pub population: Population,
    /// Microsoft's limits.
    pub limits: SimLimits,
    /// Added to every Graph answer, milliseconds. Default 0.
    pub latency_ms: u64,
    /// Life of an access token, seconds. Default 3599.
    pub token_lifetime_seconds: u64,
    /// Page size when the request names none. Default 10.
    pub page_size_default: u32,
    /// Largest page given, whatever is asked. Default 1000.
    pub page_size_max: u32,
    /// Whether attachments may be added to messages that are not drafts. Default true.
    pub attachments_on_non_drafts: bool,
    /// What an attachment's `size` exceeds its content by, bytes, beside its name. Default 128: Exchange counts overhead.
    pub attachment_overhead: u32,
    /// Whether calendars other than the default one have a delta, which Microsoft describes and does not document; off =
    /// 400. Default true.
    pub per_calendar_delta: bool,
    /// OpenAPI description to check every request and answer against. Default none (then `HOLDFAST_OPENAPI` is tried).
    pub openapi: Option<PathBuf>,
    /// Faults, all off by default.
    pub faults: FaultOptions,
}

/// An app registration.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SimApp {
    /// Application id.
    pub client_id: String,
    /// Client secret; none = secrets are refused.
    pub client_secret: Option<String>,
    /// Public certificate; none = assertions are refused.
    pub certificate_pem: Option<String>,
    /// Application roles put into its tokens.
    pub roles: Vec<String>,
}

impl std::fmt::Debug for SimApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimApp")
            .field("client_id", &self.client_id)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

/// Who and what is in the tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Population {
    /// People. Default 5.
    pub users: u32,
    /// How many of them, the last ones, have no mailbox: 404 `MailboxNotEnabledForRESTAPI`. Default 0.
    pub users_without_mailbox: u32,
    /// Mean number of messages of a mailbox; it varies from 0.4 to 1.6 times that. Default 40.
    pub messages_per_user: u32,
    /// Approximate size of all MIME content, bytes; 0 = 60 KB a message. Default 0.
    pub total_bytes: u64,
    /// Largest message, bytes. Default 25 MB.
    pub max_message_bytes: u64,
    /// Contacts of a mailbox, in folders. Default 0.
    pub contacts_per_user: u32,
    /// To Do tasks of a mailbox, in lists. Default 0.
    pub tasks_per_user: u32,
    /// Events of a mailbox, in calendars; a series counts as one. Default 0.
    pub calendar_events_per_user: u32,
    /// Folder whose `*.eml` files are loaded as messages as well, spread over the Inboxes.
    pub eml_folder: Option<PathBuf>,
}

/// Microsoft's limits per app and mailbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SimLimits {
    /// Off = nothing is ever refused. Default true.
    pub enabled: bool,
    /// Requests in flight. Default 4.
    pub concurrent_per_mailbox: u32,
    /// Requests in a window. Default 10,000.
    pub requests_per_window: u64,
    /// The window, seconds. Default 600.
    pub window_seconds: u64,
    /// Request body bytes in an upload window. Default 150 MB.
    pub upload_bytes_per_window: u64,
    /// The upload window, seconds. Default 300.
    pub upload_window_seconds: u64,
    /// Multiplies the request and upload allowances, not the concurrency. Default 1.
    pub scale: f64,
}

/// Rates from 0 to 1, and one size; what fails is decided by (seed, path, how often the path was called).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FaultOptions {
    /// Seed of the faults.
    pub seed: u64,
    /// 429, after which the mailbox stays blocked until its Retry-After has passed.
    pub rate_429: f64,
    /// 503, with a JSON, an HTML or an empty body.
    pub rate_503: f64,
    /// 504 with an HTML body.
    pub rate_504: f64,
    /// Connection reset before the answer.
    pub rate_reset: f64,
    /// Connection closed in the middle of the answer's body.
    pub rate_truncate: f64,
    /// Delta and next links answered by 410 `SyncStateNotFound`.
    pub rate_expired_delta: f64,
    /// A delta page that holds an item twice.
    pub rate_duplicate_in_page: f64,
    /// A delta page that removes something the client never saw.
    pub rate_phantom_removed: f64,
    /// A delta page without items but with a next link.
    pub rate_empty_page: f64,
    /// 401 `InvalidAuthenticationToken` although the token is good.
    pub rate_401: f64,
    /// 404 `ErrorItemNotFound` on an item that exists.
    pub rate_404: f64,
    /// 500 `ErrorCorruptData` on a message's `$value` and on reading another item, always for the same items.
    pub rate_corrupt_item: f64,
    /// Calendar delta pages larger than this are answered by 503 without a body; 0 = none is.
    pub calendar_delta_page_max: u32,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".into(),
            tenant_id: "6f1d2c3b-4a59-4e68-8877-9a0b1c2d3e4f".into(),
            apps: Vec::new(),
            seed: 1,
            population: Population::default(),
            limits: SimLimits::default(),
            latency_ms: 0,
            token_lifetime_seconds: 3599,
            page_size_default: 10,
            page_size_max: 1000,
            attachments_on_non_drafts: true,
            attachment_overhead: 128,
            per_calendar_delta: true,
            openapi: None,
            faults: FaultOptions::default(),
        }
    }
}

impl Default for Population {
    fn default() -> Self {
        Self {
            users: 5,
            users_without_mailbox: 0,
            messages_per_user: 40,
            total_bytes: 0,
            max_message_bytes: 25_000_000,
            contacts_per_user: 0,
            tasks_per_user: 0,
            calendar_events_per_user: 0,
            eml_folder: None,
        }
    }
}

impl Default for SimLimits {
    fn default() -> Self {
        Self {
            enabled: true,
            concurrent_per_mailbox: 4,
            requests_per_window: 10_000,
            window_seconds: 600,
            upload_bytes_per_window: 150_000_000,
            upload_window_seconds: 300,
            scale: 1.0,
        }
    }
}
