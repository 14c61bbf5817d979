//! Heartbeat: extends the lease and carries progress, while the fence is the job's current one.

use std::time::Duration;

use holdfast_model::{Account, JobState};

use crate::{
    catalog::{Catalog, job, job::JobRow},
    error::Error,
    job::attempt::Attempt,
};

/// Extends the lease. `None`: the attempt is over, the worker has to stop.
pub async fn heartbeat(
    catalog: &Catalog,
    attempt: &Attempt,
    progress: &Account,
    items_expected: u64,
    lease: Duration,
) -> Result<Option<JobRow>, Error> {
    crate::catalog::write!(catalog, tx => {
        let is_current = |job: &JobRow| {
            job.fence == attempt.fence && matches!(job.state, JobState::Running | JobState::Committing)
        };
        // A shard that nobody wants any more is not there.
        if let Some(before) = job::find(&mut tx, attempt.job).await?.filter(is_current) {
            attempt.check_worker(&before)?;
            let mut job = before.clone();
            job.lease_until_ms = tx.now + i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
            // From the moment a pin is handed in, the account is the pin's.
            if job.state == JobState::Running {
                job.account = *progress;
                job.items_expected = items_expected;
            }
            job::save(&mut tx, &before, &job).await?;
            Ok(Some(job))
        } else {
            Ok(None)
        }
    })
}
