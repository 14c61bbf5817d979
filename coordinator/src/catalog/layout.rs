//! Layouts: every version of every pool stays.

use holdfast_model::{Layout, LayoutVersion};

use super::{Catalog, Columns as _, big, term::Leadership};
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
        let body =
            serde_json::to_string(layout).map_err(|source| Error::Encode { what: "layout", source })?;
        super::write!(self, leadership, tx => {
            let sql = "INSERT INTO layouts (pool, version, body, created_ms) SELECT $1, $2, $3, $4 \
                       WHERE NOT EXISTS (SELECT 1 FROM layouts WHERE pool = $1 AND version >= $2)";
            let query = sqlx::query(sql).bind(layout.pool.0.clone()).bind(big(layout.version.0));
            let added = query.bind(body.clone()).bind(tx.now).execute(tx.on()).await?;
            if added.rows_affected() == 1 { Ok(()) } else { Err(Error::LayoutNotNewer { version: layout.version }) }
        })
    }
}
