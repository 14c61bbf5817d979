//! Which events, and which days of series, are within a window of time.

use crate::http::{Refusal, refuse};
use crate::query::Query;
use crate::workloads::calendar::recurrence::Rule;
use crate::workloads::calendar::store::{Event, Times};
use crate::workloads::calendar::zone::{Day, Zone, day_of};

/// From when to when, milliseconds UTC; the end is not within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    start_ms: i64,
    end_ms: i64,
}

impl Window {
    /// From `startDateTime` and `endDateTime`, both of which must be there.
    pub(crate) fn of(query: &Query) -> Result<Self, Refusal> {
        let window = Self { start_ms: time(query, "startDateTime")?, end_ms: time(query, "endDateTime")? };
        if window.start_ms >= window.end_ms {
            return Err(refuse(
                400,
                "ErrorInvalidParameter",
                "The end of the window is not after its start.",
            ));
        }
        Ok(window)
    }

    fn meets(&self, start_ms: i64, end_ms: i64) -> bool {
        start_ms < self.end_ms
            && (end_ms > self.start_ms || (start_ms == end_ms && start_ms >= self.start_ms))
    }

    /// The event itself when it is a single one within the window; the days of a series that are.
    pub(crate) fn within(&self, event: &Event) -> Vec<Option<Day>> {
        let Some(rule) = &event.rule else {
            let times = event.body.times;
            return if self.meets(times.start_ms(), times.end_ms()) { vec![None] } else { Vec::new() };
        };
        // An exception may be on another day than the rule's, so days beside the window are looked at too.
        let furthest = event.exceptions.keys().next_back().copied().unwrap_or(Day::MIN);
        let last = day_of(Zone::UTC.wall(self.end_ms).date()).saturating_add(1).max(furthest);
        rule.days_until(last)
            .into_iter()
            .filter(|day| !event.cancelled.contains_key(day))
            .filter(|day| {
                let times = event.times_of(Some(*day));
                self.meets(times.start_ms(), times.end_ms())
            })
            .map(Some)
            .collect()
    }

    /// The days of a rule that are within the window.
    pub(crate) fn days(&self, rule: &Rule, times: &Times) -> Vec<Day> {
        let last = day_of(Zone::UTC.wall(self.end_ms).date()).saturating_add(1);
        let meets = |day: &Day| {
            let times = times.on(*day);
            self.meets(times.start_ms(), times.end_ms())
        };
        rule.days_until(last).into_iter().filter(meets).collect()
    }

    /// Cancelled days of a series that would be within the window, with the number of the change.
    pub(crate) fn cancelled_within(&self, event: &Event) -> Vec<(Day, u64)> {
        let meets = |day: Day| {
            let times = event.body.times.on(day);
            self.meets(times.start_ms(), times.end_ms())
        };
        event.cancelled.iter().filter(|(day, _)| meets(**day)).map(|(day, seq)| (*day, *seq)).collect()
    }
}

/// ISO 8601; without an offset it is UTC.
fn time(query: &Query, name: &str) -> Result<i64, Refusal> {
    let text = query.get(name).ok_or_else(|| {
        refuse(
            400,
            "ErrorInvalidParameter",
            format!("This request requires a time window: {name} is missing."),
        )
    })?;
    let instant = text.parse::<jiff::Timestamp>().map(|instant| instant.as_millisecond());
    let wall = || text.parse::<jiff::civil::DateTime>().map(|wall| Zone::UTC.instant(wall));
    let wrong = |_| refuse(400, "ErrorInvalidParameter", format!("{name} is not a time."));
    instant.or_else(|_| wall()).map_err(wrong)
}
