//! Events from (seed, person, number).

use std::collections::BTreeMap;

use jiff::civil::{DateTime, Time};
use serde_json::{Value, json};

use crate::blob::{Data, Shape as Look, Synthetic};
use crate::rng::Rng;
use crate::words;
use crate::workloads::calendar::given::{blank, uid};
use crate::workloads::calendar::recurrence::Rule;
use crate::workloads::calendar::store::{Body, CalendarStore, Event, Times};
use crate::workloads::calendar::zone::{Day, Zone, date_of};
use crate::workloads::mail::content::{Attachment, Kind};
use crate::world::World;

/// The oldest generated event begins then: 2026-05-01.
const FIRST_DAY: Day = 20_574;
const DAYS: usize = 270;
/// Generated events were made then, one after the other: 2026-04-01T08:00:00Z.
const MADE_MS: u64 = 1_775_030_400_000;
const SPACING_MS: u64 = 60_000;
/// Days of series up to here are made different.
pub(crate) const LAST_DAY: Day = FIRST_DAY + 2 * DAYS as Day;
const NAMES: [&str; 4] = ["Private", "Travel", "Project Atlas", "On call"];
const ROOMS: [&str; 4] = ["Room Matterhorn", "Room Säntis", "Canteen", "Online"];
const EXCEPTIONS_MAX: usize = 2;

/// Fills the calendars of a person as the options say.
pub(crate) fn populate(world: &World, store: &mut CalendarStore) {
    let options = world.options();
    let count = options.population.calendar_events_per_user;
    if count == 0 {
        return;
    }
    let mut rng = Rng::new(&[options.seed, 0x6361_6c6e, u64::from(store.user)]);
    let group = store.add_group("Teams", MADE_MS);
    for number in 0..1 + rng.below(3) {
        let name = NAMES[(number + store.user as usize) % NAMES.len()];
        let place = if number == 1 { group } else { store.default_group };
        store.add_calendar(place, name, MADE_MS);
    }
    let places = store.places();
    let shared = store.add_calendar(store.default_group, "Somebody else's", MADE_MS);
    let owner = world.people.someone(&mut rng);
    if let Some(calendar) = store.calendars.quietly(shared) {
        calendar.shared_by = Some((owner.name, owner.address));
    }
    for _ in 0..count {
        let place = if rng.percent(70) { store.default_calendar } else { *rng.pick(&places) };
        add(world, store, place, None);
    }
}

/// Adds the next generated event, of the time it always had or of now.
pub(crate) fn add(world: &World, store: &mut CalendarStore, calendar: u64, now_ms: Option<u64>) -> u64 {
    let index = store.next_index();
    let mut rng = Rng::new(&[world.options().seed, 0x6576_6e74, u64::from(store.user), u64::from(index)]);
    let event = event(world, store, index, &mut rng);
    let made = now_ms.unwrap_or(MADE_MS + u64::from(index) * SPACING_MS);
    store.events.insert(&mut store.numbers, calendar, made, event)
}

fn event(world: &World, store: &mut CalendarStore, index: u32, rng: &mut Rng) -> Event {
    let is_all_day = rng.percent(10);
    let zone = if is_all_day || rng.percent(30) { Zone::UTC } else { Zone::numbered(rng.below(Zone::COUNT)) };
    let times = times(is_all_day, zone, rng);
    let key = store.numbers.next_key();
    let mut body = Body {
        fields: blank(),
        times,
        attachments: Vec::new(),
        attachments_key: key,
        next_attachment: 0,
        extended: Vec::new(),
    };
    fill(world, &mut body, index, is_all_day, rng);
    let rule = rng.percent(25).then(|| rule(&times, rng));
    let mut event = Event {
        body,
        rule,
        exceptions: BTreeMap::new(),
        cancelled: BTreeMap::new(),
        former: None,
        transaction_id: None,
        uid: uid(key),
        invited_by: None,
    };
    if event.has_attendees() && rng.percent(40) {
        let person = world.people.someone(rng);
        event.invited_by = Some((person.name, person.address));
    }
    differ(store, &mut event, rng);
    event
}

fn times(is_all_day: bool, zone: Zone, rng: &mut Rng) -> Times {
    let date = date_of(FIRST_DAY + rng.below(DAYS) as Day);
    let (start, minutes) = if is_all_day {
        (date.to_datetime(Time::midnight()), 24 * 60 * (1 + rng.below(3) as i64))
    } else {
        let half_hours = 14 + rng.below(22) as i64;
        (later(date.to_datetime(Time::midnight()), half_hours * 30), 30 + 30 * rng.below(4) as i64)
    };
    Times { start, end: later(start, minutes), zone }
}

fn later(wall: DateTime, minutes: i64) -> DateTime {
    wall.checked_add(jiff::Span::new().minutes(minutes)).unwrap_or(wall)
}

fn fill(world: &World, body: &mut Body, index: u32, is_all_day: bool, rng: &mut Rng) {
    let language = words::language(rng.next());
    let mut set = |name: &str, value: Value| body.fields.insert(name.to_owned(), value);
    set("subject", format!("{} {index}", rng.phrase(language.subjects)).into());
    let text = rng.phrase(language.sentences);
    let content = if rng.percent(50) {
        json!({"contentType": "html", "content": format!("<html><body><p>{text}</p></body></html>")})
    } else {
        json!({"contentType": "text", "content": text})
    };
    set("body", content);
    set("isAllDay", is_all_day.into());
    set("showAs", (*rng.pick(&["busy", "busy", "free", "tentative", "oof"])).into());
    set("isReminderOn", rng.percent(60).into());
    set("reminderMinutesBeforeStart", (5 * (1 + rng.below(6))).into());
    if rng.percent(10) {
        set("sensitivity", "private".into());
    }
    if rng.percent(10) {
        set("importance", "high".into());
    }
    if rng.percent(20) {
        set("categories", json!([*rng.pick(&words::CATEGORIES)]));
    }
    if rng.percent(50) {
        let place = json!({"displayName": *rng.pick(&ROOMS)});
        set("location", place.clone());
        set("locations", json!([place]));
    }
    if rng.percent(30) {
        let attendee = |rng: &mut Rng| {
            let person = world.people.someone(rng);
            json!({"type": "required", "emailAddress": {"name": person.name, "address": person.address},
                "status": {"response": "accepted", "time": "0001-01-01T00:00:00Z"}})
        };
        let attendees: Vec<Value> = (0..1 + rng.below(3)).map(|_| attendee(rng)).collect();
        set("attendees", attendees.into());
    }
    if rng.percent(15) {
        for _ in 0..1 + rng.below(2) {
            attach(body, rng);
        }
    }
}

fn attach(body: &mut Body, rng: &mut Rng) {
    let key = body.take_attachment_key();
    let recipe = Synthetic { seed: rng.next(), size: 800 + rng.below(40_000) as u64, shape: Look::Text };
    body.attachments.push(Attachment {
        key,
        name: format!("{} {key}.txt", rng.pick(&words::FILES)),
        content_type: "text/plain".into(),
        is_inline: false,
        content_id: None,
        kind: Kind::File(Data::Generated(recipe)),
    });
}

fn rule(times: &Times, rng: &mut Rng) -> Rule {
    let start = times.start.date();
    let weekday = start.weekday();
    let day_name = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
        [weekday.to_sunday_zero_offset() as usize];
    let pattern = match rng.below(4) {
        0 => json!({"type": "daily", "interval": 1 + rng.below(3)}),
        1 => json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": start.day()}),
        2 => {
            json!({"type": "absoluteYearly", "interval": 1, "dayOfMonth": start.day(), "month": start.month()})
        }
        _ => {
            json!({"type": "weekly", "interval": 1 + rng.below(2), "daysOfWeek": [day_name], "firstDayOfWeek": "monday"})
        }
    };
    let range = match rng.below(3) {
        0 => json!({"type": "noEnd", "startDate": start.to_string()}),
        1 => {
            json!({"type": "numbered", "startDate": start.to_string(), "numberOfOccurrences": 4 + rng.below(20)})
        }
        _ => {
            let end = start.checked_add(jiff::Span::new().days(40 + rng.below(200) as i64)).unwrap_or(start);
            json!({"type": "endDate", "startDate": start.to_string(), "endDate": end.to_string()})
        }
    };
    Rule::parse(&json!({"pattern": pattern, "range": range}), times.zone).expect("a generated rule is right")
}

/// Makes some days of a series other than the rule says.
fn differ(store: &mut CalendarStore, event: &mut Event, rng: &mut Rng) {
    let Some(rule) = &event.rule else { return };
    let first = rule.days_until(LAST_DAY);
    let mut days: Vec<Day> = first.into_iter().take(12).collect();
    for _ in 0..rng.below(EXCEPTIONS_MAX + 1) {
        if days.len() < 3 {
            return;
        }
        let day = days.swap_remove(rng.below(days.len()));
        if rng.percent(40) {
            event.cancelled.insert(day, 0);
        } else {
            make_exception(store, event, day, rng);
        }
    }
}

/// Moves a day of a series an hour and gives it another subject.
pub(crate) fn make_exception(store: &mut CalendarStore, event: &mut Event, day: Day, rng: &mut Rng) {
    let key = store.numbers.next_key();
    let exception = event.exception_mut(day, key);
    let is_all_day = exception.fields.get("isAllDay").is_some_and(|flag| flag == true);
    let subject = format!("Changed {}", rng.below(10_000));
    exception.fields.insert("subject".into(), subject.into());
    if !is_all_day {
        exception.times.start = later(exception.times.start, 60);
        exception.times.end = later(exception.times.end, 60);
    }
    if rng.percent(30) {
        attach(exception, rng);
    }
}
