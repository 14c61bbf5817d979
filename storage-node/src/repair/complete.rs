//! Whether this node has everything of the partitions that a layout moved to it or away from its neighbours.
//!
//! Invariant: a node never says that it is complete before one comparison that began after the layout was installed found
//! every holder of every partition it owns, found nothing missing, and no holder with a write that an older layout admitted.

use holdfast_model::{Layout, LayoutVersion, PartitionId};

use super::lock;
use crate::{Error, Node};

/// The move whose partitions this node has completely.
const COMPLETE: &str = "layout-complete";

impl Node {
    /// Partitions that are moving and that this node owns or keeps the pins of.
    fn moving_here<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = PartitionId> + 'a {
        let is_here = |one: &PartitionId| layout.owns(self.id, *one) || layout.owns_pins(self.id, *one);
        layout.previous.keys().copied().filter(is_here)
    }

    /// Whether a comparison is owed because the layout moved.
    pub(super) fn owes_comparison(&self, layout: &Layout) -> bool {
        self.moving_here(layout).next().is_some() && *lock(&self.repair.complete) < layout.moved_in
    }

    /// The highest layout version of whose partitions this node has everything, and how many of the installed one it lacks.
    pub(crate) fn completeness(&self) -> (LayoutVersion, u64) {
        let Some(layout) = self.layout() else { return (LayoutVersion(0), 0) };
        let complete = *lock(&self.repair.complete);
        let n_moving = self.moving_here(&layout).count() as u64;
        if n_moving == 0 || complete >= layout.moved_in { (layout.version, 0) } else { (complete, n_moving) }
    }

    /// A comparison that began under a layout found everything here.
    pub(super) async fn note_complete(&self, layout: &Layout) -> Result<(), Error> {
        let is_ready = self
            .moving_here(layout)
            .all(|one| !layout.owns_pins(self.id, one) || self.is_taken_over(layout, one));
        if !is_ready || !self.owes_comparison(layout) {
            return Ok(());
        }
        let (queue, version) = (self.repair.queue.clone(), layout.moved_in);
        let note = move || {
            // What waits may be what a move has not brought yet.
            if queue.backlog()?.records > 0 {
                return Ok(false);
            }
            queue.set_note(COMPLETE, &version)?;
            queue.flush()?;
            Ok(true)
        };
        if self.executor.run(note).await? {
            let mut complete = lock(&self.repair.complete);
            *complete = version.max(*complete);
            tracing::info!(layout = layout.version.0, "everything that moved here is here");
        }
        Ok(())
    }
}

/// What was noted before.
pub(super) fn noted(queue: &super::RepairQueue) -> LayoutVersion {
    // The note only saves a comparison: without it one is made again.
    queue.note(COMPLETE).ok().flatten().unwrap_or(LayoutVersion(0))
}
