//! Pins, fences, job checkpoints and sessions of partitions that move go from their owners before to the new ones.
//!
//! Who keeps the pins of a partition is one set of nodes per layout. Owners before are frozen as soon as they have installed
//! the layout, and only then they answer; a new owner answers for a partition only after it has taken it over.
//! Invariant: what was committed under the layout before is known to every new owner before it answers anybody.

mod decide;
mod edge;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_model::{
    Fence, Layout, LayoutNode, LayoutVersion, Millis, NodeId, PartitionId, Sequence, SessionId,
};
use holdfast_record::Pin;

pub(crate) use edge::{page_from_wire, page_to_wire};

use crate::{
    Error, Node,
    peers::PeerError,
    session::LEASE,
    state::{Checkpoint, PinSpace, Session, TakenSpace},
};
use decide::{Quorum, decide};

/// Pins in one page.
const PAGE_PINS: usize = 4_096;
/// Bytes of pins and job checkpoints in one page, unless a single job checkpoint is larger.
const PAGE_BYTES: usize = 8 << 20;
/// Pages of one node in one try.
const PAGES_MAX: usize = 65_536;
/// How long after a try that could not decide everything the next one begins.
const RETRY_MS: Millis = 2_000;

/// What a node knows of the pins of a space. A lease end in here is what is left of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpaceState {
    /// The highest fence seen.
    pub fence: Fence,
    /// In order.
    pub pins: Vec<(Sequence, Bytes)>,
    /// The newest job checkpoint, with its roots.
    pub checkpoint: Option<(Checkpoint, Bytes)>,
    /// Open sessions.
    pub sessions: Vec<(SessionId, Session)>,
}

/// A page of that.
#[derive(Debug, Clone, Default)]
pub struct SpacePage {
    /// In order.
    pub spaces: Vec<(PinSpace, SpaceState)>,
    /// Whether there is more behind the last pin of the last space.
    pub more: bool,
}

/// The place behind which the next page begins.
pub type SpacePlace = Option<(PinSpace, Sequence)>;

/// What each owner before said that answered.
type Answers = Vec<BTreeMap<PinSpace, SpaceState>>;

impl Node {
    /// Whether this node may answer for the pins of a partition: it does not while they are still at its owners before.
    pub(crate) fn is_taken_over(&self, layout: &Layout, partition: PartitionId) -> bool {
        !layout.previous.contains_key(&partition) || self.state.taken_over(partition) >= layout.moved_in
    }

    /// What this node knows of the pins of partitions that moved. Blocks on the disk.
    pub fn hand_over(
        &self,
        partitions: &BTreeSet<PartitionId>,
        moved_in: LayoutVersion,
        after: SpacePlace,
    ) -> Result<SpacePage, Error> {
        self.state.deciding(|| {
            let layout = self.layout().ok_or(Error::NoLayout)?;
            if layout.version < moved_in {
                // Not frozen yet: a pin may still be stored here by the layout before.
                return Err(Error::NotReady(partitions.first().copied().unwrap_or(PartitionId(0))));
            }
            let spaces = self.state.spaces_of(partitions);
            let (mut page, mut n_pins, mut n_bytes) = (SpacePage::default(), 0, 0);
            for space in spaces.into_iter().filter(|one| after.is_none_or(|(last, _)| *one >= last)) {
                if n_pins >= PAGE_PINS || n_bytes >= PAGE_BYTES {
                    page.more = true;
                    break;
                }
                let behind = after.filter(|(last, _)| *last == space).map(|(_, sequence)| sequence);
                let mut state = self.space_state(&space, behind)?;
                let checkpoint = state.checkpoint.as_ref();
                n_bytes += checkpoint.map_or(0, |(checkpoint, roots)| checkpoint.body.len() + roots.len());
                let fits = state.pins.iter().take_while(|(_, pin)| {
                    let is_room = n_pins < PAGE_PINS && n_bytes < PAGE_BYTES;
                    (n_pins, n_bytes) = (n_pins + 1, n_bytes + pin.len());
                    is_room
                });
                let n = fits.count();
                page.more = n < state.pins.len();
                state.pins.truncate(n);
                page.spaces.push((space, state));
                if page.more {
                    break;
                }
            }
            Ok(page)
        })
    }

    fn space_state(&self, space: &PinSpace, behind: Option<Sequence>) -> Result<SpaceState, Error> {
        let mut pins = self.state.pins(space, 0)?;
        pins.retain(|(sequence, _)| behind.is_none_or(|behind| *sequence > behind));
        let checkpoint = if behind.is_none() { self.state.checkpoint(space)? } else { None };
        let checkpoint = match checkpoint {
            Some(checkpoint) => Some((checkpoint, self.state.checkpoint_roots(space)?)),
            None => None,
        };
        let now = self.lease_now_ms();
        let open = self.state.sessions_of(space).into_iter().filter(|(_, one)| one.lease_end_ms > now);
        let left = open.map(|(id, one)| (id, Session { lease_end_ms: one.lease_end_ms - now, ..one }));
        Ok(SpaceState { fence: self.state.highest_fence(space), pins, checkpoint, sessions: left.collect() })
    }

    /// Takes over what it can of the pin partitions that moved here; what cannot be decided yet is asked for again later.
    pub(crate) async fn handover_step(&self, layout: &Layout, now_ms: Millis) -> Result<(), Error> {
        let owed = |one: &PartitionId| layout.owns_pins(self.id, *one) && !self.is_taken_over(layout, *one);
        let mut groups: BTreeMap<Vec<NodeId>, BTreeSet<PartitionId>> = BTreeMap::new();
        for partition in layout.previous.keys().copied().filter(owed) {
            let previous = layout.previous_of(partition).map(|node| node.id).collect();
            groups.entry(previous).or_default().insert(partition);
        }
        if groups.is_empty() || now_ms < self.repair.handover_not_before() {
            return Ok(());
        }
        self.repair.handover_later(now_ms.saturating_add(RETRY_MS));
        for (previous, partitions) in groups {
            let mut answers = Answers::new();
            for peer in previous.iter().filter_map(|id| layout.node(*id)) {
                match self.known_to(peer, &partitions, layout.moved_in).await? {
                    Ok(known) => answers.push(known),
                    Err(error) => {
                        tracing::debug!(peer = %peer.id, %error, "pins are not handed over yet");
                    }
                }
            }
            let n_answers = answers.len();
            let quorum = Quorum { rule: layout.handover, n_previous: previous.len(), n_answers };
            if quorum.is_reached() {
                self.take_over(layout, quorum, partitions, answers).await?;
            }
        }
        Ok(())
    }

    /// Everything a node knows of partitions.
    async fn known_to(
        &self,
        peer: &LayoutNode,
        partitions: &BTreeSet<PartitionId>,
        moved_in: LayoutVersion,
    ) -> Result<Result<BTreeMap<PinSpace, SpaceState>, PeerError>, Error> {
        let mut known: BTreeMap<PinSpace, SpaceState> = BTreeMap::new();
        let mut after: SpacePlace = None;
        for _ in 0..PAGES_MAX {
            let page = if peer.id == self.id {
                Ok(self.hand_over(partitions, moved_in, after)?)
            } else {
                let answer = self.peers.repair().hand_over(peer, partitions, moved_in, after).await;
                self.note_reach(peer, &answer);
                answer
            };
            let page = match page {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let place = page.spaces.last().map(|(space, state)| {
                (*space, state.pins.last().map_or(Sequence(0), |(sequence, _)| *sequence))
            });
            for (space, state) in page.spaces {
                let is_asked = partitions.contains(&PartitionId::of_pins(space.tenant, space.resource));
                if !is_asked || !state.pins.iter().all(|(sequence, pin)| is_pin_of(&space, *sequence, pin)) {
                    return Ok(Err(PeerError::Nonsense));
                }
                let all = known.entry(space).or_default();
                all.fence = all.fence.max(state.fence);
                all.pins.extend(state.pins);
                all.checkpoint = state.checkpoint.or(all.checkpoint.take());
                all.sessions = state.sessions;
            }
            if !page.more {
                return Ok(Ok(known));
            }
            if place <= after {
                return Ok(Err(PeerError::Nonsense));
            }
            after = place;
        }
        Ok(Err(PeerError::TooSlow))
    }

    async fn take_over(
        &self,
        layout: &Layout,
        quorum: Quorum,
        mut partitions: BTreeSet<PartitionId>,
        mut answers: Answers,
    ) -> Result<(), Error> {
        let spaces: BTreeSet<PinSpace> = answers.iter().flat_map(BTreeMap::keys).copied().collect();
        let mut taken = Vec::new();
        for space in spaces {
            let known = answers.iter_mut().filter_map(|answer| answer.remove(&space)).collect();
            match decide(quorum, known) {
                Some(one) => taken.push((space, one)),
                None => drop(partitions.remove(&PartitionId::of_pins(space.tenant, space.resource))),
            }
        }
        taken.retain(|(space, _)| partitions.contains(&PartitionId::of_pins(space.tenant, space.resource)));
        let partitions: Vec<PartitionId> = partitions.into_iter().collect();
        self.state.deciding(|| {
            // A newer move decides anew, by what it says of the owners before.
            let is_current = self.layout().is_some_and(|now| now.moved_in == layout.moved_in);
            if !is_current || partitions.is_empty() {
                return Ok(());
            }
            for (space, one) in taken {
                self.store_taken(&space, one)?;
            }
            self.state.set_taken_over(&partitions, layout.moved_in)?;
            tracing::info!(n_partitions = partitions.len(), layout = layout.version.0, "pins taken over");
            Ok(())
        })
    }

    fn store_taken(&self, space: &PinSpace, mut taken: TakenSpace) -> Result<(), Error> {
        let now = self.lease_now_ms();
        let lease_ms = u64::try_from(LEASE.as_millis()).expect("minutes");
        for (_, session) in &mut taken.sessions {
            session.lease_end_ms = now + session.lease_end_ms.min(lease_ms);
        }
        let own: BTreeMap<Sequence, Bytes> = self.state.pins(space, 0)?.into_iter().collect();
        let here = self.state.checkpoint_id(space)?;
        taken.checkpoint = taken.checkpoint.filter(|(one, _)| here.is_none_or(|here| one.id > here));
        let (had, lacked): (Vec<_>, Vec<_>) =
            taken.pins.into_iter().partition(|(sequence, pin)| own.get(sequence) == Some(pin));
        taken.pins = lacked;
        self.state.take_over(space, &taken)?;
        for (sequence, pin) in &had {
            self.pin_log().append_if_missing((*space, *sequence), pin)?;
        }
        for (sequence, pin) in &taken.pins {
            self.pin_log().append((*space, *sequence), pin)?;
        }
        Ok(())
    }
}

fn is_pin_of(space: &PinSpace, sequence: Sequence, bytes: &Bytes) -> bool {
    Pin::decode(bytes).is_ok_and(|pin| {
        (pin.tenant, pin.resource, pin.workload) == (space.tenant, space.resource, space.workload)
            && pin.sequence == sequence
    })
}
