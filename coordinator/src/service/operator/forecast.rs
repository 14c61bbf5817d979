//! How long Microsoft's limits make a restore take. A forecast, not a promise: what is there already costs less.

use std::time::Duration;

use holdfast_graph_client::QuotaLimits;
use holdfast_model::Workload;
use holdfast_proto::coordinator::RestorePlan;

/// Each folder, calendar or list is created or found, and listed once for what is there already.
const CALLS_PER_FOLDER: u64 = 2;
/// An attachment, or a photo, needs at least one more call when it is too large for the item's own.
const CALLS_PER_ATTACHMENT: u64 = 1;
/// A file is created, moved to its name and given its times, and looked at once more.
const CALLS_PER_FILE: u64 = 3;
/// Bytes of a file sent by one call.
const FILE_PIECE_BYTES: u64 = 10 << 20;
/// One write may take this long; as many run at once as the mailbox, or the drive's worker, allows.
const WRITE_TAKES: Duration = Duration::from_secs(1);
/// What a worker has in flight on one drive.
const DRIVE_IN_FLIGHT: u64 = 8;

/// What is to be written back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Everything but folders that only hold others; folders of a drive are items of their own.
    pub(super) items: u64,
    pub(super) bytes: u64,
    pub(super) with_attachments: u64,
    /// Folders, calendars and lists.
    pub(super) folders: u64,
    /// Calls that send the content of files.
    pub(super) file_pieces: u64,
}

impl Counted {
    /// Counts the pieces in which a file of this size is sent.
    pub(super) fn pieces_of(bytes: u64) -> u64 {
        bytes.div_ceil(FILE_PIECE_BYTES).max(1)
    }

    /// What it costs, and what binds.
    pub(super) fn plan(&self, workload: Workload, limits: &QuotaLimits) -> RestorePlan {
        let (calls, mut bounds) = match workload {
            Workload::OneDrive => self.on_a_drive(limits),
            Workload::Mail | Workload::Calendar | Workload::Contacts | Workload::Tasks => {
                self.in_a_mailbox(limits)
            }
        };
        // The last of equals: "latency" only where nothing else takes longer.
        bounds.sort_by_key(|(seconds, _)| *seconds);
        let (seconds, bound_by) = bounds.last().copied().unwrap_or_default();
        RestorePlan {
            items: self.items,
            bytes: self.bytes,
            calls,
            seconds: seconds.max(u64::from(calls > 0)),
            folders: self.folders,
            bound_by: bound_by.to_owned(),
        }
    }

    fn in_a_mailbox(&self, limits: &QuotaLimits) -> (u64, Vec<(u64, &'static str)>) {
        let attachments = self.with_attachments * CALLS_PER_ATTACHMENT;
        let calls = self.items + attachments + self.folders * CALLS_PER_FOLDER;
        let bounds = vec![
            (latency(calls, limits.mailbox_in_flight.into()), "latency"),
            (at_rate(self.bytes, granted(limits, limits.upload_bytes), limits.upload_window_s), "bytes"),
            (at_rate(calls, granted(limits, limits.mailbox_requests), limits.mailbox_window_s), "requests"),
        ];
        (calls, bounds)
    }

    fn on_a_drive(&self, limits: &QuotaLimits) -> (u64, Vec<(u64, &'static str)>) {
        let calls = self.items * CALLS_PER_FILE + self.file_pieces + self.folders * CALLS_PER_FOLDER;
        // All of these write, or list.
        let units = calls * u64::from(limits.sharepoint_listing_units);
        let per_minute = granted(limits, limits.sharepoint_requests);
        let per_day = granted(limits, limits.sharepoint_daily_requests);
        let by_minute = at_rate(units, per_minute, limits.sharepoint_window_s);
        // What fits in a day's units is bound by the minute's alone.
        let by_day =
            if units > per_day { at_rate(units, per_day, limits.sharepoint_daily_window_s) } else { 0 };
        let ingress = granted(limits, limits.sharepoint_ingress_bytes);
        let bounds = vec![
            (latency(calls, DRIVE_IN_FLIGHT), "latency"),
            (at_rate(self.bytes, ingress, limits.sharepoint_bytes_window_s), "bytes"),
            (by_minute.max(by_day), "requests"),
        ];
        (calls, bounds)
    }
}

fn granted(limits: &QuotaLimits, limit: u64) -> u64 {
    (limit.saturating_mul(limits.grant_percent.into()) / 100).max(1)
}

fn at_rate(amount: u64, per_window: u64, window_s: u64) -> u64 {
    let seconds = u128::from(amount) * u128::from(window_s) / u128::from(per_window);
    u64::try_from(seconds).unwrap_or(u64::MAX)
}

fn latency(calls: u64, in_flight: u64) -> u64 {
    calls.saturating_mul(WRITE_TAKES.as_secs()) / in_flight.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(workload: Workload, counted: Counted) -> RestorePlan {
        counted.plan(workload, &QuotaLimits::default())
    }

    #[test]
    fn a_mailbox_is_bound_by_its_writes_at_once_or_by_the_bytes_it_may_take() {
        let small = Counted {
            items: 1_000,
            bytes: 2_000_000,
            with_attachments: 10,
            folders: 5,
            ..Counted::default()
        };
        let forecast = plan(Workload::Mail, small);
        assert_eq!((forecast.calls, forecast.seconds, forecast.bound_by.as_str()), (1_020, 255, "latency"));
        let large = Counted { bytes: 1_440_000_000, ..small };
        let forecast = plan(Workload::Mail, large);
        assert_eq!((forecast.seconds, forecast.bound_by.as_str()), (3_000, "bytes"));
        let nothing = plan(Workload::Contacts, Counted::default());
        assert_eq!((nothing.calls, nothing.seconds), (0, 0));
    }

    #[test]
    fn a_drive_is_bound_by_its_writes_at_once_or_by_resource_units() {
        let files =
            Counted { items: 10_000, bytes: 1_000_000_000, file_pieces: 10_000, ..Counted::default() };
        let forecast = plan(Workload::OneDrive, files);
        // 40,000 calls of two units each at 1,200 units a minute would be done in 4,000 s.
        assert_eq!((forecast.calls, forecast.seconds), (40_000, 5_000), "a second each, eight at once");
        assert_eq!(forecast.bound_by, "latency");
        let limits = QuotaLimits { sharepoint_requests: 500, ..QuotaLimits::default() };
        let forecast = files.plan(Workload::OneDrive, &limits);
        assert_eq!((forecast.seconds, forecast.bound_by.as_str()), (10_000, "requests"));
    }

    #[test]
    fn the_units_of_a_day_bind_what_does_not_fit_in_one() {
        let many = Counted { items: 1_000_000, file_pieces: 1_000_000, ..Counted::default() };
        let forecast = plan(Workload::OneDrive, many);
        // 8,000,000 units at 1,152,000 a day: nearly seven days.
        assert_eq!((forecast.seconds, forecast.bound_by.as_str()), (600_000, "requests"));
    }

    #[test]
    fn a_file_is_sent_in_pieces_and_an_empty_one_in_one() {
        assert_eq!([0, 1, 10 << 20, (10 << 20) + 1].map(Counted::pieces_of), [1, 1, 1, 2]);
    }
}
