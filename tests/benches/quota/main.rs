//! How much of Microsoft's limits a backup uses that is bound by them, and what it is refused: 40 mailboxes and one drive,
//! limits × 0.1 in real time.
//!
//! The simulator decides what is allowed and counts what it refuses; workers, broker, Redis, coordinator and storage are
//! processes of their own. What the limits allow is the limit of each window that begins within the time. Four variants:
//!
//! - `alone`: one worker with the ledger of its process;
//! - `shared`: four workers that share by Redis;
//! - `killed`: the same, Redis is killed and comes back with what it knew;
//! - `emptied`: the same, Redis is killed and comes back empty.
//!
//! `make bench-quota`, `make bench-quota MIN=2 VARIANTS=alone,shared`. `WINDOW=60` makes the mailboxes' window as many seconds
//! at the same rate, so that a short run sees it pass.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::cast_precision_loss)]

#[path = "../allocator.rs"]
mod allocator;
mod report;
mod variant;

use std::time::{Duration, Instant};

use harness::{
    ClusterOptions, eventually,
    protected::{Protected, TENANT},
    sim,
};
use holdfast_graph_sim::SimOptions;
use holdfast_proto::coordinator::{Job, ListJobsRequest};

use report::Measured;
use variant::{Plan, Variant, scaled};

/// Of Microsoft's limits.
const SCALE: f64 = 0.1;
const MAILBOXES: u32 = 40;
/// Microsoft's window of a mailbox.
const WINDOW_SECONDS: u64 = 600;
/// What it allows in this window.
const REQUESTS_PER_WINDOW: u64 = 10_000;
/// What it allows drives in a minute.
const UNITS_PER_MINUTE: u64 = 1_250;
/// The smallest mailbox has 0.4 of the mean, each message costs a request: none may come to its end.
const MESSAGES_OVER_ALLOWED: u64 = 3;
const MESSAGE_BYTES: u64 = 3_000;
/// Jobs at once of all workers: no job may keep another one from its limit.
const JOBS_AT_ONCE: u32 = 48;
const STARTS_WITHIN: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let plan = Plan::from_arguments()?;
    let runtime = tokio::runtime::Runtime::new()?;
    println!(
        "{MAILBOXES} mailboxes and a drive, limits × {SCALE}, {} s each, mailbox window {} s, load {}",
        plan.seconds,
        plan.window_seconds,
        report::load()
    );
    report::head();
    for variant in &plan.variants {
        let measured = runtime.block_on(measure(&plan, *variant))?;
        report::row(*variant, &plan, &measured);
    }
    Ok(())
}

/// Runs one variant for its time; nothing is finished by then, and everything is ended.
async fn measure(plan: &Plan, variant: Variant) -> anyhow::Result<Measured> {
    let folder = tempfile::tempdir()?;
    let mut protected = Protected::start(folder.path(), tenant(plan), &cluster(plan, variant)).await;
    let owner = protected.tenant.users().remove(0);
    protected.cluster.start_backup_of(TENANT, &[owner], &["onedrive"]).await;
    protected.cluster.start_backup_of(TENANT, &[], &["mail"]).await;
    eventually("somebody asks for a mailbox", STARTS_WITHIN, || async {
        let counters = protected.tenant.handle.counters();
        counters.requests.keys().any(|who| who.contains('@')).then_some(())
    })
    .await;
    let started = Instant::now();
    variant.disturb(plan, &mut protected.services.redis, started).await;
    tokio::time::sleep_until((started + plan.time()).into()).await;
    let counters = protected.tenant.handle.counters();
    // A job that had nothing more to do would be counted as quota that was not used.
    let status = protected.cluster.operator().list_jobs(ListJobsRequest::default()).await?.into_inner();
    let has_ended = |job: &&Job| !matches!(job.state.as_str(), "running" | "queued" | "deferred");
    let mut ended = status.jobs.iter().filter(|job| job.parent.is_empty()).filter(has_ended);
    if let Some(job) = ended.next() {
        anyhow::bail!("the job of {} ({}) is {}: {}", job.resource, job.workload, job.state, job.message);
    }
    Ok(Measured { counters, users: protected.tenant.users() })
}

fn tenant(plan: &Plan) -> SimOptions {
    let messages = u32::try_from(plan.allowed_per_mailbox() * MESSAGES_OVER_ALLOWED).unwrap_or(u32::MAX);
    let mut options = sim::options(MAILBOXES, messages, u64::from(MAILBOXES * messages) * MESSAGE_BYTES);
    options.population.max_message_bytes = 4 * MESSAGE_BYTES;
    options.population.users_without_drive = MAILBOXES - 1;
    options.population.drive_files_per_user = u32::try_from(plan.allowed_units() * 2).unwrap_or(u32::MAX);
    options.population.drive_file_bytes = MESSAGE_BYTES;
    options.limits.scale = SCALE;
    options.limits.requests_per_window = plan.requests_per_window();
    options.limits.window_seconds = plan.window_seconds;
    options
}

fn cluster(plan: &Plan, variant: Variant) -> ClusterOptions {
    let workers = variant.workers();
    ClusterOptions {
        coordinators: 1,
        workers,
        nodes: vec!["a"],
        lease_seconds: 20,
        slots: JOBS_AT_ONCE / u32::try_from(workers).unwrap_or(1),
        shares_quota: variant != Variant::Alone,
        quota: format!(
            "mailbox-requests = {}\nmailbox-window-s = {}\nsharepoint-requests = {}\n",
            scaled(plan.requests_per_window()),
            plan.window_seconds,
            scaled(UNITS_PER_MINUTE)
        ),
        copies: 1,
        ack_sites: 1,
        ..ClusterOptions::default()
    }
}
