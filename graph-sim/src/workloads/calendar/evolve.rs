//! New events, edits, moves to another calendar, deletions, single days of series changed or cancelled.
//!
//! Invariant: no event is chosen twice in one evolution, so the counts given back are exact. People do this in Outlook,
//! not through the API: nothing of it is in the ledger of mails.

use serde_json::json;

use crate::rng::Rng;
use crate::workloads::Changes;
use crate::workloads::calendar::generate::{add, make_exception};
use crate::workloads::calendar::store::CalendarStore;
use crate::world::World;

/// Days of a series that are looked at for one to change.
const DAYS_LOOKED_AT: usize = 12;

/// Lets it happen to one person's events.
pub(crate) fn evolve(world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
    let now = world.clock.now_ms();
    let mut done = Changes::default();
    let mut store = world.state::<CalendarStore>(user);
    let places = store.places();
    let mut free: Vec<u64> = store.events.iter().map(|event| event.key).collect();
    let mut choose = |rng: &mut Rng| (!free.is_empty()).then(|| free.swap_remove(rng.below(free.len())));
    for _ in 0..wanted.deleted {
        let Some(key) = choose(rng) else { break };
        let CalendarStore { numbers, events, .. } = &mut *store;
        events.remove(numbers, key);
        done.deleted += 1;
    }
    for _ in 0..wanted.moved {
        let Some(key) = choose(rng) else { break };
        let CalendarStore { numbers, events, .. } = &mut *store;
        let from = events.get(key).map_or(0, |event| event.place);
        let targets: Vec<u64> = places.iter().copied().filter(|place| *place != from).collect();
        if targets.is_empty() {
            break;
        }
        events.move_to(numbers, key, *rng.pick(&targets), now);
        done.moved += 1;
    }
    for _ in 0..wanted.edited {
        let Some(key) = choose(rng) else { break };
        let CalendarStore { numbers, events, .. } = &mut *store;
        if let Some(event) = events.change(numbers, key, now) {
            let text = format!("New agenda {}.", rng.below(10_000));
            event.body.fields.insert("body".into(), json!({"contentType": "text", "content": text}));
            done.edited += 1;
        }
    }
    for _ in 0..wanted.flags {
        let Some(key) = choose(rng) else { break };
        change_a_little(&mut store, key, now, rng);
        done.flags += 1;
    }
    for _ in 0..wanted.new {
        add(world, &mut store, *rng.pick(&places), Some(now));
        done.new += 1;
    }
    done
}

/// Changes or cancels a day of a series; shows a single event otherwise.
fn change_a_little(store: &mut CalendarStore, key: u64, now_ms: u64, rng: &mut Rng) {
    let Some(mut event) = store.events.get(key).map(|object| object.value.clone()) else { return };
    let plain = |day: &i32| !event.cancelled.contains_key(day) && !event.exceptions.contains_key(day);
    let days: Vec<i32> = event
        .rule
        .iter()
        .flat_map(|rule| rule.days_until(super::generate::LAST_DAY))
        .take(DAYS_LOOKED_AT)
        .filter(plain)
        .collect();
    let cancels = (days.len() > 1 && rng.percent(50)).then(|| *rng.pick(&days));
    if cancels.is_none() {
        if days.is_empty() {
            let shown = (*rng.pick(&["free", "tentative", "oof", "workingElsewhere"])).into();
            event.body.fields.insert("showAs".into(), shown);
        } else {
            make_exception(store, &mut event, *rng.pick(&days), rng);
        }
    }
    let CalendarStore { numbers, events, .. } = store;
    if let Some(changed) = events.change(numbers, key, now_ms) {
        *changed = event;
        changed.cancelled.extend(cancels.map(|day| (day, numbers.stand().seq)));
    }
}
