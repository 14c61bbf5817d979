//! Sessions and job checkpoints, on the owners of the resource's pin partition.
//!
//! Invariant: a session is durable here before anybody is told that it is open, and its base pin stays a root until it ends.
//! Leases only make progress possible; what fences a writer is its number.

use std::time::Duration;

use bytes::Bytes;
use holdfast_model::{ChunkId, Epoch, PinHash, SessionId, Verb};
use holdfast_record::Pin;

use crate::{
    Caller, Error, Node,
    node::limit,
    state::{Checkpoint, CheckpointId, PinSpace, Session},
};

/// How long a session lives without renewal.
pub(crate) const LEASE: Duration = Duration::from_secs(600);
/// Sessions one node keeps.
const SESSIONS_MAX: usize = 100_000;
/// The largest job checkpoint.
const CHECKPOINT_BYTES_MAX: usize = 16 << 20;
/// Roots one job checkpoint names.
const CHECKPOINT_ROOTS_MAX: usize = 65_536;

impl Node {
    /// Opens a session, or renews it if it is open. Blocks on the disk.
    pub fn open_session(
        &self,
        caller: &Caller,
        id: SessionId,
        base: Option<PinHash>,
    ) -> Result<(Epoch, Duration), Error> {
        self.check(caller, Verb::Write)?;
        let space = caller.space();
        self.state.deciding(|| {
            // Again, now that no other decision can come in between.
            self.check(caller, Verb::Write)?;
            self.check_pin_owner(&space)?;
            let now = self.lease_now_ms();
            let open = self.state.session(id).filter(|session| session.lease_end_ms > now);
            if open.as_ref().is_some_and(|open| open.space != space || open.base != base) {
                return Err(Error::SessionTaken);
            }
            if open.is_none() {
                limit("sessions", self.state.n_sessions() + 1, SESSIONS_MAX)?;
            }
            if let Some(base) = base {
                self.check_base(&space, base)?;
            }
            let epoch = open.map_or_else(|| self.state.epoch(), |open| open.epoch);
            let fence = caller.claims.fence;
            let session = Session { space, fence, base, epoch, lease_end_ms: self.lease_end() };
            self.state.put_session(id, session)?;
            Ok((epoch, LEASE))
        })
    }

    fn check_base(&self, space: &PinSpace, base: PinHash) -> Result<(), Error> {
        // Newest first: the base is nearly always the newest.
        let pins = self.state.pins(space, 0)?;
        let stored = pins.iter().rev().find(|(_, bytes)| *blake3::hash(bytes).as_bytes() == base.0);
        let (_, bytes) = stored.ok_or(Error::BasePinUnknown)?;
        let pin = Pin::decode(bytes).map_err(Error::bad("pin"))?;
        let expired = pin.retain_until_ms != 0 && pin.retain_until_ms <= self.clock.now_ms();
        if expired { Err(Error::BasePinExpired) } else { Ok(()) }
    }

    fn lease_end(&self) -> u64 {
        self.lease_now_ms() + u64::try_from(LEASE.as_millis()).expect("minutes")
    }

    fn own_session(&self, caller: &Caller, id: SessionId) -> Result<Session, Error> {
        let session = self.state.session(id).ok_or(Error::SessionUnknown)?;
        if session.space != caller.space() {
            return Err(Error::SessionTaken);
        }
        if session.lease_end_ms <= self.lease_now_ms() { Err(Error::SessionUnknown) } else { Ok(session) }
    }

    /// Extends the lease. Blocks on the disk.
    pub fn renew_session(&self, caller: &Caller, id: SessionId) -> Result<Duration, Error> {
        self.check(caller, Verb::Write)?;
        self.state.deciding(|| {
            self.check_pin_owner(&caller.space())?;
            let session = self.own_session(caller, id)?;
            self.state.put_session(id, Session { lease_end_ms: self.lease_end(), ..session })?;
            Ok(LEASE)
        })
    }

    /// Ends a session; ending one that is not there is no error. Blocks on the disk.
    pub fn close_session(&self, caller: &Caller, id: SessionId) -> Result<(), Error> {
        self.state.deciding(|| match self.own_session(caller, id) {
            Ok(_) => self.state.remove_sessions(&[id]),
            Err(Error::SessionUnknown) => Ok(()),
            Err(error) => Err(error),
        })
    }

    pub(crate) fn end_lapsed_sessions(&self) -> Result<(), Error> {
        self.state.deciding(|| {
            let lapsed = self.state.lapsed_sessions(self.lease_now_ms());
            if !lapsed.is_empty() {
                tracing::info!(n_sessions = lapsed.len(), "sessions lapsed");
            }
            self.state.remove_sessions(&lapsed)
        })
    }

    /// Stores a job checkpoint and rolls its session into the current epoch. False when a higher fence has been seen.
    ///
    /// Blocks on the disk.
    pub fn put_checkpoint(
        &self,
        caller: &Caller,
        session: SessionId,
        revision: u64,
        (body, roots): (Bytes, &[ChunkId]),
    ) -> Result<bool, Error> {
        limit("bytes in a job checkpoint", body.len(), CHECKPOINT_BYTES_MAX)?;
        limit("roots in a job checkpoint", roots.len(), CHECKPOINT_ROOTS_MAX)?;
        match self.check(caller, Verb::Write) {
            Ok(()) => {}
            Err(Error::Fenced { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        let space = caller.space();
        self.state.deciding(|| {
            self.check_pin_owner(&space)?;
            let fence = caller.claims.fence;
            if fence < self.fence_floor(&space) {
                return Ok(false);
            }
            let open = self.own_session(caller, session)?;
            let id = CheckpointId { fence, revision, put_ms: self.clock.now_ms() };
            let newest = self.state.checkpoint_id(&space)?;
            if newest.is_some_and(|newest| (newest.fence, newest.revision) >= (fence, revision)) {
                return Ok(true);
            }
            let rolled = Session { epoch: self.state.epoch(), lease_end_ms: self.lease_end(), fence, ..open };
            let roots: Vec<u8> = roots.iter().flat_map(|root| root.0).collect();
            self.state.put_checkpoint(&Checkpoint { id, body }, &roots, (session, rolled))?;
            Ok(true)
        })
    }
}
