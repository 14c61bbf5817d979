//! What the operator's command line calls. Served by every coordinator; every call has an actor, every change an audit row.

mod advice;
mod audit;
mod backup;
mod browse;
mod diff;
mod failed;
mod folders;
mod forecast;
mod jobs;
mod layout;
#[cfg(test)]
mod made_snapshot;
mod nodes;
mod permissions;
mod plan;
mod properties;
mod quota;
mod restore;
mod search;
mod snapshots;
mod status;
mod tenants;

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use holdfast_proto::coordinator::*;
use operator_api_server::OperatorApi;
use tonic::{Request, Response, Status};

use crate::{core::Core, service::actor};

/// The service.
pub(crate) struct OperatorService {
    pub(crate) core: Arc<Core>,
}

macro_rules! plain {
    ($self:ident, $request:ident, $call:ident) => {{
        let actor = actor(&$request)?;
        Ok(Response::new($self.$call(&actor, $request.into_inner()).await?))
    }};
}

#[tonic::async_trait]
impl OperatorApi for OperatorService {
    type DiffStream = Pin<Box<dyn Stream<Item = Result<DiffResponse, Status>> + Send>>;
    type SearchStream = Pin<Box<dyn Stream<Item = Result<SearchResponse, Status>> + Send>>;

    async fn connect_tenant(
        &self,
        request: Request<ConnectTenantRequest>,
    ) -> Result<Response<ConnectTenantResponse>, Status> {
        plain!(self, request, connect)
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        plain!(self, request, tenants)
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        plain!(self, request, resources)
    }

    async fn start_backup(
        &self,
        request: Request<StartBackupRequest>,
    ) -> Result<Response<StartRunResponse>, Status> {
        plain!(self, request, backup)
    }

    async fn start_restore(
        &self,
        request: Request<StartRestoreRequest>,
    ) -> Result<Response<StartRestoreResponse>, Status> {
        plain!(self, request, restore)
    }

    async fn start_export(
        &self,
        request: Request<StartExportRequest>,
    ) -> Result<Response<StartRunResponse>, Status> {
        plain!(self, request, export)
    }

    async fn start_verify(
        &self,
        request: Request<StartVerifyRequest>,
    ) -> Result<Response<StartRunResponse>, Status> {
        plain!(self, request, verify)
    }

    async fn list_jobs(
        &self,
        request: Request<ListJobsRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        plain!(self, request, jobs)
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<GetJobResponse>, Status> {
        plain!(self, request, job)
    }

    async fn get_run(&self, request: Request<GetRunRequest>) -> Result<Response<GetRunResponse>, Status> {
        plain!(self, request, run)
    }

    async fn retry_job(
        &self,
        request: Request<RetryJobRequest>,
    ) -> Result<Response<RetryJobResponse>, Status> {
        plain!(self, request, retry)
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        plain!(self, request, status)
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        plain!(self, request, snapshots)
    }

    async fn browse(&self, request: Request<BrowseRequest>) -> Result<Response<BrowseResponse>, Status> {
        plain!(self, request, browse_folder)
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<Self::DiffStream>, Status> {
        plain!(self, request, diff_snapshots)
    }

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<Self::SearchStream>, Status> {
        plain!(self, request, search_snapshots)
    }

    async fn list_audit(
        &self,
        request: Request<ListAuditRequest>,
    ) -> Result<Response<ListAuditResponse>, Status> {
        plain!(self, request, audit_rows)
    }

    async fn list_nodes(
        &self,
        request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        plain!(self, request, nodes)
    }

    async fn get_layout(
        &self,
        request: Request<GetLayoutRequest>,
    ) -> Result<Response<GetLayoutResponse>, Status> {
        plain!(self, request, layout)
    }

    async fn change_layout(
        &self,
        request: Request<ChangeLayoutRequest>,
    ) -> Result<Response<ChangeLayoutResponse>, Status> {
        plain!(self, request, change_layout)
    }
}

/// How many rows a listing gives: what was asked, or a default, never more than the limit.
fn page_size(asked: u32, default: u32, limit: u32) -> u32 {
    if asked == 0 { default } else { asked.min(limit) }
}

fn ms(time: i64) -> u64 {
    u64::try_from(time).unwrap_or(0)
}
