//! What people have at Microsoft, one module each: state per user, routes, generation, evolution, truth.
//!
//! A new workload is its own module and one line in [`ALL`]; nothing else names it.
//!
//! `route` finds the workload of a call · `backend` is which part of Microsoft 365 answers, with its limits ·
//! `states` keeps what a person has · `objects` is shared by those whose items are JSON objects in places.

pub(crate) mod backend;
pub(crate) mod calendar;
pub(crate) mod contacts;
pub(crate) mod directory;
pub(crate) mod drive;
pub(crate) mod mail;
pub(crate) mod mailbox_settings;
pub(crate) mod objects;
pub(crate) mod route;
pub(crate) mod states;
pub(crate) mod todo;

use std::sync::Arc;

use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http::{Outside, Refusal, no_such_host};
use crate::rng::Rng;
use crate::workloads::backend::Backend;
use crate::workloads::route::Route;
use crate::workloads::states::States;
use crate::world::World;

/// The registry.
pub(crate) static ALL: &[&dyn Workload] = &[
    &directory::Directory,
    &mail::Mail,
    &mailbox_settings::MailboxSettings,
    &contacts::Contacts,
    &todo::Todo,
    &calendar::Calendar,
    &drive::OneDrive,
];

/// The workload that control calls mean when they name none.
pub(crate) const DEFAULT: &str = mail::NAME;

/// One workload of the simulated tenant.
///
/// What a workload does not have (the directory never changes) it leaves to the defaults.
pub(crate) trait Workload: Send + Sync {
    /// What control calls name it by.
    fn name(&self) -> &'static str;

    /// Which part of Microsoft 365 answers its calls.
    fn backend(&self) -> Backend;

    /// Application roles that let an app in, any of them.
    fn roles(&self) -> Roles;

    /// Its calls.
    fn routes(&self) -> Vec<Route>;

    /// What its items are called in control answers.
    fn items(&self) -> &'static str {
        self.name()
    }

    /// Adds what it keeps per user.
    fn add_states(&self, _states: &mut States) {}

    /// Lets time pass for one person and says what did happen.
    fn evolve(&self, _world: &World, _user: u32, _wanted: &Changes, _rng: &mut Rng) -> Changes {
        Changes::default()
    }

    /// Empties it for one person and says how many items went; none = there is nothing that could.
    fn wipe(&self, _world: &World, _user: u32) -> Option<u64> {
        None
    }

    /// What a person really has, one record per item.
    fn truth(&self, _world: &World, _user: u32, _slice: &Slice) -> Vec<Value> {
        Vec::new()
    }

    /// Answers calls to its own host beside Graph, whose paths begin with `_` and its name.
    fn outside(&self, _world: &Arc<World>, _call: &Outside<'_>) -> Result<Response, Refusal> {
        Err(no_such_host())
    }

    /// Makes every delta token of a person worthless.
    fn expire_delta(&self, _world: &World, _user: u32) {}
}

/// Finds a workload by name.
pub(crate) fn find(name: &str) -> Option<&'static dyn Workload> {
    ALL.iter().find(|one| one.name() == name).copied()
}

/// Which roles let an app read and write.
#[derive(Clone, Copy)]
pub(crate) struct Roles {
    pub read: &'static [&'static str],
    pub write: &'static [&'static str],
}

/// How much happens to one person's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changes {
    pub new: u64,
    pub edited: u64,
    pub moved: u64,
    pub deleted: u64,
    /// Small changes: a read flag, a photo, a ticked line, one occurrence, a permission.
    pub flags: u64,
    /// What was deleted and comes back; only drives have that.
    #[serde(default)]
    pub restored: u64,
}

/// Which part of a truth is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    pub skip: usize,
    pub top: usize,
    /// With the text of message bodies, not only their hashes.
    pub with_body: bool,
}

impl Slice {
    pub(crate) const ALL: Self = Self { skip: 0, top: usize::MAX, with_body: false };
}

impl Changes {
    /// Adds what happened to somebody else.
    pub(crate) fn add(&mut self, other: &Self) {
        self.new += other.new;
        self.edited += other.edited;
        self.moved += other.moved;
        self.deleted += other.deleted;
        self.flags += other.flags;
        self.restored += other.restored;
    }
}
