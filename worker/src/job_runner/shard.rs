//! The two ends of a shard: a backup that asks the coordinator for help, and the worker that helps.
//!
//! A shard's session token carries its parent's fence, because storage fences per resource and workload; its own fence is for
//! the coordinator. When the parent has got a newer attempt, storage refuses the old token: the shard is given back at once,
//! and its next lease has the new one.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::Account;
use holdfast_proto::{
    convert::id,
    coordinator::{self as wire, FinishJobRequest, SyncShardsRequest},
    storage,
};
use holdfast_runtime::Shutdown;
use holdfast_storage_client::StorageSession;

use super::{
    JobRunner, Running,
    lease::{HeldLease, ShardSpec},
    or_shutdown,
};
use crate::{
    CoordinatorClient, JobError,
    backup::{FinishedShard, ShardBoard, ShardEnds, ShardJob, ShardStanding, ShardState, WantedShard},
};

/// The coordinator, asked for the shards of one job.
pub(super) struct CoordinatorBoard {
    coordinator: CoordinatorClient,
    job: Bytes,
    fence: storage::Fence,
}

impl CoordinatorBoard {
    pub(super) fn new(coordinator: CoordinatorClient, lease: &HeldLease) -> Self {
        Self { coordinator, job: lease.job.0.to_vec().into(), fence: lease.fence.into() }
    }
}

#[async_trait]
impl ShardBoard for CoordinatorBoard {
    async fn sync(&self, wanted: &[WantedShard]) -> Result<Vec<ShardState>, JobError> {
        let wanted = wanted
            .iter()
            .map(|shard| wire::Shard { id: shard.id.0.to_vec().into(), input: shard.input.clone() });
        let request =
            SyncShardsRequest { job: self.job.clone(), fence: Some(self.fence), wanted: wanted.collect() };
        let answer = self.coordinator.sync_shards(request).await?;
        answer.shards.into_iter().map(state).collect()
    }
}

fn state(shard: wire::ShardState) -> Result<ShardState, JobError> {
    let standing = match shard.standing() {
        wire::ShardStanding::Queued => ShardStanding::Queued,
        // What a newer coordinator says is waited for.
        wire::ShardStanding::Running | wire::ShardStanding::Unspecified => ShardStanding::Running,
        wire::ShardStanding::Done => ShardStanding::Done { result: shard.result.clone() },
        wire::ShardStanding::Failed => ShardStanding::Failed,
    };
    let progress = shard.progress.map(Account::from).unwrap_or_default();
    Ok(ShardState { id: id("shards.id", &shard.id)?, standing, progress })
}

impl JobRunner {
    pub(super) async fn fetch_shard(
        &self,
        running: &Running,
        spec: &ShardSpec,
        shutdown: &Shutdown,
    ) -> Result<Account, JobError> {
        let session = or_shutdown(shutdown, self.open_session(running, None)).await;
        let session = session.map_err(JobError::in_shard)?;
        let result = self.fetch_shard_in(running, spec, &session, shutdown).await;
        session.close().await;
        result.map_err(JobError::in_shard)
    }

    async fn fetch_shard_in(
        &self,
        running: &Running,
        spec: &ShardSpec,
        session: &StorageSession,
        shutdown: &Shutdown,
    ) -> Result<Account, JobError> {
        let lease = &running.lease;
        let job = ShardJob {
            workload: lease.workload,
            user: lease.user_id()?.to_owned(),
            input: spec.input.clone(),
            options: self.backup_options(),
        };
        let ends = ShardEnds {
            graph: lease.graph(&self.options.user_agent, self.ledger.clone(), &self.shared)?,
            store: std::sync::Arc::new(session.clone()),
            keys: lease.keys.clone(),
            progress: running.progress.clone(),
        };
        let finished = or_shutdown(shutdown, job.run(ends, self.shared.clone())).await?;
        // Within the session: what it protects is the parent's from here on.
        self.coordinator.finish(finish_request(lease, &finished)).await?;
        Ok(finished.account)
    }
}

fn finish_request(lease: &HeldLease, finished: &FinishedShard) -> FinishJobRequest {
    let account = &finished.account;
    let failed = account.failed_retryable + account.failed_permanent;
    FinishJobRequest {
        job: lease.job.0.to_vec().into(),
        fence: Some(lease.fence.into()),
        account: Some((*account).into()),
        // They stand in the result, and are told of the parent.
        failed: Vec::new(),
        summary: format!("{} fetched, {failed} failed", account.stored),
        result: finished.result.clone(),
    }
}
