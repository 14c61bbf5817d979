//! What repair needs of the store: copies with their protection, the index by slices, and the check of stored bytes.

use std::sync::atomic::Ordering;

use holdfast_model::{ChunkId, RecordKey, TenantId};
use holdfast_record::SealedRecord;

use super::{Store, knows_damage};
use crate::{
    Error,
    index::{ChunkIndex, IndexEntry},
    metrics,
    repair::{Copy, Protection},
    segment::{DamagedRange, SegmentFile, SegmentId, is_damage},
};

/// Index entries looked at in one go when damaged bytes are matched with records.
const SEARCH_PAGE: usize = 10_000;

const FIRST_KEY: RecordKey = RecordKey { tenant: TenantId([0; 16]), id: ChunkId([0; 32]) };
const LAST_KEY: RecordKey = RecordKey { tenant: TenantId([0xff; 16]), id: ChunkId([0xff; 32]) };

/// What a check of stored bytes found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The next byte to check.
    pub next: u64,
    /// Records that turned out damaged.
    pub damaged_records: u64,
}

impl Store {
    /// The index.
    pub(crate) fn index(&self) -> &dyn ChunkIndex {
        &*self.index
    }

    /// How records are protected that are here. Blocks on the disk.
    pub(crate) fn protection(&self, keys: &[RecordKey]) -> Result<Vec<Option<Protection>>, Error> {
        let entries = self.index.get_many(keys)?;
        Ok(entries.iter().map(|entry| entry.as_ref().map(Protection::from)).collect())
    }

    /// Copies of the first of these records, up to about `budget` bytes but at least one key. Blocks on the disk.
    pub(crate) fn copies(&self, keys: &[RecordKey], budget: usize) -> Result<Vec<Option<Copy>>, Error> {
        let entries = self.index.get_many(keys)?;
        let (mut copies, mut bytes) = (Vec::new(), 0);
        for (key, entry) in keys.iter().zip(entries) {
            let len = entry.map_or(0, |entry| entry.location.len as usize);
            if !copies.is_empty() && bytes + len > budget {
                break;
            }
            bytes += len;
            let copy = match entry {
                Some(entry) => self.read_verified(key, &entry)?.map(|record| copy_of(record, &entry)),
                None => None,
            };
            copies.push(copy);
        }
        metrics::records_read(copies.iter().flatten().count() as u64, bytes as u64);
        Ok(copies)
    }

    /// Segments and up to where everything in them is durable, in the order of their names.
    pub(crate) fn segments(&self) -> Result<Vec<(SegmentFile, u64)>, Error> {
        let progress = self.index.progress()?;
        Ok(progress
            .into_iter()
            .filter_map(|(name, end)| Some((SegmentFile::parse(std::path::Path::new(""), &name)?, end)))
            .collect())
    }

    /// Checks stored bytes from an offset up to `end`, about `budget` of them. Damaged records are set aside. Blocks on the
    /// disk.
    pub(crate) fn check_bytes(
        &self,
        segment: SegmentId,
        (from, end): (u64, u64),
        budget: u64,
    ) -> Result<Checked, Error> {
        let (next, bad) = match self.reader.check(segment, (from, end), budget) {
            // The file itself is gone, or its disk does not give it.
            Err(Error::Io { source, .. }) if is_damage(&source) => {
                (end, vec![DamagedRange { segment, offset: from, len: end.saturating_sub(from) }])
            }
            other => other?,
        };
        let mut damaged_records = 0;
        if !bad.is_empty() {
            let known = self.state.damaged()?;
            let news: Vec<_> = bad.into_iter().filter(|range| !covered(range, &known)).collect();
            if !news.is_empty() {
                damaged_records = self.set_aside_in(&news)?;
            }
        }
        Ok(Checked { next, damaged_records })
    }

    /// Checks what stands around the records of a segment. Damage there takes nothing away now, but is told: a start would
    /// have to walk the segment. Blocks on the disk.
    pub(crate) fn check_frame(&self, segment: SegmentId) -> Result<(), Error> {
        let damaged = self.reader.check_frame(segment)?;
        let ranges: Vec<_> = damaged.iter().map(|(_, range)| *range).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        let new = self.state.add_damaged(&ranges)?;
        if new > 0 {
            let what: Vec<_> = damaged.iter().map(|(what, _)| *what).collect();
            tracing::error!(
                segment = hex::encode(segment),
                what = what.join(" and "),
                "damaged around the records of a segment: they are served, and its next start walks them"
            );
        }
        self.count_damaged(new);
        Ok(())
    }

    fn count_damaged(&self, new: u64) {
        self.damaged.fetch_add(new, Ordering::Relaxed);
        metrics::quarantined(new);
    }

    /// Finds the records that stand in damaged bytes: by the index, because their headers may be gone. Reads all of it, page
    /// by page, which is rare enough.
    fn set_aside_in(&self, ranges: &[DamagedRange]) -> Result<u64, Error> {
        let mut n = 0;
        let mut from = FIRST_KEY;
        loop {
            let page = self.index.range(&from, &LAST_KEY, SEARCH_PAGE)?;
            for (key, entry) in &page {
                if ranges.iter().any(|range| overlaps(range, entry))
                    && self.read_verified(key, entry)?.is_none()
                {
                    n += 1;
                }
            }
            match page.last() {
                // The next page begins with the last key of this one, which is looked at twice.
                Some((last, _)) if page.len() == SEARCH_PAGE => from = *last,
                _ => break,
            }
        }
        // What no record stands in is remembered too, so that it is not searched for again.
        let new = self.state.add_damaged(ranges)?;
        self.index.apply(&knows_damage(&self.state.damaged()?))?;
        self.count_damaged(new);
        Ok(n)
    }
}

fn copy_of(mut record: SealedRecord, entry: &IndexEntry) -> Copy {
    let placement = &mut record.placement;
    placement.write_epoch = placement.write_epoch.max(entry.write_epoch);
    placement.lock_floor_ms = placement.lock_floor_ms.max(entry.lock_floor_ms);
    Copy { record: record.encode(), touch_epoch: entry.touch_epoch }
}

fn overlaps(range: &DamagedRange, entry: &IndexEntry) -> bool {
    let at = entry.location;
    at.segment == range.segment
        && at.offset < range.offset.saturating_add(range.len)
        && range.offset < at.offset + u64::from(at.len)
}

/// Whether all of a range is known to be damaged.
fn covered(range: &DamagedRange, known: &[DamagedRange]) -> bool {
    let mut at = range.offset;
    let end = range.offset.saturating_add(range.len);
    // Known ranges are ordered by segment and offset.
    for known in known.iter().filter(|known| known.segment == range.segment) {
        if known.offset <= at {
            at = at.max(known.offset.saturating_add(known.len));
        }
    }
    at >= end
}
