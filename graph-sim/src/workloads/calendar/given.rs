//! Turns the JSON of a create or a change into an event, by Exchange's rules.

use std::collections::BTreeMap;

use jiff::civil::{DateTime, Time};
use serde_json::{Map, Value, json};

use crate::http::{Call, Refusal, refuse};
use crate::workloads::calendar::recurrence::Rule;
use crate::workloads::calendar::store::{Body, Event, Former, SCHEMA, Times};
use crate::workloads::calendar::zone::Zone;
use crate::workloads::mail::create::{self, field, merge_extended};
use crate::workloads::objects::Numbers;
use crate::workloads::objects::schema::object;

const DEFAULT_REMINDER_MINUTES: u32 = 15;

/// A new event.
pub(crate) fn event(call: &Call, numbers: &mut Numbers, given: &Value) -> Result<Event, Refusal> {
    let mut fields = blank();
    fields.insert("isReminderOn".into(), true.into());
    SCHEMA.apply(&mut fields, object(given)?)?;
    settle(&mut fields, given);
    let times = times(given, None)?.ok_or_else(|| invalid("start and end are missing"))?;
    check_all_day(&fields, &times)?;
    let key = numbers.next_key();
    let mut body = Body {
        fields,
        times,
        attachments: Vec::new(),
        attachments_key: key,
        next_attachment: 0,
        extended: Vec::new(),
    };
    merge_extended(&mut body.extended, field(given, "singleValueExtendedProperties"))?;
    for one in field(given, "attachments").as_array().into_iter().flatten() {
        let number = body.take_attachment_key();
        let now = call.world.clock.now_ms();
        body.attachments.push(create::attachment(one, number, now, &call.world.blobs)?);
    }
    Ok(Event {
        body,
        rule: rule(given, times.zone)?,
        exceptions: BTreeMap::new(),
        cancelled: BTreeMap::new(),
        former: None,
        transaction_id: field(given, "transactionId").as_str().map(ToOwned::to_owned),
        uid: uid(key),
        invited_by: None,
    })
}

/// Every property with the default a new event has.
pub(crate) fn blank() -> Map<String, Value> {
    let mut fields = SCHEMA.blank();
    fields.extend([
        ("subject".to_owned(), json!("")),
        ("body".to_owned(), json!({"contentType": "text", "content": ""})),
        ("location".to_owned(), json!({"displayName": ""})),
        ("reminderMinutesBeforeStart".to_owned(), DEFAULT_REMINDER_MINUTES.into()),
        ("allowNewTimeProposals".to_owned(), true.into()),
        ("responseRequested".to_owned(), true.into()),
        ("onlineMeetingProvider".to_owned(), "unknown".into()),
    ]);
    fields
}

/// The global id of an event; a copy has another one.
pub(crate) fn uid(key: u64) -> String {
    format!("040000008200E00074C5B7101A82E008{:016X}{key:016X}", crate::rng::mix(key))
}

fn invalid(text: &str) -> Refusal {
    refuse(400, "ErrorPropertyValidationFailure", text)
}

/// What Exchange fills in: one place from the other, what attendees answered.
fn settle(fields: &mut Map<String, Value>, given: &Value) {
    if fields.get("location").is_none_or(Value::is_null) {
        fields.insert("location".into(), json!({"displayName": ""}));
    }
    let locations = field(given, "locations").as_array().filter(|list| !list.is_empty());
    if let Some(first) = locations.and_then(|list| list.first()) {
        fields.insert("location".into(), first.clone());
    } else if field(given, "location")["displayName"].as_str().is_some_and(|name| !name.is_empty()) {
        let location = fields.get("location").cloned().unwrap_or_default();
        fields.insert("locations".into(), json!([location]));
    }
    for attendee in fields.get_mut("attendees").and_then(Value::as_array_mut).into_iter().flatten() {
        if attendee["type"].is_null() {
            attendee["type"] = "required".into();
        }
        attendee["status"] = json!({"response": "none", "time": "0001-01-01T00:00:00Z"});
    }
}

/// From `start` and `end`; one of them may keep what it was.
fn times(given: &Value, before: Option<Times>) -> Result<Option<Times>, Refusal> {
    let (start, end) = (field(given, "start"), field(given, "end"));
    if start.is_null() && end.is_null() {
        return Ok(before);
    }
    let (start, zone) = match before {
        Some(before) if start.is_null() => (before.start, before.zone),
        _ => date_time(start)?,
    };
    let end = match before {
        Some(before) if end.is_null() => zone.wall(before.end_ms()),
        _ => {
            let (end, of_end) = date_time(end)?;
            zone.wall(of_end.instant(end))
        }
    };
    if end < start {
        return Err(invalid("The end is before the start."));
    }
    Ok(Some(Times { start, end, zone }))
}

fn date_time(value: &Value) -> Result<(DateTime, Zone), Refusal> {
    let wall =
        value["dateTime"].as_str().and_then(|text| text.trim_end_matches('Z').parse::<DateTime>().ok());
    let wall = wall.ok_or_else(|| invalid("start and end need a dateTime"))?;
    let wall = wall.with().subsec_nanosecond(0).build().unwrap_or(wall);
    let name = value["timeZone"].as_str().ok_or_else(|| invalid("start and end need a timeZone"))?;
    let text = "A valid TimeZone value must be specified.";
    let zone = Zone::find(name).ok_or_else(|| refuse(400, "TimeZoneNotSupportedException", text))?;
    Ok((wall, zone))
}

fn check_all_day(fields: &Map<String, Value>, times: &Times) -> Result<(), Refusal> {
    let is_all_day = fields.get("isAllDay").and_then(Value::as_bool).unwrap_or(false);
    let at_midnight = [times.start, times.end].iter().all(|wall| wall.time() == Time::midnight());
    if is_all_day && (!at_midnight || times.start == times.end) {
        return Err(invalid("What lasts all day starts and ends at midnight."));
    }
    Ok(())
}

fn rule(given: &Value, zone: Zone) -> Result<Option<Rule>, Refusal> {
    match field(given, "recurrence") {
        Value::Null => Ok(None),
        rule => Rule::parse(rule, zone).map(Some),
    }
}

/// Writes what is given into an event, by the change with this number. A series that gets another rule or another time
/// loses its exceptions.
pub(crate) fn change(event: &mut Event, given: &Value, seq: u64) -> Result<(), Refusal> {
    let (times, rule_before) = (event.body.times, event.rule.clone());
    change_day(&mut event.body, given)?;
    if object(given)?.keys().any(|name| name.eq_ignore_ascii_case("recurrence")) {
        event.rule = rule(given, event.body.times.zone)?;
    }
    if (event.body.times, &event.rule) != (times, &rule_before) {
        event.exceptions.clear();
        event.cancelled.clear();
        event.former = rule_before.map(|rule| Former { rule, times, seq });
    }
    Ok(())
}

/// Writes what is given into the body of an event or of one day.
pub(crate) fn change_day(body: &mut Body, given: &Value) -> Result<(), Refusal> {
    SCHEMA.apply(&mut body.fields, object(given)?)?;
    settle(&mut body.fields, given);
    if let Some(times) = times(given, Some(body.times))? {
        check_all_day(&body.fields, &times)?;
        body.times = times;
    }
    merge_extended(&mut body.extended, field(given, "singleValueExtendedProperties"))?;
    Ok(())
}

impl Body {
    /// The number of the next attachment.
    pub(crate) fn take_attachment_key(&mut self) -> u32 {
        self.next_attachment += 1;
        self.next_attachment
    }
}
