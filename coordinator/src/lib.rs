//! The coordinator: turns tenants into jobs, hands them out under leases, and records what was committed.
//!
//! The invariants to know: the job row is the truth, a message only a hint; whoever acts for a job proves it by its fence;
//! whoever decides proves it by its term, in the transaction of the decision. Client secrets never leave this process.

pub mod catalog;
pub mod commit_recovery;
pub mod config;
mod core;
mod discovery;
pub mod dispatch;
pub mod error;
pub mod folder_key;
mod graph_access;
pub mod job;
mod layout_change;
mod layout_push;
mod leadership;
mod metrics;
mod readiness;
pub mod service;
mod storage_health;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use holdfast_graph_client::{LocalLedger, QuotaLedger, RedisLedger};
use holdfast_job_queue::{JobPublisher, RabbitOptions, RabbitPublisher};
use holdfast_model::{Clock, Random};
use holdfast_proto::{
    coordinator::{operator_api_server::OperatorApiServer, worker_api_server::WorkerApiServer},
    signed::Signer,
};
use holdfast_repository::{KeyFile, KeyFileProvider, KeyProvider};
use holdfast_runtime::{Admin, Background, GrpcError, HumanDuration, ReadyFlag, Shutdown, Step, grpc};
use holdfast_storage_client::{StorageClient, StorageClientOptions};
use tokio::task::JoinHandle;

use crate::{catalog::Catalog, catalog::term::Leadership, core::Core, leadership::Leader};

pub use config::{ConfiguredDuty, CoordinatorOptions, NodeOptions, PoolOptions, QueueOptions};
pub use error::Error;
pub use folder_key::folder_key;
pub use service::ROLE_TABLE;

/// The largest request a worker may send: a pin and the failed items of a run.
const MAX_WORKER_REQUEST_BYTES: usize = 32 << 20;
/// The largest answer an operator may get.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// How long loops may go on after shutdown.
const LOOP_GRACE: Duration = Duration::from_secs(10);
/// How often commits of vanished workers are looked for.
const RECOVERY_EVERY: Duration = Duration::from_secs(2);
/// How long nodes that are away are waited for in one call.
const STORAGE_RETRY_FOR: HumanDuration = HumanDuration::seconds(10);
/// How often it is looked whether a tenant's discovery is due.
const DISCOVERY_LOOK_EVERY: Duration = Duration::from_secs(10);

/// What is passed beside the options.
pub struct Parts {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes ids and keys.
    pub random: Arc<dyn Random>,
    /// Where hints go: the in-process queue of `up`, or what [`connect_queue`] gives.
    pub queue: Arc<dyn JobPublisher>,
    /// The ledger of the worker in this process; none where each finds it by its options.
    pub ledger: Option<Arc<dyn QuotaLedger>>,
}

/// A running coordinator.
pub struct CoordinatorHandle {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where its admin port listens.
    pub admin_addr: Option<SocketAddr>,
    core: Arc<Core>,
    background: Background,
    server: JoinHandle<Result<(), GrpcError>>,
    shutdown: Shutdown,
}

/// Connects to the queue of the options, for a coordinator that stands alone.
pub async fn connect_queue(options: &CoordinatorOptions) -> Result<Arc<dyn JobPublisher>, Error> {
    let url = options.queue.amqp_url.as_deref().ok_or(Error::Option {
        option: "queue.amqp-url",
        problem: "a coordinator without workers in its process needs RabbitMQ: set it",
    })?;
    let password_file = options.queue.amqp_password_file.clone();
    let rabbit = RabbitOptions { password_file, ..RabbitOptions::new(url) };
    Ok(Arc::new(RabbitPublisher::connect(rabbit).await?))
}

/// Runs a coordinator until shutdown.
pub async fn run(options: CoordinatorOptions, parts: Parts, shutdown: Shutdown) -> Result<(), Error> {
    start(options, parts, shutdown).await?.join().await
}

/// Starts a coordinator: it listens when this returns.
pub async fn start(
    options: CoordinatorOptions,
    parts: Parts,
    shutdown: Shutdown,
) -> Result<CoordinatorHandle, Error> {
    let core = Arc::new(open(options, parts).await?);
    let background = Background::new(shutdown.child(), core.random.clone());
    let ready = ReadyFlag::new();
    let name = &core.options.name;
    let admin_addr = match &core.options.admin_listen {
        Some(listen) => {
            let probe = readiness::probe(&core, &ready);
            Some(Admin::serve(listen, name, probe, &background, shutdown.child()).await?)
        }
        None => None,
    };
    leadership::step(&core).await?;
    spawn_loops(&core, &background);
    let worker = WorkerApiServer::new(service::worker_api::WorkerService::new(core.clone()))
        .max_decoding_message_size(MAX_WORKER_REQUEST_BYTES);
    let operator = OperatorApiServer::new(service::operator::OperatorService { core: core.clone() })
        .max_encoding_message_size(MAX_ANSWER_BYTES);
    let routes = tonic::service::Routes::new(worker).add_service(operator);
    let (listen, cluster) = (&core.options.listen, &core.options.cluster);
    let (addr, server) =
        grpc::serve(listen, &core.options.tls, cluster, &ROLE_TABLE, routes, shutdown.clone()).await?;
    ready.set_ready();
    tracing::info!(address = %addr, cluster, name, "coordinator listening");
    Ok(CoordinatorHandle { addr, admin_addr, core, background, server, shutdown })
}

impl CoordinatorHandle {
    /// Waits for shutdown, ends every loop, and lets go of the term.
    pub async fn join(self) -> Result<(), Error> {
        let served = self.server.await;
        self.shutdown.trigger();
        self.background.join(LOOP_GRACE).await;
        leadership::resign(&self.core).await;
        self.core.catalog.close().await;
        match served {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Error::Ended),
        }
    }
}

async fn open(options: CoordinatorOptions, parts: Parts) -> Result<Core, Error> {
    let Parts { clock, random, queue, ledger } = parts;
    options.pool.layout(holdfast_model::LayoutVersion(1))?;
    let keys: Arc<dyn KeyProvider> = Arc::new(KeyFileProvider::new(KeyFile::load(&options.key_file)?));
    let path = &options.signing_key_file;
    let der = std::fs::read(path).map_err(|source| Error::File { path: path.clone(), source })?;
    let signer = Signer::from_pkcs8(&der)?;
    let (catalog, ledger) = match ledger {
        Some(ledger) => (Catalog::open(&options.catalog_url()?).await?, ledger),
        None => open_catalog_and_ledger(&options, &clock, &random).await?,
    };
    refuse_a_wrong_key(&catalog, &*keys).await?;
    // Commit recovery asks again by itself; an operator waits no longer than this.
    let storage_options =
        StorageClientOptions { retry_for: STORAGE_RETRY_FOR, ..StorageClientOptions::default() };
    Ok(Core {
        storage: StorageClient::new(storage_options, options.tls.clone(), clock.clone(), random.clone()),
        graph: graph_access::GraphAccess::new(keys.clone(), ledger.clone(), clock.clone(), random.clone()),
        ledger,
        leader: Leader::new(&options.name, &*random),
        layout: std::sync::Mutex::new(None),
        catalog_answers: std::sync::atomic::AtomicBool::new(true),
        layout_differs: std::sync::atomic::AtomicBool::new(false),
        options,
        clock,
        random,
        catalog,
        keys,
        signer,
        queue,
    })
}

/// A key file that does not open what the catalog holds is refused before anything is done with it: two key files mixed in
/// one catalog could never be told apart again.
async fn refuse_a_wrong_key(catalog: &Catalog, keys: &dyn KeyProvider) -> Result<(), Error> {
    for tenant in catalog.tenants().await? {
        keys.unwrap_tenant_keys(tenant.id, &tenant.wrapped_keys).await?;
    }
    Ok(())
}

/// The ledger is connected first: a catalog that is made by this start tells it that nobody has called Microsoft yet, and a
/// start that fails in between would never say so again.
async fn open_catalog_and_ledger(
    options: &CoordinatorOptions,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<(Catalog, Arc<dyn QuotaLedger>), Error> {
    let (url, limits) = (options.catalog_url()?, options.quota.clone());
    let Some(redis_url) = &options.redis_url else {
        return Ok((Catalog::open(&url).await?, Arc::new(LocalLedger::new(limits, clock.clone()))));
    };
    let failed = |error| Error::Ledger(Box::new(error));
    let connected = RedisLedger::connect(redis_url, limits, &options.name, clock.clone(), random.clone());
    let ledger = connected.await.map_err(failed)?;
    let catalog = Catalog::open(&url).await?;
    if catalog.is_new()
        && let Err(error) = ledger.declare_fresh().await
    {
        tracing::warn!(error = explained(&error), "the first backups wait until one quota window has passed");
    }
    Ok((catalog, Arc::new(ledger)))
}

fn spawn_loops(core: &Arc<Core>, background: &Background) {
    let options = &core.options;
    let leading = core.clone();
    background.spawn_loop("leadership", options.term() / 3, move || {
        let core = leading.clone();
        async move {
            // No back-off: a term is short, and must be taken as soon as the catalog is back.
            Ok::<_, Error>(leadership::step(&core).await.unwrap_or_else(|error| {
                tracing::warn!(error = explained(&error), "the term was neither taken nor renewed");
                Step::Idle
            }))
        }
    });
    let watching = core.clone();
    background.spawn_loop("catalog watch", readiness::LOOK_EVERY, move || {
        let core = watching.clone();
        async move { Ok::<_, std::convert::Infallible>(readiness::step(&core).await) }
    });
    let every = Duration::from_millis(options.dispatch_interval_millis.max(10));
    deciding(core, background, "dispatch", every, |core, leadership| async move {
        let options = dispatch::DispatchOptions {
            region: core.options.region.clone(),
            waiting_most: u64::from(core.options.worker_slots) * 2,
            republish_after: Duration::from_secs(core.options.republish_after_seconds),
        };
        dispatch::dispatch(&core.catalog, &leadership, &*core.queue, &options).await?;
        Ok(Step::Idle)
    });
    let every = (options.lease() / 4).clamp(Duration::from_millis(250), Duration::from_secs(5));
    deciding(core, background, "lease expiry", every, |core, leadership| async move {
        let n = job::expire::expire(&core.catalog, &leadership, core.options.max_attempts).await?;
        metrics::leases_expired(n);
        Ok(Step::Idle)
    });
    deciding(core, background, "commit recovery", RECOVERY_EVERY, |core, leadership| async move {
        commit_recovery::recover(&core, &leadership).await?;
        Ok(Step::Idle)
    });
    deciding(core, background, "discovery", DISCOVERY_LOOK_EVERY, |core, leadership| async move {
        discovery::step(&core, &leadership).await
    });
    let every = Duration::from_millis(options.layout_interval_millis.max(50));
    deciding(core, background, "layout push", every, |core, leadership| async move {
        layout_push::step(&core, &leadership).await
    });
}

/// Spawns a loop that runs only while this coordinator leads. A term that turns out to be lost ends its decisions at once.
fn deciding<F, Fut>(core: &Arc<Core>, background: &Background, name: &'static str, every: Duration, step: F)
where
    F: Fn(Arc<Core>, Leadership) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Step, Error>> + Send + 'static,
{
    let core = core.clone();
    background.spawn_loop(name, every, move || {
        let leadership = core.leader.current();
        let under_way = leadership.clone().map(|leadership| step(core.clone(), leadership));
        let core = core.clone();
        async move {
            let (Some(under_way), Some(leadership)) = (under_way, leadership) else { return Ok(Step::Idle) };
            match under_way.await {
                Err(Error::TermLost { .. }) => {
                    core.leader.forget(&leadership);
                    Ok(Step::Idle)
                }
                outcome => outcome.map_err(|error| explained(&error)),
            }
        }
    });
}

/// An error with all its causes, for the log.
fn explained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
