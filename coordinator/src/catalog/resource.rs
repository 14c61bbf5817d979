//! Protected resources of a tenant, each with its own wrapped key, and what protects them.

use holdfast_model::{ResourceId, ResourceName, Sequence, TenantId, Workload};
use sqlx::any::AnyRow;

use super::{Catalog, Columns as _, Tx, big, term::Leadership};
use crate::error::Error;

/// Rows written by one transaction of discovery.
const DISCOVERY_BATCH: usize = 200;

/// One resource.
#[derive(Clone)]
pub struct ResourceRow {
    /// Whose.
    pub tenant: TenantId,
    /// Our own id.
    pub id: ResourceId,
    /// Microsoft's.
    pub microsoft_id: String,
    /// The user principal name.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// Whether Microsoft still has it.
    pub is_gone: bool,
    /// Its key, wrapped.
    pub wrapped_key: Vec<u8>,
}

impl ResourceRow {
    /// As an operator writes it.
    pub fn written(&self) -> String {
        format!("user:{}", self.name)
    }
}

impl Catalog {
    /// Every resource of a tenant, by name.
    pub async fn resources(&self, tenant: TenantId) -> Result<Vec<ResourceRow>, Error> {
        let query =
            sqlx::query("SELECT * FROM resources WHERE tenant_id = $1 ORDER BY name_key, resource_id");
        query.bind(tenant.to_string()).fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Looks a resource up.
    pub async fn resource(&self, tenant: TenantId, id: ResourceId) -> Result<ResourceRow, Error> {
        let query = sqlx::query("SELECT * FROM resources WHERE tenant_id = $1 AND resource_id = $2");
        let row = query.bind(tenant.to_string()).bind(id.to_string()).fetch_optional(&self.pool).await?;
        let missing = || Error::NotFound {
            what: "resource",
            name: id.to_string(),
            hint: "see `holdfast resources NAME`".to_owned(),
        };
        read(&row.ok_or_else(missing)?)
    }

    /// Looks a resource up as an operator writes it, by name or by Microsoft's id. One that is there goes before one that
    /// is gone.
    pub async fn resource_by_name(
        &self,
        tenant: TenantId,
        tenant_name: &str,
        text: &str,
    ) -> Result<ResourceRow, Error> {
        let name: ResourceName =
            text.parse().map_err(|error: holdfast_model::ParseResourceError| Error::Invalid {
                field: "resource",
                value: text.to_owned(),
                problem: format!("expected {}", error.expected),
            })?;
        let sql = "SELECT * FROM resources WHERE tenant_id = $1 AND (name_key = $2 OR microsoft_id = $3) \
                   ORDER BY state, resource_id LIMIT 1";
        let query =
            sqlx::query(sql).bind(tenant.to_string()).bind(name.name.to_lowercase()).bind(name.name.clone());
        let row = query.fetch_optional(&self.pool).await?;
        read(&row.ok_or_else(|| Error::NotFound {
            what: "resource",
            name: text.to_owned(),
            hint: format!("run `holdfast resources {tenant_name}` to see what was discovered"),
        })?)
    }

    /// Writes what discovery found: `found` are all resources there are; others become gone, never deleted.
    ///
    /// The leader's loop passes its leadership; a command of the operator may discover on any coordinator.
    pub async fn put_discovered(
        &self,
        leadership: Option<&Leadership>,
        tenant: TenantId,
        found: &[ResourceRow],
    ) -> Result<(), Error> {
        let started = self.now_ms().await?;
        for batch in found.chunks(DISCOVERY_BATCH) {
            match leadership {
                Some(leadership) => super::write!(self, leadership, tx => { upsert(&mut tx, batch).await })?,
                None => super::write!(self, tx => { upsert(&mut tx, batch).await })?,
            }
        }
        match leadership {
            Some(leadership) => {
                super::write!(self, leadership, tx => { finish(&mut tx, tenant, started).await })
            }
            None => super::write!(self, tx => { finish(&mut tx, tenant, started).await }),
        }
    }
}

async fn upsert(tx: &mut Tx, batch: &[ResourceRow]) -> Result<(), Error> {
    let sql = "INSERT INTO resources (tenant_id, resource_id, kind, microsoft_id, name, name_key, display_name, state, \
               wrapped_key, seen_ms) VALUES ($1, $2, 'user', $3, $4, $5, $6, 'active', $7, $8) \
               ON CONFLICT (tenant_id, kind, microsoft_id) DO UPDATE SET name = excluded.name, \
               name_key = excluded.name_key, display_name = excluded.display_name, state = 'active', \
               seen_ms = excluded.seen_ms";
    for resource in batch {
        let query = sqlx::query(sql).bind(resource.tenant.to_string()).bind(resource.id.to_string());
        let query = query.bind(resource.microsoft_id.clone()).bind(resource.name.clone());
        let query = query.bind(resource.name.to_lowercase()).bind(resource.display_name.clone());
        query.bind(resource.wrapped_key.clone()).bind(tx.now).execute(tx.on()).await?;
    }
    Ok(())
}

async fn finish(tx: &mut Tx, tenant: TenantId, started: i64) -> Result<(), Error> {
    let sql =
        "UPDATE resources SET state = 'gone' WHERE tenant_id = $1 AND seen_ms < $2 AND state = 'active'";
    sqlx::query(sql).bind(tenant.to_string()).bind(started).execute(tx.on()).await?;
    let sql = "UPDATE tenants SET discovered_ms = $1 WHERE tenant_id = $2";
    sqlx::query(sql).bind(tx.now).bind(tenant.to_string()).execute(tx.on()).await?;
    Ok(())
}

/// Takes the next attempt of a (resource, workload): every number is handed out once.
pub(crate) async fn next_attempt(
    tx: &mut Tx,
    tenant: TenantId,
    resource: ResourceId,
    workload: Workload,
) -> Result<u64, Error> {
    let sql = "INSERT INTO protections (tenant_id, resource_id, workload, last_attempt, last_sequence, \
               used_sequence, last_snapshot_ms, last_result) VALUES ($1, $2, $3, 1, 0, 0, 0, '') \
               ON CONFLICT (tenant_id, resource_id, workload) DO UPDATE \
               SET last_attempt = protections.last_attempt + 1 RETURNING last_attempt";
    let query = sqlx::query(sql).bind(tenant.to_string()).bind(resource.to_string()).bind(workload.as_str());
    query.fetch_one(tx.on()).await?.count("last_attempt")
}

/// The sequence that the next pin of a (resource, workload) has. One that a void pin may hold somewhere is never used again.
pub(crate) async fn next_sequence(
    tx: &mut Tx,
    tenant: TenantId,
    resource: ResourceId,
    workload: Workload,
) -> Result<Sequence, Error> {
    let sql = "SELECT last_sequence, used_sequence FROM protections \
               WHERE tenant_id = $1 AND resource_id = $2 AND workload = $3";
    let query = sqlx::query(sql).bind(tenant.to_string()).bind(resource.to_string()).bind(workload.as_str());
    let Some(row) = query.fetch_optional(tx.on()).await? else { return Ok(Sequence(1)) };
    Ok(Sequence(row.count("last_sequence")?.max(row.count("used_sequence")?)).next())
}

/// Marks sequences up to this one as used: an owner that holds a void pin refuses every other pin of its sequence.
pub(crate) async fn use_up_sequence(
    tx: &mut Tx,
    job: &super::job::JobRow,
    sequence: Sequence,
) -> Result<(), Error> {
    let sql = "UPDATE protections SET used_sequence = $1 \
               WHERE tenant_id = $2 AND resource_id = $3 AND workload = $4 AND used_sequence < $1";
    let query = sqlx::query(sql).bind(big(sequence.0)).bind(job.tenant.to_string());
    query.bind(job.resource.to_string()).bind(job.workload.as_str()).execute(tx.on()).await?;
    Ok(())
}

/// Sets how the newest backup of a (resource, workload) ended: `Some` snapshot when it committed one.
pub(crate) async fn set_result(
    tx: &mut Tx,
    job: &super::job::JobRow,
    result: &str,
    committed: Option<(u64, i64)>,
) -> Result<(), Error> {
    let (sequence, created) = committed.unwrap_or((0, 0));
    let sql = "UPDATE protections SET last_result = $1, \
               last_sequence = CASE WHEN $2 > last_sequence THEN $2 ELSE last_sequence END, \
               last_snapshot_ms = CASE WHEN $3 > last_snapshot_ms THEN $3 ELSE last_snapshot_ms END \
               WHERE tenant_id = $4 AND resource_id = $5 AND workload = $6";
    let query = sqlx::query(sql).bind(result.to_owned()).bind(big(sequence)).bind(created);
    let query = query.bind(job.tenant.to_string()).bind(job.resource.to_string()).bind(job.workload.as_str());
    query.execute(tx.on()).await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<ResourceRow, Error> {
    Ok(ResourceRow {
        tenant: row.word("tenant_id")?,
        id: row.word("resource_id")?,
        microsoft_id: row.text("microsoft_id")?,
        name: row.text("name")?,
        display_name: row.text("display_name")?,
        is_gone: row.text("state")? == "gone",
        wrapped_key: row.bytes("wrapped_key")?,
    })
}
