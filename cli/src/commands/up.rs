//! `holdfast up`: every role in this process, with embedded defaults.

use std::path::PathBuf;

use holdfast_job_queue::InProcessQueue;
use holdfast_runtime::{Exit, Shutdown, config, telemetry};

use super::daemons::{clock, random};
use crate::{
    client::Profile,
    error::CliError,
    local::{LocalCluster, LocalOptions},
    output::say,
};

/// Run every role on this machine with embedded defaults
///
/// Two sites on one machine prove the software, not the protection: put the second site on another machine before you rely on
/// it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  holdfast up --data /srv/holdfast")]
pub struct Options {
    /// The folder everything is kept in; made when missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Ports, sites and capacities (TOML); default: coordinator on 127.0.0.1:7400, three nodes in two sites
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub async fn run(options: Options) -> Result<Exit, CliError> {
    let local: LocalOptions = match &options.config {
        Some(path) => config::load(path).map_err(CliError::config)?,
        None => LocalOptions::default(),
    };
    let cluster = LocalCluster::open(&options.data, &local)?;
    let _telemetry =
        telemetry::init("up", "local", &telemetry::TelemetryOptions::default()).map_err(CliError::config)?;
    let shutdown = Shutdown::on_signals();
    let nodes = start_nodes(&cluster, &shutdown).await?;
    let control = Control::start(&cluster, &shutdown).await?;
    let profile = Profile::default_path()?;
    cluster.profile.save(&profile)?;
    say!(
        "Holdfast is up: coordinator {}, {} storage nodes, data in {}.",
        local.listen,
        nodes.len(),
        cluster.folder().display()
    );
    say!(
        "Connect a tenant: holdfast tenant connect NAME --tenant-id ID --client-id ID --client-secret-file FILE"
    );
    say!(
        "Keep a copy of {} offline: without it nothing can be restored.",
        cluster.folder().join("key.json").display()
    );
    shutdown.wait().await;
    control.join().await?;
    for node in nodes {
        node.await
            .map_err(CliError::failed)?
            .map_err(|error| CliError::failed(super::daemons::chain(&error)))?;
    }
    Ok(Exit::Ok)
}

type NodeTask = tokio::task::JoinHandle<Result<(), holdfast_storage_node::Error>>;

async fn start_nodes(cluster: &LocalCluster, shutdown: &Shutdown) -> Result<Vec<NodeTask>, CliError> {
    let mut nodes = Vec::new();
    for node in &cluster.nodes {
        let options = config::load(&node.config).map_err(CliError::config)?;
        // Each listens before it is called up: a port that is taken ends the command, not only the node.
        let node = holdfast_storage_node::start(options, clock(), random(), shutdown.clone())
            .await
            .map_err(|error| CliError::failed(super::daemons::chain(&error)))?;
        nodes.push(tokio::spawn(node.join()));
    }
    Ok(nodes)
}

/// Coordinator and worker in this process, joined by the in-process queue and ledger.
pub struct Control {
    coordinator: holdfast_coordinator::CoordinatorHandle,
    worker: tokio::task::JoinHandle<Result<(), holdfast_worker::Error>>,
}

impl Control {
    /// Starts both and comes back when the coordinator takes calls.
    pub async fn start(cluster: &LocalCluster, shutdown: &Shutdown) -> Result<Self, CliError> {
        let failed = |error: &dyn std::error::Error| CliError::failed(super::daemons::chain(error));
        let queue = InProcessQueue::new();
        let options: holdfast_coordinator::CoordinatorOptions =
            config::load(&cluster.coordinator).map_err(CliError::config)?;
        let parts =
            holdfast_coordinator::Parts { clock: clock(), random: random(), queue: queue.publisher() };
        let coordinator =
            holdfast_coordinator::start(options, parts, shutdown.clone()).await.map_err(|e| failed(&e))?;
        let options: holdfast_worker::WorkerOptions =
            config::load(&cluster.worker).map_err(CliError::config)?;
        let parts = holdfast_worker::Parts::in_process(&options, &queue, clock(), random())
            .map_err(|e| failed(&e))?;
        let worker = tokio::spawn(holdfast_worker::run(options, parts, shutdown.clone()));
        Ok(Self { coordinator, worker })
    }

    /// Waits for both to end after the shutdown was triggered.
    pub async fn join(self) -> Result<(), CliError> {
        let failed = |error: &dyn std::error::Error| CliError::failed(super::daemons::chain(error));
        self.worker.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        self.coordinator.join().await.map_err(|e| failed(&e))
    }
}
