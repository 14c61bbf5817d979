//! Where the listing of a calendar goes on: Microsoft's links, and what each is for.
//!
//! A calendar is listed whole in two steps. First the view's initial round is read to its end, only for the link that changes
//! start from; then all events are listed. What changes in between is in both, so nothing is in neither.

use std::time::Duration;

use holdfast_graph_client::CalendarWindow;
use holdfast_model::Millis;
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_hours(24);
/// A view begins so long ago: what is older hardly changes.
const BEFORE: Duration = DAY.saturating_mul(30);
/// It ends so far ahead. The longer, the more times of series are in its initial round; what lies beyond takes a call for each
/// change.
const AHEAD: Duration = DAY.saturating_mul(210);
/// After this the calendar is listed whole and has a new view: what the old one did not tell is found, and the window never
/// ends less than half a year ahead.
const RENEWED_AFTER: Duration = DAY.saturating_mul(30);

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Link {
    /// In the initial round of a view.
    View {
        /// Its next page.
        next: String,
        /// When the view is too old.
        renew_ms: Millis,
    },
    /// In the listing of all events.
    Events {
        /// Its next page; none: the first.
        #[serde(default)]
        next: Option<String>,
        /// Where the changes start from after it, if there are any to be had.
        #[serde(default)]
        then: Option<Start>,
    },
    /// In the changes of a view.
    Changes(Start),
}

/// Where changes start from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Start {
    /// Microsoft's link.
    pub(super) link: String,
    /// When the view is too old.
    pub(super) renew_ms: Millis,
}

impl Link {
    /// None when it was not written by this program.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn write(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are always valid JSON")
    }

    /// Whether a run may not start from it.
    pub(super) fn is_spent(&self, now_ms: Millis) -> bool {
        match self {
            Self::Changes(start) => now_ms >= start.renew_ms,
            Self::View { .. } | Self::Events { .. } => true,
        }
    }
}

/// The window of a view that starts now.
pub(super) fn window(now_ms: Millis) -> CalendarWindow {
    let at = |ms: Millis| {
        let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        at.unwrap_or(jiff::Timestamp::MAX).strftime("%Y-%m-%dT00:00:00Z").to_string()
    };
    CalendarWindow {
        start: at(now_ms.saturating_sub(millis(BEFORE))),
        end: at(now_ms.saturating_add(millis(AHEAD))),
    }
}

/// When a view that starts now is too old.
pub(super) fn renew_ms(now_ms: Millis) -> Millis {
    now_ms.saturating_add(millis(RENEWED_AFTER))
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_reads_back_and_others_do_not() {
        let start = Start { link: "https://x/\"y".into(), renew_ms: 7 };
        for link in [
            Link::View { next: "n".into(), renew_ms: 7 },
            Link::Events { next: None, then: Some(start.clone()) },
            Link::Events { next: Some("n".into()), then: None },
            Link::Changes(start),
        ] {
            assert_eq!(Link::read(&link.write()), Some(link));
        }
        assert_eq!(Link::read("https://graph.example/v1.0"), None);
    }

    #[test]
    fn changes_go_on_for_a_month_within_a_window_that_ends_later() {
        let now = 1_796_083_200_000; // 2026-12-01
        let window = window(now);
        assert_eq!(
            (window.start.as_str(), window.end.as_str()),
            ("2026-11-01T00:00:00Z", "2027-06-29T00:00:00Z")
        );
        let link = Link::Changes(Start { link: "l".into(), renew_ms: renew_ms(now) });
        assert!(!link.is_spent(now + 29 * 86_400_000) && link.is_spent(now + 30 * 86_400_000));
        assert!(Link::Events { next: None, then: None }.is_spent(now));
    }
}
