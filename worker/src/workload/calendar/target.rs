//! The way back of calendars: events, attachments, and of a series its exceptions and what was called off.
//!
//! The one invariant to know: nobody is invited. Those who were are named in the text of the restored event.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_graph_client::{
    CalendarEvent, CalendarEventContent, CalendarEventKind, CalendarWindow, GraphError, MarkedItem, Page,
    UnattendedEvent,
};
use jiff::{Timestamp, ToSpan as _, civil::Date};
use serde_json::{Map, Value};

use super::{
    invited,
    meta::{StoredEvent, StoredException, StoredSeries, stored_event},
    zone,
};
use crate::{
    JobError,
    restore::RestoreContext,
    workload::{
        snapshot_folders::SnapshotFolders,
        stored::broken,
        write_back::{
            AttachTo, Created, FolderMaker, ItemToWrite, KnownFolder, Occupant, Place, RESTORE_KEY_PROPERTY,
            Target, TargetLists, attach_all, create_once, restore_key_property,
        },
    },
};

/// An exception whose time is not in the restored series.
const EXCEPTION_NOT_RESTORED: &str = "ExceptionNotRestored";
/// A time that was called off and is not in the restored series.
const CANCELLATION_NOT_RESTORED: &str = "CancellationNotRestored";
/// The restored event invites somebody by now, and is left as it is.
const ATTACHMENTS_NOT_RESTORED: &str = "AttachmentsNotRestored";
/// The series repeats in UTC, because nobody knows the zone that it repeated in.
const ZONE_NOT_RESTORED: &str = "SeriesTimeZoneNotRestored";
/// How far beyond the times that are looked for instances are listed: they can be moved.
const MARGIN_DAYS: i64 = 2;

/// The mailbox that is restored to.
pub(super) struct EventTarget<'a> {
    context: &'a RestoreContext,
    maker: Maker<'a>,
    calendars: TargetLists,
}

/// A stored event.
pub(super) struct Stored {
    event: Value,
    holdfast: StoredEvent,
}

struct Maker<'a>(&'a RestoreContext);

#[async_trait]
impl FolderMaker for Maker<'_> {
    async fn make(&self, _parent: &str, name: &str, _is_hidden: bool) -> Result<String, GraphError> {
        Ok(self.0.graph.create_calendar(&self.0.user, name).await?.id)
    }

    async fn find(&self, _parent: &str, name: &str) -> Result<Option<String>, GraphError> {
        let listed = self.0.graph.calendars(&self.0.user).await?;
        Ok(listed.into_iter().find(|calendar| calendar.name == name).map(|calendar| calendar.id))
    }
}

impl<'a> EventTarget<'a> {
    /// Reads the calendars that are there. Those that others share are not written to.
    pub(super) async fn open(context: &'a RestoreContext) -> Result<Self, JobError> {
        let mut listed = context.graph.calendars(&context.user).await?;
        super::calendars::keep_own(&mut listed);
        let known = listed.into_iter().map(|calendar| KnownFolder {
            id: calendar.id,
            parent_id: String::new(),
            name: calendar.name,
            well_known: calendar.is_default.then(|| super::calendars::DEFAULT_CALENDAR.to_owned()),
        });
        Ok(Self { context, maker: Maker(context), calendars: TargetLists::new(known, &context.into) })
    }

    /// Makes the exceptions of a restored series, and calls off what was called off. Done twice it is the same.
    async fn differ(
        &self,
        (master, zone): (&str, &str),
        series: &StoredSeries,
        exceptions: &[StoredException],
        parts: &[holdfast_repository::ContentPart],
    ) -> Result<Vec<String>, JobError> {
        let (graph, user) = (&self.context.graph, &self.context.user);
        let Some(window) = window(series, exceptions) else { return Ok(Vec::new()) };
        let instances = graph.calendar_instances(user, master, &window, zone).await?;
        let mut losses = Vec::new();
        for exception in exceptions {
            let event: Value = serde_json::from_str(exception.event.get()).map_err(broken("exception"))?;
            let start = event.get("originalStart").and_then(Value::as_str);
            let instance = start.and_then(|start| at(&instances, start)).and_then(UnattendedEvent::of);
            let Some(instance) = instance else {
                losses.push(EXCEPTION_NOT_RESTORED.to_owned());
                continue;
            };
            graph.update_calendar_event(user, &instance, &content(&event)).await?;
            let to = AttachTo::CalendarEvent(&instance);
            losses.extend(attach_all(self.context, to, (&exception.attachments, parts), false).await?);
        }
        for day in series.cancelled.iter().filter_map(|name| cancelled_day(name)) {
            // One that is not there was called off by an earlier attempt, or is an exception now.
            let Some(instance) = on(&instances, day) else { continue };
            match UnattendedEvent::of(instance) {
                Some(instance) => graph.delete_calendar_event(user, &instance).await?,
                None => losses.push(CANCELLATION_NOT_RESTORED.to_owned()),
            }
        }
        Ok(losses)
    }

    /// The exceptions of a series, wherever they are stored.
    async fn exceptions(
        &self,
        series: &StoredSeries,
        parts: &[holdfast_repository::ContentPart],
    ) -> Result<Vec<StoredException>, JobError> {
        let Some(place) = series.exceptions_part else { return Ok(series.exceptions.clone()) };
        let part = parts.get(place.part as usize).ok_or(JobError::ShortAttachment)?;
        let bytes = self.context.reader.read_range(part, 0, place.len).await?;
        serde_json::from_slice(&bytes).map_err(broken("exceptions"))
    }
}

#[async_trait]
impl Target for EventTarget<'_> {
    type Stored = Stored;

    const ITEM_BYTES: u64 = 16 << 20;

    async fn place(&mut self, folders: &SnapshotFolders, index: usize) -> Result<Place, JobError> {
        let calendar = &folders.all()[index];
        match calendar.parent {
            None => Ok(Place::Nowhere),
            Some(_) => Ok(Place::In(self.calendars.resolve(calendar, &self.maker).await?)),
        }
    }

    async fn occupants(&self, calendar: &str, link: Option<&str>) -> Result<Page<Occupant>, GraphError> {
        let (graph, user) = (&self.context.graph, &self.context.user);
        let page = graph.calendar_events_by_property(user, calendar, RESTORE_KEY_PROPERTY, link).await?;
        Ok(page.map(occupant))
    }

    fn read(&self, meta: &Bytes) -> Result<Stored, JobError> {
        Ok(Stored {
            event: serde_json::from_slice(meta).map_err(broken("meta"))?,
            holdfast: stored_event(meta)?,
        })
    }

    fn look(&self, stored: &Stored) -> String {
        look(&stored.event)
    }

    async fn create(&self, item: &ItemToWrite<'_, Stored>) -> Result<Created, JobError> {
        let (graph, user) = (&self.context.graph, &self.context.user);
        let Stored { event, holdfast } = &item.stored;
        let mut content =
            content(event).with_extended_properties(vec![restore_key_property(&item.key)].into());
        let mut losses = Vec::new();
        match zone::times_at_home(event) {
            Some((start, end)) => content = content.with_times(start, end),
            // At the same moment, but a series does not follow summer time.
            None if holdfast.series.is_some() => losses.push(ZONE_NOT_RESTORED.to_owned()),
            None => {}
        }
        let content = &content;
        let transaction = blake3::hash(item.key.as_bytes()).to_hex();
        let transaction = &transaction[..32];
        let create = || async move {
            let created = graph.create_calendar_event(user, item.container, content, transaction).await?;
            Ok(created.id().to_owned())
        };
        let id = create_once(self, (item.container, &item.key), create).await?;
        Ok(Created { id, losses })
    }

    /// Attachments, and what makes a series differ from its rule: none of it goes into a create.
    async fn complete(
        &self,
        item: &ItemToWrite<'_, Stored>,
        id: &str,
        is_new: bool,
    ) -> Result<Vec<String>, JobError> {
        let StoredEvent { attachments, series } = &item.stored.holdfast;
        let differs = series.as_ref().filter(|series| series.differs());
        if attachments.is_empty() && differs.is_none() {
            return Ok(Vec::new());
        }
        let parts = self.context.reader.content(item.entry).await?;
        let mut losses = Vec::new();
        if let Some(series) = differs {
            // First: what a time of a series has of its master is copied when it becomes an exception.
            let exceptions = self.exceptions(series, &parts).await?;
            losses
                .extend(self.differ((id, zone::of(&item.stored.event)), series, &exceptions, &parts).await?);
        }
        if !attachments.is_empty() {
            let event = self.context.graph.calendar_event(&self.context.user, id).await?;
            match UnattendedEvent::of(&event) {
                Some(event) => {
                    let to = AttachTo::CalendarEvent(&event);
                    losses.extend(attach_all(self.context, to, (attachments, &parts), is_new).await?);
                }
                // Somebody was invited to it since an earlier attempt created it: changing it would mail them.
                None => losses.push(ATTACHMENTS_NOT_RESTORED.to_owned()),
            }
        }
        Ok(losses)
    }

    async fn delete(&self, _calendar: &str, id: &str) -> Result<(), GraphError> {
        let (graph, user) = (&self.context.graph, &self.context.user);
        let event = graph.calendar_event(user, id).await?;
        match UnattendedEvent::of(&event) {
            Some(event) => graph.delete_calendar_event(user, &event).await,
            // Deleting it would mail those who are invited: both stay.
            None => {
                tracing::warn!("an event with attendees is not replaced: its restored copy stands beside it");
                Ok(())
            }
        }
    }
}

/// What is given back of an event: everything but invitations, which are in its text.
fn content(event: &Value) -> CalendarEventContent {
    let content = CalendarEventContent::of_stored(event);
    match invited::body_with_invited(event) {
        Some(body) => content.with_body(body),
        None => content,
    }
}

/// From before the first to after the last time that differs; none where none does.
fn window(series: &StoredSeries, exceptions: &[StoredException]) -> Option<CalendarWindow> {
    let of_exception = |exception: &StoredException| -> Option<Timestamp> {
        let event: Value = serde_json::from_str(exception.event.get()).ok()?;
        event.get("originalStart")?.as_str()?.parse().ok()
    };
    let of_day = |name: &String| -> Option<Timestamp> {
        let noon = cancelled_day(name)?.at(12, 0, 0, 0);
        Some(noon.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    let moments: Vec<Timestamp> = exceptions
        .iter()
        .filter_map(of_exception)
        .chain(series.cancelled.iter().filter_map(of_day))
        .collect();
    let margin = (MARGIN_DAYS * 24).hours();
    let start = moments.iter().min()?.checked_sub(margin).ok()?;
    let end = moments.iter().max()?.checked_add(margin).ok()?;
    Some(CalendarWindow { start: start.to_string(), end: end.to_string() })
}

/// The instance that a series has, or had, at this moment.
fn at<'a>(instances: &'a [CalendarEvent], original_start: &str) -> Option<&'a CalendarEvent> {
    let moment = |text: &str| text.parse::<Timestamp>().ok();
    let wanted = moment(original_start)?;
    instances.iter().find(|one| one.original_start.as_deref().and_then(moment) == Some(wanted))
}

/// The instance of this day that is as its series says.
fn on(instances: &[CalendarEvent], day: Date) -> Option<&CalendarEvent> {
    let is_it = |one: &&CalendarEvent| {
        one.kind == CalendarEventKind::Occurrence && start_day(&one.raw).is_some_and(|start| start == day)
    };
    instances.iter().find(is_it)
}

/// The day of an instance, in the zone in which it was asked for.
fn start_day(raw: &[u8]) -> Option<Date> {
    let event: Value = serde_json::from_slice(raw).ok()?;
    event.get("start")?.get("dateTime")?.as_str()?.get(..10)?.parse().ok()
}

/// The day in `OID.{id}.2026-05-01`.
fn cancelled_day(name: &str) -> Option<Date> {
    name.rsplit('.').next()?.parse().ok()
}

fn occupant(event: MarkedItem) -> Occupant {
    let fields: Value = serde_json::from_slice(&event.raw).unwrap_or_else(|_| Value::Object(Map::new()));
    Occupant { id: event.id, restore_key: event.value, looks: vec![look(&fields)] }
}

/// Subject, times and kind.
fn look(event: &Value) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let time = |name: &str| text(event.get(name).and_then(|time| time.get("dateTime")));
    let (subject, kind) = (text(event.get("subject")), text(event.get("type")));
    format!("{subject}\n{}\n{}\n{kind}", time("start"), time("end"))
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::RawValue};

    use super::*;

    fn exception(original_start: &str) -> StoredException {
        let event = RawValue::from_string(json!({ "originalStart": original_start }).to_string()).unwrap();
        StoredException { event, attachments: Vec::new() }
    }

    #[test]
    fn the_window_holds_every_time_that_differs() {
        let series = StoredSeries { cancelled: vec!["OID.x.y.2026-05-10".into()], ..StoredSeries::default() };
        let found = window(&series, &[exception("2026-05-01T08:00:00Z")]).unwrap();
        assert_eq!((&found.start[..10], &found.end[..10]), ("2026-04-29", "2026-05-12"));
        assert!(window(&StoredSeries::default(), &[]).is_none());
    }

    #[test]
    fn the_day_of_a_cancelled_time_is_the_end_of_its_name() {
        assert_eq!(cancelled_day("OID.AAMk.x=.2026-05-01"), Some(jiff::civil::date(2026, 5, 1)));
        assert_eq!(cancelled_day("OID"), None);
    }

    #[test]
    fn events_are_the_same_by_subject_times_and_kind() {
        let event = |subject: &str, start: &str| json!({ "subject": subject, "start": { "dateTime": start }, "end": { "dateTime": "e" }, "type": "t" });
        assert_eq!(look(&event("a", "1")), look(&event("a", "1")));
        assert_ne!(look(&event("a", "1")), look(&event("a", "2")));
        assert_ne!(look(&event("a", "1")), look(&event("b", "1")));
    }
}
