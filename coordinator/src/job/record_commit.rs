//! RecordCommit: a majority holds the pin, so the snapshot exists. Idempotent.

use holdfast_model::JobState;
use holdfast_record::Pin;

use crate::{
    catalog::{Catalog, Tx, failed, job, job::JobRow, resource, snapshot, term::Leadership},
    error::Error,
    job::{
        attempt::{Attempt, load_fenced},
        state::{Command, apply},
    },
};

/// Records it for the worker that committed.
pub async fn record_commit(catalog: &Catalog, attempt: &Attempt, pin_hash: &str) -> Result<(), Error> {
    crate::catalog::write!(catalog, tx => {
        let before = attempt.load(&mut tx, &[JobState::Committing, JobState::Done]).await?;
        if before.pin_hash != pin_hash {
            Err(Error::OtherPin { job: before.id })
        } else if before.state == JobState::Done {
            Ok(())
        } else {
            record(&mut tx, &before).await
        }
    })
}

/// Records it for a worker that vanished: the leader has seen a majority hold the pin.
pub(crate) async fn record_for_vanished(
    catalog: &Catalog,
    leadership: &Leadership,
    seen: &JobRow,
) -> Result<(), Error> {
    crate::catalog::write!(catalog, leadership, tx => {
        let before = load_fenced(&mut tx, seen.id, seen.fence, &[JobState::Committing, JobState::Done]).await?;
        if before.state == JobState::Done { Ok(()) } else { record(&mut tx, &before).await }
    })
}

async fn record(tx: &mut Tx, before: &JobRow) -> Result<(), Error> {
    let pin = Pin::decode(&before.pin)?;
    let mut job = before.clone();
    apply(&mut job, Command::Record)?;
    // First: a claim, too, locks a shard before what is counted of its resource.
    job::delete_shards(tx, job.id).await?;
    snapshot::insert(tx, before, &pin).await?;
    let created = i64::try_from(pin.created_ms).unwrap_or(i64::MAX);
    resource::set_result(tx, before, "done", Some((pin.sequence.0, created))).await?;
    failed::replace(tx, before).await?;
    job.snapshot = pin.snapshot.to_string();
    job.finished_ms = tx.now;
    job.pin = Vec::new();
    job::save(tx, before, &job).await
}
