//! The quota ledger: one count for everybody who calls Microsoft for the same (cloud, tenant, app, scope).
//!
//! The one invariant to know: in no window is more granted than the limit, and what was charged stays charged. A permit holds
//! an in-flight slot until it is dropped, which is when the body has been read.
//!
//! Each scope has its own windows: a mailbox counts requests and bytes sent; SharePoint counts resource units per minute and
//! per day, and bytes in each direction per hour; the directory and a team count requests. A call is charged to all windows of
//! its scope at once, before it is sent.

mod limits;
mod local;
mod redis_ledger;
mod window;

#[cfg(test)]
mod conformance;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use holdfast_model::{JobClass, Millis};
use serde::{Deserialize, Serialize};

use crate::{Cloud, RateLimit};

pub use limits::{ClassShares, QuotaLimits};
pub use local::LocalLedger;
pub use redis_ledger::RedisLedger;

/// What a limit of Microsoft applies to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// One mailbox.
    Mailbox(String),
    /// All SharePoint sites and drives of the tenant.
    SharePoint,
    /// Users, groups and the like.
    Directory,
    /// One team.
    Team(String),
}

/// Whose quota it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuotaKey {
    /// The cloud.
    pub cloud: Cloud,
    /// Microsoft's id of the tenant.
    pub microsoft_tenant: String,
    /// The app registration.
    pub client_id: String,
    /// What the limit applies to.
    pub scope: Scope,
}

impl fmt::Display for QuotaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/", self.cloud, self.microsoft_tenant, self.client_id)?;
        match &self.scope {
            Scope::Mailbox(user) => write!(f, "mailbox/{user}"),
            Scope::SharePoint => f.write_str("sharepoint"),
            Scope::Directory => f.write_str("directory"),
            Scope::Team(team) => write!(f, "team/{team}"),
        }
    }
}

/// How a request is weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// So many requests, or so many resource units of the directory.
    Plain(u32),
    /// SharePoint: one item, a delta with a token, a file's content.
    Single,
    /// SharePoint: a list, a delta without a token, a create, a change, a delete, an upload.
    Listing,
    /// SharePoint: anything with permissions.
    Permissions,
}

/// What one call costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// The request itself.
    pub weight: Weight,
    /// Bytes sent.
    pub upload_bytes: u64,
    /// Bytes of content asked for.
    pub download_bytes: u64,
}

impl Cost {
    /// One request without a body.
    pub const ONE: Self = Self { weight: Weight::Plain(1), upload_bytes: 0, download_bytes: 0 };
}

/// What is used of one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowUse {
    /// What it counts, such as `requests` or `egress`.
    pub name: &'static str,
    /// What counts at this moment.
    pub used: u64,
    /// What may be used.
    pub granted: u64,
    /// Its length.
    pub length: Duration,
}

/// What there is not enough of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shortage {
    /// Microsoft asked for a pause.
    Paused,
    /// The requests, or resource units, of the window.
    Requests,
    /// The resource units of the day.
    Daily,
    /// The bytes sent of the window.
    Upload,
    /// The bytes received of the window.
    Download,
    /// The in-flight slots, or somebody more urgent waits for them.
    Slots,
}

/// Why there is no permit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Not now: try again after the wait, never earlier.
    #[error("no quota for {} ms: {shortage:?}", wait.as_millis())]
    WouldWait {
        /// How long at least.
        wait: Duration,
        /// What is short.
        shortage: Shortage,
    },
    /// More than a whole window.
    #[error("a single call costs more than a whole window allows")]
    NeverFits,
}

/// A slot in flight. Dropping it frees the slot.
pub trait Slot: Send + Sync {
    /// Keeps the slot from expiring while a long body is read.
    fn renew(&self);
}

/// The right to have one request in flight; it travels with the body and frees the slot when it is dropped.
pub struct Permit(Box<dyn Slot>);

impl Permit {
    /// Wraps a ledger's slot.
    pub fn new(slot: impl Slot + 'static) -> Self {
        Self(Box::new(slot))
    }

    /// Keeps the slot from expiring while a long body is read.
    pub fn renew(&self) {
        self.0.renew();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// The count that everybody who shares a key obeys.
#[async_trait]
pub trait QuotaLedger: Send + Sync {
    /// Tries once. Never waits for quota: the caller waits as long as the error says, or defers its job.
    ///
    /// When something is short, the highest class that asked lately goes first.
    async fn acquire(&self, key: &QuotaKey, cost: Cost, class: JobClass) -> Result<Permit, LedgerError>;

    /// Nobody who shares the key calls before this time. An earlier pause that lasts longer stays.
    async fn pause(&self, key: &QuotaKey, until_ms: Millis);

    /// Microsoft said what is left of the first window: where that is less than what is counted here, the count is raised.
    async fn correct(&self, key: &QuotaKey, said: RateLimit);

    /// What is used of each window of the key.
    async fn usage(&self, key: &QuotaKey) -> Vec<WindowUse>;

    /// Waits until a slot of the key may be free, `at_most` as long as given.
    async fn slot_freed(&self, _key: &QuotaKey, at_most: Duration) {
        tokio::time::sleep(at_most).await;
    }
}
