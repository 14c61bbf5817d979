//! `holdfast demo`: the main job on a simulated tenant, with everything real but Microsoft: back up, change, back up again, lose
//! a site, wipe all that a person has, restore it from the other site, compare item by item.
//!
//! Coordinator and worker run in this process, storage nodes as child processes, so that a site can be killed for real. All of it
//! lives in a temporary folder that goes away at the end.

mod nodes;
mod report;
mod tenant;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use holdfast_model::Workload;
use holdfast_proto::coordinator::{
    Job, ListNodesRequest, ListSnapshotsRequest, Snapshot, StartBackupRequest, StartRestoreRequest,
};
use holdfast_runtime::{Exit, Shutdown, telemetry};

use crate::{
    client::{self, Operator},
    commands::up::Control,
    error::CliError,
    follow,
    local::{LocalCluster, LocalOptions},
    output::{self, Format, note},
};
use nodes::NodeProcesses;
use report::{Change, Report, RunFigures};
use tenant::{DemoTenant, TENANT};

/// How long the storage nodes may take to start.
const START_WITHIN: Duration = Duration::from_secs(20);
/// The person who loses everything has the largest mailbox below this.
const WIPED_MAILBOX_BYTES_MAX: u64 = 100_000_000;

/// Show everything on a simulated tenant
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast demo
  holdfast demo --mailboxes 5 --messages 50 --bytes 20000000    a small one, in seconds")]
pub struct Options {
    /// Mailboxes in the simulated tenant
    #[arg(long, default_value_t = 25)]
    mailboxes: u32,
    /// Messages per mailbox, on average
    #[arg(long, default_value_t = 400)]
    messages: u32,
    /// Bytes in the tenant, about
    #[arg(long, default_value_t = 800_000_000)]
    bytes: u64,
    /// The seed that makes the tenant
    #[arg(long, default_value_t = 2026)]
    seed: u64,
    /// What is logged to stderr, as in RUST_LOG
    #[arg(long, default_value = "error")]
    log: String,
}

pub async fn run(options: Options, format: Format) -> Result<Exit, CliError> {
    let filter = telemetry::TelemetryOptions { filter: options.log.clone(), ..Default::default() };
    let _telemetry = telemetry::init("demo", "demo", &filter).map_err(CliError::config)?;
    let shutdown = Shutdown::on_signals();
    let folder = tempfile::Builder::new().prefix("holdfast-demo-").tempdir()?;
    let outcome = play_in(folder.path(), &options, &shutdown).await;
    // Everything that wrote there has ended. What cannot be removed is told, not left in silence.
    let removed =
        folder.close().map_err(|error| CliError::failed(format!("remove the demo's folder: {error}")));
    let report = outcome?;
    removed?;
    let Some(report) = report else { return Err(CliError::failed("interrupted: nothing is left behind")) };
    format.print(&report, Report::show)?;
    Ok(if report.is_good() { Exit::Ok } else { Exit::Failed })
}

/// The whole demo in a folder; `None` when it was interrupted. Nothing of it runs any more when this returns.
async fn play_in(folder: &Path, options: &Options, shutdown: &Shutdown) -> Result<Option<Report>, CliError> {
    let local =
        LocalOptions { node_capacity: "20GiB".to_owned(), ..LocalOptions::default() }.on_free_ports()?;
    let cluster = LocalCluster::open(folder, &local)?;
    let mut demo = Demo::start(&cluster, options, shutdown).await?;
    let outcome = shutdown.or(demo.play()).await;
    let stopped = demo.stop(shutdown).await;
    let report = outcome.transpose()?;
    stopped?;
    Ok(report)
}

struct Demo {
    nodes: NodeProcesses,
    control: Control,
    client: Operator,
    tenant: DemoTenant,
}

impl Demo {
    async fn start(cluster: &LocalCluster, options: &Options, shutdown: &Shutdown) -> Result<Self, CliError> {
        step("Starting three storage nodes in two sites, a coordinator, a worker and a simulated tenant");
        let nodes = NodeProcesses::start(cluster)?;
        let tenant =
            DemoTenant::start(options.mailboxes, options.messages, options.bytes, options.seed).await?;
        let client = client::connect_to(&cluster.profile)?;
        let control = Control::start(cluster, shutdown).await?;
        Ok(Self { nodes, control, client, tenant })
    }

    async fn all_nodes_up(&mut self) -> Result<(), CliError> {
        let deadline = tokio::time::Instant::now() + START_WITHIN;
        loop {
            let nodes = self.client.list_nodes(ListNodesRequest {}).await;
            if nodes.is_ok_and(|n| {
                !n.get_ref().nodes.is_empty() && n.get_ref().nodes.iter().all(|n| n.state == "up")
            }) {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(CliError::failed(
                    "the storage nodes did not start: run with --log info to see why",
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn play(&mut self) -> Result<Report, CliError> {
        self.all_nodes_up().await?;
        self.client.connect_tenant(self.tenant.connect_request()).await?;
        step("Backing everything up");
        let first = self.back_up().await?;
        step("Changing the tenant: new, edited, moved and deleted items");
        let change: Change = self.tenant.evolve().await?;
        step("Backing up again: the cost should follow the change");
        let second = self.back_up().await?;
        let user = self.tenant.largest_mailbox_below(WIPED_MAILBOX_BYTES_MAX).await?;
        let wiped = self.tenant.truth(&user).await?;
        let snapshots = self.newest_snapshots(&user).await?;
        step("Killing site-a (kill -9 on both of its nodes)");
        let killed = self.nodes.kill_site("site-a");
        step(&format!("Wiping all that {user} has ({} items)", wiped.items()));
        self.tenant.wipe(&user).await?;
        step("Restoring it from site-b");
        let restore = self.restore(&snapshots).await?;
        step("Comparing every item with the truth");
        let differences = wiped.differences(&self.tenant.truth(&user).await?);
        let counters = self.tenant.counters().await?;
        Ok(Report {
            mailboxes: self.tenant.mailboxes(),
            first,
            change,
            second,
            killed_nodes: killed,
            wiped_person: user,
            wiped_items: wiped.items() as u64,
            restore,
            differences,
            mails_sent: counters.mails_sent,
            early_requests: counters.early_requests,
        })
    }

    async fn back_up(&mut self) -> Result<RunFigures, CliError> {
        let request = StartBackupRequest { tenant: TENANT.to_owned(), ..Default::default() };
        let started = clock();
        let run = self.client.start_backup(request).await?.into_inner().run;
        let (_, jobs) = follow::run(&mut self.client, &run, "  backing up").await?;
        figures(&jobs, started)
    }

    async fn restore(&mut self, snapshots: &[Snapshot]) -> Result<RunFigures, CliError> {
        let started = clock();
        let mut jobs = Vec::new();
        for snapshot in snapshots {
            let request = StartRestoreRequest {
                snapshot: snapshot.id.clone(),
                conflict: "skip".to_owned(),
                ..Default::default()
            };
            let run = self.client.start_restore(request).await?.into_inner().run;
            let verb = format!("  restoring {}", snapshot.workload);
            jobs.extend(follow::run(&mut self.client, &run, &verb).await?.1);
        }
        figures(&jobs, started)
    }

    /// The newest snapshot of each workload of a person.
    async fn newest_snapshots(&mut self, user: &str) -> Result<Vec<Snapshot>, CliError> {
        let mut newest = Vec::new();
        for workload in Workload::OF_A_USER {
            let request = ListSnapshotsRequest {
                tenant: TENANT.to_owned(),
                resource: format!("user:{user}"),
                workload: workload.to_string(),
            };
            let snapshots = self.client.list_snapshots(request).await?.into_inner().snapshots;
            let last = snapshots.into_iter().max_by_key(|snapshot| snapshot.sequence);
            let none = || CliError::failed(format!("no snapshot of {user}'s {workload} was committed"));
            newest.push(last.ok_or_else(none)?);
        }
        Ok(newest)
    }

    async fn stop(self, shutdown: &Shutdown) -> Result<(), CliError> {
        shutdown.trigger();
        let joined = self.control.join().await;
        self.tenant.stop().await;
        self.nodes.stop();
        joined
    }
}

fn figures(jobs: &[Job], started: Instant) -> Result<RunFigures, CliError> {
    if let Some(job) = jobs.iter().find(|job| job.state != "done") {
        return Err(CliError::failed(format!(
            "{} of {} of {} ended {}: {}",
            job.kind, job.workload, job.resource, job.state, job.message
        )));
    }
    Ok(RunFigures {
        jobs: jobs.len(),
        account: follow::total(jobs),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The demo measures itself; nothing it decides depends on the time.
#[expect(clippy::disallowed_methods, reason = "a stopwatch for the report")]
fn clock() -> Instant {
    Instant::now()
}

fn step(text: &str) {
    note!("{} {text}", output::BULLET);
}
