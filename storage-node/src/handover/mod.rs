//! Pins, fences, job checkpoints and sessions of partitions that move go from their owners before to the new ones.
//!
//! Who keeps the pins of a partition is one set of nodes per layout. Owners before are frozen as soon as they have installed
//! the layout, and only then they answer; a new owner answers for a partition only after it has taken it over.
//! Invariant: what was committed under the layout before is known to every new owner before it answers anybody.
//!
//! A pin on a minority of the owners before is void. A new owner does not take it over; one that was an owner before keeps a
//! void pin, unless another pin of its sequence was committed, which then takes its place: nobody was ever told that the void
//! one is stored, and a sequence has one pin.

mod answer;
mod decide;
mod edge;
mod take;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_model::{
    Fence, Layout, LayoutNode, LayoutVersion, Millis, NodeId, PartitionId, Sequence, SessionId,
};

pub(crate) use edge::{page_from_wire, page_to_wire, question_from_wire, question_to_wire};

use crate::{
    Error, Node,
    peers::PeerError,
    state::{Checkpoint, PinSpace, Session},
};
use decide::Quorum;
use take::{Known, add_page};

/// Pages of one node in one try.
const PAGES_MAX: usize = 65_536;
/// How long after a try that could not decide everything the next one begins.
const RETRY_MS: Millis = 2_000;
/// What one owner before may tell in one try, since all of it is in memory until everybody has told the same: bytes of pins and job
/// checkpoints. Where it is more, fewer partitions are taken over at once.
const TOLD_BYTES_MAX: usize = 64 << 20;
/// About what a space and a pin take beside their bytes.
const TOLD_OVERHEAD: usize = 128;

/// How a try to take over some partitions ended.
#[derive(Debug, PartialEq, Eq)]
enum Tried {
    /// What could be decided is taken over.
    Decided,
    /// Too few owners before answer: they would not for other partitions either.
    TooFew,
    /// There is too much of it for one try.
    TooMuch,
}

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

impl SpacePage {
    /// About how many bytes it takes.
    fn len(&self) -> usize {
        let of_space = |(_, state): &(PinSpace, SpaceState)| {
            let checkpoint = state.checkpoint.as_ref().map_or(0, |(one, roots)| one.body.len() + roots.len());
            let pins = state.pins.iter().map(|(_, pin)| pin.len() + TOLD_OVERHEAD);
            TOLD_OVERHEAD + checkpoint + pins.sum::<usize>()
        };
        self.spaces.iter().map(of_space).sum()
    }
}

/// The place behind which the next page begins: the last space of the page before and the last of its pins. A space without
/// one was begun, but no pin of it had room.
pub type SpacePlace = Option<(PinSpace, Option<Sequence>)>;

/// What a new owner asks an owner before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoverQuestion {
    /// Of which partitions.
    pub partitions: BTreeSet<PartitionId>,
    /// The version in which they moved.
    pub moved_in: LayoutVersion,
    /// Where the page before ended; none from the start.
    pub after: SpacePlace,
}

impl Node {
    /// Whether this node may answer for the pins of a partition: it does not while they are still at its owners before.
    pub(crate) fn is_taken_over(&self, layout: &Layout, partition: PartitionId) -> bool {
        !layout.previous.contains_key(&partition) || self.state.taken_over(partition) >= layout.moved_in
    }

    /// Takes over what it can of the pin partitions that moved here; what cannot be decided yet is asked for again later.
    pub(crate) async fn handover_step(&self, layout: &Layout, now_ms: Millis) -> Result<(), Error> {
        let mut groups: BTreeMap<Vec<NodeId>, Vec<PartitionId>> = BTreeMap::new();
        for partition in self.owed_pins(layout) {
            let previous = layout.previous_of(partition).map(|node| node.id).collect();
            groups.entry(previous).or_default().push(partition);
        }
        if groups.is_empty() || now_ms < self.repair.handover_not_before() {
            return Ok(());
        }
        self.repair.handover_later(now_ms.saturating_add(RETRY_MS));
        for (previous, partitions) in groups {
            let (mut rest, mut at_once) = (&partitions[..], partitions.len());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(at_once.min(rest.len()));
                match self.take_over_from(layout, &previous, now).await? {
                    Tried::Decided => rest = later,
                    Tried::TooMuch => at_once = now.len().div_ceil(2),
                    Tried::TooFew => break,
                }
            }
        }
        Ok(())
    }

    async fn take_over_from(
        &self,
        layout: &Layout,
        previous: &[NodeId],
        partitions: &[PartitionId],
    ) -> Result<Tried, Error> {
        let partitions: BTreeSet<_> = partitions.iter().copied().collect();
        // One partition is as small as it gets.
        let most = if partitions.len() > 1 { TOLD_BYTES_MAX } else { usize::MAX };
        let mut question = HandoverQuestion { partitions, moved_in: layout.moved_in, after: None };
        let mut answers = Vec::new();
        for peer in previous.iter().filter_map(|id| layout.node(*id)) {
            match self.known_to(peer, &mut question, most).await? {
                Ok(Some(known)) => answers.push(known),
                Ok(None) => return Ok(Tried::TooMuch),
                Err(error) => tracing::debug!(peer = %peer.id, %error, "pins are not handed over yet"),
            }
        }
        let quorum = Quorum { rule: layout.handover, n_previous: previous.len(), n_answers: answers.len() };
        if !quorum.is_reached() {
            return Ok(Tried::TooFew);
        }
        self.take_over(layout, quorum, question.partitions, answers).await?;
        Ok(Tried::Decided)
    }

    /// Everything a node knows of what is asked for, page by page; none when that is more than `most` bytes.
    async fn known_to(
        &self,
        peer: &LayoutNode,
        question: &mut HandoverQuestion,
        most: usize,
    ) -> Result<Result<Option<Known>, PeerError>, Error> {
        let (mut known, mut n_bytes) = (Known::new(), 0);
        question.after = None;
        for _ in 0..PAGES_MAX {
            let page = match self.page_of(peer, question).await? {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let more = page.more;
            n_bytes += page.len();
            let Some(place) = add_page(&mut known, question, page) else {
                return Ok(Err(PeerError::Nonsense));
            };
            if n_bytes > most {
                return Ok(Ok(None));
            }
            if !more {
                return Ok(Ok(Some(known)));
            }
            if place <= question.after {
                return Ok(Err(PeerError::Nonsense));
            }
            question.after = place;
        }
        Ok(Err(PeerError::TooSlow))
    }

    async fn page_of(
        &self,
        peer: &LayoutNode,
        question: &HandoverQuestion,
    ) -> Result<Result<SpacePage, PeerError>, Error> {
        if peer.id == self.id {
            return match self.hand_over(self.id, question.clone()).await {
                // A newer layout was installed meanwhile: what is owed by that is asked for next.
                Err(error @ (Error::NotHanded { .. } | Error::NotReady(_))) => {
                    Ok(Err(PeerError::Refused { reason: error.to_string() }))
                }
                page => page.map(Ok),
            };
        }
        let answer = self.peers.repair().hand_over(peer, question).await;
        self.note_reach(peer, &answer);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;
