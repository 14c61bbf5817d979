//! Jobs and runs as the operator sees them.

use std::collections::HashMap;

use holdfast_model::{JobState, ResourceId, TenantId};
use holdfast_proto::coordinator::{
    GetJobRequest, GetJobResponse, GetRunRequest, GetRunResponse, Job, ListJobsRequest, ListJobsResponse,
    RetryJobRequest, RetryJobResponse,
};

use super::{
    OperatorService,
    failed::{groups_of, wire_item},
    ms, page_size,
};
use crate::{
    catalog::{Catalog, audit::Actor, failed::FailedItem, job::JobRow},
    error::Error,
    job::release::retry_by_hand,
};

const DEFAULT_JOBS: u32 = 50;
const MAX_JOBS: u32 = 1_000;

impl OperatorService {
    pub(super) async fn jobs(&self, _: &Actor, request: ListJobsRequest) -> Result<ListJobsResponse, Error> {
        let catalog = &self.core.catalog;
        let tenant = match request.tenant.as_str() {
            "" => None,
            name => Some(catalog.tenant_by_name(name).await?.id),
        };
        if !request.state.is_empty() {
            let parsed: Result<JobState, String> = request.state.parse();
            parsed.map_err(|problem| Error::Invalid {
                field: "state",
                value: request.state.clone(),
                problem,
            })?;
        }
        let newest = page_size(request.newest, DEFAULT_JOBS, MAX_JOBS);
        let jobs = catalog.newest_jobs(tenant, &request.state, newest).await?;
        let shards = catalog.newest_shards(tenant, &request.state, newest).await?;
        let rows = below_their_jobs(jobs, shards);
        Ok(ListJobsResponse { jobs: JobNames::new(catalog).all(&rows).await? })
    }

    pub(super) async fn job(&self, _: &Actor, request: GetJobRequest) -> Result<GetJobResponse, Error> {
        let row = self.core.catalog.job(job_id(&request.job)?).await?;
        let failed: Vec<FailedItem> =
            serde_json::from_str(&row.failed).map_err(|_| Error::CatalogDamaged { column: "failed" })?;
        let job = JobNames::new(&self.core.catalog).wire(&row).await?;
        let groups = groups_of(&job, &failed);
        let shards = self.core.catalog.shards(row.id).await?;
        Ok(GetJobResponse {
            job: Some(job),
            failed: failed.into_iter().map(wire_item).collect(),
            groups,
            shards: JobNames::new(&self.core.catalog).all(&shards).await?,
        })
    }

    pub(super) async fn run(&self, _: &Actor, request: GetRunRequest) -> Result<GetRunResponse, Error> {
        let missing = || Error::NotFound {
            what: "run",
            name: request.run.clone(),
            hint: "`holdfast jobs` shows the run of each job".to_owned(),
        };
        let run = request.run.parse().map_err(|_| missing())?;
        if !self.core.catalog.has_run(run).await? {
            return Err(missing());
        }
        let rows = self.core.catalog.jobs_of_run(run).await?;
        Ok(GetRunResponse { jobs: JobNames::new(&self.core.catalog).all(&rows).await? })
    }

    pub(super) async fn retry(
        &self,
        actor: &Actor,
        request: RetryJobRequest,
    ) -> Result<RetryJobResponse, Error> {
        retry_by_hand(&self.core.catalog, actor, job_id(&request.job)?).await?;
        Ok(RetryJobResponse {})
    }
}

/// Every shard follows its job, the oldest first; those whose job is not among these come last.
fn below_their_jobs(jobs: Vec<JobRow>, mut shards: Vec<JobRow>) -> Vec<JobRow> {
    shards.reverse();
    let mut rows = Vec::with_capacity(jobs.len() + shards.len());
    for job in jobs {
        let (own, others) = shards.into_iter().partition(|shard: &JobRow| shard.parent == Some(job.id));
        let own: Vec<JobRow> = own;
        rows.push(job);
        rows.extend(own);
        shards = others;
    }
    rows.extend(shards);
    rows
}

fn job_id(text: &str) -> Result<holdfast_model::JobId, Error> {
    text.parse().map_err(|_| Error::NotFound {
        what: "job",
        name: text.to_owned(),
        hint: "`holdfast jobs` lists them".to_owned(),
    })
}

/// Names of tenants and resources, looked up once per answer.
pub(super) struct JobNames<'a> {
    catalog: &'a Catalog,
    tenants: HashMap<TenantId, String>,
    resources: HashMap<ResourceId, String>,
}

impl<'a> JobNames<'a> {
    pub(super) fn new(catalog: &'a Catalog) -> Self {
        Self { catalog, tenants: HashMap::new(), resources: HashMap::new() }
    }

    pub(super) async fn all(&mut self, rows: &[JobRow]) -> Result<Vec<Job>, Error> {
        let mut jobs = Vec::with_capacity(rows.len());
        for row in rows {
            jobs.push(self.wire(row).await?);
        }
        Ok(jobs)
    }

    pub(super) async fn wire(&mut self, row: &JobRow) -> Result<Job, Error> {
        if !self.tenants.contains_key(&row.tenant) {
            self.tenants.insert(row.tenant, self.catalog.tenant(row.tenant).await?.name);
        }
        if !self.resources.contains_key(&row.resource) {
            self.resources
                .insert(row.resource, self.catalog.resource(row.tenant, row.resource).await?.written());
        }
        Ok(Job {
            id: row.id.to_string(),
            run: row.run.to_string(),
            tenant: self.tenants.get(&row.tenant).cloned().unwrap_or_default(),
            resource: self.resources.get(&row.resource).cloned().unwrap_or_default(),
            workload: row.workload.to_string(),
            kind: row.kind.to_string(),
            class: row.class.to_string(),
            state: row.state.to_string(),
            attempts: row.attempts,
            worker: row.worker.clone(),
            account: Some(row.account.into()),
            items_expected: row.items_expected,
            snapshot: row.snapshot.clone(),
            created_ms: ms(row.created_ms),
            started_ms: ms(row.started_ms),
            finished_ms: ms(row.finished_ms),
            not_before_ms: ms(row.not_before_ms),
            code: row.code.clone(),
            message: row.message.clone(),
            parent: row.parent.map(|id| id.to_string()).unwrap_or_default(),
        })
    }
}
