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

/// What a shard may hand to its parent: a line for each item that failed, of as many items as a shard can have.
pub const SHARD_RESULT_BYTES_MAX: usize = 2 << 20;

/// How a job ended.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// What became of the items.
    pub account: Account,
    /// Which failed.
    pub failed: Vec<FailedItem>,
    /// One line for people.
    pub summary: String,
    /// What a shard hands to its parent.
    pub result: Vec<u8>,
}

/// Ends the job with its account.
pub async fn finish(catalog: &Catalog, attempt: &Attempt, finished: &Finished) -> Result<(), Error> {
    if finished.result.len() > SHARD_RESULT_BYTES_MAX {
        let problem = format!("a shard's result has at most {SHARD_RESULT_BYTES_MAX} bytes");
        return Err(Error::Invalid { field: "result", value: finished.result.len().to_string(), problem });
    }
    let kept = finished.failed.get(..MAX_FAILED_ITEMS).unwrap_or(&finished.failed);
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
            job.account = finished.account;
            job.failed.clone_from(&failed);
            job.message.clone_from(&finished.summary);
            if job.kind == JobKind::BackupShard {
                job.result.clone_from(&finished.result);
            }
            job.finished_ms = tx.now;
            job::save(&mut tx, &before, &job).await
        }
    })
}
