//! The recycle bin.
//!
//! Invariant: what was deleted together comes back together, with its ids; what was wiped does not come back.

use super::{DriveStore, Event, NOWHERE, ROOT, Slot};

impl DriveStore {
    /// Puts an item and what is in it into the recycle bin.
    pub(crate) fn delete(&mut self, top: u32) {
        let Some(item) = self.get(top) else { return };
        let (parent, size) = (item.parent, item.kind.size());
        let mut doomed = self.subtree(top);
        // Both orders happen: a folder before what was in it, and after.
        if top.is_multiple_of(2) {
            doomed.reverse();
        }
        self.detach(parent, top, size);
        for key in doomed {
            let seq = self.append(key, Event::Removed);
            let slot = &mut self.slots[key as usize];
            let gone = Slot::Gone { parent: NOWHERE, seq };
            if let Slot::Present(mut item) = std::mem::replace(slot, gone) {
                item.seq = seq;
                *slot = Slot::Deleted { item: Box::new(item), top };
            }
        }
    }

    /// Items that were deleted, and whose folder is there.
    pub(crate) fn restorable(&self) -> Vec<u32> {
        let deleted = self.slots.iter().filter_map(|slot| match slot {
            Slot::Deleted { item, top } if item.key == *top => Some(item),
            _ => None,
        });
        deleted.filter(|item| self.get(item.parent).is_some()).map(|item| item.key).collect()
    }

    /// Takes an item and what was deleted with it out of the recycle bin; it has its id again. None where its name is
    /// taken.
    pub(crate) fn restore(&mut self, top: u32) -> Option<()> {
        let Some(Slot::Deleted { item, .. }) = self.slots.get(top as usize) else { return None };
        let (parent, size, name) = (item.parent, item.kind.size(), self.name_of(item));
        if self.child(parent, &name).is_some() {
            return None;
        }
        let with_it: Vec<u32> = self
            .slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Deleted { item, top: with } if *with == top => Some(item.key),
                _ => None,
            })
            .collect();
        for key in &with_it {
            let slot = &mut self.slots[*key as usize];
            let empty = Slot::Gone { parent: NOWHERE, seq: 0 };
            if let Slot::Deleted { item, .. } = std::mem::replace(slot, empty) {
                *slot = Slot::Present(*item);
            }
        }
        with_it.iter().for_each(|key| self.changed(*key));
        self.attach(parent, top, size);
        Some(())
    }

    /// Removes everything but the root, past the recycle bin, and says how many items went.
    pub(crate) fn wipe(&mut self) -> u64 {
        let tops: Vec<u32> = self.children(ROOT).map(|item| item.key).collect();
        let count = self.iter().count() as u64;
        tops.into_iter().for_each(|key| self.delete(key));
        for slot in &mut self.slots {
            if let Slot::Deleted { item, .. } = slot {
                *slot = Slot::Gone { parent: item.parent, seq: item.seq };
            }
        }
        count
    }
}
