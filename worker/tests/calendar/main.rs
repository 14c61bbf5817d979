//! Backup and restore of calendars against the simulator and a store in memory.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod backup;
mod changes;
mod export;
mod harness;
mod restore;
mod resume;
#[path = "../support/mod.rs"]
mod support;
