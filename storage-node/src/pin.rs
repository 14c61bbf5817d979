//! Pins: what commits a snapshot on this owner.
//!
//! Invariant: at most one pin per (resource, workload, sequence), stored with its fence in one durable commit and in a
//! pin segment before the answer, and never one whose fence is below the highest seen.

use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use holdfast_model::{Fence, Sequence};
use holdfast_proto::convert::Ticket;
use holdfast_record::{MAX_PIN_BYTES, Pin};

use crate::{
    Caller, Error, Node, metrics,
    node::limit,
    pin_log::PinLog,
    state::{Checkpoint, PinSpace},
};

/// Pins in one answer: what stays well below the largest message.
const PINS_READ_MAX: usize = 16_384;

/// What became of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinOutcome {
    /// Durable here, now or before.
    Stored,
    /// A higher fence has been seen.
    Fenced,
    /// Another pin has this sequence.
    Conflict,
}

/// What an owner knows of a pin space.
#[derive(Debug, Clone)]
pub struct PinsRead {
    /// Oldest first.
    pub pins: Vec<Bytes>,
    /// The highest fence seen.
    pub highest_fence: Fence,
    /// The newest job checkpoint.
    pub checkpoint: Option<Checkpoint>,
}

impl Node {
    /// Stores a pin that a ticket allows. Blocks on the disk.
    pub fn put_pin(&self, ticket: &Ticket, bytes: &Bytes) -> Result<(PinOutcome, Fence), Error> {
        limit("bytes in a pin", bytes.len(), MAX_PIN_BYTES)?;
        let pin = Pin::decode(bytes).map_err(Error::bad("pin"))?;
        check_ticket(ticket, &pin, bytes)?;
        let space = PinSpace { tenant: pin.tenant, resource: pin.resource, workload: pin.workload };
        self.state.deciding(|| {
            self.check_pin_owner(&space)?;
            let highest = self.fence_floor(&space);
            if let Some(stored) = self.state.pin(&space, pin.sequence)? {
                if stored != *bytes {
                    return Ok((PinOutcome::Conflict, highest));
                }
                self.pin_log().append_if_missing((space, pin.sequence), bytes)?;
                return Ok((PinOutcome::Stored, highest));
            }
            if pin.fence < highest {
                return Ok((PinOutcome::Fenced, highest));
            }
            self.check_epoch(pin.epoch)?;
            self.state.put_pin(&space, pin.sequence, pin.fence, bytes)?;
            self.pin_log().append((space, pin.sequence), bytes)?;
            metrics::pins_stored();
            tracing::info!(
                tenant = %pin.tenant, resource = %pin.resource, workload = %pin.workload, sequence = pin.sequence.0,
                fence = %pin.fence, "pin stored"
            );
            Ok((PinOutcome::Stored, self.state.highest_fence(&space)))
        })
    }

    pub(crate) fn pin_log(&self) -> MutexGuard<'_, PinLog> {
        self.pin_log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This owner's pins of the caller's resource; `newest` of them, 0 for all. Blocks on the disk.
    pub fn read_pins(&self, caller: &Caller, newest: usize) -> Result<PinsRead, Error> {
        let space = caller.space();
        let newest = if newest == 0 { PINS_READ_MAX } else { newest.min(PINS_READ_MAX) };
        self.state.deciding(|| {
            self.check_pin_owner(&space)?;
            let pins = self.state.pins(&space, newest)?;
            Ok(PinsRead {
                pins: pins.into_iter().map(|(_, pin)| pin).collect(),
                highest_fence: self.state.highest_fence(&space),
                checkpoint: self.state.checkpoint(&space)?,
            })
        })
    }

    /// Raises the fence of a pin space; says the highest fence and the highest sequence stored here. Blocks on the disk.
    pub fn raise_fence(&self, space: &PinSpace, fence: Fence) -> Result<(Fence, Sequence), Error> {
        self.state.deciding(|| {
            self.check_pin_owner(space)?;
            let floor = self.fence_floor(space);
            let highest = if fence < floor { floor } else { self.state.raise_fence(space, fence)? };
            let newest = self.state.pins(space, 1)?;
            Ok((highest, newest.last().map_or(Sequence(0), |(sequence, _)| *sequence)))
        })
    }
}

fn check_ticket(ticket: &Ticket, pin: &Pin, bytes: &[u8]) -> Result<(), Error> {
    let mismatch = |what| Err(Error::TicketMismatch(what));
    if *blake3::hash(bytes).as_bytes() != ticket.pin_hash.0 {
        return mismatch("hash");
    }
    if (ticket.tenant, ticket.resource, ticket.workload) != (pin.tenant, pin.resource, pin.workload) {
        return mismatch("resource");
    }
    if ticket.sequence != pin.sequence {
        return mismatch("sequence");
    }
    if ticket.fence != pin.fence { mismatch("fence") } else { Ok(()) }
}

#[cfg(test)]
mod tests;
