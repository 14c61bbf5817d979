//! Who speaks for a job: its fence proves the attempt, the certificate that claimed it proves the worker.
//!
//! Fences are no secrets: they stand in pins and tokens. A fence in the hands of another worker must open nothing.

use holdfast_model::{Fence, JobId, JobState};

use crate::{
    catalog::{Tx, audit::Actor, job, job::JobRow},
    error::Error,
};

/// An attempt at a job, as a worker names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The job.
    pub job: JobId,
    /// Its fence.
    pub fence: Fence,
    /// Who calls, from the certificate.
    pub worker: Actor,
}

impl Attempt {
    /// Loads the job for a command: the attempt must be the current one, not over, and the caller's own.
    pub(super) async fn load(&self, tx: &mut Tx, states: &[JobState]) -> Result<JobRow, Error> {
        let job = load_fenced(tx, self.job, self.fence, states).await?;
        self.check_worker(&job)?;
        Ok(job)
    }

    /// Refuses a caller who did not claim the job. A job names nobody when a coordinator of the version before handed it out.
    pub(super) fn check_worker(&self, job: &JobRow) -> Result<(), Error> {
        if job.claimed_by == self.worker.0 || job.claimed_by.is_empty() {
            return Ok(());
        }
        tracing::warn!(job = %self.job, by = self.worker.0, claimed_by = job.claimed_by, "another worker's job was named");
        Err(Error::NotClaimant { job: self.job })
    }
}

/// Loads a job whose fence must be the current one and whose attempt must not be over, whoever asks.
pub(super) async fn load_fenced(
    tx: &mut Tx,
    id: JobId,
    fence: Fence,
    states: &[JobState],
) -> Result<JobRow, Error> {
    // A shard that nobody wants any more is not there.
    let job = job::find(tx, id).await?.filter(|job| job.fence == fence && states.contains(&job.state));
    job.ok_or(Error::Fenced { job: id, fence })
}
