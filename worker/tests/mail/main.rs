//! Backup, restore, export and verify of a mailbox against the simulator and a store in memory.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod backup;
mod export;
mod harness;
mod recipes;
mod restore;
mod resume;
mod settings;
#[path = "../support/mod.rs"]
mod support;
