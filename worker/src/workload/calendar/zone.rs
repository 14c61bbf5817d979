//! Time zones of events. Times are stored in UTC; a restored event gets those of the zone it was made in, because a series
//! follows that zone's summer time, and an event shows the zone it was planned in.

use jiff::{civil::DateTime, tz::TimeZone};
use serde_json::{Value, json};

/// The name under which times are stored.
const UTC: &str = "UTC";

/// Microsoft's name for the zone that an event was made in.
pub(crate) fn of(event: &Value) -> &str {
    let zone = event.get("originalStartTimeZone").and_then(Value::as_str).unwrap_or_default();
    if zone.is_empty() { UTC } else { zone }
}

/// Start and end as Microsoft takes them, in the zone that the event was made in; none where that zone is unknown to us.
pub(super) fn times_at_home(event: &Value) -> Option<(Value, Value)> {
    let name = of(event);
    // A whole day begins at midnight wherever one is: its date and zone are kept, not its moment.
    let is_all_day = event.get("isAllDay").and_then(Value::as_bool).unwrap_or_default();
    let zone = find(name)?;
    let at_home = |property: &str| -> Option<Value> {
        let utc: DateTime = event.get(property)?.get("dateTime")?.as_str()?.parse().ok()?;
        let wall = if is_all_day {
            utc
        } else {
            utc.to_zoned(TimeZone::UTC).ok()?.with_time_zone(zone.clone()).datetime()
        };
        Some(json!({ "dateTime": format!("{wall:.7}"), "timeZone": name }))
    };
    Some((at_home("start")?, at_home("end")?))
}

/// A zone by its Windows name, or by its IANA name.
fn find(name: &str) -> Option<TimeZone> {
    if name == UTC {
        return Some(TimeZone::UTC);
    }
    TimeZone::get(localzone::win_zone_to_iana(name, None).unwrap_or(name)).ok()
}

/// The IANA name of a zone other than UTC.
pub(crate) fn iana(name: &str) -> Option<&str> {
    let iana = localzone::win_zone_to_iana(name, None).unwrap_or(name);
    (name != UTC && TimeZone::get(iana).is_ok()).then_some(iana)
}

/// What a clock shows in a zone, by its IANA name, at a moment in UTC.
pub(crate) fn wall(utc: DateTime, iana: &str) -> Option<DateTime> {
    Some(utc.to_zoned(TimeZone::UTC).ok()?.with_time_zone(TimeZone::get(iana).ok()?).datetime())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(zone: &str, start: &str) -> Value {
        json!({
            "originalStartTimeZone": zone,
            "start": { "dateTime": start, "timeZone": "UTC" },
            "end": { "dateTime": start, "timeZone": "UTC" },
        })
    }

    fn start(event: &Value) -> Option<String> {
        times_at_home(event).map(|(start, _)| start["dateTime"].as_str().unwrap().to_owned())
    }

    #[test]
    fn times_follow_the_summer_time_of_their_zone() {
        let berlin = |start: &str| event("W. Europe Standard Time", start);
        assert_eq!(start(&berlin("2026-07-01T10:00:00.0000000")).unwrap(), "2026-07-01T12:00:00.0000000");
        assert_eq!(start(&berlin("2026-12-01T10:00:00")).unwrap(), "2026-12-01T11:00:00.0000000");
        assert_eq!(
            start(&event("Europe/Berlin", "2026-12-01T10:00:00")).unwrap(),
            "2026-12-01T11:00:00.0000000"
        );
        assert_eq!(start(&event("", "2026-12-01T10:00:00")).unwrap(), "2026-12-01T10:00:00.0000000");
        let (start, _) = times_at_home(&berlin("2026-07-01T10:00:00")).unwrap();
        assert_eq!(start["timeZone"], "W. Europe Standard Time");
    }

    #[test]
    fn a_whole_day_keeps_its_date_and_an_unknown_zone_has_no_times() {
        let mut day = event("Pacific Standard Time", "2026-07-01T00:00:00");
        day["isAllDay"] = json!(true);
        assert_eq!(start(&day).unwrap(), "2026-07-01T00:00:00.0000000");
        assert_eq!(start(&event("tzone://Microsoft/Custom", "2026-07-01T00:00:00")), None);
    }
}
