//! The segments of all disks, by their ids, which are random: whose one is, the disk that keeps it knows.

use std::sync::Arc;

use super::Disks;
use crate::{
    Error, Store,
    segment::{DamagedRange, SegmentFile, SegmentId},
    store::Checked,
};

impl Disks {
    /// The disk that keeps a segment.
    pub(super) fn store_of(&self, segment: &SegmentId) -> Result<&Arc<Store>, Error> {
        let keeps = |store: &&Arc<Store>| self.only().is_some() || store.keeps(segment);
        self.stores().find(keeps).ok_or(Error::DamagedState("index entry"))
    }

    /// Segments that can be checked and up to where everything in them is durable, in the order of their names.
    pub(crate) fn segments(&self) -> Result<Vec<(SegmentFile, u64)>, Error> {
        let mut all = Vec::new();
        for store in self.stores() {
            all.extend(store.segments()?);
        }
        all.sort_by_cached_key(|(file, _)| file.name());
        Ok(all)
    }

    /// Checks stored bytes from an offset up to `end`, about `budget` of them. Damaged records are set aside. Blocks on the
    /// disk.
    pub(crate) fn check_bytes(
        &self,
        segment: SegmentId,
        range: (u64, u64),
        budget: u64,
    ) -> Result<Checked, Error> {
        self.store_of(&segment)?.check_bytes(segment, range, budget)
    }

    /// Checks what stands around the records of a segment, and makes it anew where that is possible. Blocks on the disk.
    pub(crate) fn check_frame(&self, segment: SegmentId, end: u64) -> Result<(), Error> {
        self.store_of(&segment)?.check_frame(segment, end)
    }

    /// Whether a segment takes no more records.
    pub(crate) fn is_sealed_segment(&self, segment: SegmentId) -> Result<bool, Error> {
        self.store_of(&segment)?.is_sealed_segment(segment)
    }

    /// Remembers damage of pin segments, which are on the first disk; says how much of it was not known.
    pub(crate) fn note_pin_damage(&self, ranges: &[DamagedRange]) -> Result<u64, Error> {
        self.stores().next().map_or(Ok(0), |first| first.note_damage(ranges))
    }

    /// Whether anything in a segment may be condemned or dropped: not where it has gc features that this build does not know.
    pub fn may_condemn(&self, segment: &SegmentId) -> bool {
        self.stores().all(|store| store.may_condemn(segment))
    }
}
