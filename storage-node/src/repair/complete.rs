//! What is still to come of the partitions that a layout moves to this node.
//!
//! It is decided partition by partition, so that neither load nor one record that cannot be brought back keeps a move open:
//! each has to be found clean once, by whichever comparison comes first. Invariant: a partition is found clean only by a
//! comparison that began after the layout was installed, in which every other holder answered, none of them had a write
//! running that an older layout admitted, and nothing that any of them has was missing here. What was acknowledged before the
//! move is then here; what comes later comes by the new layout, and not to those that are let go of.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_model::{Layout, LayoutVersion, NodeId, PartitionId};

use super::lock;
use crate::Node;

/// What this node lacks, or may lack, of the newest move. In memory only: every start compares everything anyway.
#[derive(Debug, Default)]
pub(super) struct Open {
    moved_in: LayoutVersion,
    /// Partitions of this node that were not found clean.
    records: BTreeSet<PartitionId>,
    /// Partitions whose pins this node keeps and has not taken over.
    pins: BTreeSet<PartitionId>,
    /// Those that were found clean, each with how many records of it had been set aside before the comparison.
    clean: BTreeMap<PartitionId, u64>,
}

impl Open {
    fn new(layout: &Layout, node: NodeId) -> Self {
        let moving = || layout.previous.keys().copied();
        Self {
            moved_in: layout.moved_in,
            records: moving().filter(|one| layout.owns(node, *one)).collect(),
            pins: moving().filter(|one| layout.owns_pins(node, *one)).collect(),
            clean: BTreeMap::new(),
        }
    }

    fn note_clean(&mut self, found: impl Iterator<Item = (PartitionId, u64)>) {
        for (partition, n_set_aside) in found {
            if self.records.remove(&partition) {
                self.clean.insert(partition, n_set_aside);
            }
        }
    }

    /// Where one more record was set aside since, something is missing again.
    fn reopen(&mut self, set_aside: &BTreeMap<PartitionId, u64>) {
        for (partition, n) in set_aside {
            if self.clean.get(partition).is_some_and(|before| before != n) {
                self.clean.remove(partition);
                self.records.insert(*partition);
            }
        }
    }

    fn n_partitions(&self) -> usize {
        self.records.union(&self.pins).count()
    }
}

impl Node {
    /// Looks at what is open of a layout's move as it is now; none where nothing moves, or another move has begun.
    fn with_open<T>(&self, layout: &Layout, look: impl FnOnce(&mut Open) -> T) -> Option<T> {
        if !layout.is_moving() {
            return None;
        }
        let mut open = lock(&self.repair.open);
        if open.moved_in < layout.moved_in {
            *open = Open::new(layout, self.id);
        }
        if open.moved_in > layout.moved_in {
            return None;
        }
        open.reopen(&self.store.set_aside_by_partition());
        open.pins.retain(|one| !self.is_taken_over(layout, *one));
        Some(look(&mut open))
    }

    /// Up to `n` partitions of this node, from one on, that move and were not found clean yet.
    pub(super) fn owed_comparisons(&self, layout: &Layout, from: PartitionId, n: usize) -> Vec<PartitionId> {
        self.with_open(layout, |open| open.records.range(from..).take(n).copied().collect())
            .unwrap_or_default()
    }

    /// The partitions whose pins are to be taken over.
    pub(crate) fn owed_pins(&self, layout: &Layout) -> Vec<PartitionId> {
        self.with_open(layout, |open| open.pins.iter().copied().collect()).unwrap_or_default()
    }

    /// The highest layout version of whose partitions this node is known to have everything, 0 while something may be missing;
    /// and of how many partitions of the installed one that is so.
    pub(crate) fn completeness(&self) -> (LayoutVersion, u64) {
        let Some(layout) = self.layout() else { return (LayoutVersion(0), 0) };
        match self.with_open(&layout, |open| open.n_partitions()).unwrap_or_default() {
            0 => (layout.version, 0),
            n => (LayoutVersion(0), n as u64),
        }
    }

    /// A comparison under a layout found these clean, each with how many records of it had been set aside before.
    pub(super) fn note_clean(&self, layout: &Layout, found: impl Iterator<Item = (PartitionId, u64)>) {
        let is_over = self.with_open(layout, |open| {
            let was_open = !open.records.is_empty();
            open.note_clean(found);
            was_open && open.records.is_empty()
        });
        if is_over == Some(true) {
            tracing::info!(layout = layout.version.0, "every record that moved here is here");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::layout;

    #[test]
    fn a_partition_is_open_until_it_was_found_clean_and_again_after_damage() {
        let mut layout = layout(2, &[(1, "a"), (2, "b")], 2);
        layout.previous = [(PartitionId(7), vec![0]), (PartitionId(9), vec![0])].into();
        let mut open = Open::new(&layout, NodeId(2));
        open.pins.clear();
        let set_aside = |n| [(PartitionId(7), n), (PartitionId(8), n)].into();
        open.note_clean([(PartitionId(7), 4), (PartitionId(8), 4)].into_iter());
        open.reopen(&set_aside(4));
        assert_eq!((open.records.clone(), open.n_partitions()), ([PartitionId(9)].into(), 1));
        open.reopen(&set_aside(5));
        assert_eq!(open.records, [PartitionId(7), PartitionId(9)].into());
        // Damage that came while it was compared is seen afterwards.
        open.note_clean([(PartitionId(7), 4)].into_iter());
        open.reopen(&set_aside(5));
        open.note_clean([(PartitionId(9), 0)].into_iter());
        assert_eq!(open.records, [PartitionId(7)].into());
        open.note_clean([(PartitionId(7), 5)].into_iter());
        open.reopen(&set_aside(5));
        assert_eq!(open.n_partitions(), 0);
        assert_eq!(Open::new(&layout, NodeId(3)).n_partitions(), 0, "it owns nothing");
    }
}
