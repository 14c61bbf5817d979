//! Reading events: the delta of a calendar's view, the plain listing, series with their exceptions.
//!
//! The one invariant to know: a view's delta calls an event removed when it only left the window; read it before it is believed.

use bytes::Bytes;
use holdfast_model::Millis;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{GraphClient, GraphError, Page, error::Operation, json::FromObject, request::Call};

use super::super::outlook::{Change, contains_cid, etag_key, mailbox, millis};

/// Events with their bodies per page. A page that is too large for Exchange is asked for again, smaller.
const DELTA_PAGE_SIZE: u32 = 50;

/// Events with their bodies per page of a plain listing.
const LISTED_PAGE_SIZE: &str = "50";

/// Instances of a series per page.
const INSTANCES_PAGE_SIZE: &str = "100";

/// What kind of event it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalendarEventKind {
    /// It happens once.
    SingleInstance,
    /// One time of a series, as the series says.
    Occurrence,
    /// One time of a series, in another way than the series says.
    Exception,
    /// A series.
    SeriesMaster,
    /// Something newer than this program: Microsoft's word.
    Unknown(String),
}

/// An event without its attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalendarEvent {
    /// Its immutable id.
    pub id: String,
    /// Says whether anything changed since it was read last; empty where it was not said.
    pub change_key: String,
    /// What kind it is.
    pub kind: CalendarEventKind,
    /// The series that it is a time of.
    pub series_master_id: Option<String>,
    /// When it would be if it were no exception, as Microsoft writes it.
    pub original_start: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// False for inline attachments only: look at [`Self::body_has_cid`] too.
    pub has_attachments: bool,
    /// Whether it was called off and is still shown.
    pub is_cancelled: bool,
    /// Whether somebody is invited; none where that was not said.
    pub has_attendees: Option<bool>,
    /// When it was changed.
    pub modified_ms: Option<Millis>,
    /// Only a part of it was named: read the event before it is stored.
    pub is_partial: bool,
    /// The whole object as it came, unknown properties included.
    pub raw: Bytes,
    has_cid: bool,
}

impl CalendarEvent {
    /// Whether the body shows inline attachments.
    pub fn body_has_cid(&self) -> bool {
        self.has_cid
    }

    /// The series that it is a time of; none where it is an event of its own.
    pub fn master_id(&self) -> Option<&str> {
        let is_time = matches!(self.kind, CalendarEventKind::Occurrence | CalendarEventKind::Exception);
        self.series_master_id.as_deref().filter(|_| is_time)
    }

    /// One of which nothing but the id is known: it is partial.
    pub fn unread(id: String) -> Self {
        Self {
            id,
            change_key: String::new(),
            kind: CalendarEventKind::Unknown(String::new()),
            series_master_id: None,
            original_start: None,
            subject: None,
            has_attachments: false,
            is_cancelled: false,
            has_attendees: None,
            modified_ms: None,
            is_partial: true,
            raw: Bytes::new(),
            has_cid: false,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    id: String,
    change_key: Option<String>,
    #[serde(rename = "@odata.etag")]
    etag: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    series_master_id: Option<String>,
    original_start: Option<String>,
    subject: Option<String>,
    has_attachments: Option<bool>,
    is_cancelled: Option<bool>,
    attendees: Option<Vec<Value>>,
    last_modified_date_time: Option<String>,
    body: Option<Body>,
}

#[derive(Deserialize)]
struct Body {
    content: Option<String>,
}

impl FromObject for CalendarEvent {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: Fields = serde_json::from_slice(raw)?;
        let from_etag = fields.etag.as_deref().map(etag_key);
        let is_partial = fields.body.is_none() || fields.kind.is_none();
        let body = fields.body.and_then(|body| body.content).unwrap_or_default();
        let kind = match fields.kind.unwrap_or_default().as_str() {
            "singleInstance" => CalendarEventKind::SingleInstance,
            "occurrence" => CalendarEventKind::Occurrence,
            "exception" => CalendarEventKind::Exception,
            "seriesMaster" => CalendarEventKind::SeriesMaster,
            other => CalendarEventKind::Unknown(other.to_owned()),
        };
        Ok(Self {
            id: fields.id,
            change_key: fields.change_key.or(from_etag).unwrap_or_default(),
            kind,
            series_master_id: fields.series_master_id,
            original_start: fields.original_start,
            subject: fields.subject,
            has_attachments: fields.has_attachments.unwrap_or_default(),
            is_cancelled: fields.is_cancelled.unwrap_or_default(),
            has_attendees: fields.attendees.map(|attendees| !attendees.is_empty()),
            modified_ms: fields.last_modified_date_time.as_deref().and_then(millis),
            is_partial,
            raw: Bytes::copy_from_slice(raw),
            has_cid: contains_cid(&body),
        })
    }
}

/// What a delta says about an event. One that is called removed may only have left the window.
pub type CalendarEventChange = Change<CalendarEvent>;

/// From when to when, as Microsoft writes it. A view's delta keeps its window for life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalendarWindow {
    /// The first moment.
    pub start: String,
    /// The moment after the last.
    pub end: String,
}

impl CalendarWindow {
    fn query(&self) -> [(&str, &str); 2] {
        [("startDateTime", &self.start), ("endDateTime", &self.end)]
    }
}

/// What makes a series differ from its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalendarSeries {
    /// Its times that are other than the rule says.
    pub exceptions: Vec<CalendarEvent>,
    /// Its times that do not take place, such as `OID.{id}.2026-05-01`.
    pub cancelled: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SeriesFields<'a> {
    #[serde(borrow, default)]
    exception_occurrences: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    cancelled_occurrences: Option<Vec<String>>,
}

impl FromObject for CalendarSeries {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: SeriesFields<'_> = serde_json::from_slice(raw)?;
        let exceptions = fields.exception_occurrences.unwrap_or_default();
        let exceptions = exceptions.iter().map(|raw| CalendarEvent::from_object(raw.get().as_bytes()));
        Ok(Self {
            exceptions: exceptions.collect::<Result<_, _>>()?,
            cancelled: fields.cancelled_occurrences.unwrap_or_default(),
        })
    }
}

impl GraphClient {
    /// One page of the changes in the view of a calendar, the primary one where none is named; `link` is the last page's, or
    /// none for the initial round. Of calendars other than the primary one ask [`Self::has_calendar_delta`] first.
    pub async fn calendar_view_delta(
        &self,
        user: &str,
        calendar: Option<&str>,
        window: &CalendarWindow,
        link: Option<&str>,
    ) -> Result<Page<CalendarEventChange>, GraphError> {
        let first = || self.view_delta_url(user, calendar, window);
        let call = event_listing(link.map_or_else(first, str::to_owned), user).page_size(DELTA_PAGE_SIZE);
        self.page(call, "a page of events").await
    }

    /// Whether the view of this calendar has a delta: Microsoft describes it and does not document it.
    pub async fn has_calendar_delta(
        &self,
        user: &str,
        calendar: &str,
        window: &CalendarWindow,
    ) -> Result<bool, GraphError> {
        let url = self.view_delta_url(user, Some(calendar), window);
        let call = event_listing(url, user).page_size(1).probing();
        match self.page::<CalendarEventChange>(call, "a page of events").await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.status(), Some(400 | 405 | 501)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One page of a calendar's events: single ones and series, all of them, for calendars without a delta. Exceptions come
    /// with [`Self::calendar_series`].
    pub async fn calendar_events(
        &self,
        user: &str,
        calendar: &str,
        link: Option<&str>,
    ) -> Result<Page<CalendarEvent>, GraphError> {
        let path = ["users", user, "calendars", calendar, "events"];
        let first = || self.url(&path, &[("$top", LISTED_PAGE_SIZE)]);
        self.page(event_listing(link.map_or_else(first, str::to_owned), user), "a page of events").await
    }

    /// One event.
    pub async fn calendar_event(&self, user: &str, id: &str) -> Result<CalendarEvent, GraphError> {
        let call = event_call(self.url(&["users", user, "events", id], &[]), user);
        self.object(call, "an event").await
    }

    /// One event of a calendar: in another one it is not found.
    pub async fn calendar_event_in(
        &self,
        user: &str,
        calendar: &str,
        id: &str,
    ) -> Result<CalendarEvent, GraphError> {
        let call = event_call(self.url(&["users", user, "calendars", calendar, "events", id], &[]), user);
        self.object(call, "an event").await
    }

    /// What makes a series differ from its rule.
    pub async fn calendar_series(&self, user: &str, master: &str) -> Result<CalendarSeries, GraphError> {
        let query = [
            ("$select", "id,cancelledOccurrences,exceptionOccurrences"),
            ("$expand", "exceptionOccurrences"),
        ];
        let call = event_call(self.url(&["users", user, "events", master], &query), user);
        self.object(call, "a series").await
    }

    /// The times of a series in a window, exceptions included, written in a time zone by Microsoft's name for it.
    pub async fn calendar_instances(
        &self,
        user: &str,
        master: &str,
        window: &CalendarWindow,
        zone: &str,
    ) -> Result<Vec<CalendarEvent>, GraphError> {
        let [start, end] = window.query();
        let query = [start, end, ("$top", INSTANCES_PAGE_SIZE)];
        let first = self.url(&["users", user, "events", master, "instances"], &query);
        let call = |url| in_zone(Call::get(url, Operation::Item, mailbox(user)), zone);
        self.whole(first, call, "the instances of a series").await
    }

    fn view_delta_url(&self, user: &str, calendar: Option<&str>, window: &CalendarWindow) -> String {
        let view = ["calendarView", "delta"];
        let path = match calendar {
            Some(calendar) => [&["users", user, "calendars", calendar][..], &view].concat(),
            None => [&["users", user][..], &view].concat(),
        };
        self.url(&path, &window.query())
    }
}

fn event_call(url: String, user: &str) -> Call {
    in_utc(Call::get(url, Operation::Item, mailbox(user)))
}

fn event_listing(url: String, user: &str) -> Call {
    in_utc(Call::get(url, Operation::List, mailbox(user)))
}

fn in_utc(call: Call) -> Call {
    in_zone(call, "UTC")
}

/// Times are kept apart from the time zone of whoever looks.
fn in_zone(call: Call, zone: &str) -> Call {
    // A quote would end the name.
    call.immutable_ids().prefer(format!(r#"outlook.timezone="{}""#, zone.replace('"', "")))
}
