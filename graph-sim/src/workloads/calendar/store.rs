//! What a person has: calendars in groups, events in calendars, exceptions and cancelled days on series.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use serde_json::{Map, Value};

use crate::ids::{FIRST_TAG, Form, Id, Missing};
use crate::workloads::calendar::recurrence::Rule;
use crate::workloads::calendar::zone::{Day, Zone, date_of};
use crate::workloads::mail::content::Attachment;
use crate::workloads::objects::schema::{Schema, Shape};
use crate::workloads::objects::{Named, Numbers, Object, Objects};
use crate::workloads::states::UserState;
use crate::world::World;

const CALENDAR_TAG: u8 = FIRST_TAG + 0x20;
const GROUP_TAG: u8 = FIRST_TAG + 0x21;
const EVENT_TAG: u8 = FIRST_TAG + 0x22;
/// An attachment's id names its item by number: no number is both a message's and an event's.
const FIRST_KEY: u64 = 1 << 40;
/// Groups hang on nothing.
const NOWHERE: u64 = 0;

/// What an event has.
pub(crate) const SCHEMA: Schema = Schema {
    name: "event",
    properties: &[
        ("id", Shape::Fixed),
        ("changeKey", Shape::Fixed),
        ("createdDateTime", Shape::Fixed),
        ("lastModifiedDateTime", Shape::Fixed),
        ("bodyPreview", Shape::Fixed),
        ("hasAttachments", Shape::Fixed),
        ("iCalUId", Shape::Fixed),
        ("isCancelled", Shape::Fixed),
        ("isDraft", Shape::Fixed),
        ("isOrganizer", Shape::Fixed),
        ("onlineMeeting", Shape::Fixed),
        ("onlineMeetingUrl", Shape::Fixed),
        ("organizer", Shape::Fixed),
        ("originalStart", Shape::Fixed),
        ("originalStartTimeZone", Shape::Fixed),
        ("originalEndTimeZone", Shape::Fixed),
        ("responseStatus", Shape::Fixed),
        ("seriesMasterId", Shape::Fixed),
        ("type", Shape::Fixed),
        ("webLink", Shape::Fixed),
        ("attachments", Shape::Apart),
        ("calendar", Shape::Apart),
        ("cancelledOccurrences", Shape::Apart),
        ("end", Shape::Apart),
        ("exceptionOccurrences", Shape::Apart),
        ("instances", Shape::Apart),
        ("recurrence", Shape::Apart),
        ("singleValueExtendedProperties", Shape::Apart),
        ("start", Shape::Apart),
        ("transactionId", Shape::Apart),
        ("subject", Shape::Text),
        ("body", Shape::Object),
        ("categories", Shape::Texts),
        ("importance", Shape::Choice(&["normal", "low", "high"])),
        ("sensitivity", Shape::Choice(&["normal", "personal", "private", "confidential"])),
        ("showAs", Shape::Choice(&["busy", "free", "tentative", "oof", "workingElsewhere", "unknown"])),
        ("isAllDay", Shape::Flag),
        ("isReminderOn", Shape::Flag),
        ("reminderMinutesBeforeStart", Shape::Number),
        ("location", Shape::Object),
        ("locations", Shape::Objects),
        ("attendees", Shape::Objects),
        ("hideAttendees", Shape::Flag),
        ("allowNewTimeProposals", Shape::Flag),
        ("responseRequested", Shape::Flag),
        ("isOnlineMeeting", Shape::Flag),
        ("onlineMeetingProvider", Shape::Text),
    ],
};

pub(crate) struct Group {
    pub name: String,
}

/// A calendar; its place is its group.
pub(crate) struct Calendar {
    pub name: String,
    pub color: String,
    /// Whose it is when it is not the person's own: then nothing can be written.
    pub shared_by: Option<(String, String)>,
}

/// From when to when, by a clock on the wall of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub start: DateTime,
    pub end: DateTime,
    pub zone: Zone,
}

/// What an event and an exception to a series have alike.
#[derive(Clone)]
pub(crate) struct Body {
    pub fields: Map<String, Value>,
    pub times: Times,
    pub attachments: Vec<Attachment>,
    /// What the ids of its attachments name it by.
    pub attachments_key: u64,
    pub next_attachment: u32,
    /// Extended properties by id as given.
    pub extended: Vec<(String, String)>,
}

/// A single event or a series.
#[derive(Clone)]
pub(crate) struct Event {
    pub body: Body,
    pub rule: Option<Rule>,
    /// Occurrences that are other than the rule says, by the day it says.
    pub exceptions: BTreeMap<Day, Body>,
    /// Days that do not take place, with the number of the change.
    pub cancelled: BTreeMap<Day, u64>,
    /// What the series was before its rule or its time was changed last.
    pub former: Option<Former>,
    pub transaction_id: Option<String>,
    pub uid: String,
    /// Who invited the person; none = they did.
    pub invited_by: Option<(String, String)>,
}

/// A rule that is no longer a series' rule.
#[derive(Clone)]
pub(crate) struct Former {
    pub rule: Rule,
    pub times: Times,
    /// The number of the change that ended it.
    pub seq: u64,
}

pub(crate) struct CalendarStore {
    pub user: u32,
    pub numbers: Numbers,
    pub groups: Objects<Group>,
    pub calendars: Objects<Calendar>,
    /// An event's place is its calendar.
    pub events: Objects<Event>,
    pub default_group: u64,
    pub default_calendar: u64,
    /// Number of the next generated event.
    next_index: u32,
}

impl UserState for CalendarStore {
    fn populate(world: &World, user: u32) -> Self {
        let mut store = Self {
            user,
            numbers: Numbers::new(FIRST_KEY),
            groups: Objects::new(),
            calendars: Objects::new(),
            events: Objects::new(),
            default_group: 0,
            default_calendar: 0,
            next_index: 0,
        };
        store.default_group = store.add_group("My Calendars", 0);
        store.default_calendar = store.add_calendar(store.default_group, "Calendar", 0);
        super::generate::populate(world, &mut store);
        store
    }
}

impl CalendarStore {
    pub(crate) fn add_group(&mut self, name: &str, now_ms: u64) -> u64 {
        self.groups.insert(&mut self.numbers, NOWHERE, now_ms, Group { name: name.into() })
    }

    pub(crate) fn add_calendar(&mut self, group: u64, name: &str, now_ms: u64) -> u64 {
        let calendar = Calendar { name: name.into(), color: "auto".into(), shared_by: None };
        self.calendars.insert(&mut self.numbers, group, now_ms, calendar)
    }

    /// Calendars that the person may write into.
    pub(crate) fn places(&self) -> Vec<u64> {
        let own = self.calendars.iter().filter(|calendar| calendar.value.shared_by.is_none());
        own.map(|calendar| calendar.key).collect()
    }

    pub(crate) fn next_index(&mut self) -> u32 {
        self.next_index += 1;
        self.next_index - 1
    }

    pub(crate) fn find_calendar(&self, id: &str) -> Result<u64, Missing> {
        Named::of(id, CALENDAR_TAG, self.user)?.among(&self.calendars).map(|calendar| calendar.key)
    }

    pub(crate) fn find_group(&self, id: &str) -> Result<u64, Missing> {
        Named::of(id, GROUP_TAG, self.user)?.among(&self.groups).map(|group| group.key)
    }

    /// An event, and the day when the id names one occurrence of a series that takes place.
    pub(crate) fn find_event(&self, id: &str) -> Result<(&Object<Event>, Option<Day>), Missing> {
        let named = Named::of(id, EVENT_TAG, self.user)?;
        let event = named.among(&self.events)?;
        let Some(day) = named.extra.checked_sub(1) else { return Ok((event, None)) };
        let day = Day::try_from(day).map_err(|_| Missing::Gone)?;
        if event.value.takes_place(day) { Ok((event, Some(day))) } else { Err(Missing::Gone) }
    }

    pub(crate) fn calendar_id(&self, key: u64) -> String {
        Id::Object { tag: CALENDAR_TAG, user: self.user, key, extra: 0, moves: None }.encode()
    }

    pub(crate) fn group_id(&self, key: u64) -> String {
        Id::Object { tag: GROUP_TAG, user: self.user, key, extra: 0, moves: None }.encode()
    }

    /// The id of an event, or of one day of a series.
    pub(crate) fn event_id(&self, key: u64, day: Option<Day>, moves: u32, form: Form) -> String {
        let extra = day.and_then(|day| u32::try_from(day).ok()).map_or(0, |day| day + 1);
        let moves = (form == Form::Mutable).then_some(moves);
        Id::Object { tag: EVENT_TAG, user: self.user, key, extra, moves }.encode()
    }

    pub(crate) fn remove_calendar(&mut self, key: u64) {
        let events: Vec<u64> = self.events.at(key).map(|event| event.key).collect();
        for event in events {
            self.events.remove(&mut self.numbers, event);
        }
        self.calendars.remove(&mut self.numbers, key);
    }

    /// Removes all events and the calendars somebody made, and says how many events went.
    pub(crate) fn wipe(&mut self) -> u64 {
        let events: Vec<u64> = self.events.iter().map(|event| event.key).collect();
        for event in &events {
            self.events.remove(&mut self.numbers, *event);
        }
        let own = self.places().into_iter().filter(|key| *key != self.default_calendar).collect::<Vec<_>>();
        for calendar in own {
            self.remove_calendar(calendar);
        }
        events.len() as u64
    }
}

impl Times {
    pub(crate) fn start_ms(&self) -> i64 {
        self.zone.instant(self.start)
    }

    pub(crate) fn end_ms(&self) -> i64 {
        self.zone.instant(self.end)
    }

    /// The same time of the day, as long, on another day.
    pub(crate) fn on(&self, day: Day) -> Self {
        let start = date_of(day).to_datetime(self.start.time());
        let end = start.checked_add(self.end - self.start).unwrap_or(start);
        Self { start, end, zone: self.zone }
    }
}

impl Event {
    /// Whether a day of the series is neither cancelled nor outside the rule.
    pub(crate) fn takes_place(&self, day: Day) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.has(day)) && !self.cancelled.contains_key(&day)
    }

    /// The event itself, or what one of its days has.
    pub(crate) fn part(&self, day: Option<Day>) -> &Body {
        day.and_then(|day| self.exceptions.get(&day)).unwrap_or(&self.body)
    }

    pub(crate) fn times_of(&self, day: Option<Day>) -> Times {
        match day {
            None => self.body.times,
            Some(day) => match self.exceptions.get(&day) {
                Some(exception) => exception.times,
                None => self.body.times.on(day),
            },
        }
    }

    /// The body of a day, made an exception when it was none.
    pub(crate) fn exception_mut(&mut self, day: Day, attachments_key: u64) -> &mut Body {
        let times = self.body.times.on(day);
        let body = &self.body;
        self.exceptions.entry(day).or_insert_with(|| Body { times, attachments_key, ..body.clone() })
    }

    /// Whether people other than the owner are told of its changes.
    pub(crate) fn has_attendees(&self) -> bool {
        let invites = |body: &Body| {
            body.fields.get("attendees").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
        };
        invites(&self.body) || self.exceptions.values().any(invites)
    }
}
