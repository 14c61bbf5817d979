//! Job rows. The row is the truth and the outbox: a message in a queue is only a hint to look here.
//!
//! Every transition locks the row, decides in memory by [`crate::job::state`], and writes it back guarded by the state and
//! fence it was read with.
//!
//! A shard is a job too: a part of another job's content. It lives as long as that job wants it, and is no backup of its
//! resource: what asks for backups by kind does not see it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_model::{
    Account, Fence, Generation, JobClass, JobId, JobKind, JobState, ResourceId, RunId, TenantId, Workload,
};
use sqlx::any::AnyRow;

use super::{Catalog, Columns as _, Tx, big, term::Leadership};
use crate::{error::Error, job::spec::JobSpec};

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub id: JobId,
    /// The run it belongs to.
    pub run: RunId,
    /// The resource whose snapshots it makes or reads.
    pub resource: ResourceId,
    /// What of it.
    pub workload: Workload,
    /// What it does.
    pub kind: JobKind,
    /// Who goes first.
    pub class: JobClass,
    /// Where it stands.
    pub state: JobState,
    /// What exactly.
    pub spec: JobSpec,
    /// Counted at the claim.
    pub attempts: u32,
    /// Not due before, by database time.
    pub not_before_ms: i64,
    /// When a hint went out; 0 for none.
    pub published_at_ms: i64,
    /// The current attempt's fence.
    pub fence: Fence,
    /// The lease ends, by database time.
    pub lease_until_ms: i64,
    /// Who has it.
    pub worker: String,
    /// The certificate that claimed the attempt; empty while the job waits for one.
    pub claimed_by: String,
    /// What became of the items so far.
    pub account: Account,
    /// As far as known.
    pub items_expected: u64,
    /// Why it waits or was given up, for machines.
    pub code: String,
    /// The same for people.
    pub message: String,
    /// The trace it continues.
    pub traceparent: String,
    /// When it was made.
    pub created_ms: i64,
    /// When its newest attempt started.
    pub started_ms: i64,
    /// When it ended.
    pub finished_ms: i64,
    /// The pin of a commit under way.
    pub pin: Vec<u8>,
    /// Its hash; empty for none.
    pub pin_hash: String,
    /// Failed items, as JSON.
    pub failed: String,
    /// The snapshot it made or reads; empty for none.
    pub snapshot: String,
    /// The job that a shard is a part of.
    pub parent: Option<JobId>,
    /// What a shard that is done hands to its parent.
    pub result: Vec<u8>,
}

/// What a new job starts with.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Whose.
    pub tenant: TenantId,
    /// The resource whose snapshots it makes or reads.
    pub resource: ResourceId,
    /// What of it.
    pub workload: Workload,
    /// What it does.
    pub kind: JobKind,
    /// Who goes first.
    pub class: JobClass,
    /// What exactly.
    pub spec: JobSpec,
    /// The snapshot it reads; empty for a backup.
    pub snapshot: String,
    /// The job that a shard is a part of.
    pub parent: Option<JobId>,
}

/// Adds a queued job.
pub(crate) async fn insert(tx: &mut Tx, id: JobId, run: RunId, new: &NewJob) -> Result<(), Error> {
    let spec = serde_json::to_string(&new.spec).map_err(|source| Error::Encode { what: "job", source })?;
    let account = encode_account(&Account::default())?;
    let sql = "INSERT INTO jobs (tenant_id, job_id, run_id, resource_id, workload, kind, class, state, spec, attempts, \
               not_before_ms, published_at_ms, fence_generation, fence_attempt, lease_until_ms, worker, account, \
               items_expected, code, message, traceparent, created_ms, started_ms, finished_ms, pin, pin_hash, failed, \
               snapshot_id, parent) VALUES ($1, $2, $3, $4, $5, $6, $7, 'queued', $8, 0, 0, 0, 0, 0, 0, '', $9, 0, '', '', \
               $10, $11, 0, 0, $12, '', '[]', $13, $14)";
    let query = sqlx::query(sql).bind(new.tenant.to_string()).bind(id.to_string()).bind(run.to_string());
    let query = query.bind(new.resource.to_string()).bind(new.workload.as_str()).bind(new.kind.as_str());
    let query = query.bind(new.class.as_str()).bind(spec).bind(account);
    let query = query.bind(holdfast_runtime::trace_context::inject()).bind(tx.now).bind(Vec::<u8>::new());
    query.bind(new.snapshot.clone()).bind(parent_text(new.parent)).execute(tx.on()).await?;
    Ok(())
}

/// Reads a job within a transaction, and keeps others from changing it until that ends.
pub(crate) async fn load(tx: &mut Tx, id: JobId) -> Result<JobRow, Error> {
    find(tx, id).await?.ok_or_else(|| not_found(&id.to_string()))
}

/// The same for a job that may be gone: a shard whose parent does not want it any more.
pub(crate) async fn find(tx: &mut Tx, id: JobId) -> Result<Option<JobRow>, Error> {
    let sql =
        tx.locking("SELECT * FROM jobs WHERE job_id = $1", "SELECT * FROM jobs WHERE job_id = $1 FOR UPDATE");
    let query = sqlx::query(sql).bind(id.to_string());
    query.fetch_optional(tx.on()).await?.as_ref().map(read).transpose()
}

/// Writes a job back; it must still be as `before` says.
pub(crate) async fn save(tx: &mut Tx, before: &JobRow, job: &JobRow) -> Result<(), Error> {
    let sql = "UPDATE jobs SET state = $1, attempts = $2, not_before_ms = $3, published_at_ms = $4, \
               fence_generation = $5, fence_attempt = $6, lease_until_ms = $7, worker = $8, account = $9, \
               items_expected = $10, code = $11, message = $12, started_ms = $13, finished_ms = $14, pin = $15, \
               pin_hash = $16, failed = $17, snapshot_id = $18, claimed_by = $19, result = $20 \
               WHERE tenant_id = $21 AND job_id = $22 AND state = $23 AND fence_generation = $24 AND fence_attempt = $25";
    let query =
        sqlx::query(sql).bind(job.state.as_str()).bind(i64::from(job.attempts)).bind(job.not_before_ms);
    let query =
        query.bind(job.published_at_ms).bind(big(job.fence.generation.0)).bind(big(job.fence.attempt));
    let query = query.bind(job.lease_until_ms).bind(job.worker.clone()).bind(encode_account(&job.account)?);
    let query = query.bind(big(job.items_expected)).bind(job.code.clone()).bind(job.message.clone());
    let query =
        query.bind(job.started_ms).bind(job.finished_ms).bind(job.pin.clone()).bind(job.pin_hash.clone());
    let query = query.bind(job.failed.clone()).bind(job.snapshot.clone()).bind(job.claimed_by.clone());
    let query = query.bind(STANDARD.encode(&job.result));
    let query = query.bind(before.tenant.to_string()).bind(before.id.to_string()).bind(before.state.as_str());
    let query = query.bind(big(before.fence.generation.0)).bind(big(before.fence.attempt));
    if query.execute(tx.on()).await?.rows_affected() == 1 { Ok(()) } else { Err(Error::LostRace) }
}

/// Whether a backup of the same (resource, workload) is under way in another job.
pub(crate) async fn backup_under_way(tx: &mut Tx, job: &JobRow) -> Result<bool, Error> {
    let sql = "SELECT job_id FROM jobs WHERE tenant_id = $1 AND resource_id = $2 AND workload = $3 \
               AND kind = 'backup' AND state IN ('running', 'committing') AND job_id <> $4 LIMIT 1";
    let query = sqlx::query(sql).bind(job.tenant.to_string()).bind(job.resource.to_string());
    let query = query.bind(job.workload.as_str()).bind(job.id.to_string());
    Ok(query.fetch_optional(tx.on()).await?.is_some())
}

/// Keeps other commands from queueing jobs of a tenant until the transaction ends.
pub(crate) async fn lock_commands(tx: &mut Tx, tenant: TenantId) -> Result<(), Error> {
    let sql = tx.locking(
        "SELECT tenant_id FROM tenants WHERE tenant_id = $1",
        "SELECT tenant_id FROM tenants WHERE tenant_id = $1 FOR UPDATE",
    );
    sqlx::query(sql).bind(tenant.to_string()).fetch_optional(tx.on()).await?;
    Ok(())
}

/// An unfinished backup of a (resource, workload), which a new command joins.
pub(crate) async fn unfinished_backup(tx: &mut Tx, new: &NewJob) -> Result<Option<(JobId, RunId)>, Error> {
    let sql = "SELECT job_id, run_id FROM jobs WHERE tenant_id = $1 AND resource_id = $2 AND workload = $3 \
               AND kind = 'backup' AND state IN ('queued', 'running', 'committing') LIMIT 1";
    let query = sqlx::query(sql).bind(new.tenant.to_string()).bind(new.resource.to_string());
    let row = query.bind(new.workload.as_str()).fetch_optional(tx.on()).await?;
    row.map(|row| Ok((row.word("job_id")?, row.word("run_id")?))).transpose()
}

/// The shards of a job, the oldest first; nobody else changes them until the transaction ends.
pub(crate) async fn load_shards(tx: &mut Tx, parent: JobId) -> Result<Vec<JobRow>, Error> {
    let sql = tx.locking(
        "SELECT * FROM jobs WHERE parent = $1 ORDER BY created_ms, job_id",
        "SELECT * FROM jobs WHERE parent = $1 ORDER BY created_ms, job_id FOR UPDATE",
    );
    sqlx::query(sql).bind(parent.to_string()).fetch_all(tx.on()).await?.iter().map(read).collect()
}

/// Deletes a shard; a worker that runs it hears so at its next heartbeat.
pub(crate) async fn delete_shard(tx: &mut Tx, shard: JobId) -> Result<(), Error> {
    let sql = "DELETE FROM jobs WHERE job_id = $1 AND parent <> ''";
    sqlx::query(sql).bind(shard.to_string()).execute(tx.on()).await?;
    Ok(())
}

/// Deletes the shards of a job that has ended: there is nobody to hand a result to.
pub(crate) async fn delete_shards(tx: &mut Tx, parent: JobId) -> Result<(), Error> {
    let sql = "DELETE FROM jobs WHERE parent = $1";
    sqlx::query(sql).bind(parent.to_string()).execute(tx.on()).await?;
    Ok(())
}

impl Catalog {
    /// The shards of a job, the oldest first.
    pub async fn shards(&self, parent: JobId) -> Result<Vec<JobRow>, Error> {
        let query = sqlx::query("SELECT * FROM jobs WHERE parent = $1 ORDER BY created_ms, job_id");
        query.bind(parent.to_string()).fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Looks a job up.
    pub async fn job(&self, id: JobId) -> Result<JobRow, Error> {
        let query = sqlx::query("SELECT * FROM jobs WHERE job_id = $1").bind(id.to_string());
        let row = query.fetch_optional(&self.pool).await?.ok_or_else(|| not_found(&id.to_string()))?;
        read(&row)
    }

    /// The newest jobs, of one tenant or all, in one state or any; not their shards.
    pub async fn newest_jobs(
        &self,
        tenant: Option<TenantId>,
        state: &str,
        newest: u32,
    ) -> Result<Vec<JobRow>, Error> {
        let sql = "SELECT * FROM jobs WHERE ($1 = '' OR tenant_id = $1) AND ($2 = '' OR state = $2) \
                   AND parent = '' ORDER BY created_ms DESC, job_id LIMIT $3";
        self.jobs_by(sql, tenant, state, newest).await
    }

    /// The newest shards, chosen likewise.
    pub async fn newest_shards(
        &self,
        tenant: Option<TenantId>,
        state: &str,
        newest: u32,
    ) -> Result<Vec<JobRow>, Error> {
        let sql = "SELECT * FROM jobs WHERE ($1 = '' OR tenant_id = $1) AND ($2 = '' OR state = $2) \
                   AND parent <> '' ORDER BY created_ms DESC, job_id LIMIT $3";
        self.jobs_by(sql, tenant, state, newest).await
    }

    async fn jobs_by(
        &self,
        sql: &'static str,
        tenant: Option<TenantId>,
        state: &str,
        newest: u32,
    ) -> Result<Vec<JobRow>, Error> {
        let tenant = tenant.map(|id| id.to_string()).unwrap_or_default();
        let query = sqlx::query(sql).bind(tenant).bind(state.to_owned()).bind(i64::from(newest));
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Every job of a run that was asked for: not the shards that a backup is split into.
    pub async fn jobs_of_run(&self, run: RunId) -> Result<Vec<JobRow>, Error> {
        let query =
            sqlx::query("SELECT * FROM jobs WHERE run_id = $1 AND parent = '' ORDER BY created_ms, job_id")
                .bind(run.to_string());
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Jobs in a state whose lease has ended, the longest ended first.
    pub async fn jobs_with_ended_lease(&self, state: JobState, most: u32) -> Result<Vec<JobRow>, Error> {
        let now = self.now_ms().await?;
        let sql =
            "SELECT * FROM jobs WHERE state = $1 AND lease_until_ms < $2 ORDER BY lease_until_ms LIMIT $3";
        let query = sqlx::query(sql).bind(state.as_str()).bind(now).bind(i64::from(most));
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Lets the commits that wait behind this one be looked at first, because its outcome cannot be told now.
    pub async fn put_off_recovery(&self, leadership: &Leadership, job: &JobRow) -> Result<(), Error> {
        super::write!(self, leadership, tx => {
            let sql = "UPDATE jobs SET lease_until_ms = $1 WHERE job_id = $2 AND state = 'committing' \
                       AND fence_generation = $3 AND fence_attempt = $4 AND lease_until_ms = $5";
            let query = sqlx::query(sql).bind(tx.now).bind(job.id.to_string());
            let query = query.bind(big(job.fence.generation.0)).bind(big(job.fence.attempt));
            query.bind(job.lease_until_ms).execute(tx.on()).await?;
            Ok(())
        })
    }

    /// How many jobs are in a state, shards not counted.
    pub async fn count_jobs(&self, state: JobState) -> Result<u64, Error> {
        let query = sqlx::query("SELECT COUNT(*) AS n FROM jobs WHERE state = $1 AND parent = ''")
            .bind(state.as_str());
        query.fetch_one(&self.pool).await?.count("n")
    }
}

/// Reads a row.
pub(crate) fn read(row: &AnyRow) -> Result<JobRow, Error> {
    Ok(JobRow {
        tenant: row.word("tenant_id")?,
        id: row.word("job_id")?,
        run: row.word("run_id")?,
        resource: row.word("resource_id")?,
        workload: row.word("workload")?,
        kind: row.word("kind")?,
        class: row.word("class")?,
        state: row.word("state")?,
        spec: row.json("spec")?,
        attempts: u32::try_from(row.num("attempts")?).unwrap_or(u32::MAX),
        not_before_ms: row.num("not_before_ms")?,
        published_at_ms: row.num("published_at_ms")?,
        fence: Fence {
            generation: Generation(row.count("fence_generation")?),
            attempt: row.count("fence_attempt")?,
        },
        lease_until_ms: row.num("lease_until_ms")?,
        worker: row.text("worker")?,
        claimed_by: row.text("claimed_by")?,
        account: row.json("account")?,
        items_expected: row.count("items_expected")?,
        code: row.text("code")?,
        message: row.text("message")?,
        traceparent: row.text("traceparent")?,
        created_ms: row.num("created_ms")?,
        started_ms: row.num("started_ms")?,
        finished_ms: row.num("finished_ms")?,
        pin: row.bytes("pin")?,
        pin_hash: row.text("pin_hash")?,
        failed: row.text("failed")?,
        snapshot: row.text("snapshot_id")?,
        parent: match row.text("parent")?.as_str() {
            "" => None,
            _ => Some(row.word("parent")?),
        },
        result: STANDARD
            .decode(row.text("result")?)
            .map_err(|_| Error::CatalogDamaged { column: "result" })?,
    })
}

fn parent_text(parent: Option<JobId>) -> String {
    parent.map(|id| id.to_string()).unwrap_or_default()
}

pub(crate) fn encode_account(account: &Account) -> Result<String, Error> {
    serde_json::to_string(account).map_err(|source| Error::Encode { what: "account", source })
}

fn not_found(id: &str) -> Error {
    Error::NotFound { what: "job", name: id.to_owned(), hint: "`holdfast jobs` lists them".to_owned() }
}
