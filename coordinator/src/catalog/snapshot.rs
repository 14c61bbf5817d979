//! Committed snapshots: the pins as storage holds them. What storage has is the truth; this is for finding it.

use holdfast_model::{Account, JobId, ResourceId, Sequence, SnapshotId, TenantId, Workload};
use holdfast_record::Pin;
use sqlx::any::AnyRow;

use super::{
    Catalog, Columns as _, Tx, big,
    job::{JobRow, encode_account},
};
use crate::error::Error;

/// One committed snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotRow {
    /// Whose.
    pub tenant: TenantId,
    /// Of which resource.
    pub resource: ResourceId,
    /// What of it.
    pub workload: Workload,
    /// Its position.
    pub sequence: Sequence,
    /// What the operator calls it.
    pub id: SnapshotId,
    /// The pin's bytes.
    pub pin: Vec<u8>,
    /// What became of the items.
    pub account: Account,
    /// When it was made.
    pub created_ms: i64,
    /// Which job made it.
    pub job: JobId,
}

/// Adds the snapshot of a committing job. The same pin again is no error.
pub(crate) async fn insert(tx: &mut Tx, job: &JobRow, pin: &Pin) -> Result<(), Error> {
    let sql = "INSERT INTO snapshots (tenant_id, resource_id, workload, sequence, snapshot_id, pin_hash, pin, account, \
               created_ms, job_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
               ON CONFLICT (tenant_id, resource_id, workload, sequence) DO NOTHING";
    let query = sqlx::query(sql).bind(pin.tenant.to_string()).bind(pin.resource.to_string());
    let query = query.bind(pin.workload.as_str()).bind(big(pin.sequence.0)).bind(pin.snapshot.to_string());
    let query = query.bind(job.pin_hash.clone()).bind(job.pin.clone()).bind(encode_account(&job.account)?);
    let query = query.bind(big(pin.created_ms)).bind(job.id.to_string());
    if query.execute(tx.on()).await?.rows_affected() == 1 {
        return Ok(());
    }
    let sql = "SELECT pin_hash FROM snapshots WHERE tenant_id = $1 AND resource_id = $2 AND workload = $3 AND sequence = $4";
    let query = sqlx::query(sql).bind(pin.tenant.to_string()).bind(pin.resource.to_string());
    let row = query.bind(pin.workload.as_str()).bind(big(pin.sequence.0)).fetch_one(tx.on()).await?;
    if row.text("pin_hash")? == job.pin_hash { Ok(()) } else { Err(Error::OtherPin { job: job.id }) }
}

/// The newest snapshot of a (resource, workload).
pub(crate) async fn newest(
    tx: &mut Tx,
    tenant: TenantId,
    resource: ResourceId,
    workload: Workload,
) -> Result<Option<SnapshotRow>, Error> {
    let sql = "SELECT * FROM snapshots WHERE tenant_id = $1 AND resource_id = $2 AND workload = $3 \
               ORDER BY sequence DESC LIMIT 1";
    let query = sqlx::query(sql).bind(tenant.to_string()).bind(resource.to_string()).bind(workload.as_str());
    query.fetch_optional(tx.on()).await?.as_ref().map(read).transpose()
}

impl Catalog {
    /// Looks a snapshot up by the name it has at the command line.
    pub async fn snapshot(&self, id: SnapshotId) -> Result<SnapshotRow, Error> {
        let query = sqlx::query("SELECT * FROM snapshots WHERE snapshot_id = $1").bind(id.to_string());
        let row = query.fetch_optional(&self.pool).await?;
        read(&row.ok_or_else(|| Error::NotFound {
            what: "snapshot",
            name: id.to_string(),
            hint: "run `holdfast snapshots NAME` to see them".to_owned(),
        })?)
    }

    /// The snapshots of a tenant, of one resource or all, of one workload or all, newest first.
    pub async fn snapshots(
        &self,
        tenant: TenantId,
        resource: Option<ResourceId>,
        workload: Option<Workload>,
        most: u32,
    ) -> Result<Vec<SnapshotRow>, Error> {
        let sql = "SELECT * FROM snapshots WHERE tenant_id = $1 AND ($2 = '' OR resource_id = $2) \
                   AND ($3 = '' OR workload = $3) ORDER BY created_ms DESC, snapshot_id LIMIT $4";
        let resource = resource.map(|id| id.to_string()).unwrap_or_default();
        let workload = workload.map(Workload::as_str).unwrap_or_default();
        let query = sqlx::query(sql).bind(tenant.to_string()).bind(resource).bind(workload);
        let query = query.bind(i64::from(most));
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// The newest snapshot of every (resource, workload) of one tenant, or of all.
    pub async fn newest_snapshots(&self, tenant: Option<TenantId>) -> Result<Vec<SnapshotRow>, Error> {
        let sql = "SELECT s.* FROM snapshots s JOIN protections p ON p.tenant_id = s.tenant_id \
                   AND p.resource_id = s.resource_id AND p.workload = s.workload AND p.last_sequence = s.sequence \
                   WHERE ($1 = '' OR s.tenant_id = $1) ORDER BY s.tenant_id, s.resource_id, s.workload";
        let tenant = tenant.map(|id| id.to_string()).unwrap_or_default();
        sqlx::query(sql).bind(tenant).fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// How many snapshots each resource of a tenant has of a workload.
    pub async fn count_snapshots(&self, tenant: TenantId) -> Result<Vec<(ResourceId, Workload, u64)>, Error> {
        let sql = "SELECT resource_id, workload, COUNT(*) AS n FROM snapshots WHERE tenant_id = $1 \
                   GROUP BY resource_id, workload";
        let rows = sqlx::query(sql).bind(tenant.to_string()).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| Ok((row.word("resource_id")?, row.word("workload")?, row.count("n")?)))
            .collect()
    }
}

fn read(row: &AnyRow) -> Result<SnapshotRow, Error> {
    Ok(SnapshotRow {
        tenant: row.word("tenant_id")?,
        resource: row.word("resource_id")?,
        workload: row.word("workload")?,
        sequence: Sequence(row.count("sequence")?),
        id: row.word("snapshot_id")?,
        pin: row.bytes("pin")?,
        account: row.json("account")?,
        created_ms: row.num("created_ms")?,
        job: row.word("job_id")?,
    })
}
