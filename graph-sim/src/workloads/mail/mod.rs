//! Mail: folders, messages, attachments.
//!
//! `mailbox` holds it and numbers every change · `content` generates it, `create` makes it from what the API is given ·
//! `folders`, `messages`, `attachments` answer calls · `json` and `mime` write it · `truth` is what tests compare.
//!
//! Invariant: content is generated from (seed, mailbox, number) whenever it is read; memory holds only what was
//! created or changed through the API.

pub(crate) mod attachments;
mod changes;
pub(crate) mod content;
pub(crate) mod create;
pub(crate) mod eml;
mod evolve;
mod filter;
mod folders;
pub(crate) mod json;
pub(crate) mod mailbox;
pub(crate) mod messages;
pub(crate) mod mime;
mod search_folders;
pub(crate) mod truth;

use serde_json::Value;

use crate::http::{Answer, Call, Reply};
use crate::rng::Rng;
use crate::workloads::backend::Backend;
use crate::workloads::mail::mailbox::{INBOX, Mailbox, RECOVERABLE, Source};
use crate::workloads::route::Route;
use crate::workloads::states::{States, UserState};
use crate::workloads::{Changes, Roles, Slice, Workload};
use crate::world::World;

pub(crate) const NAME: &str = "mail";

/// The registry's entry.
pub(crate) struct Mail;

impl Workload for Mail {
    fn name(&self) -> &'static str {
        NAME
    }

    fn backend(&self) -> Backend {
        Backend::Outlook
    }

    fn roles(&self) -> Roles {
        Roles { read: &["Mail.Read", "Mail.ReadWrite"], write: &["Mail.ReadWrite"] }
    }

    fn items(&self) -> &'static str {
        "messages"
    }

    fn routes(&self) -> Vec<Route> {
        let mut routes = folder_routes();
        routes.extend(message_routes("users/{user}/mailFolders/{folder}/messages"));
        routes.extend(message_routes("users/{user}/messages"));
        routes.push(Route::get("users/{user}/messages/delta", "message_delta", messages::delta_of_mailbox));
        routes.push(send_route("users/{user}/sendMail"));
        routes
    }

    fn add_states(&self, states: &mut States) {
        states.add::<Mailbox>();
    }

    fn evolve(&self, world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
        evolve::evolve(world, user, wanted, rng)
    }

    fn wipe(&self, world: &World, user: u32) -> Option<u64> {
        let mut mailbox = world.mailbox(user);
        let messages = mailbox.messages.len();
        mailbox.wipe();
        Some(messages as u64)
    }

    fn truth(&self, world: &World, user: u32, slice: &Slice) -> Vec<Value> {
        let plain = |one| serde_json::to_value(one).expect("a truth is plain data");
        truth::list(world, user, slice).into_iter().map(plain).collect()
    }

    fn expire_delta(&self, world: &World, user: u32) {
        world.mailbox(user).epoch += 1;
    }
}

impl UserState for Mailbox {
    fn populate(world: &World, user: u32) -> Self {
        let options = world.options();
        let mut mailbox = Self::generate(options.seed, user, &world.generator);
        search_folders::generate(&mut mailbox, options.seed, options.population.search_folders_per_user);
        for _ in 0..options.population.recoverable_messages_per_user {
            mailbox.receive(RECOVERABLE, 0);
        }
        let users = world.people.len().max(1);
        for content in world.eml.iter().skip(user as usize).step_by(users) {
            mailbox.insert(INBOX, Source::Owned(content.clone()), content.received_ms);
        }
        mailbox
    }
}

fn folder_routes() -> Vec<Route> {
    const FOLDERS: &str = "users/{user}/mailFolders";
    const ONE: &str = "users/{user}/mailFolders/{folder}";
    const BELOW: &str = "users/{user}/mailFolders/{folder}/childFolders";
    vec![
        Route::get(FOLDERS, "folder_list", folders::children),
        Route::post(FOLDERS, "folder_create", folders::children),
        Route::get("users/{user}/mailFolders/delta", "folder_delta", folders::delta),
        Route::get(ONE, "folder_get", folders::one),
        Route::patch(ONE, "folder_patch", folders::one),
        Route::delete(ONE, "folder_delete", folders::one),
        Route::get(BELOW, "folder_list", folders::children),
        Route::post(BELOW, "folder_create", folders::children),
        Route::get("users/{user}/mailFolders/{folder}/messages/delta", "message_delta", messages::delta),
    ]
}

/// The calls on messages below `at`.
fn message_routes(at: &str) -> Vec<Route> {
    let one = format!("{at}/{{message}}");
    let attachments = format!("{one}/attachments");
    let attachment = format!("{attachments}/{{attachment}}");
    let mut routes = vec![
        Route::get(at, "message_list", messages::collection),
        Route::post(at, "message_create", messages::collection),
        Route::get(&one, "message_get", messages::one),
        Route::patch(&one, "message_patch", messages::one),
        Route::delete(&one, "message_delete", messages::one),
        Route::get(&format!("{one}/$value"), "message_value", messages::value),
        Route::post(&format!("{one}/move"), "message_move", messages::relocate),
        Route::get(&attachments, "attachment_list", attachments::collection),
        Route::post(&attachments, "attachment_create", attachments::collection),
        Route::post(
            &format!("{attachments}/createUploadSession"),
            "upload_session",
            attachments::open_session,
        ),
        Route::get(&attachment, "attachment_get", attachments::one),
        Route::delete(&attachment, "attachment_delete", attachments::one),
        Route::get(&format!("{attachment}/$value"), "attachment_value", attachments::value),
    ];
    routes.extend(
        ["send", "reply", "replyAll", "forward"].map(|action| send_route(&format!("{one}/{action}"))),
    );
    routes
}

/// A call that would send mail to people.
fn send_route(path: &str) -> Route {
    Route::post(path, "send", send).with_roles(&["Mail.Send", "Mail.ReadWrite"])
}

fn send(call: &Call) -> Answer {
    call.would_send("send");
    Ok(Reply::Empty(202))
}
