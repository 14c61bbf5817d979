//! Tenants: names, addresses, and credentials and keys that only the key provider opens.

use std::fmt;

use holdfast_graph_client::Cloud;
use holdfast_model::TenantId;
use sqlx::any::AnyRow;

use super::{
    Catalog, Columns as _,
    audit::{self, Actor},
    term::Leadership,
};
use crate::error::Error;

/// One tenant. Its secrets are sealed here.
#[derive(Clone)]
pub struct TenantRow {
    /// Our own id.
    pub id: TenantId,
    /// What the operator calls it.
    pub name: String,
    /// Microsoft's id.
    pub microsoft_tenant: String,
    /// Its cloud.
    pub cloud: Cloud,
    /// Where Graph is.
    pub graph_url: String,
    /// Where tokens come from.
    pub login_url: String,
    /// Where its data lives.
    pub pool: String,
    /// The app that reads.
    pub backup_client_id: String,
    /// Its credential, sealed.
    pub backup_secret: Vec<u8>,
    /// The app that writes.
    pub restore_client_id: String,
    /// Its credential, sealed.
    pub restore_secret: Vec<u8>,
    /// The tenant's keys, wrapped.
    pub wrapped_keys: Vec<u8>,
}

impl fmt::Debug for TenantRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantRow").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Adds a tenant, or replaces its connection; keys, id and pool stay as they were made.
    pub async fn put_tenant(&self, actor: &Actor, tenant: &TenantRow) -> Result<(), Error> {
        super::write!(self, tx => {
            let sql = "INSERT INTO tenants (tenant_id, name, microsoft_tenant, cloud, graph_url, login_url, pool, \
                       backup_client_id, backup_secret, restore_client_id, restore_secret, wrapped_keys, created_ms, \
                       discovered_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0) \
                       ON CONFLICT (name) DO UPDATE SET cloud = excluded.cloud, graph_url = excluded.graph_url, \
                       login_url = excluded.login_url, backup_client_id = excluded.backup_client_id, \
                       backup_secret = excluded.backup_secret, restore_client_id = excluded.restore_client_id, \
                       restore_secret = excluded.restore_secret \
                       WHERE tenants.tenant_id = excluded.tenant_id";
            let query = sqlx::query(sql).bind(tenant.id.to_string()).bind(tenant.name.clone());
            let query = query.bind(tenant.microsoft_tenant.clone()).bind(tenant.cloud.as_str());
            let query = query.bind(tenant.graph_url.clone()).bind(tenant.login_url.clone());
            let query = query.bind(tenant.pool.clone()).bind(tenant.backup_client_id.clone());
            let query = query.bind(tenant.backup_secret.clone()).bind(tenant.restore_client_id.clone());
            let query = query.bind(tenant.restore_secret.clone()).bind(tenant.wrapped_keys.clone()).bind(tx.now);
            // Credentials are sealed for one id: they must never stand in the row of another.
            if query.execute(tx.on()).await?.rows_affected() == 0 {
                let problem = "somebody else connected it at the same moment: connect it again".to_owned();
                Err(Error::Invalid { field: "name", value: tenant.name.clone(), problem })
            } else {
                audit::append(&mut tx, actor, "tenant.connect", &tenant.name).await
            }
        })
    }

    /// Looks a tenant up by the name it was connected with.
    pub async fn tenant_by_name(&self, name: &str) -> Result<TenantRow, Error> {
        self.find_tenant(name).await?.ok_or_else(|| Error::NotFound {
            what: "tenant",
            name: name.to_owned(),
            hint: "connect it with `holdfast tenant connect`, or see `holdfast tenant list`".to_owned(),
        })
    }

    /// The same, where it may be missing.
    pub async fn find_tenant(&self, name: &str) -> Result<Option<TenantRow>, Error> {
        let query = sqlx::query("SELECT * FROM tenants WHERE name = $1").bind(name.to_owned());
        query.fetch_optional(&self.pool).await?.as_ref().map(read).transpose()
    }

    /// Looks a tenant up.
    pub async fn tenant(&self, id: TenantId) -> Result<TenantRow, Error> {
        let query = sqlx::query("SELECT * FROM tenants WHERE tenant_id = $1").bind(id.to_string());
        let row = query.fetch_optional(&self.pool).await?;
        let missing = || Error::NotFound {
            what: "tenant",
            name: id.to_string(),
            hint: "see `holdfast tenant list`".to_owned(),
        };
        read(&row.ok_or_else(missing)?)
    }

    /// Every tenant, by name.
    pub async fn tenants(&self) -> Result<Vec<TenantRow>, Error> {
        let rows = sqlx::query("SELECT * FROM tenants ORDER BY name").fetch_all(&self.pool).await?;
        rows.iter().map(read).collect()
    }

    /// Puts off the next discovery of a tenant, as if it had been discovered at that moment.
    pub async fn put_off_discovery(
        &self,
        leadership: &Leadership,
        tenant: TenantId,
        as_if_at_ms: i64,
    ) -> Result<(), Error> {
        super::write!(self, leadership, tx => {
            let query = sqlx::query("UPDATE tenants SET discovered_ms = $1 WHERE tenant_id = $2");
            query.bind(as_if_at_ms).bind(tenant.to_string()).execute(tx.on()).await?;
            Ok(())
        })
    }

    /// Tenants whose resources were last discovered before a moment of the database's clock.
    pub async fn tenants_to_discover(&self, before_ms: i64) -> Result<Vec<TenantRow>, Error> {
        let query = sqlx::query("SELECT * FROM tenants WHERE discovered_ms < $1 ORDER BY discovered_ms")
            .bind(before_ms);
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }
}

fn read(row: &AnyRow) -> Result<TenantRow, Error> {
    Ok(TenantRow {
        id: row.word("tenant_id")?,
        name: row.text("name")?,
        microsoft_tenant: row.text("microsoft_tenant")?,
        cloud: row.word("cloud")?,
        graph_url: row.text("graph_url")?,
        login_url: row.text("login_url")?,
        pool: row.text("pool")?,
        backup_client_id: row.text("backup_client_id")?,
        backup_secret: row.bytes("backup_secret")?,
        restore_client_id: row.text("restore_client_id")?,
        restore_secret: row.bytes("restore_secret")?,
        wrapped_keys: row.bytes("wrapped_keys")?,
    })
}
