//! Keeps the catalog's resources equal to the tenant's users with a mailbox. Who disappears becomes gone, never deleted.

use std::collections::HashMap;

use futures::TryStreamExt as _;
use holdfast_graph_client::{GraphClient, GraphUser};
use holdfast_model::{ResourceId, TenantId};
use holdfast_repository::ResourceKey;
use holdfast_runtime::Step;

use crate::{
    catalog::{resource::ResourceRow, tenant::TenantRow, term::Leadership},
    core::Core,
    error::Error,
    graph_access::{App, microsoft},
};

/// More users than this in one tenant are an error, not a surprise for the memory.
const MAX_USERS: usize = 1_000_000;
/// When a failed discovery is tried again.
const RETRY_AFTER_MS: i64 = 5 * 60 * 1_000;

/// Discovers the tenants whose turn it is. One tenant that fails does not keep the others.
pub(crate) async fn step(core: &Core, leadership: &Leadership) -> Result<Step, Error> {
    let interval =
        i64::try_from(core.options.discovery_interval_seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    let before = core.catalog.now_ms().await?.saturating_sub(interval);
    for tenant in core.catalog.tenants_to_discover(before).await? {
        let discovered = async {
            let source = core.graph.source(&tenant, App::Backup).await?;
            let client = core.graph.client(&tenant, source)?;
            discover(core, Some(leadership), &tenant, &client).await
        };
        match discovered.await {
            Ok(users) => tracing::info!(tenant = %tenant.id, users, "discovered"),
            Err(error @ Error::TermLost { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(tenant = %tenant.id, %error, "discovery failed; tried again later");
                let as_if_at = before.saturating_add(RETRY_AFTER_MS);
                core.catalog.put_off_discovery(leadership, tenant.id, as_if_at).await?;
            }
        }
    }
    Ok(Step::Idle)
}

/// Reads the users and writes what changed; says how many there are.
pub(crate) async fn discover(
    core: &Core,
    leadership: Option<&Leadership>,
    tenant: &TenantRow,
    client: &GraphClient,
) -> Result<u64, Error> {
    let mut users = std::pin::pin!(client.users());
    let known: HashMap<String, ResourceRow> = core
        .catalog
        .resources(tenant.id)
        .await?
        .into_iter()
        .map(|resource| (resource.microsoft_id.clone(), resource))
        .collect();
    let mut found = Vec::new();
    while let Some(user) =
        users.try_next().await.map_err(|error| microsoft("the users of the tenant", error))?
    {
        if user.mail.as_deref().unwrap_or_default().is_empty() || user.user_principal_name.is_empty() {
            continue;
        }
        if found.len() >= MAX_USERS {
            let problem = format!("it has more than {MAX_USERS} mailboxes");
            return Err(Error::Invalid { field: "tenant", value: tenant.name.clone(), problem });
        }
        found.push(row(core, tenant.id, user, &known).await?);
    }
    core.catalog.put_discovered(leadership, tenant.id, &found).await?;
    Ok(found.len() as u64)
}

async fn row(
    core: &Core,
    tenant: TenantId,
    user: GraphUser,
    known: &HashMap<String, ResourceRow>,
) -> Result<ResourceRow, Error> {
    let (id, wrapped_key) = match known.get(&user.id) {
        Some(resource) => (resource.id, resource.wrapped_key.clone()),
        None => {
            let id = ResourceId::random(&*core.random);
            let key = ResourceKey::generate(&*core.random);
            (id, core.keys.wrap_resource_key(tenant, id, &key).await?)
        }
    };
    Ok(ResourceRow {
        tenant,
        id,
        microsoft_id: user.id,
        display_name: user.display_name.unwrap_or_default(),
        name: user.user_principal_name,
        is_gone: false,
        wrapped_key,
    })
}
