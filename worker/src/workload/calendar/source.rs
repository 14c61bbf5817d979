//! What the engine asks of calendars: listings and changes, single events, and whether a stored one still holds.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use async_trait::async_trait;
use holdfast_graph_client::{
    CalendarEvent, CalendarEventChange, CalendarEventKind, ErrorClass, GraphError, Page,
};
use holdfast_model::Millis;
use holdfast_repository::{EntryFlags, EntryKind, FolderKey, ItemEntry, ItemFields};
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::{
    calendars::Calendars,
    content,
    link::{Link, Start, renew_ms, window},
    meta::{StoredEvent, stored_event},
    series,
};
use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        collect::{
            Collector, Container, DueShares, FetchError, Found, Held, ItemChange, ItemPage, Judgement,
            Shares, Source, State,
        },
        container_key,
        stored::{change_of, json_text, with_holdfast},
    },
};

/// The events of one mailbox.
pub(super) struct EventSource {
    pub(super) context: Arc<BackupContext>,
    calendars: OnceLock<Calendars>,
    /// Whether calendars other than the default one have changes: asked once in a run.
    has_changes: OnceCell<bool>,
    /// The change keys of the series that this run was told of as changed.
    series_told: Mutex<HashMap<String, String>>,
    /// Which series are looked at again, and how far that is then.
    shares: OnceLock<(DueShares, Shares)>,
    /// Those of them that were listed.
    due_series: Mutex<Vec<String>>,
}

/// An event with the calendar it is in.
pub(super) struct EventItem {
    pub(super) calendar: String,
    pub(super) event: CalendarEvent,
    /// The change keys of times of a series that are others than the master's.
    pub(super) times: BTreeSet<String>,
}

impl EventItem {
    pub(super) fn new(calendar: &str, event: CalendarEvent) -> Self {
        Self { calendar: calendar.to_owned(), event, times: BTreeSet::new() }
    }

    pub(super) fn unread(calendar: &str, id: String) -> Self {
        Self::new(calendar, CalendarEvent::unread(id))
    }
}

impl EventSource {
    pub(super) fn new(context: Arc<BackupContext>) -> Self {
        Self {
            context,
            calendars: OnceLock::new(),
            has_changes: OnceCell::new(),
            series_told: Mutex::default(),
            shares: OnceLock::new(),
            due_series: Mutex::default(),
        }
    }

    /// Remembers a series that was told of.
    pub(super) fn note_series(&self, master: &CalendarEvent) {
        let mut told = self.series_told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(master.id.clone(), master.change_key.clone());
    }

    /// The change key with which a series was told of.
    pub(super) fn series_told(&self, master: &str) -> Option<String> {
        self.series_told.lock().unwrap_or_else(PoisonError::into_inner).get(master).cloned()
    }

    /// The listed series that are to be looked at again, and how far that is then; none before anything was listed.
    pub(super) fn take_due_series(&self) -> Option<(Vec<String>, Shares)> {
        let (_, shares) = self.shares.get()?;
        let mut due = self.due_series.lock().unwrap_or_else(PoisonError::into_inner);
        Some((std::mem::take(&mut *due), *shares))
    }

    fn now_ms(&self) -> Millis {
        self.context.shared.clock.now_ms()
    }

    fn is_default(&self, calendar: &str) -> bool {
        self.calendars.get().is_some_and(|calendars| calendars.is_default(calendar))
    }

    async fn has_changes(&self, calendar: &str) -> Result<bool, GraphError> {
        if self.is_default(calendar) {
            return Ok(true);
        }
        let (graph, user) = (&self.context.graph, &self.context.user);
        let window = window(self.now_ms());
        let has_changes =
            self.has_changes.get_or_try_init(|| graph.has_calendar_delta(user, calendar, &window)).await;
        has_changes.copied()
    }

    /// A page of the view's initial round, of which only the end matters.
    async fn view(
        &self,
        calendar: &str,
        next: Option<&str>,
        renew_ms: Millis,
    ) -> Result<ItemPage<EventItem>, GraphError> {
        let page = self.view_page(calendar, next).await?;
        let next = match (page.next, page.delta) {
            (Some(next), _) => Link::View { next, renew_ms },
            (None, delta) => {
                let then = delta.map(|link| Start { link, renew_ms });
                Link::Events { next: None, then }
            }
        };
        Ok(ItemPage { items: Vec::new(), next: Some(next.write()), delta: None })
    }

    async fn view_page(
        &self,
        calendar: &str,
        link: Option<&str>,
    ) -> Result<Page<CalendarEventChange>, GraphError> {
        // Only the default calendar's view is documented, and only without its name.
        let named = Some(calendar).filter(|calendar| !self.is_default(calendar));
        let window = window(self.now_ms());
        self.context.graph.calendar_view_delta(&self.context.user, named, &window, link).await
    }

    /// A page of the listing of all events.
    async fn events(
        &self,
        calendar: &str,
        next: Option<&str>,
        then: Option<Start>,
    ) -> Result<ItemPage<EventItem>, GraphError> {
        let page = self.context.graph.calendar_events(&self.context.user, calendar, next).await?;
        if then.is_none() {
            self.note_due(&page.items);
        }
        let items = page.items.into_iter().map(|event| EventItem::new(calendar, event));
        let items = items.map(|item| ItemChange::Present(Box::new(item))).collect();
        Ok(match page.next {
            Some(next) => {
                let next = Link::Events { next: Some(next), then };
                ItemPage { items, next: Some(next.write()), delta: None }
            }
            None => ItemPage { items, next: None, delta: then.map(|start| Link::Changes(start).write()) },
        })
    }

    /// The item that an event is: a time of a series is none of its own.
    async fn whole(&self, calendar: &str, event: CalendarEvent) -> Result<EventItem, GraphError> {
        let Some(master) = event.master_id() else { return Ok(EventItem::new(calendar, event)) };
        let master = self.context.graph.calendar_event_in(&self.context.user, calendar, master).await?;
        let times = std::iter::once(event.change_key).filter(|key| *key != master.change_key).collect();
        Ok(EventItem { times, ..EventItem::new(calendar, master) })
    }

    fn note_due(&self, events: &[CalendarEvent]) {
        let Some((due, _)) = self.shares.get() else { return };
        let series = events.iter().filter(|event| event.kind == CalendarEventKind::SeriesMaster);
        let series = series.filter(|event| due.contains(&event.id)).map(|event| event.id.clone());
        self.due_series.lock().unwrap_or_else(PoisonError::into_inner).extend(series);
    }

    /// A page of a view's changes.
    async fn changes(&self, calendar: &str, start: Start) -> Result<ItemPage<EventItem>, GraphError> {
        let page = self.view_page(calendar, Some(&start.link)).await?;
        let items = self.changed(calendar, page.items).await?;
        let goes_on = |link| Link::Changes(Start { link, renew_ms: start.renew_ms }).write();
        Ok(ItemPage { items, next: page.next.map(goes_on), delta: page.delta.map(goes_on) })
    }
}

#[async_trait]
impl Source for EventSource {
    type Item = EventItem;
    type Stored = StoredEvent;

    async fn containers(&self, state: &mut State) -> Result<Vec<Container>, JobError> {
        let calendars = Calendars::sync(&self.context).await?;
        let containers = calendars.containers.clone();
        let mut shares = state.shares;
        let due = shares.take_due(self.now_ms());
        self.shares.get_or_init(|| (due, shares));
        self.calendars.get_or_init(|| calendars);
        Ok(containers)
    }

    async fn page(
        &self,
        calendar: &str,
        link: Option<&str>,
        is_plain: bool,
    ) -> Result<ItemPage<EventItem>, GraphError> {
        match link.and_then(Link::read) {
            None if is_plain || !self.has_changes(calendar).await? => self.events(calendar, None, None).await,
            None => self.view(calendar, None, renew_ms(self.now_ms())).await,
            Some(Link::View { next, renew_ms }) => self.view(calendar, Some(&next), renew_ms).await,
            Some(Link::Events { next, then }) => self.events(calendar, next.as_deref(), then).await,
            Some(Link::Changes(start)) => self.changes(calendar, start).await,
        }
    }

    /// Microsoft does not say in which calendar an event is: they are asked one after the other.
    async fn item(&self, id: &str) -> Result<EventItem, GraphError> {
        let (graph, user) = (&self.context.graph, &self.context.user);
        let mut gone = None;
        for calendar in self.calendars.get().into_iter().flat_map(|calendars| &calendars.ids) {
            match graph.calendar_event_in(user, calendar, id).await {
                Ok(event) => return self.whole(calendar, event).await,
                Err(error) if error.class() == ErrorClass::Gone => gone = Some(error),
                Err(error) => return Err(error),
            }
        }
        match gone {
            Some(error) => Err(error),
            // A mailbox without calendars.
            None => graph.calendar_event(user, id).await.map(|event| EventItem::new("", event)),
        }
    }

    fn id<'a>(&self, item: &'a EventItem) -> &'a str {
        &item.event.id
    }

    fn parent(&self, item: &EventItem) -> [u8; 16] {
        container_key(&item.calendar)
    }

    fn is_partial(&self, item: &EventItem) -> bool {
        item.event.is_partial
    }

    fn weight(&self, item: &EventItem) -> u64 {
        item.event.raw.len() as u64
    }

    fn change(&self, item: &EventItem) -> Result<[u8; 16], JobError> {
        Ok(change_with_times(&item.event.change_key, &item.times, &item.event.raw))
    }

    fn fields(&self, item: &EventItem, change: [u8; 16], size: u64) -> ItemFields {
        let flags = match item.event.has_attachments {
            true => EntryFlags::HAS_ATTACHMENTS,
            false => EntryFlags::default(),
        };
        ItemFields {
            kind: EntryKind::CalendarEvent,
            flags,
            change,
            size,
            parent: FolderKey(self.parent(item)),
            sort: start_ms(&item.event.raw),
        }
    }

    async fn judge(
        &self,
        item: &EventItem,
        entry: &ItemEntry,
        change: [u8; 16],
        _is_moved: bool,
    ) -> Result<Judgement<StoredEvent>, JobError> {
        let stored = stored_event(&self.context.manifest.meta(entry).await?)?;
        if entry.change == change {
            return Ok(Judgement::Keep { meta: with_holdfast(json_text(&item.event.raw), &stored)? });
        }
        Ok(Judgement::Compare(stored))
    }

    async fn fetch(&self, item: &EventItem, held: Option<Held<StoredEvent>>) -> Result<Found, FetchError> {
        content::fetch(&self.context, &item.event, held).await
    }

    /// Microsoft may not have changes of this calendar after all, or be too slow for them.
    fn wants_plain_listing(&self, error: &GraphError) -> bool {
        matches!(error.status(), Some(400 | 405 | 501 | 503 | 504))
    }

    fn is_spent(&self, link: &str) -> bool {
        Link::read(link).is_none_or(|link| link.is_spent(self.now_ms()))
    }

    async fn correct(run: &mut Collector<Self>) -> Result<(), JobError> {
        series::correct(run).await
    }
}

/// Usually the hash of the change key. Where times of a series have keys of their own these count too.
fn change_with_times(change_key: &str, times: &BTreeSet<String>, raw: &[u8]) -> [u8; 16] {
    if times.is_empty() {
        return change_of(change_key, raw);
    }
    let keys: Vec<&str> = std::iter::once(change_key).chain(times.iter().map(String::as_str)).collect();
    change_of(&keys.join("\n"), raw)
}

/// When an event starts, for its place among others: never 0, which is for calendars.
fn start_ms(raw: &[u8]) -> Millis {
    #[derive(Deserialize)]
    struct Starting {
        start: Start,
    }
    /// In UTC, as it was asked for.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Start {
        date_time: jiff::civil::DateTime,
    }
    let start = serde_json::from_slice::<Starting>(raw).ok().map(|event| event.start.date_time);
    let start = start.and_then(|start| start.to_zoned(jiff::tz::TimeZone::UTC).ok());
    start.and_then(|start| Millis::try_from(start.timestamp().as_millisecond()).ok()).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_with_a_key_of_its_own_changes_the_series_although_the_master_has_the_same_key() {
        let times = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
        let plain = change_with_times("k", &times(&[]), b"{}");
        assert_eq!(plain, change_of("k", b"{}"));
        let changed = change_with_times("k", &times(&["a"]), b"{}");
        assert_ne!(changed, plain);
        assert_ne!(changed, change_with_times("k", &times(&["a", "b"]), b"{}"));
        assert_eq!(changed, change_with_times("k", &times(&["a"]), b"{}"), "told again it is the same");
    }

    #[test]
    fn events_sort_by_their_start_and_behind_calendars() {
        let raw = br#"{"start":{"dateTime":"2026-05-01T10:00:00.0000000","timeZone":"UTC"}}"#;
        assert_eq!(start_ms(raw), 1_777_629_600_000);
        assert_eq!(start_ms(br#"{"start":{"dateTime":"1899-01-01T00:00:00"}}"#), 1);
        assert_eq!(start_ms(b"{}"), 1);
    }
}
