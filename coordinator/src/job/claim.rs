//! Claim: one worker takes a queued job, and with it the next fence of the (resource, workload) and its keys.
//!
//! The race to know: two jobs of one mailbox claimed at once. Each takes the mailbox's next attempt first, which locks the
//! row that counts them, and only then looks whether the other runs.

use std::time::Duration;

use holdfast_model::{Fence, JobId, JobKind, JobState, Sequence};

use crate::{
    catalog::{Catalog, Tx, audit, audit::Actor, job, job::JobRow, resource, snapshot, term},
    error::Error,
    job::state::{Command, apply},
};

/// Characters kept of a worker's name.
const MAX_WORKER_CHARS: usize = 100;

/// A claimed job with what its lease is built from.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The row as it stands now.
    pub job: JobRow,
    /// The newest committed pin; empty for a first backup.
    pub base_pin: Vec<u8>,
    /// The sequence the next pin has.
    pub sequence: Sequence,
}

/// Takes the job for the actor, who alone speaks for it from now on. `None`: somebody else has it, it is done or not due, or its mailbox is being backed up.
///
/// The lease brings the resource's keys: that they are unwrapped for the actor is written to the audit trail with the claim.
pub async fn claim(
    catalog: &Catalog,
    id: JobId,
    actor: &Actor,
    worker: &str,
    lease: Duration,
) -> Result<Option<Claimed>, Error> {
    crate::catalog::write!(catalog, tx => {
        let before = job::load(&mut tx, id).await?;
        if before.state != JobState::Queued || before.not_before_ms > tx.now {
            Ok(None)
        } else {
            let attempt =
                resource::next_attempt(&mut tx, before.tenant, before.resource, before.workload).await?;
            if before.kind == JobKind::Backup && job::backup_under_way(&mut tx, &before).await? {
                Ok(None)
            } else {
                let generation = term::generation(&mut tx).await?;
                let mut job = before.clone();
                apply(&mut job, Command::Claim)?;
                job.fence = Fence { generation, attempt };
                job.attempts += 1;
                job.claimed_by.clone_from(&actor.0);
                job.worker = worker.chars().take(MAX_WORKER_CHARS).collect();
                job.lease_until_ms = tx.now + i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
                job.started_ms = tx.now;
                (job.code, job.message) = (String::new(), String::new());
                Ok(Some(take(&mut tx, &before, job, actor).await?))
            }
        }
    })
}

async fn take(tx: &mut Tx, before: &JobRow, job: JobRow, actor: &Actor) -> Result<Claimed, Error> {
    job::save(tx, before, &job).await?;
    let sequence = resource::next_sequence(tx, job.tenant, job.resource, job.workload).await?;
    let base = snapshot::newest(tx, job.tenant, job.resource, job.workload).await?;
    let base_pin = base.map(|base| base.pin).unwrap_or_default();
    audit::append(tx, actor, "key.unwrap", &format!("{} for job {}", job.resource, job.id)).await?;
    Ok(Claimed { job, base_pin, sequence })
}
