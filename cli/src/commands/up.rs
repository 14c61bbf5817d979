//! `holdfast up`: every role in this process, with embedded defaults.

use std::{path::PathBuf, time::Duration};

use holdfast_job_queue::InProcessQueue;
use holdfast_runtime::{Exit, Shutdown, config, telemetry};
use holdfast_storage_node::{NodeHandle, StorageNodeOptions};
use serde::Serialize;

use super::daemons::{clock, random};
use crate::{
    client::Profile,
    error::CliError,
    local::{LocalCluster, LocalOptions},
    output::{Format, say},
    startup,
};

/// A storage node that ended itself is started again after this long.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// Run every role on this machine with embedded defaults
///
/// Two sites on one machine prove the software, not the protection: put the second site on another machine before you rely on
/// it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast up --data /srv/holdfast
  holdfast up --data /srv/holdfast --config /etc/holdfast/up.toml")]
pub struct Options {
    /// The folder everything is kept in; made when missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Ports, sites and capacities (TOML); default: coordinator on 127.0.0.1:7400, three nodes in two sites
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Tells scripts that the cluster takes calls, and where.
#[derive(Serialize)]
struct Ready {
    coordinator: String,
    admin: String,
    storage_nodes: usize,
    data: PathBuf,
    key_file: PathBuf,
    profile: PathBuf,
}

impl Ready {
    fn show(&self) {
        say!(
            "Holdfast is up: coordinator {}, {} storage nodes, data in {}.",
            self.coordinator,
            self.storage_nodes,
            self.data.display()
        );
        say!(
            "Connect a tenant: holdfast tenant connect NAME --tenant-id ID --client-id ID --client-secret-file FILE"
        );
        say!("Keep a copy of {} offline: without it nothing can be restored.", self.key_file.display());
    }
}

pub async fn run(options: Options, format: Format) -> Result<Exit, CliError> {
    let local: LocalOptions = match &options.config {
        Some(path) => config::load(path).map_err(CliError::config)?,
        None => LocalOptions::default(),
    };
    let profile = Profile::default_path()?;
    let cluster = LocalCluster::open(&options.data, &local)?;
    let _telemetry =
        telemetry::init("up", "local", &telemetry::TelemetryOptions::default()).map_err(CliError::config)?;
    let shutdown = Shutdown::on_signals();
    let nodes = start_nodes(&cluster, &shutdown).await?;
    let control = Control::start(&cluster, &shutdown).await?;
    cluster.profile.save(&profile)?;
    let ready = Ready {
        coordinator: local.listen,
        admin: local.admin_listen,
        storage_nodes: nodes.len(),
        data: cluster.folder().to_owned(),
        key_file: cluster.folder().join("key.json"),
        profile,
    };
    format.print_line(&ready, Ready::show)?;
    shutdown.wait().await;
    control.join().await?;
    for node in nodes {
        node.await.map_err(CliError::failed)?.map_err(startup::failed)?;
    }
    Ok(Exit::Ok)
}

type NodeTask = tokio::task::JoinHandle<Result<(), holdfast_storage_node::Error>>;

async fn start_nodes(cluster: &LocalCluster, shutdown: &Shutdown) -> Result<Vec<NodeTask>, CliError> {
    let mut nodes = Vec::new();
    for node in &cluster.nodes {
        let options: StorageNodeOptions = config::load(&node.config).map_err(CliError::config)?;
        // Each listens before it is called up: a port that is taken ends the command, not only the node.
        let node = holdfast_storage_node::start(options.clone(), clock(), random(), shutdown.clone())
            .await
            .map_err(startup::failed)?;
        nodes.push(tokio::spawn(keep_running(node, options, shutdown.clone())));
    }
    Ok(nodes)
}

/// A node whose state takes no more, or that lost a disk, ends itself: here nobody else is there to start it again.
async fn keep_running(
    mut node: NodeHandle,
    options: StorageNodeOptions,
    shutdown: Shutdown,
) -> Result<(), holdfast_storage_node::Error> {
    loop {
        match node.join().await {
            Err(error) if error.is_mended_by_restart() && !shutdown.is_triggered() => {}
            ended => return ended,
        }
        if shutdown.or(tokio::time::sleep(RESTART_PAUSE)).await.is_none() {
            return Ok(());
        }
        tracing::warn!(node = options.node_id, "storage node is started again");
        node = holdfast_storage_node::start(options.clone(), clock(), random(), shutdown.clone())
            .await
            .inspect_err(|error| {
                tracing::error!(node = options.node_id, %error, "storage node cannot be started again: it stays away");
            })?;
    }
}

/// Coordinator and worker in this process, joined by the in-process queue and ledger.
pub struct Control {
    coordinator: holdfast_coordinator::CoordinatorHandle,
    worker: tokio::task::JoinHandle<Result<(), holdfast_worker::Error>>,
}

impl Control {
    /// Starts both and comes back when the coordinator takes calls.
    pub async fn start(cluster: &LocalCluster, shutdown: &Shutdown) -> Result<Self, CliError> {
        let queue = InProcessQueue::new();
        let options: holdfast_coordinator::CoordinatorOptions =
            config::load(&cluster.coordinator).map_err(CliError::config)?;
        let worker_options: holdfast_worker::WorkerOptions =
            config::load(&cluster.worker).map_err(CliError::config)?;
        let worker_parts = holdfast_worker::Parts::in_process(&worker_options, &queue, clock(), random())
            .map_err(startup::failed)?;
        let parts = holdfast_coordinator::Parts {
            clock: clock(),
            random: random(),
            queue: queue.publisher(),
            ledger: Some(worker_parts.ledger.clone()),
        };
        let coordinator =
            holdfast_coordinator::start(options, parts, shutdown.clone()).await.map_err(startup::failed)?;
        let worker = tokio::spawn(holdfast_worker::run(worker_options, worker_parts, shutdown.clone()));
        Ok(Self { coordinator, worker })
    }

    /// Waits for both to end after the shutdown was triggered.
    pub async fn join(self) -> Result<(), CliError> {
        let worker = self.worker.await;
        // Both are waited for before either's failure is told: nothing writes into the folder after this.
        let coordinator = self.coordinator.join().await;
        worker.map_err(CliError::failed)?.map_err(startup::failed)?;
        coordinator.map_err(startup::failed)
    }
}
