//! The catalog: what the cluster knows, in SQL that SQLite and PostgreSQL both speak.
//!
//! | table | one row per | written by |
//! |---|---|---|
//! | meta | cluster: generation, epoch | leader |
//! | term | cluster: who leads, until when by database time | any coordinator that takes or renews it |
//! | layouts | (pool, version) | leader |
//! | tenants | tenant: credentials and keys, sealed | operator |
//! | resources | (tenant, resource): wrapped key | discovery |
//! | protections | (tenant, resource, workload): attempt counter, newest and highest used sequence | claim, commit |
//! | runs, jobs | a command, its units of work. **A job row is the truth and the outbox** | operator, workers, leader |
//! | failed_items | item that is missing from the newest snapshot | commit |
//! | snapshots | committed pin | commit |
//! | audit, audit_head | change, chained by hash | in the transaction of the change |
//!
//! Every write is one transaction ([`write!`]), tried again when it lost a race. On SQLite it is `BEGIN IMMEDIATE`: one
//! writer at a time. On PostgreSQL it is `READ COMMITTED`, and what a decision rests on is locked before it is read, always
//! in the order term, tenant, job, protection, audit head: writers of different jobs never disturb each other, which under
//! `SERIALIZABLE` they did at every heartbeat. Updates are guarded by the state and fence they were decided on besides.
//!
//! What a leader decides goes through [`Catalog::begin_deciding`], which locks the term row against being taken: a
//! coordinator that lost its term changes nothing, and nobody takes the term in the middle of a decision. A coordinator that
//! stops in the middle is not waited for: PostgreSQL ends its transaction.

pub mod audit;
pub mod failed;
pub mod job;
pub mod layout;
pub mod migrate;
pub mod protection;
pub mod resource;
pub mod run;
pub mod snapshot;
pub mod tenant;
pub mod term;

use std::{
    str::FromStr,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{Any, AnyPool, Row as _, Transaction, any::AnyRow};

use crate::error::Error;
use term::Leadership;

const POOL_CONNECTIONS: u32 = 8;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a transaction that lost a race is tried before its error is returned.
pub(crate) const MAX_TRANSACTION_TRIES: u32 = 24;
/// The first pause after a lost race; doubled up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(3);
const RETRY_MAX: Duration = Duration::from_millis(200);

/// Which database stands behind the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// One file.
    Sqlite,
    /// A server.
    Postgres,
}

/// The catalog. Clones are cheap and share the connections.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub(crate) pool: AnyPool,
    dialect: Dialect,
    is_new: bool,
    lost_races: Arc<AtomicU64>,
}

/// One write transaction, with the database's time at its start.
pub struct Tx {
    inner: Transaction<'static, Any>,
    dialect: Dialect,
    /// Milliseconds since the Unix epoch by the database's clock.
    pub now: i64,
}

impl Catalog {
    /// Connects and brings the schema up to date.
    pub async fn open(url: &str) -> Result<Self, Error> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let (dialect, url) = if url.starts_with("sqlite:") {
            let separator = if url.contains('?') { '&' } else { '?' };
            (Dialect::Sqlite, format!("{url}{separator}mode=rwc"))
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            (Dialect::Postgres, url.to_owned())
        } else {
            return Err(Error::Option {
                option: "catalog-url",
                problem: "write sqlite://PATH or postgres://USER@HOST/DATABASE",
            });
        };
        let pool = sqlx::any::AnyPoolOptions::new()
            .max_connections(POOL_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    let settings = match dialect {
                        Dialect::Sqlite => SQLITE_PRAGMAS,
                        Dialect::Postgres => POSTGRES_SETTINGS,
                    };
                    sqlx::raw_sql(settings).execute(&mut *connection).await?;
                    Ok(())
                })
            })
            .connect(&url)
            .await?;
        let mut catalog = Self { pool, dialect, is_new: false, lost_races: Arc::default() };
        catalog.is_new = migrate::run(&catalog).await?;
        Ok(catalog)
    }

    /// Whether the catalog was empty and this call filled it. Of several that open it at once, one is told so.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// How many transactions were tried again because another came first.
    pub fn lost_races(&self) -> u64 {
        self.lost_races.load(Ordering::Relaxed)
    }

    pub(crate) fn count_lost_race(&self) {
        self.lost_races.fetch_add(1, Ordering::Relaxed);
        crate::metrics::race_lost();
    }

    /// Which database this is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Starts a write. Prefer [`write!`], which also retries.
    pub async fn begin(&self) -> Result<Tx, Error> {
        let begin = match self.dialect {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        };
        let mut inner = self.pool.begin_with(begin).await?;
        let row = sqlx::query(self.now_sql()).fetch_one(&mut *inner).await?;
        let now = row.num("now_ms")?;
        Ok(Tx { inner, dialect: self.dialect, now })
    }

    /// Starts a write that only the leader of this term may do.
    pub async fn begin_deciding(&self, leadership: &Leadership) -> Result<Tx, Error> {
        let mut tx = self.begin().await?;
        term::check(&mut tx, leadership).await?;
        Ok(tx)
    }

    /// The database's time.
    pub async fn now_ms(&self) -> Result<i64, Error> {
        sqlx::query(self.now_sql()).fetch_one(&self.pool).await?.num("now_ms")
    }

    /// The only statement that differs between the two.
    fn now_sql(&self) -> &'static str {
        match self.dialect {
            Dialect::Sqlite => "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now_ms",
            Dialect::Postgres => {
                "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now_ms"
            }
        }
    }
}

const SQLITE_PRAGMAS: &str =
    "PRAGMA busy_timeout = 20000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;";
/// A coordinator that was stopped, or whose machine is gone, keeps its locks no longer than the first; nobody waits for a lock
/// longer than the second, as with SQLite.
const POSTGRES_SETTINGS: &str =
    "SET idle_in_transaction_session_timeout = '5s'; SET lock_timeout = '20s'; SET synchronous_commit = on;";

impl Tx {
    /// The connection, to run statements on.
    pub fn on(&mut self) -> &mut sqlx::AnyConnection {
        &mut self.inner
    }

    /// The statement for this database: SQLite has locked everything already and knows no row locks.
    pub(crate) fn locking(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self.dialect {
            Dialect::Sqlite => sqlite,
            Dialect::Postgres => postgres,
        }
    }

    /// Makes the changes durable.
    pub async fn commit(self) -> Result<(), Error> {
        Ok(self.inner.commit().await?)
    }
}

/// The pause before a lost transaction is tried again: `None` when it must not be.
pub(crate) fn retry_pause(error: &Error, tries: u32) -> Option<Duration> {
    let lost_race = match error {
        Error::Sql(sqlx::Error::Database(error)) => {
            matches!(error.code().as_deref(), Some("40001" | "40P01" | "5" | "6" | "261" | "517"))
        }
        Error::LostRace => true,
        _ => false,
    };
    let pause = RETRY_FIRST.saturating_mul(1 << tries.min(7)).min(RETRY_MAX);
    (lost_race && tries < MAX_TRANSACTION_TRIES).then_some(pause)
}

/// Runs a body in a write transaction and commits it, again from the start when another transaction came first.
///
/// `write!(catalog, tx => { … Ok(value) })`, or `write!(catalog, leadership, tx => { … })` for what a leader decides.
macro_rules! write {
    ($catalog:expr, $tx:ident => $body:block) => {
        $crate::catalog::write!(@with $catalog, $catalog.begin(), $tx => $body)
    };
    ($catalog:expr, $leadership:expr, $tx:ident => $body:block) => {
        $crate::catalog::write!(@with $catalog, $catalog.begin_deciding($leadership), $tx => $body)
    };
    (@with $catalog:expr, $begin:expr, $tx:ident => $body:block) => {{
        let mut tries = 0;
        loop {
            let attempt: Result<_, $crate::error::Error> = async {
                #[allow(unused_mut)]
                let mut $tx = $begin.await?;
                let outcome: Result<_, $crate::error::Error> = $body;
                let value = outcome?;
                $tx.commit().await?;
                Ok(value)
            }
            .await;
            match attempt {
                Ok(value) => break Ok::<_, $crate::error::Error>(value),
                Err(error) => match $crate::catalog::retry_pause(&error, tries) {
                    Some(pause) => {
                        $catalog.count_lost_race();
                        tries += 1;
                        tokio::time::sleep(pause).await;
                    }
                    None => break Err(error),
                },
            }
        }
    }};
}
pub(crate) use write;

/// Typed columns. A column of the wrong type or form is an error, never a panic.
pub(crate) trait Columns {
    fn num(&self, column: &str) -> Result<i64, Error>;
    fn count(&self, column: &str) -> Result<u64, Error>;
    fn text(&self, column: &str) -> Result<String, Error>;
    fn bytes(&self, column: &str) -> Result<Vec<u8>, Error>;
    fn word<T: FromStr>(&self, column: &'static str) -> Result<T, Error>;
    fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, Error>;
}

impl Columns for AnyRow {
    fn num(&self, column: &str) -> Result<i64, Error> {
        Ok(self.try_get(column)?)
    }

    fn count(&self, column: &str) -> Result<u64, Error> {
        Ok(u64::try_from(self.num(column)?).unwrap_or(0))
    }

    fn text(&self, column: &str) -> Result<String, Error> {
        Ok(self.try_get(column)?)
    }

    fn bytes(&self, column: &str) -> Result<Vec<u8>, Error> {
        Ok(self.try_get(column)?)
    }

    fn word<T: FromStr>(&self, column: &'static str) -> Result<T, Error> {
        self.text(column)?.parse().map_err(|_| Error::CatalogDamaged { column })
    }

    fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, Error> {
        serde_json::from_str(&self.text(column)?).map_err(|_| Error::CatalogDamaged { column })
    }
}

/// A number for a BIGINT column. What does not fit is as large as the column can hold.
pub(crate) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_connection_to_sqlite_syncs_each_commit_and_waits_for_writers() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("catalog.db").display());
        let catalog = Catalog::open(&url).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..POOL_CONNECTIONS {
            let mut connection = catalog.pool.acquire().await.unwrap();
            for (pragma, expected) in [("PRAGMA synchronous", 2), ("PRAGMA busy_timeout", 20_000)] {
                let row = sqlx::query(pragma).fetch_one(&mut *connection).await.unwrap();
                assert_eq!(row.try_get::<i64, _>(0).unwrap(), expected, "{pragma}");
            }
            let row = sqlx::query("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
            assert_eq!(row.try_get::<String, _>(0).unwrap(), "wal");
            held.push(connection);
        }
    }
}
