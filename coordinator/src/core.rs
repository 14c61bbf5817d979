//! What every loop and service of one coordinator shares.

use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicBool};

use holdfast_graph_client::QuotaLedger;
use holdfast_job_queue::JobPublisher;
use holdfast_model::{
    Clock, Epoch, Fence, Generation, JobId, Layout, LayoutNode, Millis, PoolId, Random, ResourceId,
    SessionClaims, TenantId, Verb, Workload,
};
use holdfast_proto::{signed::Signer, storage};
use holdfast_repository::{JobKeys, KeyProvider, StoreError};
use holdfast_storage_client::{NodeStatus, StorageClient};

use crate::{
    catalog::{Catalog, resource::ResourceRow, tenant::TenantRow},
    config::CoordinatorOptions,
    error::Error,
    graph_access::GraphAccess,
    leadership::Leader,
};

/// How long a session token is believed.
pub(crate) const SESSION_TOKEN_LIFE_MS: u64 = 30 * 60 * 1_000;

/// The shared parts.
pub(crate) struct Core {
    pub(crate) options: CoordinatorOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) catalog: Catalog,
    pub(crate) keys: Arc<dyn KeyProvider>,
    pub(crate) signer: Signer,
    pub(crate) queue: Arc<dyn JobPublisher>,
    pub(crate) storage: StorageClient,
    pub(crate) graph: GraphAccess,
    pub(crate) ledger: Arc<dyn QuotaLedger>,
    pub(crate) leader: Leader,
    pub(crate) layout: Mutex<Option<Arc<Layout>>>,
    pub(crate) catalog_answers: AtomicBool,
    /// Whether it was said that the configuration differs from the layout in use.
    pub(crate) layout_differs: AtomicBool,
}

/// What a session token is made for.
pub(crate) struct TokenFor {
    pub(crate) tenant: TenantId,
    pub(crate) resource: ResourceId,
    pub(crate) workload: Workload,
    pub(crate) job: JobId,
    pub(crate) fence: Fence,
}

/// What each node answered.
pub(crate) type NodeStatuses = Vec<(LayoutNode, Result<NodeStatus, StoreError>)>;

impl Core {
    /// The newest layout of the pool; read again only when its version changed.
    pub(crate) async fn layout(&self) -> Result<Arc<Layout>, Error> {
        let pool = &self.options.pool.name;
        let version = self.catalog.newest_layout_version(pool).await?;
        let cached = self.layout.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(layout) = cached.filter(|layout| layout.version == version) {
            return Ok(layout);
        }
        let layout = Arc::new(self.catalog.newest_layout(pool).await?.ok_or(Error::NoLayout)?);
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = Some(layout.clone());
        Ok(layout)
    }

    /// Snapshots from before this moment do not protect any more.
    pub(crate) async fn fresh_since_ms(&self) -> Result<i64, Error> {
        let fresh_ms = i64::from(self.options.fresh_hours) * 3_600_000;
        Ok(self.catalog.now_ms().await?.saturating_sub(fresh_ms))
    }

    /// Signs a session token; says when it ends.
    pub(crate) async fn session_token(
        &self,
        subject: &TokenFor,
        verbs: &[Verb],
    ) -> Result<(storage::SessionToken, Millis), Error> {
        let (_, epoch) = self.catalog.numbers().await?;
        let expires_at_ms = self.clock.now_ms() + SESSION_TOKEN_LIFE_MS;
        let claims = SessionClaims {
            tenant: subject.tenant,
            pool: PoolId(self.options.pool.name.clone()),
            resource: subject.resource,
            workload: subject.workload,
            job: subject.job,
            fence: subject.fence,
            epoch,
            verbs: verbs.to_vec(),
            expires_at_ms,
        };
        Ok((self.signer.token(&claims), expires_at_ms))
    }

    /// Asks every node of a layout how it is. What another node says at its address is no answer.
    pub(crate) async fn node_statuses(&self, layout: &Layout) -> NodeStatuses {
        let mut answers = self.storage.status(layout).await;
        for (node, answer) in &mut answers {
            let found = answer.as_ref().map_or(node.id, |status| status.node);
            if found != node.id {
                let reason = format!(
                    "{found} answers at {} instead of {}: correct its `node-id`, or the address in the pool",
                    node.address, node.id
                );
                *answer = Err(StoreError::Refused { reason });
            }
        }
        answers
    }

    /// Installs a layout on every node, each tried once, and tells the log. The layout loop tries again those that failed.
    pub(crate) async fn apply_layout(&self, layout: &Layout, generation: Generation, epoch: Epoch) {
        for (node, outcome) in self.storage.apply_layout(layout, generation, epoch).await {
            match outcome {
                Ok(applied) => tracing::info!(%node, version = applied.layout_version.0, "layout applied"),
                Err(error) => tracing::warn!(%node, %error, "the layout was not applied; tried again"),
            }
        }
    }

    /// Unwraps what a job of one resource needs.
    pub(crate) async fn job_keys(
        &self,
        tenant: &TenantRow,
        resource: &ResourceRow,
    ) -> Result<JobKeys, Error> {
        Ok(JobKeys {
            tenant: tenant.id,
            resource: resource.id,
            tenant_keys: self.keys.unwrap_tenant_keys(tenant.id, &tenant.wrapped_keys).await?,
            resource_key: self
                .keys
                .unwrap_resource_key(tenant.id, resource.id, &resource.wrapped_key)
                .await?,
        })
    }
}
