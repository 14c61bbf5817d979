//! What workers call: claim, heartbeat, commit, finish, release, and the shards of a backup. Served by every coordinator, leading or not.
//!
//! Key material and tokens leave only in the answer to a claim or heartbeat whose fence is current.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use holdfast_graph_client::{Claims, Rejection, TokenFingerprint};
use holdfast_model::{Account, Fence, JobId, JobKind, JobState, Millis, PinHash, Verb};
use holdfast_proto::{
    convert::{WireError, id, required},
    coordinator::{
        BackupSpec, ClaimRequest, ClaimResponse, ExportSpec, FinishJobRequest, FinishJobResponse,
        GraphAccess, GraphToken, HeartbeatRequest, HeartbeatResponse, Keys, Lease, PrepareCommitRequest,
        PrepareCommitResponse, RecordCommitRequest, RecordCommitResponse, RejectedToken, ReleaseJobRequest,
        ReleaseJobResponse, ReleaseReason, RestoreSpec, SyncShardsRequest, SyncShardsResponse, VerifySpec,
        lease, worker_api_server::WorkerApi,
    },
    storage as wire,
};
use tonic::{Request, Response, Status};

use crate::{
    catalog::{audit::Actor, failed::FailedItem, job::JobRow, tenant::TenantRow},
    core::{Core, SESSION_TOKEN_LIFE_MS, TokenFor},
    error::Error,
    graph_access::App,
    job::{
        attempt::Attempt,
        claim::{Claimed, claim},
        finish::{Finished, finish},
        heartbeat::heartbeat,
        prepare_commit::{Prepared, prepare_commit},
        record_commit::record_commit,
        release::{Reason, Released, release},
        spec::JobSpec,
        sync_shards::sync_shards,
    },
    metrics,
    service::{actor, shards},
};

/// A Graph token is replaced when it lives shorter than this.
const GRAPH_TOKEN_MARGIN_MS: u64 = 10 * 60 * 1_000;
/// Jobs whose tokens are remembered; beyond it the memory starts anew and fresh tokens go out.
const MAX_REMEMBERED: usize = 100_000;

/// When the tokens that a job's worker has will expire.
#[derive(Debug, Clone, Copy, Default)]
struct Issued {
    fence: Fence,
    graph_ms: Millis,
    session_ms: Millis,
    /// The fence in the session token: of a shard, its parent's.
    session_fence: Fence,
}

/// The service.
pub(crate) struct WorkerService {
    core: Arc<Core>,
    issued: Mutex<HashMap<JobId, Issued>>,
}

#[tonic::async_trait]
impl WorkerApi for WorkerService {
    async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<ClaimResponse>, Status> {
        let actor = actor(&request)?;
        let request = request.into_inner();
        let job = id("job", &request.job)?;
        let lease = self.try_claim(job, &actor, &request.worker).await?;
        Ok(Response::new(ClaimResponse { lease }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let worker = actor(&request)?;
        let request = request.into_inner();
        let attempt = attempt(worker, &request.job, request.fence)?;
        let progress = request.progress.map(Account::from).unwrap_or_default();
        let rejection = request.rejected.map(rejection).transpose()?;
        let length = self.core.options.lease();
        let held = heartbeat(&self.core.catalog, &attempt, &progress, request.items_expected, length).await?;
        let answer = match held {
            Some(row) => self.extend(&row, rejection).await,
            None => self.stop(attempt.job),
        };
        Ok(Response::new(answer))
    }

    async fn prepare_commit(
        &self,
        request: Request<PrepareCommitRequest>,
    ) -> Result<Response<PrepareCommitResponse>, Status> {
        let worker = actor(&request)?;
        let request = request.into_inner();
        let prepared = Prepared {
            attempt: attempt(worker, &request.job, request.fence)?,
            pin: request.pin,
            account: required("account", request.account)?.into(),
            failed: request.failed.into_iter().map(failed_item).collect(),
        };
        let ticket = prepare_commit(&self.core.catalog, &prepared, self.core.options.lease()).await?;
        Ok(Response::new(PrepareCommitResponse { ticket: Some(self.core.signer.ticket(&ticket)) }))
    }

    async fn record_commit(
        &self,
        request: Request<RecordCommitRequest>,
    ) -> Result<Response<RecordCommitResponse>, Status> {
        let worker = actor(&request)?;
        let request = request.into_inner();
        let attempt = attempt(worker, &request.job, request.fence)?;
        let pin_hash: PinHash = id("pin_hash", &request.pin_hash)?;
        record_commit(&self.core.catalog, &attempt, &pin_hash.to_string()).await?;
        self.forget(attempt.job);
        Ok(Response::new(RecordCommitResponse {}))
    }

    async fn finish_job(
        &self,
        request: Request<FinishJobRequest>,
    ) -> Result<Response<FinishJobResponse>, Status> {
        let worker = actor(&request)?;
        let request = request.into_inner();
        let attempt = attempt(worker, &request.job, request.fence)?;
        let finished = Finished {
            account: required("account", request.account)?.into(),
            failed: request.failed.into_iter().map(failed_item).collect(),
            summary: request.summary,
            result: request.result.to_vec(),
        };
        finish(&self.core.catalog, &attempt, &finished).await?;
        self.forget(attempt.job);
        Ok(Response::new(FinishJobResponse {}))
    }

    async fn release_job(
        &self,
        request: Request<ReleaseJobRequest>,
    ) -> Result<Response<ReleaseJobResponse>, Status> {
        let worker = actor(&request)?;
        let request = request.into_inner();
        let reason = match request.reason() {
            ReleaseReason::Deferred => Reason::Deferred,
            ReleaseReason::Permanent => Reason::Permanent,
            ReleaseReason::Retry | ReleaseReason::Unspecified => Reason::Retry,
        };
        let released = Released {
            attempt: attempt(worker, &request.job, request.fence)?,
            reason,
            delay: Duration::from_millis(request.delay_ms),
            code: request.code,
            message: request.message,
        };
        release(&self.core.catalog, &released, self.core.options.max_attempts).await?;
        self.forget(released.attempt.job);
        Ok(Response::new(ReleaseJobResponse {}))
    }

    async fn sync_shards(
        &self,
        request: Request<SyncShardsRequest>,
    ) -> Result<Response<SyncShardsResponse>, Status> {
        let worker = actor(&request)?;
        let request = request.into_inner();
        let attempt = attempt(worker, &request.job, request.fence)?;
        let wanted = shards::wanted(request.wanted)?;
        let states = sync_shards(&self.core.catalog, &attempt, &wanted).await?;
        Ok(Response::new(shards::answer(states)))
    }
}

impl WorkerService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, issued: Mutex::default() }
    }

    async fn try_claim(&self, job: JobId, actor: &Actor, worker: &str) -> Result<Option<Lease>, Error> {
        let length = self.core.options.lease();
        let claimed = match claim(&self.core.catalog, job, actor, worker, length).await {
            // A hint of a job that is no longer there.
            Err(Error::NotFound { .. }) => None,
            other => other?,
        };
        let Some(claimed) = claimed else {
            metrics::claim_refused();
            return Ok(None);
        };
        metrics::claimed(claimed.job.class.as_str());
        match self.build_lease(&claimed).await {
            Ok(lease) => Ok(Some(lease)),
            Err(error) => {
                tracing::warn!(job = %job, %error, "the lease could not be made; the job waits");
                let reason = if error.is_retryable() { Reason::Retry } else { Reason::Permanent };
                let released = Released {
                    attempt: Attempt { job, fence: claimed.job.fence, worker: actor.clone() },
                    reason,
                    delay: Duration::ZERO,
                    code: "LeaseRefused".to_owned(),
                    message: error.to_string(),
                };
                release(&self.core.catalog, &released, self.core.options.max_attempts).await?;
                Ok(None)
            }
        }
    }

    async fn build_lease(&self, claimed: &Claimed) -> Result<Lease, Error> {
        let (core, job) = (&self.core, &claimed.job);
        let tenant = core.catalog.tenant(job.tenant).await?;
        let resource = core.catalog.resource(job.tenant, job.resource).await?;
        let keys = core.job_keys(&tenant, &resource).await?;
        let layout = core.layout().await?;
        let (_, epoch) = core.catalog.numbers().await?;
        let session_fence = self.session_fence(job).await?;
        let (session_token, session_ms) =
            core.session_token(&subject(job, session_fence), verbs(job.kind)).await?;
        let graph = self.graph_access(job, &tenant).await?;
        let graph_ms =
            graph.as_ref().and_then(|graph| graph.token.as_ref()).map_or(Millis::MAX, |t| t.expires_at_ms);
        self.remember(job.id, Issued { fence: job.fence, graph_ms, session_ms, session_fence });
        let spec = self.spec(claimed, epoch.0).await?;
        Ok(Lease {
            job: job.id.0.to_vec().into(),
            fence: Some(job.fence.into()),
            lease_ms: lease_ms(core),
            kind: job.kind.to_string(),
            class: job.class.to_string(),
            workload: job.workload.to_string(),
            tenant: job.tenant.0.to_vec().into(),
            resource: job.resource.0.to_vec().into(),
            keys: Some(Keys { job_keys: keys.to_bytes().to_vec().into() }),
            layout: Some((&*layout).into()),
            session_token: Some(session_token),
            graph,
            attempt_number: job.attempts,
            spec: Some(spec),
        })
    }

    async fn spec(&self, claimed: &Claimed, epoch: u64) -> Result<lease::Spec, Error> {
        let pin_of = async |snapshot| Ok::<_, Error>(self.core.catalog.snapshot(snapshot).await?.pin.into());
        Ok(match claimed.job.spec.clone() {
            JobSpec::Backup => lease::Spec::Backup(BackupSpec {
                base_pin: claimed.base_pin.clone().into(),
                sequence: claimed.sequence.0,
                epoch,
                retain_until_ms: 0,
            }),
            JobSpec::Shard { input, .. } => lease::Spec::Shard(shards::spec(&input)?),
            JobSpec::Restore { snapshot, paths, into, conflict, restore_key, .. } => {
                let (pin, conflict) = (pin_of(snapshot).await?, conflict.to_string());
                lease::Spec::Restore(RestoreSpec { pin, paths, into, conflict, restore_key })
            }
            JobSpec::Export { snapshot, paths, format, out } => {
                let (pin, format) = (pin_of(snapshot).await?, format.to_string());
                lease::Spec::Export(ExportSpec { pin, paths, format, out })
            }
            JobSpec::Verify { snapshot, sample_percent } => {
                lease::Spec::Verify(VerifySpec { pin: pin_of(snapshot).await?, sample_percent })
            }
        })
    }

    /// Where and as whom the worker calls Microsoft; none for what only reads storage.
    async fn graph_access(&self, job: &JobRow, tenant: &TenantRow) -> Result<Option<GraphAccess>, Error> {
        let (app, user) = match &job.spec {
            JobSpec::Backup | JobSpec::Shard { .. } => (App::Backup, job.resource),
            JobSpec::Restore { target, .. } => (App::Restore, *target),
            JobSpec::Export { .. } | JobSpec::Verify { .. } => return Ok(None),
        };
        let user = self.core.catalog.resource(job.tenant, user).await?;
        let token = self.core.graph.token(tenant, app).await?;
        let client_id = match app {
            App::Backup => &tenant.backup_client_id,
            App::Restore => &tenant.restore_client_id,
        };
        Ok(Some(GraphAccess {
            graph_url: tenant.graph_url.clone(),
            cloud: tenant.cloud.to_string(),
            microsoft_tenant: tenant.microsoft_tenant.clone(),
            client_id: client_id.clone(),
            user_id: user.microsoft_id,
            token: Some(wire_token(&token)),
        }))
    }

    /// The fence that storage is shown: a shard writes for its parent, and a fence of its own would shut the parent out.
    async fn session_fence(&self, job: &JobRow) -> Result<Fence, Error> {
        match job.parent {
            None => Ok(job.fence),
            Some(parent) => Ok(self.core.catalog.job(parent).await?.fence),
        }
    }

    /// The answer to a heartbeat of a job that is over, or was never the caller's.
    fn stop(&self, job: JobId) -> HeartbeatResponse {
        self.forget(job);
        HeartbeatResponse { stop: true, ..Default::default() }
    }

    /// The answer to a heartbeat that was accepted. A token that cannot be had now comes with a later one.
    async fn extend(&self, job: &JobRow, rejection: Option<Rejection>) -> HeartbeatResponse {
        let now = self.core.clock.now_ms();
        let mut issued = self.issued_to(job);
        let mut answer = HeartbeatResponse { lease_ms: lease_ms(&self.core), ..Default::default() };
        match self.next_session_token(job, &mut issued).await {
            Ok(token) => answer.session_token = token,
            // A shard ends with its parent.
            Err(Error::NotFound { .. }) => return self.stop(job.id),
            Err(error) => tracing::warn!(job = %job.id, %error, "no new session token this time"),
        }
        let calls = matches!(job.kind, JobKind::Backup | JobKind::BackupShard | JobKind::Restore);
        let needs_graph = calls && job.state == JobState::Running;
        let is_due = rejection.is_some() || issued.graph_ms < now + GRAPH_TOKEN_MARGIN_MS;
        if needs_graph && is_due {
            match self.next_graph_token(job, rejection.as_ref()).await {
                Ok(Some(token)) => {
                    issued.graph_ms = token.expires_at_ms;
                    answer.token = Some(token);
                }
                Ok(None) => {
                    tracing::debug!(job = %job.id, "the rejected Graph token is too young to be renewed")
                }
                Err(error) => tracing::warn!(job = %job.id, %error, "no new Graph token this time"),
            }
        }
        self.remember(job.id, issued);
        answer
    }

    /// Another session token, where the one before ends soon or its fence is old.
    async fn next_session_token(
        &self,
        job: &JobRow,
        issued: &mut Issued,
    ) -> Result<Option<wire::SessionToken>, Error> {
        let fence = self.session_fence(job).await?;
        let is_young = issued.session_ms >= self.core.clock.now_ms() + SESSION_TOKEN_LIFE_MS / 2;
        if is_young && issued.session_fence == fence {
            return Ok(None);
        }
        let (token, expires) = self.core.session_token(&subject(job, fence), verbs(job.kind)).await?;
        (issued.session_ms, issued.session_fence) = (expires, fence);
        Ok(Some(token))
    }

    /// The token that comes next; none where a rejected one cannot be replaced yet.
    async fn next_graph_token(
        &self,
        job: &JobRow,
        rejection: Option<&Rejection>,
    ) -> Result<Option<GraphToken>, Error> {
        let tenant = self.core.catalog.tenant(job.tenant).await?;
        let app = if job.kind == JobKind::Restore { App::Restore } else { App::Backup };
        let token = match rejection {
            None => Some(self.core.graph.token(&tenant, app).await?),
            Some(rejection) => {
                metrics::token_rejected();
                self.core.graph.replace(&tenant, app, rejection).await?
            }
        };
        Ok(token.as_ref().map(wire_token))
    }

    /// What the worker has; nothing is known after a restart, and then it gets everything anew.
    fn issued_to(&self, job: &JobRow) -> Issued {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let known = issued.get(&job.id).copied().filter(|issued| issued.fence == job.fence);
        known.unwrap_or(Issued { fence: job.fence, ..Issued::default() })
    }

    fn remember(&self, job: JobId, what: Issued) {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if issued.len() >= MAX_REMEMBERED {
            issued.clear();
        }
        issued.insert(job, what);
    }

    fn forget(&self, job: JobId) {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
    }
}

/// What every command of a worker names.
fn attempt(worker: Actor, job: &[u8], fence: Option<wire::Fence>) -> Result<Attempt, WireError> {
    Ok(Attempt { job: id("job", job)?, fence: required("fence", fence)?.into(), worker })
}

fn subject(job: &JobRow, fence: Fence) -> TokenFor {
    TokenFor { tenant: job.tenant, resource: job.resource, workload: job.workload, job: job.id, fence }
}

fn verbs(kind: JobKind) -> &'static [Verb] {
    match kind {
        JobKind::Backup => &[Verb::Read, Verb::Write, Verb::Commit],
        JobKind::BackupShard => &[Verb::Read, Verb::Write],
        JobKind::Restore | JobKind::Export | JobKind::Verify => &[Verb::Read],
    }
}

fn lease_ms(core: &Core) -> u64 {
    u64::try_from(core.options.lease().as_millis()).unwrap_or(u64::MAX)
}

fn wire_token(token: &holdfast_graph_client::AccessToken) -> GraphToken {
    GraphToken { access_token: token.secret.to_string(), expires_at_ms: token.expires_at_ms }
}

/// Claims that nobody can read are as good as none: the token is renewed all the same.
fn rejection(rejected: RejectedToken) -> Result<Rejection, WireError> {
    let prefix = rejected.fingerprint.as_ref().try_into();
    let wrong = WireError { field: "rejected.fingerprint", problem: "not 16 bytes" };
    Ok(Rejection {
        fingerprint: TokenFingerprint(prefix.map_err(|_| wrong)?),
        claims: Claims::from_json(&rejected.claims),
    })
}

fn failed_item(item: holdfast_proto::coordinator::FailedItem) -> FailedItem {
    FailedItem {
        id: item.id,
        path: item.path,
        code: item.code,
        retryable: item.retryable,
        attempts: item.attempts,
        request_id: item.request_id,
        stale: item.stale,
        partial: item.partial,
        parked: item.parked,
    }
}
