//! Reads a page of a view's changes: which events are to be looked at.
//!
//! Three things to know. An event that is called removed may only be out of the window, or in another calendar: it is looked
//! for in this one before it is believed. A time of a series stands for its master, and whatever changed of it changes the
//! stored series, also where the master's change key stays the same. And nothing here fails a listing because one event
//! cannot be read: such an event goes on to the engine, which asks again and keeps the account.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_graph_client::{
    CalendarEvent, CalendarEventChange, CalendarEventKind, Change, ErrorClass, GraphError,
};

use super::source::{EventItem, EventSource};
use crate::{JobError, workload::collect::ItemChange};

/// What a page says.
#[derive(Default)]
struct Told {
    items: Vec<ItemChange<EventItem>>,
    /// Per series the change keys of its times that the page has.
    times: BTreeMap<String, BTreeSet<String>>,
}

impl EventSource {
    /// The events of a page of changes.
    pub(super) async fn changed(
        &self,
        calendar: &str,
        changes: Vec<CalendarEventChange>,
    ) -> Result<Vec<ItemChange<EventItem>>, GraphError> {
        let mut told = Told::default();
        for change in changes {
            match change {
                Change::Present(event) => told.add(calendar, *event),
                Change::Removed { id, .. } => match self.look(calendar, &id).await? {
                    Looked::Here(event) => told.add(calendar, *event),
                    Looked::Gone => told.items.push(ItemChange::Removed { id }),
                    Looked::Unreadable => told.items.push(unread(calendar, id)),
                },
            }
        }
        self.add_series(calendar, &mut told).await?;
        Ok(told.items)
    }

    /// Sees to it that each series of which a time is told is told itself.
    async fn add_series(&self, calendar: &str, told: &mut Told) -> Result<(), GraphError> {
        let masters: HashMap<String, usize> = (0..).zip(&told.items).filter_map(master).collect();
        for index in masters.values() {
            if let Some(ItemChange::Present(item)) = told.items.get(*index) {
                self.note_series(&item.event);
            }
        }
        for (master, mut keys) in std::mem::take(&mut told.times) {
            if let Some(index) = masters.get(&master) {
                if let Some(ItemChange::Present(item)) = told.items.get_mut(*index) {
                    keys.remove(&item.event.change_key);
                    item.times = keys;
                }
                continue;
            }
            // The rest of a series that an earlier page had.
            if self.series_told(&master).is_some_and(|told_key| keys.iter().all(|key| *key == told_key)) {
                continue;
            }
            match self.look(calendar, &master).await? {
                Looked::Here(event) => {
                    self.note_series(&event);
                    keys.remove(&event.change_key);
                    let item = EventItem { times: keys, ..EventItem::new(calendar, *event) };
                    told.items.push(ItemChange::Present(Box::new(item)));
                }
                // Its own removal is told too.
                Looked::Gone => {}
                Looked::Unreadable => told.items.push(unread(calendar, master)),
            }
        }
        Ok(())
    }

    /// Looks whether an event is in a calendar. It is gone only when Microsoft says so twice, because it also says so of what it
    /// has just not found.
    async fn look(&self, calendar: &str, id: &str) -> Result<Looked, GraphError> {
        let read = || self.context.graph.calendar_event_in(&self.context.user, calendar, id);
        let mut event = read().await;
        if event.as_ref().is_err_and(|error| error.class() == ErrorClass::Gone) {
            event = read().await;
        }
        match event {
            Ok(event) => Ok(Looked::Here(Box::new(event))),
            Err(error) if error.class() == ErrorClass::Gone => Ok(Looked::Gone),
            Err(error) if JobError::is_fatal_for_job(&error) => Err(error),
            Err(_) => Ok(Looked::Unreadable),
        }
    }
}

enum Looked {
    Here(Box<CalendarEvent>),
    Gone,
    Unreadable,
}

impl Told {
    fn add(&mut self, calendar: &str, event: CalendarEvent) {
        match event.master_id().map(str::to_owned) {
            Some(master) => {
                self.times.entry(master).or_default().insert(event.change_key);
            }
            None => self.items.push(ItemChange::Present(Box::new(EventItem::new(calendar, event)))),
        }
    }
}

/// The id and position of a series that a page has whole; of several the last one.
fn master((index, change): (usize, &ItemChange<EventItem>)) -> Option<(String, usize)> {
    match change {
        ItemChange::Present(item) if item.event.kind == CalendarEventKind::SeriesMaster => {
            Some((item.event.id.clone(), index))
        }
        _ => None,
    }
}

/// An event that could not be read: the engine asks for it again, by its id.
fn unread(calendar: &str, id: String) -> ItemChange<EventItem> {
    ItemChange::Present(Box::new(EventItem::unread(calendar, id)))
}
