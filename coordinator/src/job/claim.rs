//! Claim: one worker takes a queued job, and with it the next fence of the (resource, workload).

use std::time::Duration;

use holdfast_model::{Fence, JobId, JobKind, JobState, Sequence};

use crate::{
    catalog::{Catalog, job, job::JobRow, resource, snapshot, term},
    error::Error,
    job::state::{Command, apply},
};

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

/// Takes the job. `None`: somebody else has it, it is done or not due, or its mailbox is being backed up.
pub async fn claim(
    catalog: &Catalog,
    id: JobId,
    worker: &str,
    lease: Duration,
) -> Result<Option<Claimed>, Error> {
    crate::catalog::write!(catalog, tx => {
        let before = job::load(&mut tx, id).await?;
        let refused = before.state != JobState::Queued
            || before.not_before_ms > tx.now
            || (before.kind == JobKind::Backup && job::backup_under_way(&mut tx, &before).await?);
        if refused {
            Ok(None)
        } else {
            let mut job = before.clone();
            apply(&mut job, Command::Claim)?;
            let generation = term::generation(&mut tx).await?;
            let attempt = resource::next_attempt(&mut tx, job.tenant, job.resource, job.workload).await?;
            job.fence = Fence { generation, attempt };
            job.attempts += 1;
            job.worker = worker.to_owned();
            job.lease_until_ms = tx.now + i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
            job.started_ms = tx.now;
            (job.code, job.message) = (String::new(), String::new());
            job::save(&mut tx, &before, &job).await?;
            let sequence = resource::next_sequence(&mut tx, job.tenant, job.resource, job.workload).await?;
            let base = snapshot::newest(&mut tx, job.tenant, job.resource, job.workload).await?;
            let base_pin = base.map(|base| base.pin).unwrap_or_default();
            Ok(Some(Claimed { job, base_pin, sequence }))
        }
    })
}
