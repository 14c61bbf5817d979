//! `holdfast coordinator|worker|storage-node|graph-sim --config FILE`: one role, until SIGTERM.

use std::{path::PathBuf, sync::Arc};

use holdfast_graph_sim::{Sim, SimOptions as GraphSimOptions};
use holdfast_runtime::{Exit, Shutdown, SystemClock, SystemRandom, config, telemetry};

use crate::{error::CliError, output::say};

/// Run one role of a cluster
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The role's configuration file (TOML); deploy/examples has one for each role
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration, print it as it is understood, and stop
    #[arg(long)]
    dump_config: bool,
}

/// Run the simulator of Microsoft Graph
#[derive(Debug, clap::Args)]
pub struct SimOptions {
    /// Its configuration file (TOML); default: a small tenant on a free port
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub async fn coordinator(options: Options) -> Result<Exit, CliError> {
    let loaded: holdfast_coordinator::CoordinatorOptions = load(&options.config)?;
    if options.dump_config {
        return dump(&loaded);
    }
    let _telemetry =
        telemetry::init("coordinator", &loaded.name, &loaded.telemetry).map_err(CliError::config)?;
    let queue = holdfast_coordinator::connect_queue(&loaded).await.map_err(startup)?;
    let parts = holdfast_coordinator::Parts { clock: clock(), random: random(), queue };
    holdfast_coordinator::run(loaded, parts, Shutdown::on_signals()).await.map_err(startup)?;
    Ok(Exit::Ok)
}

pub async fn worker(options: Options) -> Result<Exit, CliError> {
    let loaded: holdfast_worker::WorkerOptions = load(&options.config)?;
    if options.dump_config {
        return dump(&loaded);
    }
    let _telemetry = telemetry::init("worker", &loaded.name, &loaded.telemetry).map_err(CliError::config)?;
    let parts = holdfast_worker::Parts::connect(&loaded, clock(), random()).await.map_err(startup)?;
    holdfast_worker::run(loaded, parts, Shutdown::on_signals()).await.map_err(startup)?;
    Ok(Exit::Ok)
}

pub async fn storage_node(options: Options) -> Result<Exit, CliError> {
    let loaded: holdfast_storage_node::StorageNodeOptions = load(&options.config)?;
    if options.dump_config {
        return dump(&loaded);
    }
    let name = format!("node-{}", loaded.node_id);
    let _telemetry = telemetry::init("storage-node", &name, &loaded.telemetry).map_err(CliError::config)?;
    holdfast_storage_node::run(loaded, clock(), random(), Shutdown::on_signals()).await.map_err(startup)?;
    Ok(Exit::Ok)
}

pub async fn graph_sim(options: SimOptions) -> Result<Exit, CliError> {
    let loaded: GraphSimOptions = match &options.config {
        Some(path) => load(path)?,
        None => GraphSimOptions::default(),
    };
    let shutdown = Shutdown::on_signals();
    let sim = Sim::start(loaded, clock()).await.map_err(startup)?;
    say!("graph-sim listening on {}", sim.base_url());
    shutdown.wait().await;
    sim.shutdown().await;
    Ok(Exit::Ok)
}

pub(crate) fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock)
}

pub(crate) fn random() -> Arc<SystemRandom> {
    Arc::new(SystemRandom)
}

fn load<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Result<T, CliError> {
    config::load(path).map_err(CliError::config)
}

fn dump<T: serde::Serialize>(options: &T) -> Result<Exit, CliError> {
    say!("{}", toml::to_string_pretty(options).map_err(CliError::failed)?.trim_end());
    Ok(Exit::Ok)
}

/// A role that cannot start: what is wrong with its configuration or its surroundings.
fn startup(error: impl std::error::Error) -> CliError {
    CliError::failed(chain(&error))
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // Some errors show their cause already.
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}
