//! What an owner before answers: a page of what it knows of the pins of partitions that moved.
//!
//! Invariant: it answers only once it has installed the layout of the move, and only a node that keeps the pins of every
//! partition asked for by the layout installed here. A page is bounded in spaces, pins and bytes, so it fits a message.

use holdfast_model::{Millis, NodeId, PartitionId};

use super::{HandoverQuestion, SpacePage, SpacePlace, SpaceState};
use crate::{
    Error, Node,
    state::{PinSpace, Session, State},
};

/// Spaces in one page: also one without pins takes room.
const PAGE_SPACES: usize = 4_096;
/// Pins in one page.
const PAGE_PINS: usize = 4_096;
/// Bytes of pins and job checkpoints in one page, unless a single job checkpoint is larger.
const PAGE_BYTES: usize = 8 << 20;

impl Node {
    /// What this node knows of the pins of partitions that moved, for a node that takes them over.
    pub async fn hand_over(&self, asker: NodeId, question: HandoverQuestion) -> Result<SpacePage, Error> {
        let (state, now_ms) = (self.state.clone(), self.lease_now_ms());
        let page = move || {
            state.deciding(|| {
                check(&state, asker, &question)?;
                page(&state, &question, now_ms)
            })
        };
        self.executor.run(page).await
    }
}

fn check(state: &State, asker: NodeId, question: &HandoverQuestion) -> Result<(), Error> {
    let layout = state.layout().ok_or(Error::NoLayout)?;
    if layout.version < question.moved_in {
        // Not frozen yet: a pin may still be stored here by the layout before.
        return Err(Error::NotReady(question.partitions.first().copied().unwrap_or(PartitionId(0))));
    }
    let foreign = question.partitions.iter().find(|one| !layout.owns_pins(asker, **one));
    foreign.map_or(Ok(()), |partition| Err(Error::NotHanded { asker, partition: *partition }))
}

/// What is left of a page.
struct Room {
    spaces: usize,
    pins: usize,
    bytes: usize,
}

impl Room {
    fn is_used_up(&self) -> bool {
        self.spaces == 0 || self.pins == 0 || self.bytes == 0
    }

    /// Whether one more pin has room; the last one may be larger than what is left.
    fn take_pin(&mut self, len: usize) -> bool {
        let is_room = !self.is_used_up();
        if is_room {
            self.pins -= 1;
            self.take_bytes(len);
        }
        is_room
    }

    fn take_bytes(&mut self, len: usize) {
        self.bytes = self.bytes.saturating_sub(len);
    }
}

fn page(state: &State, question: &HandoverQuestion, now_ms: Millis) -> Result<SpacePage, Error> {
    let mut room = Room { spaces: PAGE_SPACES, pins: PAGE_PINS, bytes: PAGE_BYTES };
    let mut page = SpacePage::default();
    let from = question.after.map(|(space, _)| space);
    for space in state.spaces_of(&question.partitions, from, PAGE_SPACES + 1) {
        if room.is_used_up() {
            page.more = true;
            break;
        }
        let known;
        (known, page.more) = part_of_space(state, &space, question.after, (&mut room, now_ms))?;
        room.spaces -= 1;
        page.spaces.push((space, known));
        if page.more {
            break;
        }
    }
    Ok(page)
}

/// What of a space has room, and whether there is more of it.
fn part_of_space(
    state: &State,
    space: &PinSpace,
    after: SpacePlace,
    (room, now_ms): (&mut Room, Millis),
) -> Result<(SpaceState, bool), Error> {
    let begun = after.filter(|(last, _)| last == space);
    // The page in which a space begins has its job checkpoint.
    let checkpoint = if begun.is_none() { state.checkpoint(space)? } else { None };
    let checkpoint = match checkpoint {
        Some(checkpoint) => Some((checkpoint, state.checkpoint_roots(space)?)),
        None => None,
    };
    if let Some((checkpoint, roots)) = &checkpoint {
        room.take_bytes(checkpoint.body.len() + roots.len());
    }
    let behind = begun.and_then(|(_, sequence)| sequence);
    let mut pins = state.pins_behind(space, behind, PAGE_PINS + 1)?;
    let n = pins.iter().take_while(|(_, pin)| room.take_pin(pin.len())).count();
    let more = n < pins.len();
    pins.truncate(n);
    let open = state.sessions_of(space).into_iter().filter(|(_, one)| one.lease_end_ms > now_ms);
    let left = open.map(|(id, one)| (id, Session { lease_end_ms: one.lease_end_ms - now_ms, ..one }));
    let fence = state.highest_fence(space);
    Ok((SpaceState { fence, pins, checkpoint, sessions: left.collect() }, more))
}
