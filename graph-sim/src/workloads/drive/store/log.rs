//! What a delta walks.

use super::{DriveStore, Event, Slot};

/// One line of a delta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Present(u32),
    /// Only its permissions have changed.
    Shared(u32),
    Removed {
        key: u32,
        parent: u32,
    },
}

impl DriveStore {
    /// The position at which the last change that is not later than a time was made.
    pub(crate) fn position_at(&self, time_ms: u64) -> u64 {
        let is_earlier = |(key, event): &(u32, Event)| {
            let item = self.get(*key).filter(|_| *event == Event::Changed);
            item.is_some_and(|item| item.changed_ms <= time_ms)
        };
        self.log.iter().rposition(is_earlier).map_or(0, |at| at as u64 + 1)
    }

    /// The changes after a position, with their numbers; removals and sharing up to `start` are told by the
    /// first round itself.
    pub(crate) fn changes(
        &self,
        position: u64,
        start: u64,
        with_sharing: bool,
    ) -> impl Iterator<Item = (u64, Change)> {
        let from = usize::try_from(position).unwrap_or(usize::MAX).min(self.log.len());
        self.log[from..].iter().zip(position + 1..).filter_map(move |((key, event), seq)| {
            let slot = self.slots.get(*key as usize)?;
            let change = match (event, slot) {
                (Event::Changed, Slot::Present(item)) => (item.seq == seq).then_some(Change::Present(*key)),
                (Event::Shared, Slot::Present(item)) => {
                    let latest = item.more.as_ref().is_some_and(|more| more.sharing_seq == seq);
                    (with_sharing && latest && seq > start).then_some(Change::Shared(*key))
                }
                (Event::Removed, Slot::Deleted { item, .. }) if item.seq == seq && seq > start => {
                    Some(Change::Removed { key: *key, parent: item.parent })
                }
                (Event::Removed, Slot::Gone { parent, seq: last }) if *last == seq && seq > start => {
                    Some(Change::Removed { key: *key, parent: *parent })
                }
                _ => None,
            };
            change.map(|change| (seq, change))
        })
    }
}
