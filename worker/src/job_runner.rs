//! From a hint to a report: claim, acknowledge, run under a lease kept by heartbeats, report.
//!
//! Two invariants: the hint is acknowledged as soon as the claim is committed or refused, from there the lease carries the job;
//! and whoever is told to stop, or is fenced, drops everything and reports nothing.

mod commit;
mod lease;
mod session;
mod shard;

use std::{sync::Arc, time::Duration};

use holdfast_graph_client::QuotaLedger;
use holdfast_job_queue::{Delivery, Rejection};
use holdfast_model::{Account, Clock, JobKind, Random};
use holdfast_proto::coordinator::{
    ClaimRequest, FailedItem, FinishJobRequest, HeartbeatRequest, ReleaseJobRequest,
};
use holdfast_runtime::{Shutdown, trace_context};
use holdfast_storage_client::StorageClient;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::Instrument as _;

use self::lease::{HeldLease, Spec};
use crate::{
    CoordinatorClient, CoordinatorError, Error, JobError, WorkerOptions,
    backup::{BackupOptions, Progress, Shared},
    export::ExportJob,
    memory::MemoryBudget,
    metrics,
    restore::{RestoreJob, Restored},
    verify::VerifyJob,
    workload::collect::ItemFailure,
};

/// Heartbeats per lease: two may be lost.
const HEARTBEATS_PER_LEASE: u32 = 3;
/// The shortest pause between heartbeats, whatever lease is offered.
const HEARTBEAT_MIN: Duration = Duration::from_millis(200);
/// While Microsoft refuses the Graph token, the next one is asked for so often.
const REJECTION_REPEAT: Duration = Duration::from_secs(1);
/// A backup whose shards are all with other workers asks so often how they stand.
const SHARD_WAIT: Duration = Duration::from_secs(1);
/// Failed items in one report; the snapshot itself lists all of them.
const MAX_REPORTED: usize = 10_000;

/// Runs jobs, several at once.
pub struct JobRunner {
    pub(crate) options: WorkerOptions,
    pub(crate) coordinator: CoordinatorClient,
    pub(crate) storage: StorageClient,
    pub(crate) ledger: Arc<dyn QuotaLedger>,
    pub(crate) shared: Shared,
}

/// What a heartbeat brings goes here.
pub(crate) struct Running {
    pub lease: HeldLease,
    pub progress: Arc<Progress>,
    /// Triggered when the job was taken away.
    pub stop: CancellationToken,
}

impl JobRunner {
    /// Makes a runner with its compute threads.
    pub fn new(
        options: WorkerOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        ledger: Arc<dyn QuotaLedger>,
    ) -> Result<Self, Error> {
        let threads = options.compute_threads.map_or(0, |threads| threads as usize);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()?;
        // Fetches get half of the budget; what is on its way to storage and waits in pages gets the rest.
        let memory = MemoryBudget::new(options.memory_budget.bytes() / 2);
        let coordinator = CoordinatorClient::new(&options.coordinators, &options.tls, random.clone())?;
        let storage =
            StorageClient::new(options.storage.clone(), options.tls.clone(), clock.clone(), random.clone());
        let shared = Shared { clock, random, pool: Arc::new(pool), memory };
        Ok(Self { options, coordinator, storage, ledger, shared })
    }

    /// Takes one hint to its end.
    pub async fn take(&self, delivery: Delivery, shutdown: Shutdown) {
        let job = delivery.hint.job;
        let span = tracing::info_span!("job", %job, trace_id = tracing::field::Empty);
        trace_context::set_parent(&span, &delivery.hint.traceparent);
        self.take_in_span(delivery, shutdown).instrument(span).await;
    }

    async fn take_in_span(&self, delivery: Delivery, shutdown: Shutdown) {
        let job = delivery.hint.job;
        let request = ClaimRequest { job: job.0.to_vec().into(), worker: self.options.name.clone() };
        let claimed = match self.coordinator.claim(request).await {
            Ok(claimed) => claimed,
            Err(error @ CoordinatorError::Unavailable { .. }) => {
                tracing::warn!(%error, "claim not possible, the hint goes back");
                if let Err(error) = delivery.reject(Rejection::Requeue).await {
                    tracing::debug!(%error, "hint goes back by itself");
                }
                return;
            }
            Err(error) => {
                tracing::info!(%error, "claim refused");
                None
            }
        };
        if let Err(error) = delivery.ack().await {
            // It will come again, and the claim will refuse it.
            tracing::debug!(%error, "hint was not acknowledged");
        }
        let Some(lease) = claimed else { return };
        let fence = lease.fence;
        match HeldLease::read(lease, self.shared.clock.clone()) {
            Ok(lease) => self.run(lease, shutdown).await,
            Err(error) => {
                tracing::error!(%error, "lease cannot be read");
                self.release((job.0.to_vec(), fence), &error).await;
            }
        }
    }

    async fn run(&self, lease: HeldLease, shutdown: Shutdown) {
        let kind = lease.kind;
        metrics::job_started(kind);
        tracing::info!(%kind, tenant = %lease.tenant, resource = %lease.resource, fence = %lease.fence, "job started");
        let running = Arc::new(Running {
            lease,
            progress: Arc::new(Progress::default()),
            stop: CancellationToken::new(),
        });
        let heartbeats =
            AbortOnDropHandle::new(tokio::spawn(heartbeats(self.coordinator.clone(), running.clone())));
        let result = tokio::select! {
            biased;
            () = running.stop.cancelled() => Err(JobError::Stopped),
            result = self.work(&running, &shutdown) => result,
        };
        drop(heartbeats);
        match result {
            Ok(account) => {
                metrics::account(kind, &account);
                metrics::job_ended(kind, "done");
                tracing::info!(
                    %kind, listed = account.listed, stored = account.stored, incomplete = account.incomplete,
                    unchanged = account.unchanged,
                    failed = account.failed_retryable + account.failed_permanent, requests = account.requests, "job done"
                );
            }
            Err(error) => {
                let id = (running.lease.job.0.to_vec(), Some(running.lease.fence.into()));
                let is_released = self.release(id, &error).await;
                metrics::job_ended(kind, if is_released { "released" } else { "dropped" });
            }
        }
    }

    /// Does the work of one kind of job and reports it.
    async fn work(&self, running: &Running, shutdown: &Shutdown) -> Result<Account, JobError> {
        let lease = &running.lease;
        let done = match &lease.spec {
            Spec::Backup(spec) => return self.back_up(running, spec, shutdown).await,
            Spec::Shard(spec) => return self.fetch_shard(running, spec, shutdown).await,
            Spec::Restore(spec) => {
                let graph = lease.graph(&self.options.user_agent, self.ledger.clone(), &self.shared)?;
                let job = RestoreJob {
                    workload: lease.workload,
                    pin: spec.pin.clone(),
                    user: lease.user_id()?.to_owned(),
                    paths: spec.paths.clone(),
                    into: spec.into.clone(),
                    conflict: spec.conflict,
                    restore_key: spec.restore_key.clone(),
                    writes: self.options.fetches_per_job as usize,
                    read_ahead_bytes: self.read_ahead_bytes(),
                };
                let (store, keys) = (Arc::new(self.reader(running)), lease.keys.clone());
                let restore = job.run(graph, store, keys, self.shared.clone(), running.progress.clone());
                or_shutdown(shutdown, restore).await?
            }
            Spec::Export(spec) => {
                let job = ExportJob {
                    pin: spec.pin.clone(),
                    paths: spec.paths.clone(),
                    format: spec.format,
                    out: spec.out.clone(),
                    read_ahead_bytes: self.read_ahead_bytes(),
                };
                let store = Arc::new(self.reader(running));
                or_shutdown(shutdown, job.run(store, lease.keys.clone(), running.progress.clone())).await?
            }
            Spec::Verify(spec) => {
                let job = VerifyJob {
                    pin: spec.pin.clone(),
                    sample_percent: spec.sample_percent,
                    read_ahead_bytes: self.read_ahead_bytes(),
                };
                let store = Arc::new(self.reader(running));
                or_shutdown(shutdown, job.run(store, lease.keys.clone(), running.progress.clone())).await?
            }
        };
        let account = done.account;
        self.coordinator.finish(finish_request(lease, &done)).await?;
        Ok(account)
    }

    /// What a job may hold of the half of the budget that is not for fetches from Microsoft.
    fn job_bytes(&self) -> u64 {
        self.options.memory_budget.bytes() / 2 / u64::from(self.options.slots.max(1))
    }

    fn read_ahead_bytes(&self) -> usize {
        usize::try_from(self.job_bytes()).unwrap_or(usize::MAX)
    }

    pub(crate) fn backup_options(&self) -> BackupOptions {
        let rest = self.job_bytes();
        BackupOptions {
            fetches: self.options.fetches_per_job as usize,
            checkpoint_every: self.options.checkpoint_every,
            flags_every: self.options.flags_every,
            drive_versions: self.options.drive_versions.n_wanted(),
            shard_files: self.options.drive_shard_files as usize,
            shard_wait: SHARD_WAIT,
            page_buffer_bytes: rest / 3,
            in_flight_bytes: usize::try_from(rest / 3 * 2).unwrap_or(usize::MAX),
            content_retry: Duration::from_millis(500),
            worker: self.options.name.clone(),
        }
    }

    /// Gives a job back. False when it belongs to somebody else.
    async fn release(
        &self,
        (job, fence): (Vec<u8>, Option<holdfast_proto::storage::Fence>),
        error: &JobError,
    ) -> bool {
        let Some(release) = error.release() else {
            tracing::warn!(%error, "job dropped");
            return false;
        };
        tracing::warn!(%error, reason = ?release.reason, code = %release.code, "job given back");
        let request = ReleaseJobRequest {
            job: job.into(),
            fence,
            reason: release.reason.into(),
            delay_ms: u64::try_from(release.delay.as_millis()).unwrap_or(u64::MAX),
            code: release.code,
            message: release.message,
        };
        match self.coordinator.release(request).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "job was not given back, its lease will end");
                false
            }
        }
    }
}

/// Runs until it is done or the worker shuts down.
pub(crate) async fn or_shutdown<T>(
    shutdown: &Shutdown,
    work: impl Future<Output = Result<T, JobError>>,
) -> Result<T, JobError> {
    shutdown.or(work).await.unwrap_or(Err(JobError::ShuttingDown))
}

pub(crate) fn reported(failed: &[ItemFailure]) -> Vec<FailedItem> {
    failed.iter().take(MAX_REPORTED).map(FailedItem::from).collect()
}

fn finish_request(lease: &HeldLease, done: &Restored) -> FinishJobRequest {
    let account = &done.account;
    let failed = account.failed_retryable + account.failed_permanent;
    let (did, rest) = match lease.kind {
        JobKind::Restore => {
            ("restored", format!("{} there already, {} left alone", account.unchanged, account.skipped))
        }
        JobKind::Verify => ("proved", format!("{} outside the sample", account.skipped)),
        JobKind::Export | JobKind::Backup | JobKind::BackupShard => {
            ("written", format!("{} skipped", account.skipped))
        }
    };
    FinishJobRequest {
        job: lease.job.0.to_vec().into(),
        fence: Some(lease.fence.into()),
        account: Some((*account).into()),
        failed: reported(&done.failed),
        summary: format!("{} {did}, {rest}, {failed} failed, {} remarks", account.stored, done.failed.len()),
        result: Default::default(),
    }
}

/// Keeps the lease until it is aborted, or the job is taken away. A refused Graph token is told at once.
async fn heartbeats(coordinator: CoordinatorClient, running: Arc<Running>) {
    let lease = &running.lease;
    loop {
        let every = (lease.duration() / HEARTBEATS_PER_LEASE).max(HEARTBEAT_MIN);
        match lease.rejected_token() {
            // It was told already, and the answer did not help yet.
            Some(_) => tokio::time::sleep(every.min(REJECTION_REPEAT)).await,
            None => tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = lease.token_rejected() => {}
            },
        }
        let request = HeartbeatRequest {
            job: lease.job.0.to_vec().into(),
            fence: Some(lease.fence.into()),
            progress: Some(running.progress.account().into()),
            items_expected: running.progress.items_expected(),
            rejected: lease.rejected_token(),
        };
        match coordinator.heartbeat(request).await {
            Ok(answer) if answer.stop => {
                tracing::info!("coordinator stops the job");
                running.stop.cancel();
                return;
            }
            Ok(answer) => lease.renew(answer),
            Err(CoordinatorError::Fenced) => {
                tracing::warn!("a newer attempt of the job exists");
                running.stop.cancel();
                return;
            }
            // Uploads go on while the coordinator is away; the fence decides in the end.
            Err(error) => tracing::warn!(%error, "heartbeat did not get through"),
        }
    }
}

#[cfg(test)]
mod tests;
