//! Backup and restore of contacts against the simulator and a store in memory.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod backup;
mod export;
mod harness;
mod photos;
mod restore;
mod resume;
#[path = "../support/mod.rs"]
mod support;
