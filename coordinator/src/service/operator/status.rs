//! The ten-second answer: is everything protected, does everything run?

use std::collections::{BTreeSet, HashMap};

use holdfast_model::{JobState, Workload};
use holdfast_proto::coordinator::{GetStatusRequest, GetStatusResponse, TenantStatus, WorkloadStatus};

use super::{OperatorService, failed::wire_group, jobs::JobNames};
use crate::{
    catalog::{audit::Actor, tenant::TenantRow},
    error::Error,
    storage_health::storage_health,
};

/// Parked jobs shown on the status page; `holdfast jobs` lists all.
const PARKED_SHOWN: u32 = 20;
/// Causes of failed items shown, the largest first: Microsoft has a few dozen codes.
const CAUSES_SHOWN: u32 = 100;

impl OperatorService {
    pub(super) async fn status(
        &self,
        _: &Actor,
        request: GetStatusRequest,
    ) -> Result<GetStatusResponse, Error> {
        let catalog = &self.core.catalog;
        let mut answer = GetStatusResponse {
            jobs_queued: catalog.count_jobs(JobState::Queued).await?,
            jobs_running: catalog.count_jobs(JobState::Running).await?
                + catalog.count_jobs(JobState::Committing).await?,
            jobs_parked: catalog.count_jobs(JobState::Parked).await?,
            leader: catalog.leader().await?,
            fresh_hours: self.core.options.fresh_hours.into(),
            ..Default::default()
        };
        let fresh_since = self.core.fresh_since_ms().await?;
        let tenants = catalog.tenants().await?;
        for tenant in &tenants {
            answer.tenants.push(self.tenant_status(tenant, fresh_since).await?);
        }
        answer.quota = self.quota(&tenants).await?;
        if request.failed {
            let groups = catalog.failed_groups(CAUSES_SHOWN + 1).await?;
            answer.more_failed = groups.len() > CAUSES_SHOWN as usize;
            answer.failed = groups.into_iter().take(CAUSES_SHOWN as usize).map(wire_group).collect();
        }
        let parked = catalog.newest_jobs(None, JobState::Parked.as_str(), PARKED_SHOWN).await?;
        answer.parked = JobNames::new(catalog).all(&parked).await?;
        self.count_nodes(&mut answer).await?;
        Ok(answer)
    }

    async fn tenant_status(&self, tenant: &TenantRow, fresh_since: i64) -> Result<TenantStatus, Error> {
        let catalog = &self.core.catalog;
        let failed = catalog.count_failed(tenant.id).await?;
        let mut workloads = Vec::new();
        for workload in Workload::OF_A_USER {
            workloads.push(self.workload_status(tenant, *workload, &failed, fresh_since).await?);
        }
        let counts = catalog.count_protection(tenant.id, Workload::OF_A_USER, fresh_since).await?;
        Ok(TenantStatus {
            tenant: tenant.name.clone(),
            resources: counts.resources,
            protected: counts.protected,
            never_backed_up: counts.never_backed_up,
            outdated: counts.outdated,
            last_run_failed: counts.last_run_failed,
            items_failed: failed.values().sum(),
            oldest_last_snapshot_ms: counts.oldest_last_snapshot_ms,
            workloads,
        })
    }

    async fn workload_status(
        &self,
        tenant: &TenantRow,
        workload: Workload,
        failed: &HashMap<Workload, u64>,
        fresh_since: i64,
    ) -> Result<WorkloadStatus, Error> {
        let counts = self.core.catalog.count_protection(tenant.id, &[workload], fresh_since).await?;
        Ok(WorkloadStatus {
            workload: workload.to_string(),
            protected: counts.protected,
            never_backed_up: counts.never_backed_up,
            outdated: counts.outdated,
            last_run_failed: counts.last_run_failed,
            items_failed: failed.get(&workload).copied().unwrap_or(0),
            oldest_last_snapshot_ms: counts.oldest_last_snapshot_ms,
        })
    }

    /// Measured by asking the nodes now.
    async fn count_nodes(&self, answer: &mut GetStatusResponse) -> Result<(), Error> {
        let layout = match self.core.layout().await {
            Ok(layout) => layout,
            Err(Error::NoLayout) => return Ok(()),
            Err(error) => return Err(error),
        };
        let statuses = self.core.node_statuses(&layout).await;
        let up: Vec<_> = statuses.iter().filter(|(_, answer)| answer.is_ok()).map(|(node, _)| node).collect();
        answer.storage = Some(storage_health(&layout, &statuses));
        answer.nodes = layout.nodes.len() as u64;
        answer.nodes_up = up.len() as u64;
        answer.sites = layout.nodes.iter().map(|node| &node.site).collect::<BTreeSet<_>>().len() as u64;
        answer.sites_up = up.iter().map(|node| &node.site).collect::<BTreeSet<_>>().len() as u64;
        Ok(())
    }
}
