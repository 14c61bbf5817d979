//! Holdfast beside rclone's OneDrive reader on the same simulated drive under the same limits: a first full run, and a second one
//! of an untouched drive.
//!
//! rclone knows one address of Microsoft's only. It runs in a mount namespace of its own, where the names of Microsoft's hosts are
//! those of a loopback address, at which the simulator is reached by TLS with a certificate of our own. Its copy lies in a
//! folder; Holdfast's run is everything from the command to the durable record of the snapshot, fsync included. Holdfast asks the
//! simulator without TLS. Before each run a whole minute of Microsoft's units is free.
//!
//! `make bench-rclone`, `make bench-rclone FILES=500`. Needs root, for the namespace and port 443.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::cast_precision_loss)]

#[path = "../allocator.rs"]
mod allocator;
mod front;
mod peer;

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use harness::{
    ClusterOptions,
    protected::{Finished, Protected},
    sim,
};
use holdfast_graph_sim::SimOptions;

use self::{front::Front, peer::Rclone};

const FILES: u32 = 3_000;
const FILE_BYTES: u64 = 100_000;
const LATENCY_MS: u64 = 50;
const WITHIN: Duration = Duration::from_secs(3_600);
/// After it what was used of Microsoft's minute is there again.
const MINUTE: Duration = Duration::from_secs(61);
/// Contents at once, of both.
const AT_ONCE: u32 = 8;
const FIRST_GOAL: f64 = 1.0;
const SECOND_GOAL: f64 = 0.2;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let files = arguments.next().map_or(Ok(FILES), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let protected = Protected::start(folder.path(), tenant(files), &cluster()).await;
    let _front = Front::start(folder.path(), &protected.tenant.url()).await?;
    let owner = protected.tenant.users().remove(0);
    let rclone = Rclone::new(folder.path(), &protected.tenant, &owner).await?;

    println!(
        "| run | holdfast | requests | rclone | requests | holdfast takes of it |\n|---|---|---|---|---|---|"
    );
    for (run, goal) in [("first full", FIRST_GOAL), ("second", SECOND_GOAL)] {
        tokio::time::sleep(MINUTE).await;
        let ours = protected.back_up(std::slice::from_ref(&owner), &["onedrive"], WITHIN).await;
        tokio::time::sleep(MINUTE).await;
        let (theirs, their_requests) = rclone.copy(&protected.tenant).await?;
        let ratio = ours.took.as_secs_f64() / theirs.as_secs_f64();
        let our_requests: u64 = ours.requests().values().sum();
        println!(
            "| {run} | {:.1} s | {our_requests} | {:.1} s | {their_requests} | {ratio:.2} |",
            ours.took.as_secs_f64(),
            theirs.as_secs_f64()
        );
        if ratio > goal {
            println!("missed by the {run} run: more than {goal}");
        }
        same_files(&ours, &rclone.copied, run)?;
    }
    Ok(())
}

/// Whoever leaves files out is fast.
fn same_files(ours: &Finished, theirs: &Path, run: &str) -> anyhow::Result<()> {
    if run == "first full" {
        let stored: u64 = ours.accounts().map(|account| account.stored).sum();
        let copied = peer::count_files(theirs).context("count rclone's files")?;
        println!("files: {stored} stored, {copied} copied");
        anyhow::ensure!(copied > 0 && stored >= copied, "one of them left files out");
    }
    Ok(())
}

fn tenant(files: u32) -> SimOptions {
    let mut options = sim::options(1, 0, 0);
    options.population.drive_files_per_user = files;
    options.population.drive_file_bytes = FILE_BYTES;
    // rclone copies neither.
    options.population.drive_shared_percent = 0;
    options.population.drive_versioned_percent = 0;
    options.latency_ms = LATENCY_MS;
    options
}

fn cluster() -> ClusterOptions {
    ClusterOptions {
        coordinators: 1,
        workers: 1,
        nodes: vec!["a"],
        lease_seconds: 20,
        slots: 1,
        worker: format!("fetches-per-job = {AT_ONCE}\n"),
        copies: 1,
        ack_sites: 1,
        ..ClusterOptions::default()
    }
}
