//! The most memory a worker ever has in the first backup of a very large mailbox and of a very large drive, limits off.
//!
//! `make bench-memory` takes a million of each, which is hours on two cores; `make bench-memory ITEMS=200000,400000` tells the slope.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::cast_precision_loss)]

#[path = "allocator.rs"]
mod allocator;

use std::time::Duration;

use anyhow::Context as _;
use harness::{
    ClusterOptions,
    protected::{Protected, WITHOUT_LIMITS},
    sim,
};
use holdfast_graph_sim::SimOptions;

const ITEMS: u32 = 1_000_000;
const ITEM_BYTES: u64 = 2_000;
const CEILING_BYTES: u64 = 512 << 20;
const MIB: u64 = 1 << 20;
const WITHIN: Duration = Duration::from_secs(12 * 3_600);
/// The simulator gives a single mailbox exactly what it is asked for.
const ONE: u32 = 1;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut sizes, mut workloads) = (vec![ITEMS], vec!["mail", "onedrive"]);
    for argument in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
        match argument.split_once('=').context("name=value")? {
            ("items", list) => sizes = list.split(',').map(str::parse).collect::<Result<_, _>>()?,
            ("of", name) => workloads.retain(|workload| *workload == name),
            (name, _) => anyhow::bail!("no such option: {name}"),
        }
    }
    println!(
        "| of | items | first run | worker's peak | unchanged run | worker's peak |\n|---|---|---|---|---|---|"
    );
    for workload in workloads {
        for items in &sizes {
            measure(workload, *items).await?;
        }
    }
    Ok(())
}

/// One worker of its own for each size: a peak is of a process's whole life.
async fn measure(workload: &str, items: u32) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let protected = Protected::start(folder.path(), tenant(workload, items), &cluster()).await;
    let peak = || protected.cluster.workers[0].peak_memory_bytes();
    let first = protected.back_up(&[], &[workload], WITHIN).await;
    let after_first = peak();
    let listed: u64 = first.accounts().map(|account| account.stored).sum();
    let second = protected.back_up(&[], &[workload], WITHIN).await;
    let after_second = peak();
    println!(
        "| {workload} | {listed} | {:.0} s | {} MiB | {:.0} s | {} MiB |",
        first.took.as_secs_f64(),
        after_first / MIB,
        second.took.as_secs_f64(),
        after_second / MIB
    );
    if after_second > CEILING_BYTES {
        println!("missed by {workload}: more than {} MiB", CEILING_BYTES / MIB);
    }
    Ok(())
}

fn tenant(workload: &str, items: u32) -> SimOptions {
    let is_mail = workload == "mail";
    let messages = if is_mail { items } else { 0 };
    let mut options = sim::options(ONE, messages, u64::from(messages) * ITEM_BYTES);
    options.population.max_message_bytes = 4 * ITEM_BYTES;
    options.population.drive_files_per_user = if is_mail { 0 } else { items };
    options.population.drive_file_bytes = ITEM_BYTES;
    options.population.drive_max_file_bytes = 4 * ITEM_BYTES;
    options.limits.enabled = false;
    options
}

fn cluster() -> ClusterOptions {
    ClusterOptions {
        coordinators: 1,
        workers: 1,
        nodes: vec!["a"],
        lease_seconds: 20,
        slots: 1,
        quota: WITHOUT_LIMITS.to_owned(),
        copies: 1,
        ack_sites: 1,
        ..ClusterOptions::default()
    }
}
