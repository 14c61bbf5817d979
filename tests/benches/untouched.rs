//! What a run costs when nobody has touched anything: requests by kind, bytes stored, the worker's memory.
//!
//! 200 people with mail, calendars, contacts, tasks and a drive are backed up three times without a change between. The second
//! and third run are looked at: one call per delta scope, at most 8 fixed calls per mailbox, the pages of calendars that have
//! no delta, no content, nothing stored, no memory more.
//!
//! `make bench-untouched`, `make bench-untouched MAILBOXES=20`.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::cast_precision_loss)]

#[path = "allocator.rs"]
mod allocator;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use harness::{
    ClusterOptions,
    protected::{Finished, Protected, WITHOUT_LIMITS},
    sim,
};
use holdfast_graph_sim::SimOptions;

const MAILBOXES: u32 = 200;
const ITEMS_OF_A_WORKLOAD: u32 = 20;
const MESSAGE_BYTES: u64 = 3_000;
const WITHIN: Duration = Duration::from_secs(3_600);
/// One call each per run: of items, and of the folders and lists that they are in.
const OF_DELTA_SCOPES: [&str; 8] = [
    "message_delta",
    "contact_delta",
    "task_delta",
    "calendar_event_delta",
    "drive_delta",
    "folder_delta",
    "contact_folder_delta",
    "todo_list_delta",
];
/// Pages of calendars without delta.
const OF_LISTED_CALENDARS: [&str; 2] = ["calendar_event_list", "calendar_event_view"];
/// Whoever asks for these reads content.
const OF_CONTENT: [&str; 8] = [
    "message_value",
    "attachment_value",
    "drive_content",
    "drive_download",
    "drive_version_content",
    "contact_photo_value",
    "task_attachment_value",
    "calendar_event_attachment_value",
];
/// Calls of a mailbox that are there whatever it holds.
const FIXED_GOAL: u64 = 8;
/// Resident memory may grow so much from an untouched run to the next: what the allocator keeps is not exact.
const GROWTH_GOAL_BYTES: u64 = 16 << 20;
const MIB: u64 = 1 << 20;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let mailboxes = arguments.next().map_or(Ok(MAILBOXES), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let protected = Protected::start(folder.path(), tenant(mailboxes), &cluster()).await;
    let first = protected.back_up(&[], &[], WITHIN).await;
    println!(
        "{mailboxes} people, first run: {:.1} s, {} requests",
        first.took.as_secs_f64(),
        n_requests(&first)
    );
    let second = protected.back_up(&[], &[], WITHIN).await;
    let after_second = resident_bytes(&protected)?;
    let third = protected.back_up(&[], &[], WITHIN).await;
    let after_third = resident_bytes(&protected)?;
    report(&second, u64::from(mailboxes));
    println!("\nthird run: {:.1} s, {} requests", third.took.as_secs_f64(), n_requests(&third));
    println!(
        "worker's memory after the second and the third: {} and {} MiB",
        after_second / MIB,
        after_third / MIB
    );
    missed(after_third <= after_second + GROWTH_GOAL_BYTES, "an untouched run costs memory");
    missed(
        second.requests() == third.requests(),
        "the same question is asked more or less often the next time",
    );
    Ok(())
}

/// The table of requests, and what misses its goal.
fn report(run: &Finished, mailboxes: u64) {
    println!("\n| request | of all | least of a person | most of a person |\n|---|---|---|---|");
    for (kind, all) in run.requests() {
        let of_people: Vec<u64> = people(run).map(|kinds| kinds.get(&kind).copied().unwrap_or(0)).collect();
        let (least, most) = (of_people.iter().min(), of_people.iter().max());
        println!("| {kind} | {all} | {} | {} |", least.unwrap_or(&0), most.unwrap_or(&0));
    }
    let fixed = |kinds: &BTreeMap<String, u64>| -> u64 {
        let counted =
            |kind: &&String| !is_one_of(kind, &OF_DELTA_SCOPES) && !is_one_of(kind, &OF_LISTED_CALENDARS);
        kinds.keys().filter(counted).map(|kind| kinds[kind]).sum()
    };
    let most_fixed = people(run).map(fixed).max().unwrap_or(0);
    let contents: u64 =
        run.requests().iter().filter(|(kind, _)| is_one_of(kind, &OF_CONTENT)).map(|(_, n)| n).sum();
    let stored: u64 = run.accounts().map(|account| account.stored).sum();
    let bytes: u64 = run.accounts().map(|account| account.bytes_stored).sum();
    println!(
        "\nuntouched run: {:.1} s, {} requests ({:.1} a person), at most {most_fixed} fixed ones of a person, {contents} contents, {stored} items and {bytes} bytes stored",
        run.took.as_secs_f64(),
        n_requests(run),
        n_requests(run) as f64 / mailboxes as f64
    );
    missed(most_fixed <= FIXED_GOAL, "more than 8 fixed calls of a person");
    missed(contents == 0, "content is read again");
    missed(stored == 0, "something is stored again");
}

/// The requests of each person; the directory's are nobody's.
fn people(run: &Finished) -> impl Iterator<Item = &BTreeMap<String, u64>> {
    run.counters.requests.iter().filter(|(who, _)| who.contains('@')).map(|(_, kinds)| kinds)
}

fn is_one_of(kind: &str, kinds: &[&str]) -> bool {
    kinds.contains(&kind)
}

fn n_requests(run: &Finished) -> u64 {
    run.requests().values().sum()
}

fn missed(is_met: bool, goal: &str) {
    if !is_met {
        println!("missed: {goal}");
    }
}

fn resident_bytes(protected: &Protected) -> anyhow::Result<u64> {
    let path = format!("/proc/{}/status", protected.cluster.workers[0].pid());
    let status = std::fs::read_to_string(path)?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("a resident size")?;
    let kib = line.split_whitespace().nth(1).context("a number")?;
    Ok(kib.parse::<u64>()? << 10)
}

fn tenant(mailboxes: u32) -> SimOptions {
    let bytes = u64::from(mailboxes * ITEMS_OF_A_WORKLOAD) * MESSAGE_BYTES;
    let mut options = sim::options(mailboxes, ITEMS_OF_A_WORKLOAD, bytes);
    let population = &mut options.population;
    population.max_message_bytes = 4 * MESSAGE_BYTES;
    population.contacts_per_user = ITEMS_OF_A_WORKLOAD;
    population.tasks_per_user = ITEMS_OF_A_WORKLOAD;
    population.calendar_events_per_user = ITEMS_OF_A_WORKLOAD;
    population.drive_files_per_user = ITEMS_OF_A_WORKLOAD;
    population.drive_file_bytes = MESSAGE_BYTES;
    options.limits.enabled = false;
    options
}

fn cluster() -> ClusterOptions {
    ClusterOptions {
        coordinators: 1,
        workers: 1,
        nodes: vec!["a"],
        lease_seconds: 20,
        slots: 8,
        quota: WITHOUT_LIMITS.to_owned(),
        copies: 1,
        ack_sites: 1,
        ..ClusterOptions::default()
    }
}
