//! How a series repeats, as an iCalendar rule (RFC 5545 3.3.10).

use jiff::civil::Date;
use serde_json::Value;

/// The rule of Microsoft's `recurrence`; none where it is of a kind that is unknown to us.
pub(super) fn rule(recurrence: &Value) -> Option<String> {
    let (pattern, range) = (recurrence.get("pattern")?, recurrence.get("range")?);
    let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_u64).filter(|n| *n > 0);
    let mut rule = frequency(pattern)?;
    rule.push_str(&format!(";INTERVAL={}", number(pattern, "interval").unwrap_or(1)));
    match range.get("type")?.as_str()? {
        "numbered" => rule.push_str(&format!(";COUNT={}", number(range, "numberOfOccurrences")?)),
        // The last day still counts, wherever one is.
        "endDate" => {
            let day = last_day(range)?.strftime("%Y%m%d");
            rule.push_str(&format!(";UNTIL={day}T235959Z"));
        }
        _ => {}
    }
    if let Some(day) = pattern.get("firstDayOfWeek").and_then(Value::as_str).and_then(weekday) {
        rule.push_str(&format!(";WKST={day}"));
    }
    Some(rule)
}

/// The last day of a series, where its range has one.
pub(super) fn last_day(range: &Value) -> Option<Date> {
    let is_dated = range.get("type").and_then(Value::as_str) == Some("endDate");
    range.get("endDate").and_then(Value::as_str).filter(|_| is_dated)?.parse().ok()
}

fn frequency(pattern: &Value) -> Option<String> {
    let number = |name: &str| pattern.get(name).and_then(Value::as_u64).filter(|n| *n > 0);
    let days: Vec<&str> = pattern
        .get("daysOfWeek")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|day| weekday(day.as_str()?))
        .collect();
    let days = days.join(",");
    let position = || match pattern.get("index").and_then(Value::as_str) {
        Some("second") => 2,
        Some("third") => 3,
        Some("fourth") => 4,
        Some("last") => -1,
        _ => 1,
    };
    Some(match pattern.get("type")?.as_str()? {
        "daily" => "FREQ=DAILY".to_owned(),
        "weekly" if days.is_empty() => "FREQ=WEEKLY".to_owned(),
        "weekly" => format!("FREQ=WEEKLY;BYDAY={days}"),
        "absoluteMonthly" => format!("FREQ=MONTHLY;BYMONTHDAY={}", number("dayOfMonth")?),
        "relativeMonthly" => format!("FREQ=MONTHLY;BYDAY={days};BYSETPOS={}", position()),
        "absoluteYearly" => {
            format!("FREQ=YEARLY;BYMONTH={};BYMONTHDAY={}", number("month")?, number("dayOfMonth")?)
        }
        "relativeYearly" => {
            format!("FREQ=YEARLY;BYMONTH={};BYDAY={days};BYSETPOS={}", number("month")?, position())
        }
        _ => return None,
    })
}

fn weekday(day: &str) -> Option<&'static str> {
    Some(match day.to_ascii_lowercase().as_str() {
        "monday" => "MO",
        "tuesday" => "TU",
        "wednesday" => "WE",
        "thursday" => "TH",
        "friday" => "FR",
        "saturday" => "SA",
        "sunday" => "SU",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule_of(pattern: Value, range: Value) -> Option<String> {
        rule(&json!({ "pattern": pattern, "range": range }))
    }

    #[test]
    fn every_kind_of_pattern_has_its_rule() {
        let endless = json!({ "type": "noEnd" });
        for (pattern, expected) in [
            (json!({ "type": "daily", "interval": 2 }), "FREQ=DAILY;INTERVAL=2"),
            (
                json!({ "type": "weekly", "interval": 1, "daysOfWeek": ["monday", "Friday"], "firstDayOfWeek": "sunday" }),
                "FREQ=WEEKLY;BYDAY=MO,FR;INTERVAL=1;WKST=SU",
            ),
            (json!({ "type": "absoluteMonthly", "dayOfMonth": 31 }), "FREQ=MONTHLY;BYMONTHDAY=31;INTERVAL=1"),
            (
                json!({ "type": "relativeMonthly", "daysOfWeek": ["tuesday"], "index": "last" }),
                "FREQ=MONTHLY;BYDAY=TU;BYSETPOS=-1;INTERVAL=1",
            ),
            (
                json!({ "type": "absoluteYearly", "month": 2, "dayOfMonth": 29 }),
                "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;INTERVAL=1",
            ),
            (
                json!({ "type": "relativeYearly", "month": 5, "daysOfWeek": ["sunday"], "index": "second" }),
                "FREQ=YEARLY;BYMONTH=5;BYDAY=SU;BYSETPOS=2;INTERVAL=1",
            ),
        ] {
            assert_eq!(rule_of(pattern, endless.clone()).as_deref(), Some(expected));
        }
        assert_eq!(rule_of(json!({ "type": "lunar" }), endless), None);
    }

    #[test]
    fn a_series_ends_as_it_ended() {
        let daily = json!({ "type": "daily", "interval": 1 });
        let numbered = rule_of(daily.clone(), json!({ "type": "numbered", "numberOfOccurrences": 5 }));
        assert_eq!(numbered.as_deref(), Some("FREQ=DAILY;INTERVAL=1;COUNT=5"));
        let dated = rule_of(daily, json!({ "type": "endDate", "endDate": "2026-05-01" }));
        assert_eq!(dated.as_deref(), Some("FREQ=DAILY;INTERVAL=1;UNTIL=20260501T235959Z"));
    }
}
