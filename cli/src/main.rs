//! The `holdfast` binary: every role, all roles in one, and the operator's commands.
//!
//! This file is the boot sequence; `commands/` has one file per command.
// Data goes to stdout and everything else to stderr: a command line prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod client;
mod commands;
mod demo;
mod error;
mod follow;
mod local;
mod output;

use clap::Parser as _;
use holdfast_runtime::Exit;

fn main() -> std::process::ExitCode {
    let arguments = commands::Arguments::parse();
    holdfast_runtime::install_crypto();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the async runtime: {error}");
            return Exit::Failed.into();
        }
    };
    let outcome = runtime.block_on(commands::run(arguments));
    // Blocking reads of stdin or a hung disk must not hold the exit back.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error}");
            error.exit().into()
        }
    }
}
