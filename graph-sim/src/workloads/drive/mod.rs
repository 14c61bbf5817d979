//! OneDrive: one drive per person, with folders, files, versions and permissions.
//!
//! `store` is what a drive holds, of `item`s, and the log that deltas walk; `generate` is where it comes from, `names`
//! what may be called how · `changes` is delta; `items`, `versions`, `permissions` answer other calls, `show` says how
//! · `download` and `sessions` are the hosts that content comes from and goes to, `upload` what becomes of it · `evolve`
//! and `truth` are for tests.

mod changes;
mod download;
mod evolve;
mod generate;
pub(crate) mod ids;
mod item;
mod items;
mod names;
mod permissions;
mod sessions;
mod show;
mod store;
mod truth;
mod upload;
mod versions;

use std::sync::Arc;

use axum::response::Response;
use serde_json::Value;

use crate::http::{Outside, Refusal, no_such_host};
use crate::rng::Rng;
use crate::workloads::backend::Backend;
use crate::workloads::drive::sessions::Sessions;
use crate::workloads::drive::store::DriveStore;
use crate::workloads::route::{Route, Weight};
use crate::workloads::states::States;
use crate::workloads::{Changes, Roles, Slice, Workload};
use crate::world::World;

/// The registry's entry.
pub(crate) struct OneDrive;

impl Workload for OneDrive {
    fn name(&self) -> &'static str {
        "onedrive"
    }

    fn backend(&self) -> Backend {
        Backend::SharePoint
    }

    fn roles(&self) -> Roles {
        const WRITE: &[&str] = &["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.FullControl.All"];
        const READ: &[&str] = &[
            "Files.Read.All",
            "Sites.Read.All",
            "Files.ReadWrite.All",
            "Sites.ReadWrite.All",
            "Sites.FullControl.All",
        ];
        Roles { read: READ, write: WRITE }
    }

    fn items(&self) -> &'static str {
        "drive_items"
    }

    fn routes(&self) -> Vec<Route> {
        let mut routes = item_routes();
        routes.extend(content_routes());
        routes.extend(permission_routes());
        routes
    }

    fn add_states(&self, states: &mut States) {
        states.add::<DriveStore>();
        states.add::<Sessions>();
    }

    fn evolve(&self, world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
        evolve::evolve(world, user, wanted, rng)
    }

    fn wipe(&self, world: &World, user: u32) -> Option<u64> {
        Some(world.state::<DriveStore>(user).wipe())
    }

    fn truth(&self, world: &World, user: u32, slice: &Slice) -> Vec<Value> {
        truth::list(world, user, slice)
    }

    fn outside(&self, world: &Arc<World>, call: &Outside<'_>) -> Result<Response, Refusal> {
        match call.path {
            [what, sealed] if what == "download" => download::serve(world, call, sealed),
            [what, id] if what == "upload" => sessions::serve(world, call, id),
            _ => Err(no_such_host()),
        }
    }

    fn expire_delta(&self, world: &World, user: u32) {
        world.state::<DriveStore>(user).epoch += 1;
    }
}

/// An item by id, by path, or the root.
const ITEM: &str = "drives/{drive}/items/{item}";

fn item_routes() -> Vec<Route> {
    let children = format!("{ITEM}/children");
    let delta = format!("{ITEM}/delta");
    vec![
        Route::get("users/{user}/drive", "drive_get", items::drive),
        Route::get("users/{user}/drives", "drive_list", items::drives).weighs(Weight::Listing),
        Route::get("drives/{drive}", "drive_get", items::drive),
        Route::get(ITEM, "drive_item_get", items::get),
        Route::patch(ITEM, "drive_item_patch", items::patch),
        Route::delete(ITEM, "drive_item_delete", items::delete),
        Route::put(ITEM, "drive_upload_commit", upload::commit),
        Route::get(&children, "drive_children", items::children).weighs(Weight::Listing),
        Route::post(&children, "drive_folder_create", items::create_folder),
        Route::get(&delta, "drive_delta", changes::delta).weighs(Weight::Delta),
    ]
}

fn content_routes() -> Vec<Route> {
    let content = format!("{ITEM}/content");
    let versions = format!("{ITEM}/versions");
    let version = format!("{versions}/{{version}}");
    vec![
        Route::get(&content, "drive_content", download::content),
        Route::put(&content, "drive_content_put", upload::put).with_content(),
        Route::post(&format!("{ITEM}/createUploadSession"), "drive_upload_session", upload::open),
        Route::get(&versions, "drive_versions", versions::list).weighs(Weight::Listing),
        Route::get(&version, "drive_version_get", versions::get),
        Route::get(&format!("{version}/content"), "drive_version_content", versions::content),
    ]
}

fn permission_routes() -> Vec<Route> {
    let all = format!("{ITEM}/permissions");
    let one = format!("{all}/{{permission}}");
    let routes = vec![
        Route::get(&all, "drive_permissions", permissions::list),
        Route::get(&one, "drive_permission_get", permissions::get),
        Route::patch(&one, "drive_permission_patch", permissions::patch),
        Route::delete(&one, "drive_permission_delete", permissions::delete),
        Route::post(&format!("{one}/grant"), "drive_permission_grant", permissions::grant),
        Route::post(&format!("{ITEM}/invite"), "drive_invite", permissions::invite),
        Route::post(&format!("{ITEM}/createLink"), "drive_link_create", permissions::create_link),
    ];
    routes.into_iter().map(|route| route.weighs(Weight::Permissions)).collect()
}
