//! Layouts: every version of every pool stays.

use holdfast_model::{Layout, LayoutVersion};

use super::{
    Catalog, Columns as _, Tx,
    audit::{self, Actor},
    big,
    term::Leadership,
};
use crate::error::Error;

impl Catalog {
    /// The newest layout of a pool.
    pub async fn newest_layout(&self, pool: &str) -> Result<Option<Layout>, Error> {
        let sql = "SELECT body FROM layouts WHERE pool = $1 ORDER BY version DESC LIMIT 1";
        let row = sqlx::query(sql).bind(pool.to_owned()).fetch_optional(&self.pool).await?;
        row.map(|row| row.json("body")).transpose()
    }

    /// The number of a pool's newest layout.
    pub async fn newest_layout_version(&self, pool: &str) -> Result<LayoutVersion, Error> {
        let sql = "SELECT COALESCE(MAX(version), 0) AS version FROM layouts WHERE pool = $1";
        let row = sqlx::query(sql).bind(pool.to_owned()).fetch_one(&self.pool).await?;
        Ok(LayoutVersion(row.count("version")?))
    }

    /// Adds a version. Its number must be above every earlier one of the pool.
    pub async fn add_layout(&self, leadership: &Leadership, layout: &Layout) -> Result<(), Error> {
        let body = body(layout)?;
        super::write!(self, leadership, tx => {
            if insert(&mut tx, layout, &body).await? {
                Ok(())
            } else {
                Err(Error::LayoutNotNewer { version: layout.version })
            }
        })
    }

    /// Puts a layout to use that an operator planned on another one: only while that is the newest.
    pub async fn change_layout(
        &self,
        actor: &Actor,
        (planned_on, layout): (LayoutVersion, &Layout),
        subject: &str,
    ) -> Result<(), Error> {
        let body = body(layout)?;
        super::write!(self, tx => {
            let sql = "SELECT COALESCE(MAX(version), 0) AS version FROM layouts WHERE pool = $1";
            let row = sqlx::query(sql).bind(layout.pool.0.clone()).fetch_one(tx.on()).await?;
            let version = LayoutVersion(row.count("version")?);
            if version != planned_on || !insert(&mut tx, layout, &body).await? {
                Err(Error::LayoutChanged { version })
            } else {
                audit::append(&mut tx, actor, "layout.change", subject).await
            }
        })
    }
}

fn body(layout: &Layout) -> Result<String, Error> {
    serde_json::to_string(layout).map_err(|source| Error::Encode { what: "layout", source })
}

/// False when the number is not above every earlier one of the pool.
async fn insert(tx: &mut Tx, layout: &Layout, body: &str) -> Result<bool, Error> {
    let sql = "INSERT INTO layouts (pool, version, body, created_ms) SELECT $1, $2, $3, $4 \
               WHERE NOT EXISTS (SELECT 1 FROM layouts WHERE pool = $1 AND version >= $2)";
    let query = sqlx::query(sql).bind(layout.pool.0.clone()).bind(big(layout.version.0));
    let added = query.bind(body.to_owned()).bind(tx.now).execute(tx.on()).await?;
    Ok(added.rows_affected() == 1)
}
