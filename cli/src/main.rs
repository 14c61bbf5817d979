//! The `holdfast` binary: every role, all roles in one, and the operator's commands.
//!
//! This file is the boot sequence; `commands/` has one file per command.

mod client;
mod commands;
mod demo;
mod error;
mod failed_items;
mod follow;
mod local;
mod output;
mod quota_use;
mod redact;
mod startup;
mod storage_health;

use clap::Parser as _;
use holdfast_runtime::Exit;

/// Buffers of a megabyte come and go on every node and worker; the system's allocator gives each back to the kernel and
/// faults it in again (a quarter of a storage node's ingest).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let arguments = commands::Arguments::parse();
    holdfast_runtime::install_crypto();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note!("error: cannot start the async runtime: {error}");
            return Exit::Failed.into();
        }
    };
    let outcome = runtime.block_on(commands::run(arguments));
    // Blocking reads of stdin or a hung disk must not hold the exit back.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::note!("error: {error}");
            error.exit().into()
        }
    }
}
