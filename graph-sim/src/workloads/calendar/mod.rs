//! Calendars: groups, calendars, events, series with their exceptions, windows, the mails that would have been sent.
//!
//! `zone` and `recurrence` are time · `store` is what a person has, `generate` where it comes from · `given` turns
//! JSON into events, `write` the other way · `calendars`, `events`, `attachments`, `changes` answer calls · `window` is
//! what they show of a stretch of time · `evolve` and `truth` are for tests.
//!
//! Invariant: a series is kept in its own zone; an occurrence is shown at the same time of the day there, summer or
//! winter, whatever zone is asked for.

mod attachments;
mod calendars;
mod changes;
mod events;
mod evolve;
mod generate;
mod given;
mod recurrence;
mod store;
mod truth;
mod window;
mod write;
mod zone;

use serde_json::Value;

use crate::rng::Rng;
use crate::workloads::backend::Backend;
use crate::workloads::calendar::store::CalendarStore;
use crate::workloads::route::Route;
use crate::workloads::states::States;
use crate::workloads::{Changes, Roles, Slice, Workload};
use crate::world::World;

/// The registry's entry.
pub(crate) struct Calendar;

impl Workload for Calendar {
    fn name(&self) -> &'static str {
        "calendar"
    }

    fn backend(&self) -> Backend {
        Backend::Outlook
    }

    fn roles(&self) -> Roles {
        Roles { read: &["Calendars.Read", "Calendars.ReadWrite"], write: &["Calendars.ReadWrite"] }
    }

    fn items(&self) -> &'static str {
        "calendar_events"
    }

    fn routes(&self) -> Vec<Route> {
        let mut routes = calendar_routes();
        routes.extend(collection_routes("users/{user}"));
        routes.extend(collection_routes("users/{user}/calendar"));
        routes.extend(collection_routes("users/{user}/calendars/{calendar}"));
        routes.extend(event_routes("users/{user}/events"));
        routes.extend(event_routes("users/{user}/calendars/{calendar}/events"));
        for at in ["users/{user}", "users/{user}/calendar"] {
            routes.push(Route::get(
                &format!("{at}/calendarView/delta"),
                "calendar_event_delta",
                changes::of_view,
            ));
        }
        let named = "users/{user}/calendars/{calendar}/calendarView/delta";
        routes.push(Route::get(named, "calendar_event_delta", changes::of_named_view));
        routes
    }

    fn add_states(&self, states: &mut States) {
        states.add::<CalendarStore>();
    }

    fn evolve(&self, world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
        evolve::evolve(world, user, wanted, rng)
    }

    fn wipe(&self, world: &World, user: u32) -> Option<u64> {
        Some(world.state::<CalendarStore>(user).wipe())
    }

    fn truth(&self, world: &World, user: u32, slice: &Slice) -> Vec<Value> {
        truth::list(world, user, slice)
    }

    fn expire_delta(&self, world: &World, user: u32) {
        world.state::<CalendarStore>(user).numbers.epoch += 1;
    }
}

fn calendar_routes() -> Vec<Route> {
    const ALL: &str = "users/{user}/calendars";
    const ONE: &str = "users/{user}/calendars/{calendar}";
    const DEFAULT: &str = "users/{user}/calendar";
    const GROUPS: &str = "users/{user}/calendarGroups";
    const IN_GROUP: &str = "users/{user}/calendarGroups/{group}/calendars";
    vec![
        Route::get(ALL, "calendar_list", calendars::list),
        Route::post(ALL, "calendar_create", calendars::create),
        Route::get(ONE, "calendar_get", calendars::get),
        Route::patch(ONE, "calendar_patch", calendars::patch),
        Route::delete(ONE, "calendar_delete", calendars::delete),
        Route::get(DEFAULT, "calendar_get", calendars::get),
        Route::patch(DEFAULT, "calendar_patch", calendars::patch),
        Route::get(GROUPS, "calendar_group_list", calendars::group_list),
        Route::post(GROUPS, "calendar_group_create", calendars::group_create),
        Route::get("users/{user}/calendarGroups/{group}", "calendar_group_get", calendars::group_get),
        Route::get(IN_GROUP, "calendar_list", calendars::list),
        Route::post(IN_GROUP, "calendar_create", calendars::create),
    ]
}

/// The calls on a calendar's events as a whole.
fn collection_routes(of: &str) -> Vec<Route> {
    let all = format!("{of}/events");
    vec![
        Route::get(&all, "calendar_event_list", events::list),
        Route::post(&all, "calendar_event_create", events::create),
        Route::get(&format!("{all}/delta"), "calendar_event_delta", changes::of_events),
        Route::get(&format!("{of}/calendarView"), "calendar_event_view", events::view),
    ]
}

/// The calls on one event below `all`.
fn event_routes(all: &str) -> Vec<Route> {
    let one = format!("{all}/{{event}}");
    let files = format!("{one}/attachments");
    let file = format!("{files}/{{attachment}}");
    let session = format!("{files}/createUploadSession");
    vec![
        Route::get(&one, "calendar_event_get", events::get),
        Route::patch(&one, "calendar_event_patch", events::patch),
        Route::delete(&one, "calendar_event_delete", events::delete),
        Route::post(&format!("{one}/cancel"), "calendar_event_cancel", events::cancel),
        Route::get(&format!("{one}/instances"), "calendar_event_instances", events::instances),
        Route::get(&files, "calendar_event_attachment_list", attachments::list),
        Route::post(&files, "calendar_event_attachment_create", attachments::create),
        Route::post(&session, "calendar_event_upload_session", attachments::open_session),
        Route::get(&file, "calendar_event_attachment_get", attachments::get),
        Route::delete(&file, "calendar_event_attachment_delete", attachments::delete),
        Route::get(&format!("{file}/$value"), "calendar_event_attachment_value", attachments::value),
    ]
}
