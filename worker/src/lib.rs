//! Moves data: backup, restore, export, verify. Stateless: what a worker knows, it got with a lease.
//!
//! # Map
//!
//! [`run`] consumes hints; [`job_runner`] claims a job, keeps its lease by heartbeats and reports its end; [`backup`],
//! [`restore`], [`export`] and [`verify`] do it; what every workload does alike is in [`workload::collect`] and, on the way back, in
//! [`workload::write_back`]; what is particular to one in its own module: [`workload::mail`], [`workload::calendar`],
//! [`workload::contacts`], [`workload::tasks`], [`workload::onedrive`].
//!
//! # Invariants
//!
//! - Whoever loses the fence commits nothing: it is checked at the coordinator and at every owner of the pin.
//! - Delta tokens advance only with what is stored or on the failed list.
//! - Buffers are bounded by `memory-budget`, whatever the size of a message or a mailbox: half of it is for fetches
//!   ([`memory::MemoryBudget`]), the other half for what jobs have on its way to storage or read ahead from it, in equal shares.

pub mod backup;
mod config;
mod coordinator_client;
mod error;
pub mod export;
pub mod job_runner;
pub mod memory;
mod metrics;
pub mod restore;
pub mod verify;
pub mod workload;

use std::{sync::Arc, time::Duration};

use holdfast_job_queue::JobConsumer;
use holdfast_runtime::{Admin, Background, ReadyFlag, Shutdown};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use config::{CheckpointEvery, Parts, QueueOptions, WorkerOptions};
pub use coordinator_client::CoordinatorClient;
pub use error::{CoordinatorError, Error, JobError, Release};
pub use workload::container_key;

/// How long running jobs may take to give themselves back at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);
/// After a failure of the queue that waiting cannot mend, it is asked again so often.
const QUEUE_RETRY: Duration = Duration::from_secs(5);

/// Runs a worker until shutdown.
pub async fn run(options: WorkerOptions, parts: Parts, shutdown: Shutdown) -> Result<(), Error> {
    options.check()?;
    let Parts { clock, random, mut consumer, ledger } = parts;
    let loops = Background::new(shutdown.clone(), random.clone());
    let ready = ReadyFlag::new();
    if let Some(listen) = &options.admin_listen {
        Admin::serve(listen, &options.name, ready.probe(), &loops, shutdown.clone()).await?;
    }
    let slots = Arc::new(Semaphore::new(options.slots as usize));
    let runner = Arc::new(job_runner::JobRunner::new(options, clock, random, ledger)?);
    let jobs = TaskTracker::new();
    ready.set_ready();
    while let Some(Ok(slot)) = shutdown.or(slots.clone().acquire_owned()).await {
        offer(consumer.as_mut(), slots.available_permits() + 1).await;
        let delivery = match shutdown.or(consumer.next()).await {
            None => break,
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => {
                tracing::error!(%error, "job queue cannot be read");
                if shutdown.or(tokio::time::sleep(QUEUE_RETRY)).await.is_none() {
                    break;
                }
                continue;
            }
        };
        // What was fetched ahead goes back while no slot is free: another worker may have one.
        offer(consumer.as_mut(), slots.available_permits()).await;
        let (runner, shutdown) = (runner.clone(), shutdown.clone());
        jobs.spawn(async move {
            runner.take(delivery, shutdown).await;
            drop(slot);
        });
    }
    ready.set_not_ready();
    jobs.close();
    if tokio::time::timeout(SHUTDOWN_GRACE, jobs.wait()).await.is_err() {
        tracing::warn!(jobs = jobs.len(), "jobs did not end in time; their leases will lapse");
    }
    loops.join(SHUTDOWN_GRACE).await;
    Ok(())
}

/// Tells the queue how many jobs can be taken.
async fn offer(consumer: &mut dyn JobConsumer, free_slots: usize) {
    let free_slots = u16::try_from(free_slots).unwrap_or(u16::MAX);
    if let Err(error) = consumer.set_free_slots(free_slots).await {
        tracing::warn!(%error, free_slots, "free slots were not told to the job queue");
    }
}
