//! Writing events back.
//!
//! The one invariant to know: Exchange mails the attendees of whatever is created, changed or deleted. [`CalendarEventContent`]
//! cannot hold any, and [`UnattendedEvent`] is the proof that an event has none.

use serde_json::{Map, Value};

use crate::{
    GraphClient, GraphError, Page,
    json::read_object,
    request::{Call, Repeat},
};

use super::{
    super::outlook::{Created, MarkedItem, mailbox},
    CalendarEvent,
};

/// What is taken over from a stored event. Attendees, the organizer and the meeting's own link are not among them: they would
/// mail people, or lead into somebody else's meeting.
const KEPT: &[&str] = &[
    "allowNewTimeProposals",
    "body",
    "categories",
    "end",
    "importance",
    "isAllDay",
    "isReminderOn",
    "location",
    "locations",
    "originalEndTimeZone",
    "originalStartTimeZone",
    "recurrence",
    "reminderMinutesBeforeStart",
    "sensitivity",
    "showAs",
    "singleValueExtendedProperties",
    "start",
    "subject",
];

/// By what an event is recognised.
const MARKED_PROPERTIES: &str = "id,subject,start,end,type";

/// What an event is to have. It has no attendees, whatever it is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct CalendarEventContent(Map<String, Value>);

impl CalendarEventContent {
    /// Takes over from an event as it was stored what can be given back without telling anybody.
    pub fn of_stored(event: &Value) -> Self {
        let kept = KEPT.iter().filter_map(|name| {
            let value = event.get(name).filter(|value| !value.is_null())?;
            Some(((*name).to_owned(), value.clone()))
        });
        let mut content: Map<_, _> = kept.collect();
        // Exchange gives it empty and takes it only as nothing.
        if let Some(zone) = content
            .get_mut("recurrence")
            .and_then(|recurrence| recurrence.get_mut("range"))
            .and_then(|range| range.get_mut("recurrenceTimeZone"))
            && zone == ""
        {
            *zone = Value::Null;
        }
        Self(content)
    }

    /// The same with another body, such as one that names those who were invited.
    pub fn with_body(mut self, body: Value) -> Self {
        self.0.insert("body".to_owned(), body);
        self
    }

    /// The same at times written otherwise: Exchange repeats a series in the time zone of its start, not in UTC.
    pub fn with_times(mut self, start: Value, end: Value) -> Self {
        self.0.insert("start".to_owned(), start);
        self.0.insert("end".to_owned(), end);
        self
    }

    /// The same with extended properties, such as a restore key.
    pub fn with_extended_properties(mut self, properties: Value) -> Self {
        self.0.insert("singleValueExtendedProperties".to_owned(), properties);
        self
    }
}

/// An event that nobody is invited to: changing or deleting it mails nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnattendedEvent {
    id: String,
}

impl UnattendedEvent {
    /// The proof; none where somebody is invited, or where that was not said.
    pub fn of(event: &CalendarEvent) -> Option<Self> {
        (event.has_attendees == Some(false)).then(|| Self { id: event.id.clone() })
    }

    /// Its immutable id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl GraphClient {
    /// One page of a calendar's events: id, subject, times, kind, and one extended property, such as a restore key.
    pub async fn calendar_events_by_property(
        &self,
        user: &str,
        calendar: &str,
        property_id: &str,
        link: Option<&str>,
    ) -> Result<Page<MarkedItem>, GraphError> {
        let path = ["calendars", calendar, "events"];
        self.marked_items(user, (&path, MARKED_PROPERTIES), property_id, link).await
    }

    /// Creates an event that nobody is invited to. The same transaction id creates it once, however often it is sent.
    pub async fn create_calendar_event(
        &self,
        user: &str,
        calendar: &str,
        content: &CalendarEventContent,
        transaction_id: &str,
    ) -> Result<UnattendedEvent, GraphError> {
        let mut body = content.0.clone();
        body.insert("transactionId".to_owned(), Value::from(transaction_id));
        let url = self.url(&["users", user, "calendars", calendar, "events"], &[]);
        let call = Call::post(url, &Value::Object(body), Repeat::Safe, mailbox(user)).immutable_ids();
        let created: Created = read_object(&self.send(call).await?.body, "a created event")?;
        Ok(UnattendedEvent { id: created.id })
    }

    /// Changes an event that nobody is invited to, such as one time of a restored series.
    pub async fn update_calendar_event(
        &self,
        user: &str,
        event: &UnattendedEvent,
        content: &CalendarEventContent,
    ) -> Result<(), GraphError> {
        let url = self.url(&["users", user, "events", &event.id], &[]);
        let body = Value::Object(content.0.clone());
        self.send(Call::patch(url, &body, mailbox(user)).immutable_ids().on_fresh()).await.map(drop)
    }

    /// Deletes an event that nobody is invited to. One that is gone already is deleted.
    pub async fn delete_calendar_event(&self, user: &str, event: &UnattendedEvent) -> Result<(), GraphError> {
        let url = self.url(&["users", user, "events", &event.id], &[]);
        self.delete_gone(Call::delete(url, mailbox(user)).immutable_ids()).await
    }
}
