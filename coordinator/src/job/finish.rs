//! FinishJob: a job that commits no snapshot has ended. Idempotent for the same fence.

use holdfast_model::{Account, JobKind, JobState};

use crate::{
    catalog::{
        Catalog,
        failed::{FailedItem, MAX_FAILED_ITEMS},
        job,
    },
    error::Error,
    job::{
        attempt::Attempt,
        state::{Command, apply},
    },
};

/// Ends the job with its account.
pub async fn finish(
    catalog: &Catalog,
    attempt: &Attempt,
    account: &Account,
    failed: &[FailedItem],
    summary: &str,
) -> Result<(), Error> {
    let kept = failed.get(..MAX_FAILED_ITEMS).unwrap_or(failed);
    let failed =
        serde_json::to_string(kept).map_err(|source| Error::Encode { what: "failed items", source })?;
    crate::catalog::write!(catalog, tx => {
        let before = attempt.load(&mut tx, &[JobState::Running, JobState::Done]).await?;
        if before.kind == JobKind::Backup {
            Err(Error::Transition { job: before.id, state: before.state, command: Command::Finish })
        } else if before.state == JobState::Done {
            Ok(())
        } else {
            let mut job = before.clone();
            apply(&mut job, Command::Finish)?;
            job.account = *account;
            job.failed.clone_from(&failed);
            job.message = summary.to_owned();
            job.finished_ms = tx.now;
            job::save(&mut tx, &before, &job).await
        }
    })
}
