//! A backup job around its run: session, resume, and the commit.
//!
//! The invariant: from `PrepareCommit` on the job is *committing*; whatever goes wrong then is not reported, because the
//! coordinator itself finds out what a majority holds.

use std::sync::Arc;

use holdfast_model::Account;
use holdfast_proto::coordinator::{PrepareCommitRequest, RecordCommitRequest};
use holdfast_runtime::Shutdown;
use holdfast_storage_client::{CommitOutcome, StorageSession};

use super::{
    JobRunner, Running, lease::BackupSpec, or_shutdown, reported, session::SessionCheckpoints,
    shard::CoordinatorBoard,
};
use crate::{
    JobError,
    backup::{BackupJob, Ends, FinishedBackup},
};

impl JobRunner {
    pub(super) async fn back_up(
        &self,
        running: &Running,
        spec: &BackupSpec,
        shutdown: &Shutdown,
    ) -> Result<Account, JobError> {
        let session = or_shutdown(shutdown, self.open_session(running, spec.base.as_ref())).await?;
        let result = self.back_up_in(running, spec, &session, shutdown).await;
        session.close().await;
        result
    }

    async fn back_up_in(
        &self,
        running: &Running,
        spec: &BackupSpec,
        session: &StorageSession,
        shutdown: &Shutdown,
    ) -> Result<Account, JobError> {
        let lease = &running.lease;
        let job = BackupJob {
            tenant: lease.tenant,
            resource: lease.resource,
            workload: lease.workload,
            user: lease.user_id()?.to_owned(),
            base: spec.base.clone(),
            sequence: spec.sequence,
            fence: lease.fence,
            // A node knows the epoch at least as well as the coordinator did when it wrote the lease.
            epoch: session.epoch().max(spec.epoch),
            retain_until_ms: spec.retain_until_ms,
            options: self.backup_options(),
        };
        let ends = Ends {
            graph: lease.graph(&self.options.user_agent, self.ledger.clone(), &self.shared)?,
            store: Arc::new(session.clone()),
            keys: lease.keys.clone(),
            checkpoints: Arc::new(SessionCheckpoints::new(session.clone(), lease.fence)),
            shards: Some(Arc::new(CoordinatorBoard::new(self.coordinator.clone(), lease))),
            resume: self.checkpoint(running).await,
            progress: running.progress.clone(),
        };
        let finished = or_shutdown(shutdown, job.run(ends, self.shared.clone())).await?;
        self.commit(running, session, &finished).await?;
        Ok(finished.account)
    }

    async fn commit(
        &self,
        running: &Running,
        session: &StorageSession,
        finished: &FinishedBackup,
    ) -> Result<(), JobError> {
        let (job, fence) = (running.lease.job.0.to_vec(), Some(running.lease.fence.into()));
        let pin = finished.pin.encode();
        let request = PrepareCommitRequest {
            job: job.clone().into(),
            fence,
            pin: pin.clone(),
            account: Some(finished.account.into()),
            failed: reported(&finished.failed),
        };
        let ticket = self.coordinator.prepare_commit(request).await?;
        match session.commit_pin(&ticket, &pin).await {
            Ok(CommitOutcome::Committed { .. }) => {}
            Ok(CommitOutcome::Fenced { .. }) => return Err(JobError::Stopped),
            Ok(CommitOutcome::Conflict) => {
                tracing::error!("another snapshot has this sequence already");
                return Err(JobError::Stopped);
            }
            Err(error) => {
                tracing::warn!(%error, "outcome of the commit is not known; the coordinator will find out");
                return Err(JobError::Stopped);
            }
        }
        let request =
            RecordCommitRequest { job: job.into(), fence, pin_hash: finished.pin.hash().0.to_vec().into() };
        if let Err(error) = self.coordinator.record_commit(request).await {
            // A majority holds the pin: it is committed, and the coordinator finds it.
            tracing::warn!(%error, "commit was not recorded yet");
        }
        Ok(())
    }
}
