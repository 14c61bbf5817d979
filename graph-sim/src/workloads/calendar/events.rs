//! Events: lists, windows, instances, one, create, change, delete, cancel.
//!
//! Invariant: every call that Exchange would have told people of is counted before it takes effect.

use serde_json::Value;

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::ids::Missing;
use crate::workloads::calendar::calendars::{named, writable};
use crate::workloads::calendar::given;
use crate::workloads::calendar::store::{CalendarStore, Event};
use crate::workloads::calendar::window::Window;
use crate::workloads::calendar::write::{self, Shown};
use crate::workloads::calendar::zone::Day;
use crate::workloads::objects::filter::Condition;
use crate::workloads::objects::{Object, page, read_fault};

const CONTEXT: &str = "events";
const FILTERED_BY: [&str; 1] = ["subject"];

/// The event a path names, and the day when it is one of a series; one of another calendar is not there.
pub(crate) fn find<'a>(
    call: &Call,
    store: &'a CalendarStore,
) -> Result<(&'a Object<Event>, Option<Day>), Refusal> {
    let (event, day) = store.find_event(call.param("event").unwrap_or_default())?;
    if call.param("calendar").is_some() && named(call, store)? != event.place {
        return Err(Missing::Gone.into());
    }
    Ok((event, day))
}

/// Single events and series of a calendar, the default one when none is named.
pub(crate) fn list(call: &Call) -> Answer {
    let shown = Shown::of(call)?;
    let condition = Condition::of(call, &FILTERED_BY)?;
    let store = call.world.state::<CalendarStore>(call.user);
    let calendar = named(call, &store)?;
    let accepted = |event: &&Object<Event>| {
        let body = &event.value.body;
        condition.as_ref().is_none_or(|condition| condition.accepts(&body.fields, &body.extended))
    };
    let events: Vec<&Object<Event>> = store.events.at(calendar).filter(accepted).collect();
    page::list(call, CONTEXT, &events, |event| write::event(call, &store, event, None, &shown))
}

/// What is within a window, series as their days.
pub(crate) fn view(call: &Call) -> Answer {
    let window = Window::of(&call.query)?;
    let shown = Shown::of(call)?;
    for name in ["createdDateTime", "lastModifiedDateTime"] {
        if shown.view.selects(name) {
            return Err(refuse(400, "BadRequest", format!("{name} cannot be selected in a calendar view")));
        }
    }
    let store = call.world.state::<CalendarStore>(call.user);
    let calendar = named(call, &store)?;
    let mut found: Vec<(&Object<Event>, Option<Day>)> = store
        .events
        .at(calendar)
        .flat_map(|event| window.within(&event.value).into_iter().map(move |day| (event, day)))
        .collect();
    found.sort_by_key(|(event, day)| event.value.times_of(*day).start_ms());
    page::list(call, CONTEXT, &found, |(event, day)| write::event(call, &store, event, *day, &shown))
}

/// The days of a series within a window.
pub(crate) fn instances(call: &Call) -> Answer {
    let window = Window::of(&call.query)?;
    let shown = Shown::of(call)?;
    let store = call.world.state::<CalendarStore>(call.user);
    let (event, day) = find(call, &store)?;
    if day.is_some() || event.value.rule.is_none() {
        let text = "Instances are those of a series master.";
        return Err(refuse(400, "ErrorInvalidRequest", text));
    }
    let days = window.within(&event.value);
    page::list(call, CONTEXT, &days, |day| write::event(call, &store, event, *day, &shown))
}

pub(crate) fn get(call: &Call) -> Answer {
    read_fault(call)?;
    let shown = Shown::of(call)?;
    let store = call.world.state::<CalendarStore>(call.user);
    let (event, day) = find(call, &store)?;
    page::one(200, &write::event(call, &store, event, day, &shown))
}

fn one(call: &Call, store: &CalendarStore, key: u64, day: Option<Day>, status: u16) -> Answer {
    let event = store.events.get(key).ok_or(Missing::Gone)?;
    page::one(status, &write::event(call, store, event, day, &Shown::whole(call)?))
}

/// Creates an event; the same transaction id creates it once.
pub(crate) fn create(call: &Call) -> Answer {
    let body = call.json()?;
    let mut store = call.world.state::<CalendarStore>(call.user);
    let calendar = writable(call, &store)?;
    let transaction = body.get("transactionId").and_then(Value::as_str);
    if let Some(id) = transaction
        && let Some(known) =
            store.events.iter().find(|event| event.value.transaction_id.as_deref() == Some(id))
    {
        return one(call, &store, known.key, None, 201);
    }
    let event = given::event(call, &mut store.numbers, &body)?;
    if event.has_attendees() {
        call.would_send("calendar_event_create");
    }
    let CalendarStore { numbers, events, .. } = &mut *store;
    let key = events.insert(numbers, calendar, call.world.clock.now_ms(), event);
    one(call, &store, key, None, 201)
}

/// Changes an event; one day of a series becomes an exception.
pub(crate) fn patch(call: &Call) -> Answer {
    let body = call.json()?;
    let mut store = call.world.state::<CalendarStore>(call.user);
    let (found, day) = find(call, &store)?;
    let (key, mut changed) = (found.key, found.value.clone());
    let told_before = changed.has_attendees();
    match day {
        None => given::change(&mut changed, &body, store.numbers.upcoming_seq())?,
        Some(day) => {
            let attachments_key = store.numbers.next_key();
            given::change_day(changed.exception_mut(day, attachments_key), &body)?;
        }
    }
    if told_before || changed.has_attendees() {
        call.would_send("calendar_event_change");
    }
    let CalendarStore { numbers, events, .. } = &mut *store;
    if let Some(event) = events.change(numbers, key, call.world.clock.now_ms()) {
        *event = changed;
    }
    one(call, &store, key, day, 200)
}

/// Deletes an event; one day of a series is cancelled.
pub(crate) fn delete(call: &Call) -> Answer {
    remove(call, "calendar_event_delete")?;
    Ok(Reply::Empty(204))
}

/// Deletes an event with a message to those who were invited.
pub(crate) fn cancel(call: &Call) -> Answer {
    {
        let store = call.world.state::<CalendarStore>(call.user);
        let event = &find(call, &store)?.0.value;
        if event.invited_by.is_some() || !event.has_attendees() {
            let text = "You must be the organizer of a meeting to cancel it.";
            return Err(refuse(400, "ErrorInvalidRequest", text));
        }
    }
    remove(call, "calendar_event_cancel")?;
    Ok(Reply::Empty(202))
}

fn remove(call: &Call, kind: &str) -> Result<(), Refusal> {
    let mut store = call.world.state::<CalendarStore>(call.user);
    let (found, day) = find(call, &store)?;
    let (key, tells) = (found.key, found.value.has_attendees());
    if tells {
        call.would_send(kind);
    }
    let CalendarStore { numbers, events, .. } = &mut *store;
    match day {
        None => {
            events.remove(numbers, key);
        }
        Some(day) => {
            if let Some(event) = events.change(numbers, key, call.world.clock.now_ms()) {
                event.exceptions.remove(&day);
                event.cancelled.insert(day, numbers.stand().seq);
            }
        }
    }
    Ok(())
}
