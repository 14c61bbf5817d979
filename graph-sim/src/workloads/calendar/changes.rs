//! Delta rounds over a calendar: of a window, as Microsoft documents it for the default calendar, or of all events.
//!
//! Invariant: a line is shown for whatever changed. What changed and is outside the window is called removed, whether
//! or not it was ever inside: that is how Graph does it, and a client must look before it believes it.

use std::collections::BTreeSet;

use crate::delta::{self, Token};
use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::ids::Form;
use crate::workloads::calendar::calendars::named;
use crate::workloads::calendar::store::{CalendarStore, Event};
use crate::workloads::calendar::window::Window;
use crate::workloads::calendar::write::{self, Shown};
use crate::workloads::calendar::zone::Day;
use crate::workloads::objects::{Change, Object, page};

/// One line of a page.
#[derive(Clone, Debug)]
enum Line {
    /// A single event, a series, or an exception, whole.
    Whole(u64, Option<Day>),
    Occurrence(u64, Day),
    Removed(String),
}

/// Changes within the window of the default calendar.
pub(crate) fn of_view(call: &Call) -> Answer {
    answer(call, Lines::OfView)
}

/// The same for a calendar that is named, if the options have it.
pub(crate) fn of_named_view(call: &Call) -> Answer {
    refuse_unless_served(call)?;
    answer(call, Lines::OfView)
}

/// Changes of single events and series, if the options have it.
pub(crate) fn of_events(call: &Call) -> Answer {
    refuse_unless_served(call)?;
    answer(call, Lines::OfEvents)
}

fn refuse_unless_served(call: &Call) -> Result<(), Refusal> {
    if call.options.per_calendar_delta {
        return Ok(());
    }
    Err(refuse(400, "ErrorInvalidRequest", "Change tracking is not supported against this resource."))
}

/// Which lines a change has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// Series with their days.
    OfView,
    /// Series alone.
    OfEvents,
}

fn answer(call: &Call, lines: Lines) -> Answer {
    page::refuse_options(call)?;
    if call.query.get("$select").is_some() {
        return Err(refuse(400, "BadRequest", "$select is not supported for change tracking"));
    }
    let size = call.size()?;
    let most = call.options.faults.calendar_delta_page_max;
    if most > 0 && size > most as usize {
        call.world.counters.fault("calendar_page_too_large");
        return Ok(Reply::Empty(503));
    }
    let shown = Shown::whole(call)?;
    let store = call.world.state::<CalendarStore>(call.user);
    let calendar = named(call, &store)?;
    let name = if lines == Lines::OfView { "view" } else { "events" };
    let mut token = delta::resume(call, store.numbers.stand(), &format!("calendar {name} {calendar}"))?;
    let round = Round { store: &store, calendar, window: window(&token, lines)?, lines, form: call.form };
    let (changes, more) = delta::disturbed(
        call,
        || round.page(&mut token, size),
        |line| !matches!(line, Line::Removed(_)),
        |key| Line::Removed(store.event_id(key, None, 0, call.form)),
    );
    let shown_line = |line: Line| match line {
        Line::Whole(key, day) => {
            let event = write::event(call, &store, store.events.get(key)?, day, &shown);
            Some(page::typed(event, "event"))
        }
        Line::Occurrence(key, day) => {
            let occurrence = write::occurrence(call, &store, store.events.get(key)?, day, &shown);
            Some(page::typed(occurrence, "event"))
        }
        Line::Removed(id) => Some(page::removed(&id, "event")),
    };
    let entries = changes.into_iter().filter_map(shown_line).collect();
    page::answer(call, "Collection(event)", entries, &token, more)
}

/// The window of the round's first call; events alone need none.
fn window(token: &Token, lines: Lines) -> Result<Option<Window>, Refusal> {
    let query = token.query();
    if lines == Lines::OfEvents && query.get("startDateTime").is_none() && query.get("endDateTime").is_none()
    {
        return Ok(None);
    }
    Window::of(&query).map(Some)
}

struct Round<'a> {
    store: &'a CalendarStore,
    calendar: u64,
    window: Option<Window>,
    lines: Lines,
    form: Form,
}

impl Round<'_> {
    /// Lines after the token's position and whether there are more; moves the token, also within a change that has
    /// more lines than the page takes.
    fn page(&self, token: &mut Token, size: usize) -> (Vec<Line>, bool) {
        let mut lines = Vec::new();
        for (seq, change) in self.store.events.numbered(Some(self.calendar), token) {
            if lines.len() >= size {
                return (lines, true);
            }
            let of_change = self.lines_of(change, token);
            let given = token.within.filter(|(of, _)| *of == seq).map_or(0, |(_, given)| given);
            let (rest, room) = (of_change.len().saturating_sub(given), size - lines.len());
            lines.extend(of_change.into_iter().skip(given).take(room));
            if rest > room {
                token.within = Some((seq, given + room));
                return (lines, true);
            }
            (token.position, token.within) = (seq, None);
        }
        (lines, false)
    }

    fn lines_of(&self, change: Change, token: &Token) -> Vec<Line> {
        match change {
            Change::Removed(key, moves) => {
                vec![Line::Removed(self.store.event_id(key, None, moves, self.form))]
            }
            Change::Present(key) => {
                self.store.events.get(key).map(|event| self.lines_of_event(event, token)).unwrap_or_default()
            }
        }
    }

    fn lines_of_event(&self, event: &Object<Event>, token: &Token) -> Vec<Line> {
        let days = self.window.map_or_else(|| vec![None], |window| window.within(&event.value));
        if days.is_empty() {
            // Whoever asks for the first time never heard of it; whoever asks again is told that it is gone.
            let id = self.store.event_id(event.key, None, event.moves, self.form);
            return if event.seq > token.start { vec![Line::Removed(id)] } else { Vec::new() };
        }
        let mut lines = vec![Line::Whole(event.key, None)];
        if self.lines == Lines::OfEvents {
            return lines;
        }
        let gone = self.days_gone(event, &days, token);
        lines.extend(
            gone.into_iter()
                .map(|day| Line::Removed(self.store.event_id(event.key, Some(day), event.moves, self.form))),
        );
        for day in days.iter().copied().flatten() {
            let is_exception = event.value.exceptions.contains_key(&day);
            lines.push(if is_exception {
                Line::Whole(event.key, Some(day))
            } else {
                Line::Occurrence(event.key, day)
            });
        }
        lines
    }

    /// Days of a series that the client may have and that are no longer within the window: cancelled, moved out of it,
    /// or not of the rule any more.
    fn days_gone(&self, event: &Object<Event>, days: &[Option<Day>], token: &Token) -> BTreeSet<Day> {
        let Some(window) = self.window else { return BTreeSet::new() };
        let told = token.position.max(token.start);
        let Event { exceptions, former, .. } = &event.value;
        let moved = exceptions.keys().copied().filter(|_| event.seq > token.start);
        let cancelled = window.cancelled_within(&event.value).into_iter().filter(|(_, seq)| *seq > told);
        let former = former.iter().filter(|former| former.seq > told);
        let former = former.flat_map(|former| window.days(&former.rule, &former.times));
        let gone = moved.chain(cancelled.map(|(day, _)| day)).chain(former);
        gone.filter(|day| !days.contains(&Some(*day))).collect()
    }
}
