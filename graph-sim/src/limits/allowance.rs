//! What each scope may use.

use crate::limits::{Cost, Reason, Scope};
use crate::options::SimLimits;

/// What an allowance counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    Requests,
    Units,
    BytesIn,
    BytesOut,
    /// What is in flight now; has no window.
    InFlight,
}

impl Counts {
    pub(crate) fn of(self, cost: &Cost) -> u64 {
        match self {
            Self::Requests => 1,
            Self::Units => cost.units,
            Self::BytesIn => cost.upload_bytes,
            Self::BytesOut => cost.download_bytes,
            Self::InFlight => u64::from(cost.takes_place),
        }
    }

    /// One request may be larger than a whole window of bytes: it goes alone.
    pub(crate) fn may_go_alone(self) -> bool {
        matches!(self, Self::BytesIn | Self::BytesOut)
    }
}

/// So much in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub counts: Counts,
    pub limit: u64,
    pub window_ms: u64,
    pub reason: Reason,
}

/// The allowances of a scope, in the order in which they are charged; what is refused by a later one is charged to the
/// earlier ones, as refused calls count too. Of the first one SharePoint says how much is left.
pub(crate) fn of(scope: Scope, options: &SimLimits) -> Vec<Allowance> {
    let scaled = |limit: u64| (limit as f64 * options.scale) as u64;
    let allowance = |counts, limit, seconds: u64, reason| Allowance {
        counts,
        limit,
        window_ms: seconds.max(1) * 1000,
        reason,
    };
    match scope {
        Scope::Mailbox(_) => {
            let requests = scaled(options.requests_per_window);
            let places = u64::from(options.concurrent_per_mailbox);
            let bytes = scaled(options.upload_bytes_per_window);
            vec![
                allowance(Counts::Requests, requests, options.window_seconds, Reason::Window),
                allowance(Counts::InFlight, places, 1, Reason::Concurrency),
                allowance(Counts::BytesIn, bytes, options.upload_window_seconds, Reason::Upload),
            ]
        }
        Scope::SharePoint => {
            let minute = scaled(options.sharepoint_units_per_minute);
            let day = scaled(options.sharepoint_units_per_day);
            let bytes_in = scaled(options.sharepoint_ingress_bytes_per_hour);
            let bytes_out = scaled(options.sharepoint_egress_bytes_per_hour);
            vec![
                allowance(Counts::Units, minute, 60, Reason::Window),
                allowance(Counts::Units, day, 24 * 60 * 60, Reason::Window),
                allowance(Counts::BytesIn, bytes_in, 60 * 60, Reason::Bandwidth),
                allowance(Counts::BytesOut, bytes_out, 60 * 60, Reason::Bandwidth),
            ]
        }
    }
}
