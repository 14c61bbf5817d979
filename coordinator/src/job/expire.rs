//! Leases that ended: the job waits for another attempt, or is parked after its last.
//!
//! Only running jobs: a committing one may have committed, which [`crate::commit_recovery`] finds out first.

use holdfast_model::{JobId, JobState, Sequence};

use crate::{
    catalog::{Catalog, job, resource, term::Leadership},
    error::Error,
    job::{
        release::park,
        state::{Command, apply},
    },
};

/// Jobs looked at in one step.
const BATCH: u32 = 100;

/// Returns jobs whose lease has ended; says how many.
pub async fn expire(catalog: &Catalog, leadership: &Leadership, max_attempts: u32) -> Result<usize, Error> {
    let ended = catalog.jobs_with_ended_lease(JobState::Running, BATCH).await?;
    let mut expired = 0;
    for job in ended {
        expired += usize::from(expire_one(catalog, leadership, job.id, max_attempts).await?);
    }
    Ok(expired)
}

async fn expire_one(
    catalog: &Catalog,
    leadership: &Leadership,
    id: JobId,
    max_attempts: u32,
) -> Result<bool, Error> {
    crate::catalog::write!(catalog, leadership, tx => {
        // It may have moved on since it was looked at; a shard may be gone.
        let found = job::find(&mut tx, id).await?;
        let has_ended = |job: &job::JobRow| job.state == JobState::Running && job.lease_until_ms < tx.now;
        if let Some(before) = found.filter(has_ended) {
            let mut job = before.clone();
            job.code = "LeaseEnded".to_owned();
            if job.attempts >= max_attempts {
                job.message = format!(
                    "given up after {} attempts: worker '{}' stopped answering each time; look at its log",
                    job.attempts, job.worker
                );
                park(&mut tx, &mut job).await?;
            } else {
                job.message = format!("worker '{}' stopped answering; the job waits for another", job.worker);
                apply(&mut job, Command::Return)?;
                (job.published_at_ms, job.not_before_ms) = (0, 0);
                (job.worker, job.claimed_by) = (String::new(), String::new());
            }
            job::save(&mut tx, &before, &job).await?;
            tracing::warn!(job = %id, attempts = before.attempts, worker = before.worker, "the lease of a job ended");
            Ok(true)
        } else {
            Ok(false)
        }
    })
}

/// Returns a job whose commit turned out void: its fence is used up, so another attempt may start, with a sequence behind
/// all that owners may hold.
pub(crate) async fn void_commit(
    catalog: &Catalog,
    leadership: &Leadership,
    seen: &job::JobRow,
    used: Sequence,
    max_attempts: u32,
) -> Result<(), Error> {
    crate::catalog::write!(catalog, leadership, tx => {
        let before = job::load(&mut tx, seen.id).await?;
        if before.state != JobState::Committing || before.fence != seen.fence {
            Ok(())
        } else {
            let mut job = before.clone();
            job.code = "CommitVoid".to_owned();
            job.message = "the worker vanished while it committed; no majority holds its pin".to_owned();
            if job.attempts >= max_attempts {
                park(&mut tx, &mut job).await?;
            } else {
                apply(&mut job, Command::Void)?;
                (job.published_at_ms, job.not_before_ms) = (0, 0);
                (job.worker, job.claimed_by) = (String::new(), String::new());
            }
            resource::use_up_sequence(&mut tx, &before, used).await?;
            (job.pin, job.pin_hash, job.failed) = (Vec::new(), String::new(), "[]".to_owned());
            job::save(&mut tx, &before, &job).await
        }
    })
}
