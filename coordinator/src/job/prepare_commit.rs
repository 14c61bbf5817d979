//! PrepareCommit: the fence is checked and the pin stored in one transaction; from then on no new attempt starts until the
//! outcome is known. The same pin again gives the same ticket.

use std::time::Duration;

use bytes::Bytes;
use holdfast_model::{Account, JobKind, JobState, Sequence};
use holdfast_proto::convert::Ticket;
use holdfast_record::Pin;

use crate::{
    catalog::{Catalog, failed::FailedItem, failed::MAX_FAILED_ITEMS, job, job::JobRow, resource},
    error::Error,
    job::{
        attempt::Attempt,
        state::{Command, apply},
    },
};

/// What a worker hands in.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Which attempt of whom.
    pub attempt: Attempt,
    /// The pin's bytes.
    pub pin: Bytes,
    /// What became of the items.
    pub account: Account,
    /// Which failed.
    pub failed: Vec<FailedItem>,
}

/// Sets the job committing and says what the ticket allows.
pub async fn prepare_commit(catalog: &Catalog, handed: &Prepared, lease: Duration) -> Result<Ticket, Error> {
    let pin = Pin::decode(&handed.pin)?;
    let hash = pin.hash();
    let kept = handed.failed.get(..MAX_FAILED_ITEMS).unwrap_or(&handed.failed);
    let failed =
        serde_json::to_string(kept).map_err(|source| Error::Encode { what: "failed items", source })?;
    crate::catalog::write!(catalog, tx => {
        let states = [JobState::Running, JobState::Committing, JobState::Done];
        let before = handed.attempt.load(&mut tx, &states).await?;
        let next = resource::next_sequence(&mut tx, before.tenant, before.resource, before.workload).await?;
        let expected = if before.state == JobState::Done { pin.sequence } else { next };
        fits(&before, &pin, expected)?;
        if before.state == JobState::Running {
            let mut job = before.clone();
            apply(&mut job, Command::Prepare)?;
            job.pin = handed.pin.to_vec();
            job.pin_hash = hash.to_string();
            job.account = handed.account;
            job.failed.clone_from(&failed);
            job.lease_until_ms = tx.now + i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
            job::save(&mut tx, &before, &job).await?;
        } else if before.pin_hash != hash.to_string() {
            Err(Error::OtherPin { job: before.id })?;
        }
        Ok(ticket(&pin))
    })
}

/// The ticket of a pin: a function of the pin alone, so that it can be made again.
pub(crate) fn ticket(pin: &Pin) -> Ticket {
    Ticket {
        tenant: pin.tenant,
        resource: pin.resource,
        workload: pin.workload,
        sequence: pin.sequence,
        fence: pin.fence,
        pin_hash: pin.hash(),
    }
}

fn fits(job: &JobRow, pin: &Pin, sequence: Sequence) -> Result<(), Error> {
    let checks = [
        ("kind", job.kind == JobKind::Backup),
        ("tenant", job.tenant == pin.tenant),
        ("resource", job.resource == pin.resource),
        ("workload", job.workload == pin.workload),
        ("fence", job.fence == pin.fence),
        ("sequence", pin.sequence == sequence),
        (
            "snapshot",
            pin.snapshot
                == holdfast_model::SnapshotId::derive(pin.tenant, pin.resource, pin.workload, pin.sequence),
        ),
    ];
    match checks.into_iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(Error::PinMismatch { field }),
        None => Ok(()),
    }
}
