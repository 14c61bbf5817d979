//! What a person's events really are, in a form tests compare.
//!
//! Not compared is what no restore can keep: the organizer, the global id, the answers of those who were invited.

use jiff::civil::DateTime;
use serde_json::{Map, Value, json};

use crate::ids::Form;
use crate::workloads::Slice;
use crate::workloads::calendar::store::{Body, CalendarStore, Event, SCHEMA, Times};
use crate::workloads::calendar::zone::{Zone, date_of};
use crate::workloads::mail::truth::attachment;
use crate::workloads::objects::Object;
use crate::world::World;

/// A slice, in the order of the events' making.
pub(crate) fn list(world: &World, user: u32, slice: &Slice) -> Vec<Value> {
    let store = world.state::<CalendarStore>(user);
    store.events.iter().skip(slice.skip).take(slice.top).map(|event| describe(world, &store, event)).collect()
}

fn describe(world: &World, store: &CalendarStore, object: &Object<Event>) -> Value {
    let event = &object.value;
    let calendar = store.calendars.get(object.place).map_or("", |calendar| calendar.value.name.as_str());
    let mut record = part(world, &event.body);
    let subject = record["subject"].as_str().unwrap_or_default().to_owned();
    let exceptions: Map<String, Value> =
        event.exceptions.iter().map(|(day, body)| (date_of(*day).to_string(), part(world, body))).collect();
    let cancelled: Vec<String> = event.cancelled.keys().map(|day| date_of(*day).to_string()).collect();
    record["id"] = store.event_id(object.key, None, 0, Form::Immutable).into();
    record["identity"] =
        format!("{calendar} / {subject} / {}", record["start"].as_str().unwrap_or_default()).into();
    record["calendar"] = calendar.into();
    record["timeZone"] = event.body.times.zone.name().into();
    record["recurrence"] = event.rule.as_ref().map_or(Value::Null, |rule| rule.shown.clone());
    record["exceptions"] = exceptions.into();
    record["cancelled"] = cancelled.into();
    record
}

/// What an event and an exception have alike.
fn part(world: &World, body: &Body) -> Value {
    let Times { start, end, zone } = body.times;
    let is_all_day = body.fields.get("isAllDay").is_some_and(|flag| flag == true);
    let shown =
        |wall: DateTime| if is_all_day { wall } else { Zone::UTC.wall(zone.instant(wall)) }.to_string();
    let mut attachments: Vec<Value> = body
        .attachments
        .iter()
        .map(|one| serde_json::to_value(attachment(world, one)).expect("a truth is plain data"))
        .collect();
    attachments.sort_by_cached_key(Value::to_string);
    let mut record = json!({"start": shown(start), "end": shown(end), "attachments": attachments});
    for name in SCHEMA.writable() {
        record[name] = body.fields.get(name).cloned().unwrap_or(Value::Null);
    }
    for attendee in record["attendees"].as_array_mut().into_iter().flatten() {
        attendee["status"] = Value::Null;
    }
    record
}
