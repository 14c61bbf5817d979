//! Storage nodes and the ten-second answer: is everything protected, does everything run?

use std::collections::BTreeSet;

use holdfast_model::JobState;
use holdfast_proto::coordinator::{
    FailedGroup, GetStatusRequest, GetStatusResponse, ListNodesRequest, ListNodesResponse, Node, TenantStatus,
};

use super::{OperatorService, jobs::JobNames};
use crate::{catalog::audit::Actor, error::Error};

/// Parked jobs shown on the status page; `holdfast jobs` lists all.
const PARKED_SHOWN: u32 = 20;

impl OperatorService {
    pub(super) async fn nodes(&self, _: &Actor, _: ListNodesRequest) -> Result<ListNodesResponse, Error> {
        let layout = self.core.layout().await?;
        let answers = self.core.node_statuses(&layout).await;
        let nodes = answers.into_iter().map(|(node, answer)| {
            let index = layout.nodes.iter().position(|other| other.id == node.id);
            let owned = layout.owners.iter().filter(|row| row.iter().any(|i| Some(usize::from(*i)) == index));
            let mut wire = Node {
                id: node.id.0,
                site: node.site.0,
                address: node.address,
                partitions: owned.count() as u64,
                ..Default::default()
            };
            match answer {
                Ok(status) => {
                    wire.state = "up".to_owned();
                    wire.bytes_used = status.bytes_used;
                    wire.bytes_free = status.bytes_free;
                    wire.records = status.records;
                    wire.reason = match (status.ingest_stopped, status.quarantined_records) {
                        (true, _) => "the disk is full: add a disk or a node".to_owned(),
                        (false, 0) => String::new(),
                        (false, n) => format!("{n} damaged records are in quarantine"),
                    };
                }
                Err(error) => {
                    wire.state = "down".to_owned();
                    wire.reason = error.to_string();
                }
            }
            wire
        });
        Ok(ListNodesResponse { nodes: nodes.collect() })
    }

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
            ..Default::default()
        };
        for tenant in catalog.tenants().await? {
            let counts = catalog.tenant_counts(tenant.id).await?;
            answer.tenants.push(TenantStatus {
                tenant: tenant.name.clone(),
                resources: counts.resources,
                protected: counts.protected,
                never_backed_up: counts.resources.saturating_sub(counts.protected),
                last_run_failed: counts.last_run_failed,
                items_failed: catalog.count_failed(tenant.id).await?,
                oldest_last_snapshot_ms: counts.oldest_last_snapshot_ms,
            });
            if request.failed {
                let groups = catalog.failed_groups(tenant.id).await?;
                answer.failed.extend(groups.into_iter().map(|group| FailedGroup {
                    tenant: tenant.name.clone(),
                    code: group.code,
                    items: group.items,
                    resources: group.resources,
                    example_resource: group.example_resource,
                }));
            }
        }
        let parked = catalog.newest_jobs(None, JobState::Parked.as_str(), PARKED_SHOWN).await?;
        let mut names = JobNames::new(catalog);
        for job in &parked {
            answer.parked.push(names.wire(job).await?);
        }
        self.count_nodes(&mut answer).await?;
        Ok(answer)
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
        answer.nodes = layout.nodes.len() as u64;
        answer.nodes_up = up.len() as u64;
        answer.sites = layout.nodes.iter().map(|node| &node.site).collect::<BTreeSet<_>>().len() as u64;
        answer.sites_up = up.iter().map(|node| &node.site).collect::<BTreeSet<_>>().len() as u64;
        Ok(())
    }
}
