//! Brings the schema up to date: numbered files, each applied once, in order, in one transaction.
//!
//! Migrations expand first and contract a version later, so that version N runs beside N-1: a schema newer than this
//! build is accepted, never changed.

use sqlx::AssertSqlSafe;

use super::{Catalog, Columns as _, Dialect};
use crate::error::Error;

/// Every migration: its number and its SQL, in which `BYTES` stands for the database's type for raw bytes.
const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("../../migrations/1.sql")),
    (2, include_str!("../../migrations/2.sql")),
    (3, include_str!("../../migrations/3.sql")),
];

/// Applies what is missing; says whether it made the catalog. Several coordinators may start at once: the transaction lets one
/// of them do it.
pub async fn run(catalog: &Catalog) -> Result<bool, Error> {
    let create =
        "CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY, applied_ms BIGINT NOT NULL)";
    let mut created = sqlx::query(create).execute(&catalog.pool).await;
    if created.is_err() {
        // Two that create it at the same moment: the loser finds it made.
        created = sqlx::query(create).execute(&catalog.pool).await;
    }
    created?;
    let mut is_new = false;
    for (number, sql) in MIGRATIONS {
        let applied = apply(catalog, *number, sql).await?;
        is_new |= applied && *number == 1;
    }
    Ok(is_new)
}

async fn apply(catalog: &Catalog, number: i64, sql: &str) -> Result<bool, Error> {
    let bytes_type = match catalog.dialect() {
        Dialect::Sqlite => "BLOB",
        Dialect::Postgres => "BYTEA",
    };
    super::write!(catalog, tx => {
        let newest = sqlx::query("SELECT COALESCE(MAX(number), 0) AS newest FROM migrations");
        let newest = newest.fetch_one(tx.on()).await?.num("newest")?;
        if newest < number {
            // The row first: of two at once, one waits here and then fails, and finds the work done when it retries.
            let insert = "INSERT INTO migrations (number, applied_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            let inserted = sqlx::query(insert).bind(number).bind(tx.now).execute(tx.on()).await?;
            if inserted.rows_affected() == 0 {
                Err(Error::LostRace)
            } else {
                let sql = sql.replace(" BYTES ", &format!(" {bytes_type} "));
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(tx.on()).await?;
                Ok(true)
            }
        } else {
            Ok(false)
        }
    })
}
