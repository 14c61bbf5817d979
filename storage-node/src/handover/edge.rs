//! What is asked for at a handover, and a page of what is handed over, on the wire and back.

use bytes::Bytes;
use holdfast_model::{Epoch, LayoutVersion, PARTITION_COUNT, PartitionId, Sequence, SessionId};
use holdfast_proto::{
    convert::{WireError, id, required},
    storage,
};
use holdfast_record::Pin;

use super::{HandoverQuestion, SpacePage, SpaceState};
use crate::{
    Error,
    node::limit,
    state::{Checkpoint, CheckpointId, PinSpace, Session},
};

/// To the wire.
pub(crate) fn question_to_wire(question: &HandoverQuestion) -> storage::HandOverRequest {
    let HandoverQuestion { partitions, moved_in, after } = question;
    storage::HandOverRequest {
        partitions: partitions.iter().map(|one| u32::from(one.0)).collect(),
        moved_in: moved_in.0,
        after_space: after.map_or_else(Bytes::new, |(space, _)| space.to_bytes()),
        after_sequence: after.and_then(|(_, sequence)| sequence).map(|sequence| sequence.0),
    }
}

/// And back.
pub(crate) fn question_from_wire(wire: storage::HandOverRequest) -> Result<HandoverQuestion, Error> {
    let wrong = |field| Error::Wire(WireError { field, problem: "out of range or of the wrong length" });
    limit("partitions", wire.partitions.len(), usize::from(PARTITION_COUNT))?;
    let partitions = wire.partitions.into_iter().map(|one| {
        let known = u16::try_from(one).ok().filter(|one| *one < PARTITION_COUNT);
        known.map(PartitionId).ok_or_else(|| wrong("partitions"))
    });
    let after = if wire.after_space.is_empty() {
        None
    } else {
        let space = PinSpace::from_bytes(&wire.after_space).ok_or_else(|| wrong("after_space"))?;
        Some((space, wire.after_sequence.map(Sequence)))
    };
    let partitions = partitions.collect::<Result<_, _>>()?;
    Ok(HandoverQuestion { partitions, moved_in: LayoutVersion(wire.moved_in), after })
}

/// To the wire.
pub(crate) fn page_to_wire(page: SpacePage) -> storage::HandOverResponse {
    let spaces = page.spaces.into_iter().map(|(space, state)| {
        let put_ms = state.checkpoint.as_ref().map_or(0, |(checkpoint, _)| checkpoint.id.put_ms);
        let (checkpoint, roots) = state.checkpoint.unzip();
        storage::PinSpaceState {
            space: space.to_bytes(),
            highest_fence: Some(state.fence.into()),
            pins: state.pins.into_iter().map(|(_, pin)| pin).collect(),
            checkpoint: checkpoint.map(|checkpoint| storage::Checkpoint {
                fence: Some(checkpoint.id.fence.into()),
                revision: checkpoint.id.revision,
                body: checkpoint.body,
            }),
            checkpoint_put_ms: put_ms,
            checkpoint_roots: roots.unwrap_or_default(),
            sessions: state.sessions.iter().map(|(id, session)| session_to_wire(*id, session)).collect(),
        }
    });
    storage::HandOverResponse { spaces: spaces.collect(), more: page.more }
}

fn session_to_wire(id: SessionId, session: &Session) -> storage::OpenSessionState {
    storage::OpenSessionState {
        session: id.0,
        fence: Some(session.fence.into()),
        base_pin: session.base.map_or_else(Bytes::new, |base| Bytes::copy_from_slice(&base.0)),
        epoch: session.epoch.0,
        lease_left_ms: session.lease_end_ms,
    }
}

/// And back.
pub(crate) fn page_from_wire(wire: storage::HandOverResponse) -> Result<SpacePage, Error> {
    let spaces = wire.spaces.into_iter().map(|wire| {
        let wrong = || Error::Wire(WireError { field: "space", problem: "is not a space of pins" });
        let space = PinSpace::from_bytes(&wire.space).ok_or_else(wrong)?;
        let pins = wire.pins.into_iter().map(|bytes| {
            let pin = Pin::decode(&bytes).map_err(Error::bad("pin"))?;
            Ok((pin.sequence, bytes))
        });
        let checkpoint = match wire.checkpoint {
            Some(storage::Checkpoint { fence, revision, body }) => {
                let fence = required("fence", fence)?.into();
                let id = CheckpointId { fence, revision, put_ms: wire.checkpoint_put_ms };
                Some((Checkpoint { id, body }, wire.checkpoint_roots))
            }
            None => None,
        };
        let sessions = wire.sessions.into_iter().map(|one| session_from_wire(space, one));
        let state = SpaceState {
            fence: required("highest_fence", wire.highest_fence)?.into(),
            pins: pins.collect::<Result<_, Error>>()?,
            checkpoint,
            sessions: sessions.collect::<Result<_, Error>>()?,
        };
        Ok((space, state))
    });
    Ok(SpacePage { spaces: spaces.collect::<Result<_, Error>>()?, more: wire.more })
}

fn session_from_wire(
    space: PinSpace,
    wire: storage::OpenSessionState,
) -> Result<(SessionId, Session), Error> {
    let base = if wire.base_pin.is_empty() { None } else { Some(id("base_pin", &wire.base_pin)?) };
    let session = Session {
        space,
        fence: required("fence", wire.fence)?.into(),
        base,
        epoch: Epoch(wire.epoch),
        lease_end_ms: wire.lease_left_ms,
    };
    Ok((SessionId(wire.session), session))
}
