//! An event as an iCalendar file (RFC 5545): the event, and of a series its exceptions and what was called off.
//!
//! Single events are written in UTC, series in the zone that they repeat in, by its IANA name and with its definition.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::civil::DateTime;
use serde_json::Value;

use super::{
    content_line::{Lines, quoted},
    ics_zone,
    render::Item,
    rrule,
};
use crate::{
    JobError,
    workload::{
        attachments::{AttachmentSource, StoredAttachment},
        calendar::{
            meta::{StoredEvent, StoredException},
            zone,
        },
        stored::broken,
    },
};

/// Attachments above this are left out: no calendar reads them. They are in the JSON export.
const MAX_ATTACHMENT_BYTES: u64 = 25 << 20;

/// The iCalendar file of an event.
pub(super) async fn write(item: &Item<'_>) -> Result<Vec<u8>, JobError> {
    let holdfast = item.meta.get("_holdfast").cloned().unwrap_or_default();
    let stored: StoredEvent = serde_json::from_value(holdfast).map_err(broken("meta"))?;
    let exceptions = exceptions(item, &stored).await?;
    let mut lines = Lines::default();
    lines.raw("BEGIN", "VCALENDAR");
    lines.raw("VERSION", "2.0");
    lines.raw("PRODID", "-//Holdfast//Export//EN");
    let uid = if item.text("iCalUId").is_empty() { item.id } else { item.text("iCalUId") };
    let is_series = stored.series.is_some();
    let master = Times { event: &item.meta, is_series, home: zone::of(&item.meta) };
    if let Some((home, start)) = master.home_zone().zip(master.utc("start")) {
        let last = item.meta.pointer("/recurrence/range").and_then(rrule::last_day);
        ics_zone::write(&mut lines, home, start.date(), last);
    }
    lines.raw("BEGIN", "VEVENT");
    event(&mut lines, uid, master);
    if let Some(rule) = item.meta.get("recurrence").and_then(rrule::rule) {
        lines.raw("RRULE", &rule);
    }
    let cancelled = stored.series.iter().flat_map(|series| &series.cancelled);
    for name in cancelled {
        master.except(&mut lines, name);
    }
    attachments(&mut lines, item, &stored.attachments).await?;
    lines.raw("END", "VEVENT");
    for exception in &exceptions {
        let meta: Value = serde_json::from_str(exception.event.get()).map_err(broken("exception"))?;
        let times = Times { event: &meta, is_series, home: master.home };
        lines.raw("BEGIN", "VEVENT");
        event(&mut lines, uid, times);
        times.replaces(&mut lines);
        attachments(&mut lines, item, &exception.attachments).await?;
        lines.raw("END", "VEVENT");
    }
    lines.raw("END", "VCALENDAR");
    Ok(lines.into_bytes())
}

async fn exceptions(item: &Item<'_>, stored: &StoredEvent) -> Result<Vec<StoredException>, JobError> {
    let Some(series) = &stored.series else { return Ok(Vec::new()) };
    let part = series.exceptions_part.and_then(|place| item.parts.get(place.part as usize));
    let Some(part) = part else { return Ok(series.exceptions.clone()) };
    let bytes = item.reader.read_range(part, 0, part.len).await?;
    serde_json::from_slice(&bytes).map_err(broken("exceptions"))
}

/// When an event is.
#[derive(Clone, Copy)]
struct Times<'a> {
    event: &'a Value,
    is_series: bool,
    /// Microsoft's name for the zone of the series.
    home: &'a str,
}

impl<'a> Times<'a> {
    fn is_all_day(self) -> bool {
        self.event.get("isAllDay").and_then(Value::as_bool).unwrap_or_default()
    }

    /// The zone that a series repeats in, by its IANA name.
    fn home_zone(self) -> Option<&'a str> {
        zone::iana(self.home).filter(|_| self.is_series)
    }

    /// A line with a moment that is known in UTC.
    fn moment(self, lines: &mut Lines, name: &str, utc: DateTime) {
        let wall = self.home_zone().and_then(|name| Some((name, zone::wall(utc, name)?)));
        match wall {
            _ if self.is_all_day() => {
                lines.raw(&format!("{name};VALUE=DATE"), &utc.date().strftime("%Y%m%d").to_string());
            }
            Some((home, wall)) => {
                lines.raw(&format!("{name};TZID={home}"), &wall.strftime("%Y%m%dT%H%M%S").to_string());
            }
            None => lines.raw(name, &utc.strftime("%Y%m%dT%H%M%SZ").to_string()),
        }
    }

    fn utc(self, name: &str) -> Option<DateTime> {
        let time = self.event.get(name)?;
        time.get("dateTime").unwrap_or(time).as_str()?.trim_end_matches('Z').parse().ok()
    }

    /// Which time of the series an exception stands for.
    fn replaces(self, lines: &mut Lines) {
        if let Some(original) = self.utc("originalStart") {
            self.moment(lines, "RECURRENCE-ID", original);
        }
    }

    /// A time that does not take place, `OID.{id}.2026-05-01`: at the hour of the series.
    fn except(self, lines: &mut Lines, cancelled: &str) {
        let Some(start) = self.utc("start") else { return };
        let day = cancelled.rsplit('.').next().and_then(|day| day.parse::<jiff::civil::Date>().ok());
        let Some(day) = day else { return };
        let home = self.home_zone().filter(|_| !self.is_all_day());
        match home.and_then(|name| Some((name, zone::wall(start, name)?))) {
            Some((home, wall)) => {
                let wall = day.to_datetime(wall.time()).strftime("%Y%m%dT%H%M%S").to_string();
                lines.raw(&format!("EXDATE;TZID={home}"), &wall);
            }
            None => self.moment(lines, "EXDATE", day.to_datetime(start.time())),
        }
    }
}

/// The properties that an event and an exception have alike.
fn event(lines: &mut Lines, uid: &str, times: Times<'_>) {
    let event = times.event;
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    lines.text("UID", uid);
    let stamp = times.utc("lastModifiedDateTime").or_else(|| times.utc("start")).unwrap_or(DateTime::ZERO);
    lines.raw("DTSTAMP", &stamp.strftime("%Y%m%dT%H%M%SZ").to_string());
    for (property, name) in [("start", "DTSTART"), ("end", "DTEND")] {
        if let Some(utc) = times.utc(property) {
            times.moment(lines, name, utc);
        }
    }
    lines.text("SUMMARY", text("subject"));
    let body = |name: &str| event.get("body").and_then(|body| body.get(name)).and_then(Value::as_str);
    let content = body("content").unwrap_or_default();
    if body("contentType").is_some_and(|kind| kind.eq_ignore_ascii_case("html")) {
        lines.text("DESCRIPTION", text("bodyPreview"));
        lines.text("X-ALT-DESC;FMTTYPE=text/html", content);
    } else {
        lines.text("DESCRIPTION", content);
    }
    let place = event.get("location").and_then(|place| place.get("displayName")).and_then(Value::as_str);
    lines.text("LOCATION", place.unwrap_or_default());
    let categories: Vec<&str> = event
        .get("categories")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    lines.texts("CATEGORIES", &categories, ',');
    lines.raw(
        "CLASS",
        match text("sensitivity") {
            "private" => "PRIVATE",
            "confidential" => "CONFIDENTIAL",
            _ => "PUBLIC",
        },
    );
    lines.raw("TRANSP", if text("showAs") == "free" { "TRANSPARENT" } else { "OPAQUE" });
    lines.raw(
        "PRIORITY",
        match text("importance") {
            "high" => "1",
            "low" => "9",
            _ => "5",
        },
    );
    let is_cancelled = event.get("isCancelled").and_then(Value::as_bool).unwrap_or_default();
    lines.raw("STATUS", if is_cancelled { "CANCELLED" } else { "CONFIRMED" });
    people(lines, event);
    let has_reminder = event.get("isReminderOn").and_then(Value::as_bool).unwrap_or_default();
    let before = event.get("reminderMinutesBeforeStart").and_then(Value::as_i64).unwrap_or(0);
    if has_reminder {
        lines.raw("BEGIN", "VALARM");
        lines.raw("ACTION", "DISPLAY");
        lines.raw("DESCRIPTION", "Reminder");
        lines.raw("TRIGGER", &format!("-PT{}M", before.max(0)));
        lines.raw("END", "VALARM");
    }
}

/// Organizer and attendees, where anybody was invited.
fn people(lines: &mut Lines, event: &Value) {
    let attendees = event.get("attendees").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let person = |lines: &mut Lines, name: &str, recipient: &Value, more: &str| {
        let of = |name: &str| recipient.pointer(&format!("/emailAddress/{name}")).and_then(Value::as_str);
        if let Some(address) = of("address").filter(|address| !address.is_empty()) {
            let shown = quoted(of("name").unwrap_or(address));
            lines.raw(&format!("{name};CN={shown}{more}"), &format!("mailto:{address}"));
        }
    };
    if attendees.is_empty() {
        return;
    }
    person(lines, "ORGANIZER", event.get("organizer").unwrap_or(&Value::Null), "");
    for attendee in attendees {
        let role = match attendee.get("type").and_then(Value::as_str) {
            Some("optional") => ";ROLE=OPT-PARTICIPANT",
            Some("resource") => ";CUTYPE=RESOURCE",
            _ => ";ROLE=REQ-PARTICIPANT",
        };
        let answer = match attendee.pointer("/status/response").and_then(Value::as_str) {
            Some("accepted" | "organizer") => ";PARTSTAT=ACCEPTED",
            Some("declined") => ";PARTSTAT=DECLINED",
            Some("tentativelyAccepted") => ";PARTSTAT=TENTATIVE",
            _ => ";PARTSTAT=NEEDS-ACTION",
        };
        person(lines, "ATTENDEE", attendee, &format!("{role}{answer}"));
    }
}

async fn attachments(
    lines: &mut Lines,
    item: &Item<'_>,
    stored: &[StoredAttachment],
) -> Result<(), JobError> {
    for one in stored {
        let AttachmentSource::Part { part, len } = &one.source else { continue };
        let Some(part) = item.parts.get(*part as usize).filter(|_| *len <= MAX_ATTACHMENT_BYTES) else {
            continue;
        };
        let info: Value = serde_json::from_str(one.info.get()).map_err(broken("attachment"))?;
        let text = |name: &str| info.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let bytes = item.reader.read_range(part, 0, part.len).await?;
        let kind = quoted(text("contentType").unwrap_or("application/octet-stream"));
        let name = quoted(text("name").unwrap_or("attachment"));
        let head = format!("ATTACH;FMTTYPE={kind};FILENAME={name};ENCODING=BASE64;VALUE=BINARY");
        lines.raw(&head, &STANDARD.encode(&bytes));
    }
    Ok(())
}
