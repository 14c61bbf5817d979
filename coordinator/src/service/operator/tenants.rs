//! Connecting tenants, and what was discovered in them.
//!
//! Nothing is stored before Microsoft has accepted both apps and granted what they need.

use holdfast_graph_client::{AppCredentials, Cloud, Credential, TokenSource as _};
use holdfast_model::TenantId;
use holdfast_proto::coordinator::{
    AppRegistration, ConnectTenantRequest, ConnectTenantResponse, ListResourcesRequest,
    ListResourcesResponse, ListTenantsRequest, ListTenantsResponse, Resource, Tenant,
};
use holdfast_repository::TenantKeys;
use zeroize::Zeroizing;

use super::{OperatorService, backup::workloads, ms, permissions};
use crate::{
    catalog::{audit::Actor, tenant::TenantRow},
    discovery::discover,
    error::Error,
    graph_access::{App, microsoft, refused},
};

const MAX_NAME_CHARS: usize = 63;

impl OperatorService {
    pub(super) async fn connect(
        &self,
        actor: &Actor,
        request: ConnectTenantRequest,
    ) -> Result<ConnectTenantResponse, Error> {
        check_name(&request.name)?;
        let mut tenant = self.unsealed_tenant(&request).await?;
        let backup = credentials("backup app", request.backup_app)?;
        let restore = request.restore_app.map(|app| credentials("restore app", Some(app))).transpose()?;
        let restore = restore.unwrap_or_else(|| backup.clone());
        tenant.backup_client_id.clone_from(&backup.client_id);
        tenant.restore_client_id.clone_from(&restore.client_id);

        let source = self.core.graph.unstored_source(&tenant, backup.clone())?;
        let mut permissions = Vec::new();
        let token = source.token().await.map_err(|error| refused(App::Backup, error))?;
        permissions.extend(permissions::check(App::Backup, &token.roles()));
        let restore_source = self.core.graph.unstored_source(&tenant, restore.clone())?;
        let token = restore_source.token().await.map_err(|error| refused(App::Restore, error))?;
        permissions.extend(permissions::check(App::Restore, &token.roles()));
        let missing: Vec<String> = permissions
            .iter()
            .filter(|check| !check.granted)
            .map(|check| format!("{} (for {})", check.permission, check.needed_for))
            .collect();
        if !missing.is_empty() {
            return Err(Error::PermissionsMissing { missing });
        }
        // What a token claims and what Graph allows are two things: the first page of users is asked for before anything
        // is stored.
        let client = self.core.graph.client(&tenant, source)?;
        {
            use futures::TryStreamExt as _;
            let mut users = std::pin::pin!(client.users());
            users.try_next().await.map_err(|error| microsoft("the users of the tenant", error))?;
        }
        tenant.backup_secret = self.core.graph.seal(tenant.id, App::Backup, &backup.secret).await?;
        tenant.restore_secret = self.core.graph.seal(tenant.id, App::Restore, &restore.secret).await?;
        self.core.catalog.put_tenant(actor, &tenant).await?;
        let resources = discover(&self.core, None, &tenant, &client).await?;
        tracing::info!(tenant = %tenant.id, resources, "tenant connected");
        Ok(ConnectTenantResponse { permissions, resources })
    }

    /// The tenant as it will be stored, still without credentials. Connecting again keeps its id and keys.
    async fn unsealed_tenant(&self, request: &ConnectTenantRequest) -> Result<TenantRow, Error> {
        let text = if request.cloud.is_empty() { Cloud::Global.as_str() } else { &request.cloud };
        let cloud: Cloud = text.parse().map_err(|error: holdfast_graph_client::ParseCloudError| {
            Error::Invalid { field: "cloud", value: text.to_owned(), problem: error.to_string() }
        })?;
        if request.microsoft_tenant.is_empty() {
            let problem = "give the directory (tenant) id shown in Microsoft Entra".to_owned();
            return Err(Error::Invalid { field: "tenant-id", value: String::new(), problem });
        }
        let or = |text: &str, default: &str| {
            let text = if text.is_empty() { default } else { text };
            text.trim_end_matches('/').to_owned()
        };
        let known = self.core.catalog.find_tenant(&request.name).await?;
        if let Some(known) = &known
            && !known.microsoft_tenant.eq_ignore_ascii_case(&request.microsoft_tenant)
        {
            let problem =
                format!("this name belongs to Microsoft tenant {}: use another", known.microsoft_tenant);
            return Err(Error::Invalid { field: "name", value: request.name.clone(), problem });
        }
        let (id, wrapped_keys) = match known {
            Some(known) => (known.id, known.wrapped_keys),
            None => {
                let id = TenantId::random(&*self.core.random);
                let keys = TenantKeys::generate(&*self.core.random);
                (id, self.core.keys.wrap_tenant_keys(id, &keys).await?)
            }
        };
        Ok(TenantRow {
            id,
            name: request.name.clone(),
            microsoft_tenant: request.microsoft_tenant.clone(),
            cloud,
            graph_url: or(&request.graph_url, cloud.graph_url()),
            login_url: or(&request.login_url, cloud.login_url()),
            pool: self.core.options.pool.name.clone(),
            backup_client_id: String::new(),
            backup_secret: Vec::new(),
            restore_client_id: String::new(),
            restore_secret: Vec::new(),
            wrapped_keys,
        })
    }

    pub(super) async fn tenants(
        &self,
        _: &Actor,
        _: ListTenantsRequest,
    ) -> Result<ListTenantsResponse, Error> {
        let mut tenants = Vec::new();
        for tenant in self.core.catalog.tenants().await? {
            let resources = self.core.catalog.count_resources(tenant.id).await?;
            tenants.push(Tenant {
                name: tenant.name,
                microsoft_tenant: tenant.microsoft_tenant,
                cloud: tenant.cloud.to_string(),
                resources,
            });
        }
        Ok(ListTenantsResponse { tenants })
    }

    pub(super) async fn resources(
        &self,
        actor: &Actor,
        request: ListResourcesRequest,
    ) -> Result<ListResourcesResponse, Error> {
        let catalog = &self.core.catalog;
        let tenant = catalog.tenant_by_name(&request.tenant).await?;
        let words: Vec<String> = Some(request.workload).filter(|word| !word.is_empty()).into_iter().collect();
        let workloads = workloads(&words)?;
        if request.refresh {
            let source = self.core.graph.source(&tenant, App::Backup).await?;
            let client = self.core.graph.client(&tenant, source)?;
            discover(&self.core, None, &tenant, &client).await?;
            catalog.audit(actor, "resources.refresh", &tenant.name).await?;
        }
        let protections = catalog.protections(tenant.id).await?;
        let fresh_since = self.core.fresh_since_ms().await?;
        let counts: std::collections::HashMap<_, _> = catalog
            .count_snapshots(tenant.id)
            .await?
            .into_iter()
            .map(|(resource, workload, n)| ((resource, workload), n))
            .collect();
        let mut resources = Vec::new();
        for row in catalog.resources(tenant.id).await? {
            for workload in &workloads {
                let protection = protections.get(&(row.id, *workload)).cloned().unwrap_or_default();
                let state = if row.is_gone { "gone" } else { protection.state(fresh_since) };
                resources.push(Resource {
                    name: row.written(),
                    display_name: row.display_name.clone(),
                    microsoft_id: row.microsoft_id.clone(),
                    workload: workload.to_string(),
                    last_snapshot_ms: ms(protection.last_snapshot_ms),
                    snapshots: counts.get(&(row.id, *workload)).copied().unwrap_or(0),
                    state: state.to_owned(),
                });
            }
        }
        Ok(ListResourcesResponse { resources })
    }
}

fn credentials(which: &'static str, app: Option<AppRegistration>) -> Result<AppCredentials, Error> {
    let invalid =
        |problem: &str| Error::Invalid { field: which, value: String::new(), problem: problem.to_owned() };
    let app = app.ok_or_else(|| invalid("give --client-id and a secret or certificate"))?;
    if app.client_id.is_empty() {
        return Err(invalid("give its client id"));
    }
    let secret = match (app.client_secret.trim(), app.certificate_pem.as_str()) {
        ("", "") => return Err(invalid("give a client secret or a certificate")),
        (secret, "") => Credential::Secret(Zeroizing::new(secret.to_owned())),
        ("", pem) => Credential::Certificate { pem: Zeroizing::new(pem.to_owned()) },
        _ => return Err(invalid("give either a client secret or a certificate, not both")),
    };
    Ok(AppCredentials { client_id: app.client_id, secret })
}

fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.is_empty() && name.len() <= MAX_NAME_CHARS && name.chars().all(plain) && !name.starts_with('-') {
        return Ok(());
    }
    let problem = format!("use 1 to {MAX_NAME_CHARS} of a-z, 0-9 and '-'");
    Err(Error::Invalid { field: "name", value: name.chars().take(MAX_NAME_CHARS).collect(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert!(check_name("contoso-2").is_ok());
        for wrong in ["", "Contoso", "a b", "-a", &"a".repeat(64)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
