//! An event as Graph's JSON, in the zone that was asked for.

use serde_json::{Map, Value, json};

use crate::http::{Call, Refusal, refuse};
use crate::json::{change_key, timestamp};
use crate::workloads::calendar::store::{CalendarStore, Event, SCHEMA, Times};
use crate::workloads::calendar::zone::{Day, Zone, date_of};
use crate::workloads::mail::content::Attachment;
use crate::workloads::mail::json::{AttachmentView, Head, attachment};
use crate::workloads::mail::mime::plain_text;
use crate::workloads::objects::Object;
use crate::workloads::objects::view::View;

/// Characters of the preview.
const PREVIEW: usize = 255;
/// Relations of an event that can be asked for.
const RELATIONS: [&str; 2] = ["attachments", "exceptionOccurrences"];

/// How events are shown.
pub(crate) struct Shown {
    pub view: View,
    zone: Zone,
}

impl Shown {
    /// By `$select`, `$expand` and `Prefer: outlook.timezone`.
    pub(crate) fn of(call: &Call) -> Result<Self, Refusal> {
        Ok(Self { view: View::of(&SCHEMA, &call.query, &RELATIONS)?, zone: zone(call)? })
    }

    /// Whole, in the zone asked for.
    pub(crate) fn whole(call: &Call) -> Result<Self, Refusal> {
        Ok(Self { view: View::default(), zone: zone(call)? })
    }
}

fn zone(call: &Call) -> Result<Zone, Refusal> {
    let Some(name) = &call.time_zone else { return Ok(Zone::UTC) };
    let text = "A valid TimeZone value must be specified.";
    Zone::find(name).ok_or_else(|| refuse(400, "TimeZoneNotSupportedException", text))
}

/// A time with its zone; what lasts all day is on that day in every zone.
fn date_time(ms: i64, wall: jiff::civil::DateTime, is_all_day: bool, zone: Zone) -> Value {
    let shown = if is_all_day { wall } else { zone.wall(ms) };
    json!({"dateTime": format!("{shown}.0000000"), "timeZone": zone.name()})
}

/// `start` and `end`.
fn times(times: &Times, is_all_day: bool, zone: Zone) -> [(String, Value); 2] {
    [
        ("start".to_owned(), date_time(times.start_ms(), times.start, is_all_day, zone)),
        ("end".to_owned(), date_time(times.end_ms(), times.end, is_all_day, zone)),
    ]
}

/// What kind of event a part of one is.
pub(crate) fn kind(event: &Event, day: Option<Day>) -> &'static str {
    match day {
        Some(day) if event.exceptions.contains_key(&day) => "exception",
        Some(_) => "occurrence",
        None if event.rule.is_some() => "seriesMaster",
        None => "singleInstance",
    }
}

/// An event, or one day of a series.
pub(crate) fn event(
    call: &Call,
    store: &CalendarStore,
    object: &Object<Event>,
    day: Option<Day>,
    shown: &Shown,
) -> Value {
    let event = &object.value;
    let body = event.part(day);
    let mut fields = body.fields.clone();
    let id = store.event_id(object.key, day, object.moves, call.form);
    let is_all_day = fields.get("isAllDay").and_then(Value::as_bool).unwrap_or(false);
    fields.extend(times(&event.times_of(day), is_all_day, shown.zone));
    let key = change_key(object.seq);
    fields.extend([
        ("@odata.etag".to_owned(), json!(format!("W/\"{key}\""))),
        ("changeKey".to_owned(), key.into()),
        ("createdDateTime".to_owned(), timestamp(object.created_ms).into()),
        ("lastModifiedDateTime".to_owned(), timestamp(object.modified_ms).into()),
        ("webLink".to_owned(), format!("https://outlook.office365.com/owa/?itemid={id}").into()),
        ("id".to_owned(), id.into()),
        ("bodyPreview".to_owned(), preview(&fields).into()),
        ("hasAttachments".to_owned(), body.attachments.iter().any(|one| !one.is_inline).into()),
        ("iCalUId".to_owned(), event.uid.clone().into()),
        ("transactionId".to_owned(), json!(event.transaction_id)),
        ("isCancelled".to_owned(), false.into()),
        ("isDraft".to_owned(), false.into()),
        ("onlineMeeting".to_owned(), Value::Null),
        ("onlineMeetingUrl".to_owned(), Value::Null),
        ("originalStartTimeZone".to_owned(), event.body.times.zone.name().into()),
        ("originalEndTimeZone".to_owned(), event.body.times.zone.name().into()),
        ("type".to_owned(), kind(event, day).into()),
        ("recurrence".to_owned(), series_rule(event, day)),
    ]);
    fields.extend(people(call, event));
    if let Some(day) = day {
        let original = event.body.times.on(day).start_ms();
        let master = store.event_id(object.key, None, object.moves, call.form);
        fields.insert("seriesMasterId".into(), master.into());
        fields.insert("originalStart".into(), timestamp(u64::try_from(original).unwrap_or(0)).into());
    }
    fields.extend(relations(call, store, object, day, shown));
    shown.view.project(fields, &body.extended)
}

fn series_rule(event: &Event, day: Option<Day>) -> Value {
    match (&event.rule, day) {
        (Some(rule), None) => rule.shown.clone(),
        _ => Value::Null,
    }
}

/// Who invited, and what the person answered.
fn people(call: &Call, event: &Event) -> [(String, Value); 3] {
    let owner = call.world.people.user(call.user).person();
    let (name, address) = event.invited_by.clone().unwrap_or((owner.name, owner.address));
    let response = if event.invited_by.is_some() { "accepted" } else { "organizer" };
    [
        ("isOrganizer".to_owned(), event.invited_by.is_none().into()),
        ("organizer".to_owned(), json!({"emailAddress": {"name": name, "address": address}})),
        ("responseStatus".to_owned(), json!({"response": response, "time": "0001-01-01T00:00:00Z"})),
    ]
}

fn preview(fields: &Map<String, Value>) -> String {
    let body = fields.get("body");
    let text = |name: &str| body.and_then(|body| body.get(name)).and_then(Value::as_str).unwrap_or_default();
    let is_html = text("contentType").eq_ignore_ascii_case("html");
    let plain = if is_html { plain_text(text("content"), PREVIEW) } else { text("content").to_owned() };
    plain.trim().chars().take(PREVIEW).collect()
}

/// What is shown only when it was asked for.
fn relations(
    call: &Call,
    store: &CalendarStore,
    object: &Object<Event>,
    day: Option<Day>,
    shown: &Shown,
) -> Map<String, Value> {
    let mut found = Map::new();
    let view = &shown.view;
    if view.expands("attachments") {
        let body = object.value.part(day);
        let head = head(call, object, body.attachments_key);
        let list = body.attachments.iter().map(|one| shown_attachment(call, &head, one));
        found.insert("attachments".into(), list.collect());
    }
    if kind(&object.value, day) != "seriesMaster" {
        return found;
    }
    if view.expands("exceptionOccurrences") {
        let plain = Shown { view: View::default(), zone: shown.zone };
        let days = object.value.exceptions.keys();
        let list = days.map(|day| event(call, store, object, Some(*day), &plain));
        found.insert("exceptionOccurrences".into(), list.collect());
    }
    if view.expands("exceptionOccurrences") || view.selects("cancelledOccurrences") {
        let master = store.event_id(object.key, None, object.moves, call.form);
        let days = object.value.cancelled.keys();
        let list = days.map(|day| format!("OID.{master}.{}", date_of(*day)));
        found.insert("cancelledOccurrences".into(), list.collect());
    }
    found
}

/// What an attachment's JSON needs of its event.
pub(crate) fn head(call: &Call, object: &Object<Event>, attachments_key: u64) -> Head {
    Head {
        user: call.user,
        key: attachments_key,
        id: String::new(),
        folder_id: String::new(),
        change: object.seq,
        modified_ms: object.modified_ms,
    }
}

/// An attachment with its bytes.
fn shown_attachment(call: &Call, head: &Head, one: &Attachment) -> Value {
    let overhead = call.options.attachment_overhead;
    let mut out = Vec::new();
    attachment(&mut out, head, one, &AttachmentView { content: true, item: false, select: None, overhead });
    serde_json::from_slice(&out).expect("an attachment is json")
}

/// An occurrence as delta shows it: where it is, and what of.
pub(crate) fn occurrence(
    call: &Call,
    store: &CalendarStore,
    object: &Object<Event>,
    day: Day,
    shown: &Shown,
) -> Value {
    let event = &object.value;
    let is_all_day = event.body.fields.get("isAllDay").and_then(Value::as_bool).unwrap_or(false);
    let mut fields = Map::from_iter(times(&event.times_of(Some(day)), is_all_day, shown.zone));
    fields.extend([
        ("@odata.etag".to_owned(), json!(format!("W/\"{}\"", change_key(object.seq)))),
        ("id".to_owned(), store.event_id(object.key, Some(day), object.moves, call.form).into()),
        ("seriesMasterId".to_owned(), store.event_id(object.key, None, object.moves, call.form).into()),
        ("type".to_owned(), "occurrence".into()),
    ]);
    Value::Object(fields)
}
