//! Items that are missing from, stale or incomplete in, the newest snapshot of a (resource, workload). Replaced at each commit;
//! an item that goes on failing keeps the time since when.

use std::collections::HashMap;

use holdfast_model::{TenantId, Workload};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

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
    /// Whether another try may do.
    pub retryable: bool,
    /// Times it was tried.
    pub attempts: u32,
    /// Microsoft's name for the last request.
    pub request_id: String,
    /// The base's version was kept.
    pub stale: bool,
    /// The newest version is stored, and a part of it is missing for good.
    #[serde(default)]
    pub partial: bool,
    /// Given up until it changes.
    #[serde(default)]
    pub parked: bool,
}

/// What becomes of a failed item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The next run tries it again.
    Retried,
    /// No run tries it until it changes.
    Parked,
    /// It is stored without a part.
    Partial,
}

/// Failed items of one code, over all tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedGroup {
    /// The code.
    pub code: String,
    /// How many items.
    pub items: u64,
    /// In how many tenants.
    pub tenants: u64,
    /// In how many resources.
    pub resources: u64,
    /// Of the items: tried again by the next run.
    pub retried: u64,
    /// Of the items: given up.
    pub parked: u64,
    /// Of the items: stored without a part.
    pub partial: u64,
    /// Since when the longest failing one fails; 0 when that is not known.
    pub since_ms: u64,
    /// The longest failing one.
    pub example: FailedExample,
}

/// One of the items of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedExample {
    /// The tenant's name.
    pub tenant: String,
    /// As an operator writes it.
    pub resource: String,
    /// What of the resource.
    pub workload: String,
    /// Its folder's path.
    pub path: String,
    /// Microsoft's id.
    pub item: String,
}

impl FailedItem {
    /// What becomes of it.
    pub fn fate(&self) -> Fate {
        match self {
            Self { partial: true, .. } => Fate::Partial,
            Self { parked: true, .. } => Fate::Parked,
            _ => Fate::Retried,
        }
    }
}

impl Fate {
    /// The word in the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retried => "retried",
            Self::Parked => "parked",
            Self::Partial => "partial",
        }
    }
}

/// Puts a run's failed items in the place of the ones before.
pub(crate) async fn replace(tx: &mut Tx, job: &JobRow) -> Result<(), Error> {
    let items: Vec<FailedItem> =
        serde_json::from_str(&job.failed).map_err(|_| Error::CatalogDamaged { column: "failed" })?;
    let failing_since = failing_since(tx, job).await?;
    let sql = "DELETE FROM failed_items WHERE tenant_id = $1 AND resource_id = $2 AND workload = $3";
    let query = sqlx::query(sql).bind(job.tenant.to_string()).bind(job.resource.to_string());
    query.bind(job.workload.as_str()).execute(tx.on()).await?;
    let sql = "INSERT INTO failed_items (tenant_id, resource_id, workload, item_id, code, body, since_ms, fate) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
               ON CONFLICT (tenant_id, resource_id, workload, item_id) DO NOTHING";
    for item in &items {
        let body =
            serde_json::to_string(item).map_err(|source| Error::Encode { what: "failed item", source })?;
        let since = failing_since.get(&item.id).copied().unwrap_or(tx.now);
        let query = sqlx::query(sql).bind(job.tenant.to_string()).bind(job.resource.to_string());
        let query =
            query.bind(job.workload.as_str()).bind(item.id.clone()).bind(item.code.clone()).bind(body);
        query.bind(since).bind(item.fate().as_str()).execute(tx.on()).await?;
    }
    Ok(())
}

/// Since when the items on the list fail, where that is known.
async fn failing_since(tx: &mut Tx, job: &JobRow) -> Result<HashMap<String, i64>, Error> {
    let sql = "SELECT item_id, since_ms FROM failed_items \
               WHERE tenant_id = $1 AND resource_id = $2 AND workload = $3 AND since_ms > 0";
    let query = sqlx::query(sql).bind(job.tenant.to_string()).bind(job.resource.to_string());
    let rows = query.bind(job.workload.as_str()).fetch_all(tx.on()).await?;
    rows.iter().map(|row| Ok((row.text("item_id")?, row.num("since_ms")?))).collect()
}

impl Catalog {
    /// How many items of a tenant are on the failed list, by workload.
    pub async fn count_failed(&self, tenant: TenantId) -> Result<HashMap<Workload, u64>, Error> {
        let sql = "SELECT workload, COUNT(*) AS n FROM failed_items WHERE tenant_id = $1 GROUP BY workload";
        let rows = sqlx::query(sql).bind(tenant.to_string()).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.word("workload")?, row.count("n")?))).collect()
    }

    /// The failed items of all tenants by code, the largest groups first.
    pub async fn failed_groups(&self, most: u32) -> Result<Vec<FailedGroup>, Error> {
        let sql = "SELECT code, COUNT(*) AS items, COUNT(DISTINCT tenant_id) AS tenants, \
                   COUNT(DISTINCT tenant_id || resource_id) AS resources, \
                   CAST(SUM(CASE WHEN fate = 'retried' THEN 1 ELSE 0 END) AS BIGINT) AS retried, \
                   CAST(SUM(CASE WHEN fate = 'parked' THEN 1 ELSE 0 END) AS BIGINT) AS parked, \
                   CAST(SUM(CASE WHEN fate = 'partial' THEN 1 ELSE 0 END) AS BIGINT) AS partial, \
                   CAST(COALESCE(MIN(CASE WHEN since_ms > 0 THEN since_ms END), 0) AS BIGINT) AS since \
                   FROM failed_items GROUP BY code ORDER BY items DESC, code LIMIT $1";
        let rows = sqlx::query(sql).bind(i64::from(most)).fetch_all(&self.pool).await?;
        let mut groups = Vec::with_capacity(rows.len());
        for row in &rows {
            let code = row.text("code")?;
            groups.push(FailedGroup {
                example: self.failed_example(&code).await?,
                code,
                items: row.count("items")?,
                tenants: row.count("tenants")?,
                resources: row.count("resources")?,
                retried: row.count("retried")?,
                parked: row.count("parked")?,
                partial: row.count("partial")?,
                since_ms: row.count("since")?,
            });
        }
        Ok(groups)
    }

    /// The longest failing item of a code; an empty one when a run has ended that mended the last.
    async fn failed_example(&self, code: &str) -> Result<FailedExample, Error> {
        let sql = "SELECT t.name AS tenant, r.name AS resource, f.workload AS workload, f.body AS body \
                   FROM failed_items f JOIN tenants t ON t.tenant_id = f.tenant_id \
                   JOIN resources r ON r.tenant_id = f.tenant_id AND r.resource_id = f.resource_id \
                   WHERE f.code = $1 ORDER BY f.since_ms, f.item_id LIMIT 1";
        let row = sqlx::query(sql).bind(code.to_owned()).fetch_optional(&self.pool).await?;
        let read = |row: AnyRow| {
            let item: FailedItem = row.json("body")?;
            Ok(FailedExample {
                tenant: row.text("tenant")?,
                resource: format!("user:{}", row.text("resource")?),
                workload: row.text("workload")?,
                path: item.path,
                item: item.id,
            })
        };
        row.map(read).transpose().map(Option::unwrap_or_default)
    }
}
