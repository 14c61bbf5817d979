//! The scenarios: what Holdfast promises, on real services and real processes.
#![allow(clippy::print_stderr, clippy::print_stdout, clippy::disallowed_methods)]

mod bad_input;
mod bad_storage;
mod boundaries;
mod cluster_under_faults;
mod command_line;
mod examples;
mod large_mailbox;
mod layout_moves;
mod leadership;
mod old_formats;
mod promises;
mod site_loss;
mod split_drive;
mod storage_under_fire;
mod tracing;
mod zombie;
