//! Backup and restore of a drive against the simulator and a store in memory.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod backup;
mod export;
mod harness;
mod large;
mod restore;
mod split;
#[path = "../support/mod.rs"]
mod support;
