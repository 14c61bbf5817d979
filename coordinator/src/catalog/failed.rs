//! Items that are missing from, or stale in, the newest snapshot of a (resource, workload). Replaced at each commit.

use holdfast_model::TenantId;
use serde::{Deserialize, Serialize};

use super::{Catalog, Columns as _, Tx, job::JobRow};
use crate::error::Error;

/// Failed items kept of one run; the account counts all of them.
pub const MAX_FAILED_ITEMS: usize = 10_000;

/// One item that failed. Never holds a subject or content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedItem {
    /// Microsoft's id.
    pub id: String,
    /// Its folder's path.
    pub path: String,
    /// Microsoft's code, or ours.
    pub code: String,
    /// Whether the next run tries it again.
    pub retryable: bool,
    /// Times it was tried.
    pub attempts: u32,
    /// Microsoft's name for the last request.
    pub request_id: String,
    /// The base's version was kept.
    pub stale: bool,
}

/// Failed items of one code in a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedGroup {
    /// The code.
    pub code: String,
    /// How many items.
    pub items: u64,
    /// In how many resources.
    pub resources: u64,
    /// One of them.
    pub example_resource: String,
}

/// Puts a run's failed items in the place of the ones before.
pub(crate) async fn replace(tx: &mut Tx, job: &JobRow) -> Result<(), Error> {
    let items: Vec<FailedItem> =
        serde_json::from_str(&job.failed).map_err(|_| Error::CatalogDamaged { column: "failed" })?;
    let sql = "DELETE FROM failed_items WHERE tenant_id = $1 AND resource_id = $2 AND workload = $3";
    let query = sqlx::query(sql).bind(job.tenant.to_string()).bind(job.resource.to_string());
    query.bind(job.workload.as_str()).execute(tx.on()).await?;
    let sql = "INSERT INTO failed_items (tenant_id, resource_id, workload, item_id, code, body) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, resource_id, workload, item_id) DO NOTHING";
    for item in &items {
        let body =
            serde_json::to_string(item).map_err(|source| Error::Encode { what: "failed item", source })?;
        let query = sqlx::query(sql).bind(job.tenant.to_string()).bind(job.resource.to_string());
        let query =
            query.bind(job.workload.as_str()).bind(item.id.clone()).bind(item.code.clone()).bind(body);
        query.execute(tx.on()).await?;
    }
    Ok(())
}

impl Catalog {
    /// How many items of a tenant are on the failed list.
    pub async fn count_failed(&self, tenant: TenantId) -> Result<u64, Error> {
        let query = sqlx::query("SELECT COUNT(*) AS n FROM failed_items WHERE tenant_id = $1");
        query.bind(tenant.to_string()).fetch_one(&self.pool).await?.count("n")
    }

    /// The failed items of a tenant by code, the largest group first.
    pub async fn failed_groups(&self, tenant: TenantId) -> Result<Vec<FailedGroup>, Error> {
        let sql = "SELECT f.code AS code, COUNT(*) AS items, COUNT(DISTINCT f.resource_id) AS resources, \
                   MIN(r.name) AS example FROM failed_items f JOIN resources r ON r.tenant_id = f.tenant_id \
                   AND r.resource_id = f.resource_id WHERE f.tenant_id = $1 GROUP BY f.code ORDER BY items DESC, f.code";
        let rows = sqlx::query(sql).bind(tenant.to_string()).fetch_all(&self.pool).await?;
        let read = |row: &sqlx::any::AnyRow| {
            Ok(FailedGroup {
                code: row.text("code")?,
                items: row.count("items")?,
                resources: row.count("resources")?,
                example_resource: format!("user:{}", row.text("example")?),
            })
        };
        rows.iter().map(read).collect()
    }
}
