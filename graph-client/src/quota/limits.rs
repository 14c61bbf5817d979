//! Microsoft's limits by name, from configuration. All are defaults that Microsoft may change, none is a constant.

use std::time::Duration;

use holdfast_model::JobClass;
use serde::{Deserialize, Serialize};

use super::{Cost, Scope, Shortage, Weight};

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
    /// Resource units per day, tenant and app, for sites and drives. Default 1,200,000 (a small tenant).
    pub sharepoint_daily_requests: u64,
    /// The window of `sharepoint-daily-requests` in seconds. Default 86,400.
    pub sharepoint_daily_window_s: u64,
    /// Bytes sent to sites and drives per window, tenant and app. Default 400,000,000,000.
    pub sharepoint_ingress_bytes: u64,
    /// Bytes received from sites and drives per window, tenant and app. Default 400,000,000,000.
    pub sharepoint_egress_bytes: u64,
    /// The window of `sharepoint-ingress-bytes` and `sharepoint-egress-bytes` in seconds. Default 3,600.
    pub sharepoint_bytes_window_s: u64,
    /// Resource units of one item, a delta with a token or a file's content. Default 1.
    pub sharepoint_single_units: u32,
    /// Resource units of a list, a delta without a token, or anything that writes. Default 2.
    pub sharepoint_listing_units: u32,
    /// Resource units of anything with permissions. Default 5.
    pub sharepoint_permission_units: u32,
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
    /// How far each class may fill what is granted. Default all of it.
    pub class_percent: ClassShares,
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
            sharepoint_daily_requests: 1_200_000,
            sharepoint_daily_window_s: 86_400,
            sharepoint_ingress_bytes: 400_000_000_000,
            sharepoint_egress_bytes: 400_000_000_000,
            sharepoint_bytes_window_s: 3_600,
            sharepoint_single_units: 1,
            sharepoint_listing_units: 2,
            sharepoint_permission_units: 5,
            team_requests: 4,
            team_window_s: 1,
            shared_in_flight: 32,
            grant_percent: 96,
            class_percent: ClassShares::default(),
            slot_ttl_s: 60,
        }
    }
}

/// How far each class may fill what is granted, in percent: what is above is left for the more urgent ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ClassShares {
    /// Restores. Default 100.
    pub restore: u8,
    /// Incrementals that are past their time. Default 100.
    pub late: u8,
    /// Incrementals. Default 100.
    pub incremental: u8,
    /// First backups. Default 100.
    pub first_full: u8,
    /// Proofs of what is stored. Default 100.
    pub verify: u8,
}

impl Default for ClassShares {
    fn default() -> Self {
        Self { restore: 100, late: 100, incremental: 100, first_full: 100, verify: 100 }
    }
}

impl ClassShares {
    fn of(&self, class: JobClass) -> u64 {
        let percent = match class {
            JobClass::Restore => self.restore,
            JobClass::Late => self.late,
            JobClass::Incremental => self.incremental,
            JobClass::FirstFull => self.first_full,
            JobClass::Verify => self.verify,
        };
        u64::from(percent.clamp(1, 100))
    }
}

/// What a window counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Requests,
    UploadBytes,
    DownloadBytes,
}

/// The limit of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WindowLimit {
    /// Names it in Redis and in reports.
    pub name: &'static str,
    pub shortage: Shortage,
    pub granted: u64,
    /// What is left: the fallback of all workers together.
    pub reserve: u64,
    pub length: Duration,
    counted: Counted,
}

/// The limits of one key. The first window is the one that Microsoft reports on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScopeLimits {
    pub in_flight: u32,
    pub windows: Vec<WindowLimit>,
    pub slot_ttl: Duration,
    single: u32,
    listing: u32,
    permissions: u32,
    shares: ClassShares,
}

impl ScopeLimits {
    /// What a call is charged, window by window.
    pub fn charges(&self, cost: Cost) -> Vec<u64> {
        let requests = u64::from(match cost.weight {
            Weight::Plain(requests) => requests,
            Weight::Single => self.single,
            Weight::Listing => self.listing,
            Weight::Permissions => self.permissions,
        });
        let charge = |window: &WindowLimit| match window.counted {
            Counted::Requests => requests,
            Counted::UploadBytes => cost.upload_bytes,
            Counted::DownloadBytes => cost.download_bytes,
        };
        self.windows.iter().map(charge).collect()
    }

    /// What a class may fill, window by window.
    pub fn granted(&self, class: JobClass) -> Vec<u64> {
        self.windows.iter().map(|window| percent_of(window.granted, self.shares.of(class))).collect()
    }

    /// One worker's part of the reserve, window by window.
    pub fn reserve(&self, workers: u64) -> Vec<u64> {
        self.windows.iter().map(|window| window.reserve / workers.max(1)).collect()
    }

    /// Whether a call could ever be granted.
    pub fn fits(&self, charges: &[u64], class: JobClass) -> bool {
        charges.iter().zip(self.granted(class)).all(|(charge, granted)| *charge <= granted)
    }

    pub fn longest(&self) -> Duration {
        self.windows.iter().map(|window| window.length).max().unwrap_or_default()
    }
}

impl QuotaLimits {
    pub(super) fn of(&self, scope: &Scope) -> ScopeLimits {
        let requests = |limit, length_s| {
            self.window("requests", Counted::Requests, Shortage::Requests, (limit, length_s))
        };
        let (in_flight, windows) = match scope {
            Scope::Mailbox(_) => (self.mailbox_in_flight, self.of_mailbox()),
            Scope::SharePoint => (self.shared_in_flight, self.of_sharepoint()),
            Scope::Directory => {
                (self.shared_in_flight, vec![requests(self.directory_requests, self.directory_window_s)])
            }
            Scope::Team(_) => (self.shared_in_flight, vec![requests(self.team_requests, self.team_window_s)]),
        };
        ScopeLimits {
            in_flight: in_flight.max(1),
            windows,
            slot_ttl: Duration::from_secs(self.slot_ttl_s.max(1)),
            single: self.sharepoint_single_units,
            listing: self.sharepoint_listing_units,
            permissions: self.sharepoint_permission_units,
            shares: self.class_percent,
        }
    }

    fn of_mailbox(&self) -> Vec<WindowLimit> {
        let requests = (self.mailbox_requests, self.mailbox_window_s);
        let uploads = (self.upload_bytes, self.upload_window_s);
        vec![
            self.window("requests", Counted::Requests, Shortage::Requests, requests),
            self.window("uploads", Counted::UploadBytes, Shortage::Upload, uploads),
        ]
    }

    fn of_sharepoint(&self) -> Vec<WindowLimit> {
        let minute = (self.sharepoint_requests, self.sharepoint_window_s);
        let day = (self.sharepoint_daily_requests, self.sharepoint_daily_window_s);
        let ingress = (self.sharepoint_ingress_bytes, self.sharepoint_bytes_window_s);
        let egress = (self.sharepoint_egress_bytes, self.sharepoint_bytes_window_s);
        vec![
            self.window("requests", Counted::Requests, Shortage::Requests, minute),
            self.window("daily", Counted::Requests, Shortage::Daily, day),
            self.window("ingress", Counted::UploadBytes, Shortage::Upload, ingress),
            self.window("egress", Counted::DownloadBytes, Shortage::Download, egress),
        ]
    }

    fn window(
        &self,
        name: &'static str,
        counted: Counted,
        shortage: Shortage,
        (limit, length_s): (u64, u64),
    ) -> WindowLimit {
        let granted = percent_of(limit, u64::from(self.grant_percent.clamp(1, 99)));
        let length = Duration::from_secs(length_s.max(1));
        WindowLimit { name, shortage, granted, reserve: limit - granted, length, counted }
    }
}

/// Rounded down, and without overflow.
fn percent_of(limit: u64, percent: u64) -> u64 {
    limit / 100 * percent + limit % 100 * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_granted_share_is_given_and_the_rest_is_the_reserve() {
        let limits = QuotaLimits::default().of(&Scope::Mailbox("a".into()));
        let shares: Vec<_> = limits.windows.iter().map(|w| (w.name, w.granted, w.reserve)).collect();
        assert_eq!(shares, [("requests", 9_600, 400), ("uploads", 144_000_000, 6_000_000)]);
    }

    #[test]
    fn sharepoint_weighs_requests_and_counts_bytes_in_each_direction() {
        let limits = QuotaLimits::default().of(&Scope::SharePoint);
        let cost = |weight| Cost { weight, upload_bytes: 7, download_bytes: 9 };
        assert_eq!(limits.charges(cost(Weight::Single)), [1, 1, 7, 9]);
        assert_eq!(limits.charges(cost(Weight::Listing)), [2, 2, 7, 9]);
        assert_eq!(limits.charges(cost(Weight::Permissions)), [5, 5, 7, 9]);
        let windows: Vec<_> =
            limits.windows.iter().map(|w| (w.name, w.granted, w.length.as_secs())).collect();
        let bytes = 384_000_000_000;
        let expected = [
            ("requests", 1_200, 60),
            ("daily", 1_152_000, 86_400),
            ("ingress", bytes, 3_600),
            ("egress", bytes, 3_600),
        ];
        assert_eq!(windows, expected);
    }

    #[test]
    fn a_class_fills_its_share_only() {
        let class_percent = ClassShares { verify: 25, ..ClassShares::default() };
        let limits = QuotaLimits { class_percent, ..QuotaLimits::default() }.of(&Scope::Directory);
        assert_eq!(
            (limits.granted(JobClass::Verify), limits.granted(JobClass::Late)),
            (vec![840], vec![3_360])
        );
        assert!(limits.fits(&[840], JobClass::Verify) && !limits.fits(&[841], JobClass::Verify));
    }

    #[test]
    fn settings_are_kebab_case_and_unknown_ones_are_refused() {
        let read: QuotaLimits = serde_json::from_str(r#"{"mailbox-in-flight": 2}"#).unwrap();
        assert_eq!(read, QuotaLimits { mailbox_in_flight: 2, ..QuotaLimits::default() });
        assert!(serde_json::from_str::<QuotaLimits>(r#"{"mailbox-inflight": 2}"#).is_err());
    }
}
