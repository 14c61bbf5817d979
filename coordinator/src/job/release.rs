//! ReleaseJob: a worker gives its job back — deferred, to be tried again, or for good.

use std::time::Duration;

use holdfast_model::{JobId, JobState};

use crate::{
    catalog::{Catalog, Tx, audit, audit::Actor, job, job::JobRow, resource},
    error::Error,
    job::{
        attempt::Attempt,
        state::{Command, apply},
    },
};

/// The first pause after a failed attempt, doubled per attempt up to [`RETRY_MAX_MS`].
const RETRY_FIRST_MS: i64 = 5_000;
const RETRY_MAX_MS: i64 = 15 * 60 * 1_000;
/// The longest pause a worker can ask for: a job always comes back where somebody looks.
const DELAY_MAX_MS: i64 = 24 * 60 * 60 * 1_000;
/// Codes and messages kept of a job.
const MAX_MESSAGE_CHARS: usize = 500;

/// Why a job comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Throttled: not counted as an attempt.
    Deferred,
    /// Failed; another attempt may do.
    Retry,
    /// Failed for good.
    Permanent,
}

/// What a worker says when it gives a job back.
#[derive(Debug, Clone)]
pub struct Released {
    /// Which attempt of whom.
    pub attempt: Attempt,
    /// Why.
    pub reason: Reason,
    /// Not before this has passed.
    pub delay: Duration,
    /// For machines.
    pub code: String,
    /// For people: what to do.
    pub message: String,
}

/// Gives the job back. One that may have committed stays so: its lease ends at once, and recovery finds out.
pub async fn release(catalog: &Catalog, released: &Released, max_attempts: u32) -> Result<(), Error> {
    crate::catalog::write!(catalog, tx => {
        let states = [JobState::Running, JobState::Committing];
        let before = released.attempt.load(&mut tx, &states).await?;
        let mut job = before.clone();
        job.code = released.code.chars().take(MAX_MESSAGE_CHARS).collect();
        job.message = released.message.chars().take(MAX_MESSAGE_CHARS).collect();
        if before.state == JobState::Committing {
            job.lease_until_ms = 0;
            job::save(&mut tx, &before, &job).await
        } else {
            let delay = i64::try_from(released.delay.as_millis()).unwrap_or(i64::MAX).min(DELAY_MAX_MS);
            match released.reason {
                Reason::Deferred => {
                    job.attempts = job.attempts.saturating_sub(1);
                    give_back(&mut job, tx.now, delay)?;
                }
                Reason::Retry if job.attempts < max_attempts => {
                    let delay = delay.max(retry_pause(job.attempts));
                    give_back(&mut job, tx.now, delay)?;
                }
                Reason::Retry | Reason::Permanent => park(&mut tx, &mut job).await?,
            }
            job::save(&mut tx, &before, &job).await
        }
    })
}

/// The operator tries a parked job again, with all its attempts.
pub async fn retry_by_hand(catalog: &Catalog, actor: &Actor, id: JobId) -> Result<(), Error> {
    crate::catalog::write!(catalog, tx => {
        let before = job::load(&mut tx, id).await?;
        let mut job = before.clone();
        apply(&mut job, Command::RetryByHand)?;
        (job.attempts, job.not_before_ms, job.published_at_ms, job.finished_ms) = (0, 0, 0, 0);
        (job.code, job.message) = (String::new(), String::new());
        job.claimed_by = String::new();
        job::save(&mut tx, &before, &job).await?;
        audit::append(&mut tx, actor, "job.retry", &id.to_string()).await
    })
}

fn give_back(job: &mut JobRow, now: i64, delay: i64) -> Result<(), Error> {
    apply(job, Command::Return)?;
    job.not_before_ms = now.saturating_add(delay);
    job.published_at_ms = 0;
    (job.worker, job.claimed_by) = (String::new(), String::new());
    Ok(())
}

/// Gives a job up, visibly, and with it its shards; for a backup, its resource shows it.
pub(super) async fn park(tx: &mut Tx, job: &mut JobRow) -> Result<(), Error> {
    apply(job, Command::Park)?;
    job.finished_ms = tx.now;
    job.published_at_ms = 0;
    job::delete_shards(tx, job.id).await?;
    if job.kind == holdfast_model::JobKind::Backup {
        resource::set_result(tx, job, "parked", None).await?;
    }
    Ok(())
}

pub(super) fn retry_pause(attempts: u32) -> i64 {
    RETRY_FIRST_MS.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(RETRY_MAX_MS)
}
