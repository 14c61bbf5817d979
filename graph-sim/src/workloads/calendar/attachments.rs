//! Attachments of events and of single days of series: a day's are its own, whatever the series has.

use bytes::Bytes;

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::ids::{Id, Missing};
use crate::json::{list_of, text};
use crate::workloads::calendar::events::find;
use crate::workloads::calendar::store::{Body, CalendarStore};
use crate::workloads::calendar::write::head;
use crate::workloads::calendar::zone::Day;
use crate::workloads::mail::attachments::{Announced, MAX_DIRECT, file_size, shown, value_of, view};
use crate::workloads::mail::content::{Attachment, Kind};
use crate::workloads::mail::create;
use crate::workloads::mail::json::{self, AttachmentView};
use crate::workloads::objects::read_fault;
use crate::world::World;

/// Lists all of them, without pages.
pub(crate) fn list(call: &Call) -> Answer {
    let how = shown(call)?;
    let store = call.world.state::<CalendarStore>(call.user);
    let (event, day) = find(call, &store)?;
    let body = event.value.part(day);
    let head = head(call, event, body.attachments_key);
    let mut out = b"{".to_vec();
    text(&mut out, "@odata.context", &format!("{}/v1.0/$metadata#attachments", call.base));
    out.extend_from_slice(b",\"value\":");
    list_of(&mut out, &body.attachments, |out, one| json::attachment(out, &head, one, &view(call, &how)));
    out.push(b'}');
    Ok(Reply::Json(200, out))
}

fn named<'a>(call: &Call, body: &'a Body) -> Result<&'a Attachment, Refusal> {
    match Id::decode(call.param("attachment").unwrap_or_default()) {
        Some(Id::Attachment { user, message, key })
            if user == call.user && message == body.attachments_key =>
        {
            let found = body.attachments.iter().find(|one| one.key == key);
            Ok(found.ok_or(Missing::Gone)?)
        }
        Some(_) => Err(Missing::Gone.into()),
        None => Err(Missing::Malformed.into()),
    }
}

pub(crate) fn get(call: &Call) -> Answer {
    read_fault(call)?;
    let how = shown(call)?;
    let store = call.world.state::<CalendarStore>(call.user);
    let (event, day) = find(call, &store)?;
    let body = event.value.part(day);
    let mut out = Vec::new();
    let head = head(call, event, body.attachments_key);
    json::attachment(&mut out, &head, named(call, body)?, &view(call, &how));
    Ok(Reply::Json(200, out))
}

pub(crate) fn value(call: &Call) -> Answer {
    read_fault(call)?;
    let store = call.world.state::<CalendarStore>(call.user);
    let (event, day) = find(call, &store)?;
    value_of(named(call, event.value.part(day))?)
}

/// What a change of attachments is about.
struct Changing {
    user: u32,
    event: u64,
    day: Option<Day>,
}

/// Changes the attachments of an event, or of a day, which becomes an exception by it.
fn change<T>(
    world: &World,
    at: &Changing,
    change: impl FnOnce(&mut Body) -> Result<T, Refusal>,
) -> Result<(T, u64), Refusal> {
    let mut store = world.state::<CalendarStore>(at.user);
    let attachments_key = store.numbers.next_key();
    let mut changed = store.events.get(at.event).ok_or(Missing::Gone)?.value.clone();
    let body = match at.day {
        None => &mut changed.body,
        Some(day) => changed.exception_mut(day, attachments_key),
    };
    let result = change(body)?;
    let key = body.attachments_key;
    let tells = changed.has_attendees();
    let CalendarStore { numbers, events, .. } = &mut *store;
    if let Some(event) = events.change(numbers, at.event, world.clock.now_ms()) {
        *event = changed;
    }
    if tells {
        world.counters.would_send("calendar_event_change");
    }
    Ok((result, key))
}

fn changing(call: &Call) -> Result<Changing, Refusal> {
    let store = call.world.state::<CalendarStore>(call.user);
    let (event, day) = find(call, &store)?;
    Ok(Changing { user: call.user, event: event.key, day })
}

pub(crate) fn create(call: &Call) -> Answer {
    let mut attachment = create::attachment(&call.json()?, 0, call.world.clock.now_ms(), &call.world.blobs)?;
    if file_size(&attachment) > MAX_DIRECT {
        return Err(refuse(413, "ErrorMessageSizeExceeded", "The attachment needs an upload session."));
    }
    let at = changing(call)?;
    let (attachment, key) = change(&call.world, &at, |body| {
        attachment.key = body.take_attachment_key();
        body.attachments.push(attachment.clone());
        Ok(attachment)
    })?;
    let store = call.world.state::<CalendarStore>(call.user);
    let event = store.events.get(at.event).ok_or(Missing::Gone)?;
    let overhead = call.options.attachment_overhead;
    let mut out = Vec::new();
    let plain = AttachmentView { content: false, item: false, select: None, overhead };
    json::attachment(&mut out, &head(call, event, key), &attachment, &plain);
    Ok(Reply::Created(out))
}

pub(crate) fn delete(call: &Call) -> Answer {
    let (at, doomed) = {
        let store = call.world.state::<CalendarStore>(call.user);
        let (event, day) = find(call, &store)?;
        let doomed = named(call, event.value.part(day))?.key;
        (Changing { user: call.user, event: event.key, day }, doomed)
    };
    change(&call.world, &at, |body| {
        body.attachments.retain(|one| one.key != doomed);
        Ok(())
    })?;
    Ok(Reply::Empty(204))
}

/// Opens an upload session.
pub(crate) fn open_session(call: &Call) -> Answer {
    let Announced { size, mut attachment } = Announced::of(call)?;
    let at = changing(call)?;
    let path = call.path.rsplit_once("/attachments").map_or("", |(event, _)| event).to_owned();
    let finish = move |world: &World, bytes: Bytes, base: &str| {
        attachment.kind = Kind::File(world.blobs.keep(bytes));
        let (number, message) = change(world, &at, |body| {
            attachment.key = body.take_attachment_key();
            let number = attachment.key;
            body.attachments.push(attachment);
            Ok(number)
        })?;
        let id = Id::Attachment { user: at.user, message, key: number }.encode();
        Ok(format!("{base}{path}/Attachments('{id}')"))
    };
    let opened = call.world.uploads.open(call, size, Box::new(finish))?;
    opened.answer(call, &opened.url(call))
}
