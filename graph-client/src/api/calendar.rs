//! Calendars and what is in them.
//!
//! The one invariant to know: nothing here invites, tells or uninvites anybody. What is written has no attendees by its type, and
//! only an event that is known to have none can be changed or deleted.

mod event;
mod restore;

#[cfg(test)]
mod tests;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    GraphClient, GraphError,
    error::Operation,
    json::{FromObject, read_object},
    request::{Call, Repeat},
};

use super::outlook::mailbox;

pub use event::{CalendarEvent, CalendarEventChange, CalendarEventKind, CalendarSeries, CalendarWindow};
pub use restore::{CalendarEventContent, UnattendedEvent};

/// Calendars per page.
const PAGE_SIZE: &str = "100";

/// A calendar.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar {
    /// Its id. Calendars have no immutable form.
    pub id: String,
    /// Its name; several can have the same.
    pub name: String,
    /// Whether it is the one that every mailbox has.
    pub is_default: bool,
    /// The address of whose it is: somebody else's where it is shared with the user.
    pub owner: Option<String>,
    /// Everything Microsoft said.
    pub raw: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    id: String,
    name: Option<String>,
    is_default_calendar: Option<bool>,
    owner: Option<Owner>,
}

#[derive(Deserialize)]
struct Owner {
    address: Option<String>,
}

impl FromObject for Calendar {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: Value = serde_json::from_slice(raw)?;
        let fields = Fields::deserialize(&raw)?;
        Ok(Self {
            id: fields.id,
            name: fields.name.unwrap_or_default(),
            is_default: fields.is_default_calendar.unwrap_or_default(),
            owner: fields.owner.and_then(|owner| owner.address),
            raw,
        })
    }
}

impl GraphClient {
    /// All calendars of a person, those that others share with them included.
    pub async fn calendars(&self, user: &str) -> Result<Vec<Calendar>, GraphError> {
        let first = self.url(&["users", user, "calendars"], &[("$top", PAGE_SIZE)]);
        let call = |url| Call::get(url, Operation::List, mailbox(user));
        self.whole(first, call, "the list of calendars").await
    }

    /// The groups that a person has put calendars into, each as it came.
    pub async fn calendar_groups(&self, user: &str) -> Result<Vec<Value>, GraphError> {
        let first = self.url(&["users", user, "calendarGroups"], &[("$top", PAGE_SIZE)]);
        let call = |url| Call::get(url, Operation::List, mailbox(user));
        self.whole(first, call, "the list of calendar groups").await
    }

    /// Creates a calendar. An unknown outcome is [`GraphError::Ambiguous`]: names are no keys, so look before it is repeated.
    pub async fn create_calendar(&self, user: &str, name: &str) -> Result<Calendar, GraphError> {
        let url = self.url(&["users", user, "calendars"], &[]);
        let call = Call::post(url, &json!({ "name": name }), Repeat::Never, mailbox(user));
        read_object(&self.send(call).await?.body, "a created calendar")
            .map_err(|error| GraphError::Ambiguous { source: Box::new(error) })
    }
}
