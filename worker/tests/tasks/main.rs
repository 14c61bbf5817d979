//! Backup and restore of To Do against the simulator and a store in memory.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod backup;
mod harness;
mod restore;
mod resume;
#[path = "../support/mod.rs"]
mod support;
