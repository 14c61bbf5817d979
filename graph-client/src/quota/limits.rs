//! Microsoft's limits by name, from configuration. All are defaults that Microsoft may change, none is a constant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Scope;

/// Microsoft's limits, and how much of them is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct QuotaLimits {
    /// Requests in flight per mailbox and app. Default 4.
    pub mailbox_in_flight: u32,
    /// Requests per window, mailbox and app. Default 10,000.
    pub mailbox_requests: u64,
    /// The window of `mailbox-requests` in seconds. Default 600.
    pub mailbox_window_s: u64,
    /// Bytes sent per upload window, mailbox and app. Default 150,000,000.
    pub upload_bytes: u64,
    /// The window of `upload-bytes` in seconds. Default 300.
    pub upload_window_s: u64,
    /// Resource units per window, tenant and app, for users and groups. Default 3,500 (a small tenant).
    pub directory_requests: u64,
    /// The window of `directory-requests` in seconds. Default 10.
    pub directory_window_s: u64,
    /// Resource units per window, tenant and app, for sites and drives. Default 1,250 (a small tenant).
    pub sharepoint_requests: u64,
    /// The window of `sharepoint-requests` in seconds. Default 60.
    pub sharepoint_window_s: u64,
    /// Requests per window on one team. Default 4.
    pub team_requests: u64,
    /// The window of `team-requests` in seconds. Default 1.
    pub team_window_s: u64,
    /// Requests in flight per key where Microsoft sets no limit of its own. Default 32.
    pub shared_in_flight: u32,
    /// How much of each window is granted, in percent; the rest is the fallback when Redis is gone. Default 96, at most 99.
    pub grant_percent: u8,
    /// After this many seconds without a sign of life an in-flight slot is free again. Default 60.
    pub slot_ttl_s: u64,
}

impl Default for QuotaLimits {
    fn default() -> Self {
        Self {
            mailbox_in_flight: 4,
            mailbox_requests: 10_000,
            mailbox_window_s: 600,
            upload_bytes: 150_000_000,
            upload_window_s: 300,
            directory_requests: 3_500,
            directory_window_s: 10,
            sharepoint_requests: 1_250,
            sharepoint_window_s: 60,
            team_requests: 4,
            team_window_s: 1,
            shared_in_flight: 32,
            grant_percent: 96,
            slot_ttl_s: 60,
        }
    }
}

/// The limits of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScopeLimits {
    pub in_flight: u32,
    /// Granted requests per window.
    pub requests: u64,
    /// What is left of the window: the fallback of all workers together.
    pub reserve: u64,
    pub window: Duration,
    pub upload_bytes: u64,
    pub upload_reserve: u64,
    pub upload_window: Duration,
    pub slot_ttl: Duration,
}

impl QuotaLimits {
    pub(super) fn of(&self, scope: &Scope) -> ScopeLimits {
        let (in_flight, requests, window_s) = match scope {
            Scope::Mailbox(_) => (self.mailbox_in_flight, self.mailbox_requests, self.mailbox_window_s),
            Scope::SharePoint => (self.shared_in_flight, self.sharepoint_requests, self.sharepoint_window_s),
            Scope::Directory => (self.shared_in_flight, self.directory_requests, self.directory_window_s),
            Scope::Team(_) => (self.shared_in_flight, self.team_requests, self.team_window_s),
        };
        let granted = |limit: u64| limit / 100 * self.percent() + limit % 100 * self.percent() / 100;
        ScopeLimits {
            in_flight: in_flight.max(1),
            requests: granted(requests),
            reserve: requests - granted(requests),
            window: Duration::from_secs(window_s.max(1)),
            upload_bytes: granted(self.upload_bytes),
            upload_reserve: self.upload_bytes - granted(self.upload_bytes),
            upload_window: Duration::from_secs(self.upload_window_s.max(1)),
            slot_ttl: Duration::from_secs(self.slot_ttl_s.max(1)),
        }
    }

    fn percent(&self) -> u64 {
        u64::from(self.grant_percent.clamp(1, 99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_granted_share_is_given_and_the_rest_is_the_reserve() {
        let limits = QuotaLimits::default().of(&Scope::Mailbox("a".into()));
        assert_eq!((limits.requests, limits.reserve), (9_600, 400));
        assert_eq!(limits.upload_bytes, 144_000_000);
    }

    #[test]
    fn settings_are_kebab_case_and_unknown_ones_are_refused() {
        let read: QuotaLimits = serde_json::from_str(r#"{"mailbox-in-flight": 2}"#).unwrap();
        assert_eq!(read, QuotaLimits { mailbox_in_flight: 2, ..QuotaLimits::default() });
        assert!(serde_json::from_str::<QuotaLimits>(r#"{"mailbox-inflight": 2}"#).is_err());
    }
}
