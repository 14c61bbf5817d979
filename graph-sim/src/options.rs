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
    /// Life of a download address, seconds. Default 3600.
    pub download_url_seconds: u64,
    /// Host and port that download and upload addresses name; it must lead back to the simulator. Default none = the host
    /// that was called.
    pub content_host: Option<String>,
    /// What a drive may hold, bytes; above it 507. Default 1 TB.
    pub drive_quota_bytes: u64,
    /// Whether items may be shared with people outside the tenant; off = 403 `sharingDisabled`. Default true.
    pub external_sharing: bool,
    /// Whether the recoverable items of a mailbox may be read; off = 403. Default true.
    pub recoverable_items: bool,
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
    /// Search folders of a mailbox. Default 0.
    pub search_folders_per_user: u32,
    /// Messages of a mailbox that were deleted and can still be recovered. Default 0.
    pub recoverable_messages_per_user: u32,
    /// Inbox rules of a mailbox: of every six one forwards, one is read-only, one has lost its folder. Default 0.
    pub inbox_rules_per_user: u32,
    /// Categories of a mailbox. Default 0.
    pub categories_per_user: u32,
    /// Contacts of a mailbox, in folders. Default 0.
    pub contacts_per_user: u32,
    /// To Do tasks of a mailbox, in lists. Default 0.
    pub tasks_per_user: u32,
    /// Events of a mailbox, in calendars; a series counts as one. Default 0.
    pub calendar_events_per_user: u32,
    /// Files of a drive, in folders, beside those below that have an option of their own. Default 0.
    pub drive_files_per_user: u32,
    /// Mean size of these files, bytes; most are smaller, a few much larger. Default 100,000.
    pub drive_file_bytes: u64,
    /// Largest of these files, bytes. Default 50 MB.
    pub drive_max_file_bytes: u64,
    /// Size of one more file in every drive, bytes; 0 = there is none. Default 0.
    pub drive_large_file_bytes: u64,
    /// How many files and folders of a hundred have permissions of their own. Default 5.
    pub drive_shared_percent: u32,
    /// How many files of a hundred have one to three earlier versions. Default 10.
    pub drive_versioned_percent: u32,
    /// Notebooks of a drive, each a package with three files. Default 0.
    pub drive_notebooks_per_user: u32,
    /// Files of a drive in which malware was found: their content is refused. Default 0.
    pub drive_malware_per_user: u32,
    /// Files of a drive that somebody has locked: reading their content and changing them is refused by 423. Default 0.
    pub drive_locked_per_user: u32,
    /// Links of a drive to folders of the next person's drive. Default 0.
    pub drive_shortcuts_per_user: u32,
    /// How many people, the last ones, never opened their drive: 404 `ResourceNotFound`. Default 0.
    pub users_without_drive: u32,
    /// How many people, those before them, have a locked drive: 403 `accessDenied`. Default 0.
    pub users_with_locked_drive: u32,
    /// Folder whose `*.eml` files are loaded as messages as well, spread over the Inboxes.
    pub eml_folder: Option<PathBuf>,
}

/// Microsoft's limits: of Outlook per app and mailbox, of SharePoint and OneDrive per app and tenant.
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
    /// Resource units of drives in a minute: 1 for one item, a delta with a token or content, 2 for lists and writes, 5 for
    /// permissions. Default 1,250, that of a small tenant.
    pub sharepoint_units_per_minute: u64,
    /// Resource units of drives in a day. Default 1,200,000.
    pub sharepoint_units_per_day: u64,
    /// Bytes sent to drives in an hour; above them 509. Default 400 GB.
    pub sharepoint_ingress_bytes_per_hour: u64,
    /// Bytes of content asked of drives in an hour; above them 509. Default 400 GB.
    pub sharepoint_egress_bytes_per_hour: u64,
    /// Multiplies all allowances but the concurrency. Default 1.
    pub scale: f64,
}

/// Rates from 0 to 1, and one size; what fails is decided by (seed, path, how often the path was called).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FaultOptions {
    /// Seed of the faults.
    pub seed: u64,
    /// 429, after which the mailbox, or all drives, stay blocked until its Retry-After has passed.
    pub rate_429: f64,
    /// 503, with a JSON, an HTML or an empty body.
    pub rate_503: f64,
    /// 504 with an HTML body.
    pub rate_504: f64,
    /// Connection reset before the answer.
    pub rate_reset: f64,
    /// Connection closed in the middle of the answer's body.
    pub rate_truncate: f64,
    /// Delta and next links answered by 410: `SyncStateNotFound`, of drives `resyncRequired`.
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
    /// 500 on a message's `$value`, on a file's content, and on reading another item, always for the same items.
    pub rate_corrupt_item: f64,
    /// Calendar delta pages larger than this are answered by 503 without a body; 0 = none is.
    pub calendar_delta_page_max: u32,
    /// Connection reset after what was asked for was done, on calls that write.
    pub rate_lost_answer: f64,
    /// 509 on calls to drives, with a Retry-After.
    pub rate_509: f64,
    /// A download address refused as if it had expired.
    pub rate_expired_download: f64,
    /// A part of a file that was asked for, answered with the whole file.
    pub rate_range_ignored: f64,
    /// Files of which delta and lists show the hash of other content, always the same ones; the item itself shows the right
    /// one.
    pub rate_stale_hash: f64,
    /// Files without a hash, always the same ones.
    pub rate_missing_hash: f64,
    /// Parts of notebooks whose content is answered by 503, always the same ones.
    pub rate_notebook_503: f64,
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
            download_url_seconds: 3600,
            content_host: None,
            drive_quota_bytes: 1_000_000_000_000,
            external_sharing: true,
            recoverable_items: true,
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
            search_folders_per_user: 0,
            recoverable_messages_per_user: 0,
            inbox_rules_per_user: 0,
            categories_per_user: 0,
            contacts_per_user: 0,
            tasks_per_user: 0,
            calendar_events_per_user: 0,
            drive_files_per_user: 0,
            drive_file_bytes: 100_000,
            drive_max_file_bytes: 50_000_000,
            drive_large_file_bytes: 0,
            drive_shared_percent: 5,
            drive_versioned_percent: 10,
            drive_notebooks_per_user: 0,
            drive_malware_per_user: 0,
            drive_locked_per_user: 0,
            drive_shortcuts_per_user: 0,
            users_without_drive: 0,
            users_with_locked_drive: 0,
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
            sharepoint_units_per_minute: 1250,
            sharepoint_units_per_day: 1_200_000,
            sharepoint_ingress_bytes_per_hour: 400_000_000_000,
            sharepoint_egress_bytes_per_hour: 400_000_000_000,
            scale: 1.0,
        }
    }
}
