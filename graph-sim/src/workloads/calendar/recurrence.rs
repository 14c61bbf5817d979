//! Rules of series: daily, weekly, monthly and yearly by date; ended by a date, by a number, or never.
//!
//! Invariant: the days of a rule depend on the rule alone; exceptions and cancellations are the event's.

use jiff::Span;
use jiff::civil::{Date, Weekday};
use serde_json::{Value, json};

use crate::http::{Refusal, refuse};
use crate::workloads::calendar::zone::{Day, Zone, date_of, day_of};

/// How far a series without an end is followed; no window here is further away.
const MAX_OCCURRENCES: usize = 20_000;
const WEEK: Day = 7;
const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
/// What Graph gives for a date that is not there.
const NO_DATE: &str = "0001-01-01";

/// Which days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    Daily,
    /// On these days of the week, counted from Sunday; a week begins on the day given.
    Weekly {
        days: [bool; 7],
        first: i32,
    },
    /// On a day of the month, the last one where the month is shorter.
    Monthly {
        day: i8,
    },
    Yearly {
        month: i8,
        day: i8,
    },
}

/// When it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Never,
    On(Day),
    After(usize),
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pattern: Pattern,
    interval: i32,
    start: Day,
    end: End,
    /// As Graph shows it.
    pub shown: Value,
}

impl Rule {
    /// From a `patternedRecurrence`; the event's zone is shown where the range names none.
    pub(crate) fn parse(given: &Value, zone: Zone) -> Result<Self, Refusal> {
        let (pattern, range) = (&given["pattern"], &given["range"]);
        let kind = pattern["type"].as_str().unwrap_or_default();
        let interval = pattern["interval"].as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| *n > 0);
        let interval = interval.ok_or_else(|| wrong("the interval of the pattern"))?;
        let start = date(&range["startDate"]).ok_or_else(|| wrong("the start of the range"))?;
        let month_day = || small(&pattern["dayOfMonth"], 31).ok_or_else(|| wrong("the day of the month"));
        let parsed = match kind {
            "daily" => Pattern::Daily,
            "weekly" => Pattern::Weekly { days: weekdays(pattern)?, first: first_day(pattern) },
            "absoluteMonthly" => Pattern::Monthly { day: month_day()? },
            "absoluteYearly" => {
                let month = small(&pattern["month"], 12).ok_or_else(|| wrong("the month"))?;
                Pattern::Yearly { month, day: month_day()? }
            }
            _ => return Err(wrong("the type of the pattern")),
        };
        let end = match range["type"].as_str().unwrap_or_default() {
            "noEnd" => End::Never,
            "endDate" => {
                End::On(day_of(date(&range["endDate"]).ok_or_else(|| wrong("the end of the range"))?))
            }
            "numbered" => {
                let count = range["numberOfOccurrences"].as_u64().filter(|count| *count > 0);
                End::After(count.ok_or_else(|| wrong("the number of occurrences"))? as usize)
            }
            _ => return Err(wrong("the type of the range")),
        };
        Ok(Self { pattern: parsed, interval, start: day_of(start), end, shown: shown(given, zone) })
    }

    /// The days up to and with the last one given.
    pub(crate) fn days_until(&self, last: Day) -> Vec<Day> {
        let (last, count) = match self.end {
            End::Never => (last, MAX_OCCURRENCES),
            End::On(end) => (last.min(end), MAX_OCCURRENCES),
            End::After(count) => (last, count.min(MAX_OCCURRENCES)),
        };
        let mut days = Vec::new();
        for step in 0.. {
            let (candidates, period) = self.step(step);
            if period > last || days.len() >= count {
                break;
            }
            days.extend(candidates.into_iter().filter(|day| (self.start..=last).contains(day)));
        }
        days.truncate(count);
        days
    }

    /// Whether it is one of the days.
    pub(crate) fn has(&self, day: Day) -> bool {
        self.days_until(day).last() == Some(&day)
    }

    /// The days of one period of the rule, and the day the period begins.
    fn step(&self, step: i32) -> (Vec<Day>, Day) {
        match self.pattern {
            Pattern::Daily => {
                let day = self.start.saturating_add(step.saturating_mul(self.interval));
                (vec![day], day)
            }
            Pattern::Weekly { days, first } => {
                let offset = (weekday(self.start) - first).rem_euclid(WEEK);
                let begin = (self.start - offset)
                    .saturating_add(step.saturating_mul(self.interval).saturating_mul(WEEK));
                let in_week = (0..WEEK).filter(|at| days[((first + at) % WEEK) as usize]);
                (in_week.map(|at| begin + at).collect(), begin)
            }
            Pattern::Monthly { day } => {
                let first = date_of(self.start).first_of_month();
                let month = first.checked_add(Span::new().months(i64::from(step) * i64::from(self.interval)));
                in_month(month.ok(), day)
            }
            Pattern::Yearly { month, day } => {
                let year = i32::from(date_of(self.start).year()) + step * self.interval;
                let month = i16::try_from(year).ok().and_then(|year| Date::new(year, month, 1).ok());
                in_month(month, day)
            }
        }
    }
}

/// The day of a month; none after the end of the calendar.
fn in_month(first: Option<Date>, day: i8) -> (Vec<Day>, Day) {
    let Some(first) = first else { return (Vec::new(), Day::MAX) };
    let day = Date::new(first.year(), first.month(), day.min(first.days_in_month())).unwrap_or(first);
    (vec![day_of(day)], day_of(first))
}

fn wrong(what: &str) -> Refusal {
    refuse(
        400,
        "ErrorPropertyValidationFailure",
        format!("The recurrence is not valid or not supported: {what}."),
    )
}

fn date(value: &Value) -> Option<Date> {
    value.as_str()?.parse().ok()
}

fn small(value: &Value, most: i8) -> Option<i8> {
    value.as_i64().and_then(|number| i8::try_from(number).ok()).filter(|number| (1..=most).contains(number))
}

fn weekday(day: Day) -> i32 {
    i32::from(Weekday::to_sunday_zero_offset(date_of(day).weekday()))
}

fn weekdays(pattern: &Value) -> Result<[bool; 7], Refusal> {
    let mut days = [false; 7];
    for name in pattern["daysOfWeek"].as_array().into_iter().flatten() {
        let at = WEEKDAYS.iter().position(|known| name.as_str() == Some(known));
        days[at.ok_or_else(|| wrong("a day of the week"))?] = true;
    }
    if days.contains(&true) { Ok(days) } else { Err(wrong("the days of the week")) }
}

fn first_day(pattern: &Value) -> i32 {
    let given = pattern["firstDayOfWeek"].as_str().unwrap_or(WEEKDAYS[0]);
    WEEKDAYS.iter().position(|known| *known == given).unwrap_or(0) as i32
}

/// With every property Graph shows, whether it was given or not.
fn shown(given: &Value, zone: Zone) -> Value {
    let (pattern, range) = (&given["pattern"], &given["range"]);
    let or = |value: &Value, default: Value| if value.is_null() { default } else { value.clone() };
    let named = range["recurrenceTimeZone"].as_str().and_then(Zone::find).unwrap_or(zone);
    let is = |kind: &str| range["type"] == kind;
    json!({
        "pattern": {
            "type": pattern["type"], "interval": pattern["interval"], "month": or(&pattern["month"], json!(0)),
            "dayOfMonth": or(&pattern["dayOfMonth"], json!(0)), "daysOfWeek": or(&pattern["daysOfWeek"], json!([])),
            "firstDayOfWeek": or(&pattern["firstDayOfWeek"], json!("sunday")),
            "index": or(&pattern["index"], json!("first")),
        },
        "range": {
            "type": range["type"], "startDate": range["startDate"], "recurrenceTimeZone": named.name(),
            "endDate": if is("endDate") { range["endDate"].clone() } else { NO_DATE.into() },
            "numberOfOccurrences": if is("numbered") { range["numberOfOccurrences"].clone() } else { 0.into() },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(pattern: Value, range: Value, last: &str) -> Vec<String> {
        let rule = Rule::parse(&json!({"pattern": pattern, "range": range}), Zone::UTC).unwrap();
        let last = day_of(last.parse().unwrap());
        rule.days_until(last).into_iter().map(|day| date_of(day).to_string()).collect()
    }

    #[test]
    fn days_follow_the_rule_and_its_end() {
        let from = |start: &str, kind: &str| json!({"type": kind, "startDate": start});
        let numbered = |start: &str, count: u32| json!({"type": "numbered", "startDate": start, "numberOfOccurrences": count});
        assert_eq!(
            days(json!({"type": "daily", "interval": 2}), from("2026-02-27", "noEnd"), "2026-03-05"),
            ["2026-02-27", "2026-03-01", "2026-03-03", "2026-03-05"]
        );
        let weekly = json!({"type": "weekly", "interval": 2, "daysOfWeek": ["monday", "friday"], "firstDayOfWeek": "monday"});
        assert_eq!(
            days(weekly, numbered("2026-10-07", 4), "2027-12-31"),
            ["2026-10-09", "2026-10-19", "2026-10-23", "2026-11-02"]
        );
        let monthly = json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 31});
        let until = json!({"type": "endDate", "startDate": "2026-01-31", "endDate": "2026-04-30"});
        assert_eq!(
            days(monthly, until, "2030-01-01"),
            ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]
        );
        let yearly = json!({"type": "absoluteYearly", "interval": 1, "month": 2, "dayOfMonth": 29});
        assert_eq!(
            days(yearly, from("2024-02-29", "noEnd"), "2027-01-01"),
            ["2024-02-29", "2025-02-28", "2026-02-28"]
        );
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let range = json!({"type": "noEnd", "startDate": "2026-01-01"});
        for pattern in [
            json!({"type": "relativeMonthly", "interval": 1, "daysOfWeek": ["monday"], "index": "first"}),
            json!({"type": "weekly", "interval": 1, "daysOfWeek": []}),
            json!({"type": "daily", "interval": 0}),
            json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 32}),
        ] {
            let refused = Rule::parse(&json!({"pattern": pattern, "range": range}), Zone::UTC);
            assert_eq!(refused.unwrap_err().status, 400);
        }
        let rule = json!({"pattern": {"type": "daily", "interval": 1}, "range": range});
        let rule = Rule::parse(&rule, Zone::UTC).unwrap();
        assert_eq!(rule.shown["range"]["recurrenceTimeZone"], "UTC");
        assert!(rule.has(day_of("2027-05-05".parse().unwrap())));
        assert!(!rule.has(day_of("2025-12-31".parse().unwrap())));
    }
}
