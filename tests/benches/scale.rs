//! Four worker processes beside one: how much sooner they are done where Microsoft's latency binds.
//!
//! Limits off, each answer takes 100 ms, 8 requests in flight per worker. `mailboxes`: 200 of them; `drive`: one of 20,000 files,
//! which is split into shards. Each side has services, storage and a tenant of its own, made from the same seed.
//!
//! `make bench-scale`, `make bench-scale OF=drive`.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::cast_precision_loss)]

#[path = "allocator.rs"]
mod allocator;

use std::time::Duration;

use harness::{
    ClusterOptions,
    protected::{Protected, WITHOUT_LIMITS},
    sim,
};
use holdfast_graph_sim::SimOptions;

const LATENCY_MS: u64 = 100;
const MANY: usize = 4;
const WITHIN: Duration = Duration::from_secs(3_600);
const ITEM_BYTES: u64 = 3_000;

/// What is backed up by one and by many.
struct Subject {
    name: &'static str,
    workload: &'static str,
    goal: f64,
    people: u32,
    messages: u32,
    files: u32,
    /// Lines of the workers' configuration: jobs at once × contents at once are the 8 in flight.
    worker: &'static str,
    slots: u32,
}

const SUBJECTS: [Subject; 2] = [
    Subject {
        name: "mailboxes",
        workload: "mail",
        goal: 3.6,
        people: 200,
        messages: 20,
        files: 0,
        worker: "fetches-per-job = 2\n",
        slots: 4,
    },
    Subject {
        name: "drive",
        workload: "onedrive",
        goal: 3.2,
        people: 1,
        messages: 0,
        files: 20_000,
        worker: "fetches-per-job = 8\ndrive-shard-files = 1000\n",
        slots: 1,
    },
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let names: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let asked = |subject: &&Subject| names.iter().any(|name| name == subject.name);
    println!("| of | one worker | requests | four workers | requests | times |\n|---|---|---|---|---|---|");
    for subject in SUBJECTS.iter().filter(asked) {
        let (one, requests_of_one) = measure(subject, 1).await?;
        let (many, requests_of_many) = measure(subject, MANY).await?;
        let times = one.as_secs_f64() / many.as_secs_f64();
        println!(
            "| {} | {:.1} s | {requests_of_one} | {:.1} s | {requests_of_many} | {times:.2} |",
            subject.name,
            one.as_secs_f64(),
            many.as_secs_f64()
        );
        if times < subject.goal {
            println!("missed by {}: less than {} times", subject.name, subject.goal);
        }
    }
    Ok(())
}

async fn measure(subject: &Subject, workers: usize) -> anyhow::Result<(Duration, u64)> {
    let folder = tempfile::tempdir()?;
    let options = ClusterOptions {
        coordinators: 1,
        workers,
        nodes: vec!["a"],
        lease_seconds: 20,
        slots: subject.slots,
        worker: subject.worker.to_owned(),
        quota: WITHOUT_LIMITS.to_owned(),
        copies: 1,
        ack_sites: 1,
        ..ClusterOptions::default()
    };
    let protected = Protected::start(folder.path(), tenant(subject), &options).await;
    let run = protected.back_up(&[], &[subject.workload], WITHIN).await;
    Ok((run.took, run.requests().values().sum()))
}

fn tenant(subject: &Subject) -> SimOptions {
    let bytes = u64::from(subject.people * subject.messages) * ITEM_BYTES;
    let mut options = sim::options(subject.people, subject.messages, bytes);
    options.population.max_message_bytes = 4 * ITEM_BYTES;
    options.population.drive_files_per_user = subject.files;
    options.population.drive_file_bytes = ITEM_BYTES;
    options.limits.enabled = false;
    options.latency_ms = LATENCY_MS;
    options
}
