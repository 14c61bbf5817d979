//! Who changed what: rows chained by hash, written in the transaction of the change.
//!
//! `hash = BLAKE3(hash before ‖ number ‖ time ‖ actor ‖ action ‖ subject)`, each text with its length. The head row holds
//! the newest number and hash, so that a row cut off at the end is noticed too.

use holdfast_runtime::PeerIdentity;

use super::{Catalog, Columns as _, Tx, big};
use crate::error::Error;

/// Who asks: taken from the verified certificate, never from the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(pub String);

impl Actor {
    /// A person or process that called.
    pub fn of(peer: &PeerIdentity) -> Self {
        Self(format!("{}/{}", peer.role, peer.name))
    }
}

/// One row of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// From 1, without a gap.
    pub number: u64,
    /// By the database's clock.
    pub time_ms: u64,
    /// Who.
    pub actor: String,
    /// What was done, as `noun.verb`.
    pub action: String,
    /// To what.
    pub subject: String,
    /// The chain's hash up to this row.
    pub hash: String,
}

const PAGE: i64 = 1000;

/// Adds a row, within the transaction of what it tells about.
pub(crate) async fn append(tx: &mut Tx, actor: &Actor, action: &str, subject: &str) -> Result<(), Error> {
    let head = sqlx::query("UPDATE audit_head SET number = number + 1 WHERE id = 1 RETURNING number, hash");
    let head = head.fetch_one(tx.on()).await?;
    let mut row = AuditRow {
        number: head.count("number")?,
        time_ms: u64::try_from(tx.now).unwrap_or(0),
        actor: actor.0.clone(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        hash: head.text("hash")?,
    };
    row.hash = chain(&row.hash, &row);
    let sql =
        "INSERT INTO audit (number, time_ms, actor, action, subject, hash) VALUES ($1, $2, $3, $4, $5, $6)";
    let query = sqlx::query(sql).bind(big(row.number)).bind(tx.now).bind(row.actor).bind(row.action);
    query.bind(row.subject).bind(row.hash.clone()).execute(tx.on()).await?;
    sqlx::query("UPDATE audit_head SET hash = $1 WHERE id = 1").bind(row.hash).execute(tx.on()).await?;
    Ok(())
}

impl Catalog {
    /// Tells about something that changes no other row, such as the use of a key.
    pub async fn audit(&self, actor: &Actor, action: &str, subject: &str) -> Result<(), Error> {
        super::write!(self, tx => { append(&mut tx, actor, action, subject).await })
    }

    /// The newest rows, newest first.
    pub async fn newest_audit(&self, newest: u32) -> Result<Vec<AuditRow>, Error> {
        let query = sqlx::query("SELECT * FROM audit ORDER BY number DESC LIMIT $1").bind(i64::from(newest));
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Whether the chain holds from the first row to the head.
    pub async fn audit_chain_holds(&self) -> Result<bool, Error> {
        let head =
            sqlx::query("SELECT number, hash FROM audit_head WHERE id = 1").fetch_one(&self.pool).await?;
        let (last, last_hash) = (head.count("number")?, head.text("hash")?);
        let (mut number, mut hash) = (0, String::new());
        while number < last {
            let query = sqlx::query("SELECT * FROM audit WHERE number > $1 ORDER BY number LIMIT $2");
            let rows = query.bind(big(number)).bind(PAGE).fetch_all(&self.pool).await?;
            if rows.is_empty() {
                return Ok(false);
            }
            for row in &rows {
                let row = read(row)?;
                if row.number != number + 1 || chain(&hash, &row) != row.hash {
                    return Ok(false);
                }
                if row.number == last && row.hash != last_hash {
                    return Ok(false);
                }
                (number, hash) = (row.number, row.hash);
            }
        }
        Ok(true)
    }
}

fn read(row: &sqlx::any::AnyRow) -> Result<AuditRow, Error> {
    Ok(AuditRow {
        number: row.count("number")?,
        time_ms: row.count("time_ms")?,
        actor: row.text("actor")?,
        action: row.text("action")?,
        subject: row.text("subject")?,
        hash: row.text("hash")?,
    })
}

fn chain(before: &str, row: &AuditRow) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("holdfast audit chain 1");
    hasher.update(&row.number.to_le_bytes());
    hasher.update(&row.time_ms.to_le_bytes());
    for text in [before, &row.actor, &row.action, &row.subject] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
