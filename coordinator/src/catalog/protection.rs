//! What protects the resources of a tenant, and the counts of the status page.
//!
//! A resource is protected when every workload of a person has a snapshot that is fresh: the newest one is not older than the
//! time the caller gives.

use std::collections::BTreeMap;

use holdfast_model::{ResourceId, TenantId, Workload};
use sqlx::any::AnyRow;

use super::{Catalog, Columns as _, big};
use crate::error::Error;

/// What is known about the protection of one (resource, workload).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protection {
    /// The newest snapshot; 0 for none.
    pub last_sequence: u64,
    /// When it was made; 0 for never.
    pub last_snapshot_ms: i64,
    /// done | parked; empty before the first run ended.
    pub last_result: String,
}

/// How the resources of a tenant stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProtectionCounts {
    /// Resources that Microsoft still has.
    pub resources: u64,
    /// Of them: with a fresh snapshot of every workload.
    pub protected: u64,
    /// Of them: without any snapshot of a workload.
    pub never_backed_up: u64,
    /// The rest: with a snapshot that is too old.
    pub outdated: u64,
    /// Of all: the newest run of a workload was given up.
    pub last_run_failed: u64,
    /// The oldest of their newest snapshots; 0 for none.
    pub oldest_last_snapshot_ms: u64,
}

impl Protection {
    /// In words, for a resource that Microsoft still has.
    pub fn state(&self, fresh_since_ms: i64) -> &'static str {
        match self.last_sequence {
            _ if self.last_result == "parked" => "last run failed",
            0 => "never backed up",
            _ if self.last_snapshot_ms < fresh_since_ms => "outdated",
            _ => "protected",
        }
    }
}

impl Catalog {
    /// What protects the resources of a tenant.
    pub async fn protections(
        &self,
        tenant: TenantId,
    ) -> Result<BTreeMap<(ResourceId, Workload), Protection>, Error> {
        let query = sqlx::query("SELECT * FROM protections WHERE tenant_id = $1").bind(tenant.to_string());
        let rows = query.fetch_all(&self.pool).await?;
        let read = |row: &AnyRow| {
            let protection = Protection {
                last_sequence: row.count("last_sequence")?,
                last_snapshot_ms: row.num("last_snapshot_ms")?,
                last_result: row.text("last_result")?,
            };
            Ok(((row.word("resource_id")?, row.word("workload")?), protection))
        };
        rows.iter().map(read).collect()
    }

    /// Counts the resources of a tenant by how all of these workloads of theirs stand.
    pub async fn count_protection(
        &self,
        tenant: TenantId,
        workloads: &[Workload],
        fresh_since_ms: i64,
    ) -> Result<ProtectionCounts, Error> {
        // `$2` is a list of words with a blank around each: neither database takes an array through `Any`.
        let sql = "SELECT COUNT(*) AS resources, \
                   CAST(COALESCE(SUM(CASE WHEN stored < $4 THEN 1 ELSE 0 END), 0) AS BIGINT) AS never, \
                   CAST(COALESCE(SUM(CASE WHEN fresh >= $4 THEN 1 ELSE 0 END), 0) AS BIGINT) AS protected, \
                   CAST(COALESCE(SUM(CASE WHEN parked > 0 THEN 1 ELSE 0 END), 0) AS BIGINT) AS failed, \
                   CAST(COALESCE(MIN(oldest), 0) AS BIGINT) AS oldest \
                   FROM (SELECT r.resource_id, \
                   SUM(CASE WHEN p.last_sequence > 0 THEN 1 ELSE 0 END) AS stored, \
                   SUM(CASE WHEN p.last_sequence > 0 AND p.last_snapshot_ms >= $3 THEN 1 ELSE 0 END) AS fresh, \
                   SUM(CASE WHEN p.last_result = 'parked' THEN 1 ELSE 0 END) AS parked, \
                   MIN(CASE WHEN p.last_sequence > 0 THEN p.last_snapshot_ms END) AS oldest \
                   FROM resources r LEFT JOIN protections p ON p.tenant_id = r.tenant_id \
                   AND p.resource_id = r.resource_id AND $2 LIKE '% ' || p.workload || ' %' \
                   WHERE r.tenant_id = $1 AND r.state = 'active' GROUP BY r.resource_id) AS each_resource";
        let words: String = workloads.iter().map(|workload| format!(" {workload} ")).collect();
        let query = sqlx::query(sql).bind(tenant.to_string()).bind(words).bind(fresh_since_ms);
        let row = query.bind(big(workloads.len() as u64)).fetch_one(&self.pool).await?;
        let (resources, protected) = (row.count("resources")?, row.count("protected")?);
        let never_backed_up = row.count("never")?;
        Ok(ProtectionCounts {
            resources,
            protected,
            never_backed_up,
            outdated: resources.saturating_sub(protected + never_backed_up),
            last_run_failed: row.count("failed")?,
            oldest_last_snapshot_ms: row.count("oldest")?,
        })
    }

    /// How many resources of a tenant Microsoft still has.
    pub async fn count_resources(&self, tenant: TenantId) -> Result<u64, Error> {
        let sql = "SELECT COUNT(*) AS n FROM resources WHERE tenant_id = $1 AND state = 'active'";
        sqlx::query(sql).bind(tenant.to_string()).fetch_one(&self.pool).await?.count("n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fresh_snapshot_protects() {
        let of = |last_sequence, last_snapshot_ms, result: &str| {
            Protection { last_sequence, last_snapshot_ms, last_result: result.to_owned() }.state(1_000)
        };
        assert_eq!(of(0, 0, ""), "never backed up");
        assert_eq!(of(1, 999, "done"), "outdated");
        assert_eq!(of(1, 1_000, "done"), "protected");
        assert_eq!(of(1, 1_000, "parked"), "last run failed");
    }
}
