//! `holdfast coordinator|worker|storage-node|graph-sim --config FILE`: one role, until SIGTERM.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_graph_sim::{Sim, SimOptions as GraphSimOptions};
use holdfast_runtime::{Exit, Shutdown, SystemClock, SystemRandom, config, telemetry};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::CliError,
    output::{Format, say},
    redact, startup,
};

/// Run one role of a cluster
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The role's configuration file (TOML); deploy/examples has one for each role
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration, print it as it is understood (passwords hidden), and stop
    #[arg(long)]
    dump_config: bool,
}

/// Run a storage node
#[derive(Debug, clap::Args)]
pub struct NodeOptions {
    #[command(flatten)]
    role: Options,
    /// End when standard input ends: a node that a demo started does not outlive it
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

/// Run the simulator of Microsoft Graph
#[derive(Debug, clap::Args)]
pub struct SimOptions {
    /// Its configuration file (TOML); default: a small tenant on a free port
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, print it as it is understood (secrets hidden), and stop
    #[arg(long)]
    dump_config: bool,
}

pub async fn coordinator(options: Options, format: Format) -> Result<Exit, CliError> {
    let loaded: holdfast_coordinator::CoordinatorOptions = load(&options.config)?;
    if options.dump_config {
        return dump(&loaded, format);
    }
    let _telemetry =
        telemetry::init("coordinator", &loaded.name, &loaded.telemetry).map_err(CliError::config)?;
    let queue = holdfast_coordinator::connect_queue(&loaded).await.map_err(startup::failed)?;
    let parts = holdfast_coordinator::Parts { clock: clock(), random: random(), queue, ledger: None };
    holdfast_coordinator::run(loaded, parts, Shutdown::on_signals()).await.map_err(startup::failed)?;
    Ok(Exit::Ok)
}

pub async fn worker(options: Options, format: Format) -> Result<Exit, CliError> {
    let loaded: holdfast_worker::WorkerOptions = load(&options.config)?;
    if options.dump_config {
        return dump(&loaded, format);
    }
    let _telemetry = telemetry::init("worker", &loaded.name, &loaded.telemetry).map_err(CliError::config)?;
    let parts = holdfast_worker::Parts::connect(&loaded, clock(), random()).await.map_err(startup::failed)?;
    holdfast_worker::run(loaded, parts, Shutdown::on_signals()).await.map_err(startup::failed)?;
    Ok(Exit::Ok)
}

pub async fn storage_node(options: NodeOptions, format: Format) -> Result<Exit, CliError> {
    let loaded: holdfast_storage_node::StorageNodeOptions = load(&options.role.config)?;
    if options.role.dump_config {
        return dump(&loaded, format);
    }
    let name = format!("node-{}", loaded.node_id);
    let _telemetry = telemetry::init("storage-node", &name, &loaded.telemetry).map_err(CliError::config)?;
    let shutdown = Shutdown::on_signals();
    if options.until_stdin_ends {
        end_with_stdin(shutdown.clone());
    }
    holdfast_storage_node::run(loaded, clock(), random(), shutdown).await.map_err(startup::failed)?;
    Ok(Exit::Ok)
}

/// On a thread of its own, which ends with the process: a read of stdin cannot be cancelled.
fn end_with_stdin(shutdown: Shutdown) {
    std::thread::spawn(move || {
        // Nothing is ever written there: it ends, or fails, when the process that holds the other end is gone.
        while matches!(std::io::stdin().read(&mut [0; 64]), Ok(1..)) {}
        shutdown.trigger();
    });
}

/// Tells scripts where the simulator listens.
#[derive(Serialize)]
struct SimReady {
    url: String,
}

pub async fn graph_sim(options: SimOptions, format: Format) -> Result<Exit, CliError> {
    let loaded: GraphSimOptions = match &options.config {
        Some(path) => load(path)?,
        None => GraphSimOptions::default(),
    };
    if options.dump_config {
        return dump(&loaded, format);
    }
    let shutdown = Shutdown::on_signals();
    let sim = Sim::start(loaded, clock()).await.map_err(startup::failed)?;
    format.print_line(&SimReady { url: sim.base_url() }, |ready| {
        say!("graph-sim listening on {}", ready.url);
    })?;
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

fn load<T: DeserializeOwned>(path: &Path) -> Result<T, CliError> {
    config::load(path).map_err(CliError::config)
}

/// Prints what a configuration is understood as, without its passwords.
fn dump<T: Serialize>(options: &T, format: Format) -> Result<Exit, CliError> {
    let mut shown = toml::Value::try_from(options).map_err(CliError::failed)?;
    redact::configuration(&mut shown);
    let text = toml::to_string_pretty(&shown).map_err(CliError::failed)?;
    format.print(&shown, |_| say!("{}", text.trim_end()))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dumped_hides_passwords_and_loads_again() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/coordinator.toml");
        let mut options: holdfast_coordinator::CoordinatorOptions = load(&example).unwrap();
        options.queue.amqp_url = Some("amqp://holdfast:s3cret@rabbit.example.org/%2f".to_owned());
        options.redis_url = Some("redis://:s3cret@redis.example.org/".to_owned());
        let mut shown = toml::Value::try_from(&options).unwrap();
        redact::configuration(&mut shown);
        let text = toml::to_string_pretty(&shown).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        let again: holdfast_coordinator::CoordinatorOptions = config::parse(&text, &example).unwrap();
        assert_eq!(again.queue.amqp_url.as_deref(), Some("amqp://holdfast:***@rabbit.example.org/%2f"));
        assert_eq!(again.catalog_url_file, options.catalog_url_file);
    }
}
