//! To Do: lists, tasks, and what hangs on a task.
//!
//! `store` is what a person has and where it comes from · `lists`, `tasks`, `children`, `files`, `extensions` answer
//! calls · `flagged` shows flagged mail as a list · `evolve` and `truth` are for tests.
//!
//! Invariant: whatever changes on a task gives the task a new number, so its etag and its list's delta tell of it.

mod children;
mod evolve;
mod extensions;
mod files;
mod flagged;
mod generate;
mod lists;
mod store;
mod tasks;
mod truth;

use serde_json::Value;

use crate::rng::Rng;
use crate::workloads::backend::Backend;
use crate::workloads::route::Route;
use crate::workloads::states::States;
use crate::workloads::todo::children::{Checklist, Links};
use crate::workloads::todo::store::TodoStore;
use crate::workloads::{Changes, Roles, Slice, Workload};
use crate::world::World;

/// The registry's entry.
pub(crate) struct Todo;

impl Workload for Todo {
    fn name(&self) -> &'static str {
        "todo"
    }

    fn backend(&self) -> Backend {
        Backend::Outlook
    }

    fn roles(&self) -> Roles {
        Roles { read: &["Tasks.Read.All", "Tasks.ReadWrite.All"], write: &["Tasks.ReadWrite.All"] }
    }

    fn items(&self) -> &'static str {
        "tasks"
    }

    fn routes(&self) -> Vec<Route> {
        let mut routes = list_routes();
        routes.extend(task_routes());
        routes.extend(file_routes());
        routes
    }

    fn add_states(&self, states: &mut States) {
        states.add::<TodoStore>();
    }

    fn evolve(&self, world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
        evolve::evolve(world, user, wanted, rng)
    }

    fn wipe(&self, world: &World, user: u32) -> Option<u64> {
        Some(world.state::<TodoStore>(user).wipe())
    }

    fn truth(&self, world: &World, user: u32, slice: &Slice) -> Vec<Value> {
        truth::list(world, user, slice)
    }

    fn expire_delta(&self, world: &World, user: u32) {
        world.state::<TodoStore>(user).numbers.epoch += 1;
    }
}

const LISTS: &str = "users/{user}/todo/lists";

fn list_routes() -> Vec<Route> {
    const ONE: &str = "users/{user}/todo/lists/{list}";
    vec![
        Route::get(LISTS, "todo_list_list", lists::list),
        Route::post(LISTS, "todo_list_create", lists::create),
        Route::get("users/{user}/todo/lists/delta", "todo_list_delta", lists::delta),
        Route::get(ONE, "todo_list_get", lists::get),
        Route::patch(ONE, "todo_list_patch", lists::rename),
        Route::delete(ONE, "todo_list_delete", lists::delete),
    ]
}

fn task_routes() -> Vec<Route> {
    let all = format!("{LISTS}/{{list}}/tasks");
    let one = format!("{all}/{{task}}");
    let extensions = format!("{one}/extensions");
    let (lines, links) = (format!("{one}/checklistItems"), format!("{one}/linkedResources"));
    let (line, link) = (format!("{lines}/{{line}}"), format!("{links}/{{link}}"));
    vec![
        Route::get(&all, "task_list", tasks::list),
        Route::post(&all, "task_create", tasks::create),
        Route::get(&format!("{all}/delta"), "task_delta", tasks::delta),
        Route::get(&one, "task_get", tasks::get),
        Route::patch(&one, "task_patch", tasks::patch),
        Route::delete(&one, "task_delete", tasks::delete),
        Route::get(&extensions, "task_extension_list", extensions::list),
        Route::post(&extensions, "task_extension_create", extensions::create),
        Route::get(&lines, "checklist_list", children::list::<Checklist>),
        Route::post(&lines, "checklist_create", children::create::<Checklist>),
        Route::get(&line, "checklist_get", children::get::<Checklist>),
        Route::patch(&line, "checklist_patch", children::patch::<Checklist>),
        Route::delete(&line, "checklist_delete", children::delete::<Checklist>),
        Route::get(&links, "task_link_list", children::list::<Links>),
        Route::post(&links, "task_link_create", children::create::<Links>),
        Route::get(&link, "task_link_get", children::get::<Links>),
        Route::patch(&link, "task_link_patch", children::patch::<Links>),
        Route::delete(&link, "task_link_delete", children::delete::<Links>),
    ]
}

fn file_routes() -> Vec<Route> {
    let task = format!("{LISTS}/{{list}}/tasks/{{task}}");
    let all = format!("{task}/attachments");
    let one = format!("{all}/{{attachment}}");
    let session = format!("{task}/attachmentSessions/{{session}}");
    vec![
        Route::get(&all, "task_attachment_list", files::list),
        Route::post(&all, "task_attachment_create", files::create),
        Route::post(&format!("{all}/createUploadSession"), "task_upload_session", files::open_session),
        Route::get(&one, "task_attachment_get", files::get),
        Route::delete(&one, "task_attachment_delete", files::delete),
        Route::get(&format!("{one}/$value"), "task_attachment_value", files::value),
        Route::get(&session, "task_upload_status", files::session_status),
        Route::delete(&session, "task_upload_cancel", files::cancel_session),
        Route::put(&format!("{session}/content"), "task_upload", files::put_piece),
    ]
}
