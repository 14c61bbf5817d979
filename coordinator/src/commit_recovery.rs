//! Finds out how a commit ended whose worker vanished.
//!
//! The same ticket with the stored pin is sent to the owners again. Where that does not commit, a higher fence is stored
//! at a majority first; after that the old attempt can commit nothing more, and the pins are read once more: only if no
//! majority holds ours may another attempt start. That attempt gets a new sequence, because an owner that holds the void pin
//! refuses every other pin of its sequence.

use holdfast_model::{Fence, JobState, Verb};
use holdfast_record::Pin;
use holdfast_storage_client::CommitOutcome;

use crate::{
    catalog::{job::JobRow, resource, term, term::Leadership},
    core::{Core, TokenFor},
    error::Error,
    job::{expire::void_commit, prepare_commit::ticket, record_commit::record_for_vanished},
    metrics,
};

/// Commits looked at in one step.
const BATCH: u32 = 20;
/// Pins read back: the one looked for is among the newest.
const PINS_READ: u32 = 8;

/// Decides commits whose lease has ended; says how many.
pub(crate) async fn recover(core: &Core, leadership: &Leadership) -> Result<usize, Error> {
    let pending = core.catalog.jobs_with_ended_lease(JobState::Committing, BATCH).await?;
    // At the same time: owners of one partition that are away do not keep the others.
    let mut under_way = Vec::with_capacity(pending.len());
    for job in &pending {
        under_way.push(recover_one(core, leadership, job));
    }
    let mut decided = 0;
    for (job, outcome) in pending.iter().zip(futures::future::join_all(under_way).await) {
        match outcome {
            Ok(()) => decided += 1,
            Err(error @ Error::TermLost { .. }) => return Err(error),
            // Asked again, after the others: commits whose owners are away must not keep those that can be decided.
            Err(error) => {
                tracing::warn!(job = %job.id, %error, "the outcome of a commit is not known yet");
                core.catalog.put_off_recovery(leadership, job).await?;
            }
        }
    }
    Ok(decided)
}

async fn recover_one(core: &Core, leadership: &Leadership, job: &JobRow) -> Result<(), Error> {
    let bytes = bytes::Bytes::from(job.pin.clone());
    let pin = Pin::decode(&bytes)?;
    let subject = TokenFor {
        tenant: job.tenant,
        resource: job.resource,
        workload: job.workload,
        job: job.id,
        fence: job.fence,
    };
    let (token, _) = core.session_token(&subject, &[Verb::Read, Verb::Commit]).await?;
    let layout = core.layout().await?;
    let signed = core.signer.ticket(&ticket(&pin));
    let outcome = core
        .storage
        .commit_pin(layout.clone(), token.clone(), job.tenant, job.resource, &signed, &bytes)
        .await;
    match outcome {
        Ok(CommitOutcome::Committed { copies }) => {
            tracing::info!(job = %job.id, copies, "a vanished worker's snapshot was committed");
            metrics::commit_recovered("committed");
            return record_for_vanished(&core.catalog, leadership, job).await;
        }
        Ok(outcome) => tracing::info!(job = %job.id, ?outcome, "a vanished worker's ticket was not accepted"),
        Err(error) => {
            tracing::warn!(job = %job.id, %error, "a vanished worker's ticket could not be sent again")
        }
    }
    let fence = take_fence(core, leadership, job).await?;
    let raised =
        core.storage.raise_fence(layout.clone(), job.tenant, job.resource, job.workload, fence).await?;
    let view =
        core.storage.read_pins(layout, token, job.tenant, job.resource, job.workload, PINS_READ).await?;
    let is_ours = |(other, _): &&(Pin, usize)| other.hash() == pin.hash();
    if !view.majority_answered || view.undecided.iter().any(|pin| is_ours(&pin)) {
        let reason = "too few pin owners answer to tell how the commit ended".to_owned();
        return Err(holdfast_repository::StoreError::Unavailable { reason }.into());
    }
    if view.pins.iter().any(|pin| is_ours(&pin)) {
        metrics::commit_recovered("found");
        record_for_vanished(&core.catalog, leadership, job).await
    } else {
        metrics::commit_recovered("void");
        let used = raised.highest_sequence.max(pin.sequence);
        void_commit(&core.catalog, leadership, job, used, core.options.max_attempts).await
    }
}

/// Takes the next attempt's number for the fence; it is used up even if nobody works under it.
async fn take_fence(core: &Core, leadership: &Leadership, job: &JobRow) -> Result<Fence, Error> {
    crate::catalog::write!(core.catalog, leadership, tx => {
        let generation = term::generation(&mut tx).await?;
        let attempt = resource::next_attempt(&mut tx, job.tenant, job.resource, job.workload).await?;
        Ok(Fence { generation, attempt })
    })
}
