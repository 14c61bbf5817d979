//! Who leads: one row (term, holder, expires at, by the database's clock), and the numbers only a leader changes.
//!
//! The term only grows. A decision carries its term and is refused once another has it or it ran out.

use std::time::Duration;

use holdfast_model::{Epoch, Generation, Term};

use super::{Catalog, Columns as _, Tx, big};
use crate::error::Error;

/// A term that this process holds, or held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The number every decision carries.
    pub term: Term,
    /// Which process: its name and a random part, so that a restarted one is another.
    pub holder: String,
}

impl Catalog {
    /// Takes the term when nobody holds it.
    pub async fn take_term(&self, holder: &str, length: Duration) -> Result<Option<Leadership>, Error> {
        super::write!(self, tx => {
            let sql = "UPDATE term SET term = term + 1, holder = $1, expires_at_ms = $2 \
                       WHERE id = 1 AND expires_at_ms <= $3 RETURNING term";
            let query = sqlx::query(sql).bind(holder.to_owned()).bind(tx.now + millis(length)).bind(tx.now);
            let row = query.fetch_optional(tx.on()).await?;
            let term = row.map(|row| row.count("term")).transpose()?;
            Ok(term.map(|term| Leadership { term: Term(term), holder: holder.to_owned() }))
        })
    }

    /// Keeps the term. False when it is lost: it stays lost.
    pub async fn renew_term(&self, leadership: &Leadership, length: Duration) -> Result<bool, Error> {
        super::write!(self, tx => {
            let sql = "UPDATE term SET expires_at_ms = $1 \
                       WHERE id = 1 AND term = $2 AND holder = $3 AND expires_at_ms > $4";
            let query = sqlx::query(sql).bind(tx.now + millis(length)).bind(big(leadership.term.0));
            let query = query.bind(leadership.holder.clone()).bind(tx.now);
            Ok(query.execute(tx.on()).await?.rows_affected() == 1)
        })
    }

    /// Lets go of the term at shutdown, so that another need not wait.
    pub async fn drop_term(&self, leadership: &Leadership) -> Result<(), Error> {
        super::write!(self, tx => {
            let sql = "UPDATE term SET expires_at_ms = 0 WHERE id = 1 AND term = $1 AND holder = $2";
            let query = sqlx::query(sql).bind(big(leadership.term.0)).bind(leadership.holder.clone());
            query.execute(tx.on()).await?;
            Ok(())
        })
    }

    /// The holder of the running term; empty when there is none.
    pub async fn leader(&self) -> Result<String, Error> {
        let now = self.now_ms().await?;
        let query = sqlx::query("SELECT holder FROM term WHERE id = 1 AND expires_at_ms > $1").bind(now);
        let row = query.fetch_optional(&self.pool).await?;
        row.map_or_else(|| Ok(String::new()), |row| row.text("holder"))
    }

    /// The catalog's generation and the storage epoch.
    pub async fn numbers(&self) -> Result<(Generation, Epoch), Error> {
        let row =
            sqlx::query("SELECT generation, epoch FROM meta WHERE id = 1").fetch_one(&self.pool).await?;
        Ok((Generation(row.count("generation")?), Epoch(row.count("epoch")?)))
    }

    /// Raises generation and epoch to at least these.
    pub async fn raise_numbers(
        &self,
        leadership: &Leadership,
        generation: Generation,
        epoch: Epoch,
    ) -> Result<(), Error> {
        super::write!(self, leadership, tx => {
            let sql = "UPDATE meta SET generation = CASE WHEN generation < $1 THEN $1 ELSE generation END, \
                       epoch = CASE WHEN epoch < $2 THEN $2 ELSE epoch END WHERE id = 1";
            sqlx::query(sql).bind(big(generation.0)).bind(big(epoch.0)).execute(tx.on()).await?;
            Ok(())
        })
    }
}

/// Fails unless the term is the running one, within the transaction that decides. Until that ends nobody takes the term.
pub(super) async fn check(tx: &mut Tx, leadership: &Leadership) -> Result<(), Error> {
    let sql = tx.locking(
        "SELECT term FROM term WHERE id = 1 AND term = $1 AND holder = $2 AND expires_at_ms > $3",
        "SELECT term FROM term WHERE id = 1 AND term = $1 AND holder = $2 AND expires_at_ms > $3 FOR SHARE",
    );
    let query = sqlx::query(sql).bind(big(leadership.term.0)).bind(leadership.holder.clone()).bind(tx.now);
    match query.fetch_optional(tx.on()).await? {
        Some(_) => Ok(()),
        None => Err(Error::TermLost { term: leadership.term }),
    }
}

/// The generation, read in the transaction that hands out a fence.
pub(crate) async fn generation(tx: &mut Tx) -> Result<Generation, Error> {
    let row = sqlx::query("SELECT generation FROM meta WHERE id = 1").fetch_one(tx.on()).await?;
    Ok(Generation(row.count("generation")?))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
