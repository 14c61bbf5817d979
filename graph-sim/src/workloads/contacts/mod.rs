//! Contacts: folders, contacts, photos.
//!
//! `book` is what a person has and where it comes from · `folders`, `items`, `photo` answer calls · `evolve` and
//! `truth` are for tests.

mod book;
mod evolve;
mod folders;
mod items;
mod photo;
mod truth;

use serde_json::Value;

use crate::rng::Rng;
use crate::workloads::backend::Backend;
use crate::workloads::contacts::book::ContactBook;
use crate::workloads::route::Route;
use crate::workloads::states::States;
use crate::workloads::{Changes, Roles, Slice, Workload};
use crate::world::World;

/// The registry's entry.
pub(crate) struct Contacts;

impl Workload for Contacts {
    fn name(&self) -> &'static str {
        "contacts"
    }

    fn backend(&self) -> Backend {
        Backend::Outlook
    }

    fn roles(&self) -> Roles {
        Roles { read: &["Contacts.Read", "Contacts.ReadWrite"], write: &["Contacts.ReadWrite"] }
    }

    fn routes(&self) -> Vec<Route> {
        let mut routes = folder_routes();
        routes.extend(item_routes("users/{user}/contacts"));
        routes.extend(item_routes("users/{user}/contactFolders/{folder}/contacts"));
        routes
    }

    fn add_states(&self, states: &mut States) {
        states.add::<ContactBook>();
    }

    fn evolve(&self, world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
        evolve::evolve(world, user, wanted, rng)
    }

    fn wipe(&self, world: &World, user: u32) -> Option<u64> {
        Some(world.state::<ContactBook>(user).wipe())
    }

    fn truth(&self, world: &World, user: u32, slice: &Slice) -> Vec<Value> {
        truth::list(world, user, slice)
    }

    fn expire_delta(&self, world: &World, user: u32) {
        world.state::<ContactBook>(user).numbers.epoch += 1;
    }
}

fn folder_routes() -> Vec<Route> {
    const FOLDERS: &str = "users/{user}/contactFolders";
    const ONE: &str = "users/{user}/contactFolders/{folder}";
    const BELOW: &str = "users/{user}/contactFolders/{folder}/childFolders";
    vec![
        Route::get(FOLDERS, "contact_folder_list", folders::list),
        Route::post(FOLDERS, "contact_folder_create", folders::create),
        Route::get("users/{user}/contactFolders/delta", "contact_folder_delta", folders::delta),
        Route::get(ONE, "contact_folder_get", folders::get),
        Route::patch(ONE, "contact_folder_patch", folders::rename),
        Route::delete(ONE, "contact_folder_delete", folders::delete),
        Route::get(BELOW, "contact_folder_list", folders::list),
        Route::post(BELOW, "contact_folder_create", folders::create),
    ]
}

/// The calls on contacts below `at`.
fn item_routes(at: &str) -> Vec<Route> {
    let one = format!("{at}/{{contact}}");
    let photo = format!("{one}/photo");
    let bytes = format!("{photo}/$value");
    vec![
        Route::get(at, "contact_list", items::list),
        Route::post(at, "contact_create", items::create),
        Route::get(&format!("{at}/delta"), "contact_delta", items::delta),
        Route::get(&one, "contact_get", items::get),
        Route::patch(&one, "contact_patch", items::patch),
        Route::delete(&one, "contact_delete", items::delete),
        Route::get(&photo, "contact_photo_get", photo::get),
        Route::get(&bytes, "contact_photo_value", photo::value),
        Route::put(&bytes, "contact_photo_put", photo::put),
        Route::delete(&bytes, "contact_photo_delete", photo::delete),
    ]
}
