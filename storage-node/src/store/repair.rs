//! What repair needs of the store: copies with their protection, the index by slices, and the check of stored bytes.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use holdfast_model::{ChunkId, Millis, RecordKey, TenantId};
use holdfast_record::SealedRecord;

use super::{PutOutcome, Store, knows_damage};
use crate::{
    Error,
    disk::Disk,
    index::{ChunkIndex, IndexBatch, IndexEntry},
    metrics,
    ownership::DataFolder,
    repair::Copy,
    segment::{DamagedRange, Recovery, SegmentFile, SegmentId, SegmentIdentity, is_damage, rewrite_frame},
};

/// Index entries looked at in one go when damaged bytes are matched with records.
const SEARCH_PAGE: usize = 10_000;

/// No key is lower.
pub(crate) const FIRST_KEY: RecordKey = RecordKey { tenant: TenantId([0; 16]), id: ChunkId([0; 32]) };
/// No key is higher.
pub(crate) const LAST_KEY: RecordKey = RecordKey { tenant: TenantId([0xff; 16]), id: ChunkId([0xff; 32]) };

/// What a check of stored bytes found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The next byte to check.
    pub next: u64,
    /// Records that turned out damaged.
    pub damaged_records: u64,
}

/// What it takes to make the frame of a segment anew.
pub(super) struct Frames {
    disk: Arc<dyn Disk>,
    quarantine: PathBuf,
    identity: SegmentIdentity,
}

impl Frames {
    pub(super) fn new(disk: Arc<dyn Disk>, folder: &DataFolder, identity: SegmentIdentity) -> Self {
        Self { disk, quarantine: folder.quarantine.clone(), identity }
    }
}

impl Store {
    /// The index.
    pub(crate) fn index(&self) -> &dyn ChunkIndex {
        &*self.index
    }

    /// Stores copies from other nodes, as [`Self::put`] does; they are refused before ingest is.
    pub(crate) async fn put_copies(
        &self,
        records: Vec<SealedRecord>,
        epoch: u64,
    ) -> Result<Vec<PutOutcome>, String> {
        match self.space.repair_stopped() {
            Some(reason) => Err(reason),
            None => self.put(records, epoch).await,
        }
    }

    /// Raises how records that are here are protected: touches by their epoch, and write epochs with lock floors.
    pub(crate) async fn protect(
        self: &Arc<Self>,
        touches: BTreeMap<u64, Vec<RecordKey>>,
        raises: Vec<(RecordKey, u64, Millis)>,
    ) -> Result<(), Error> {
        for (epoch, keys) in touches {
            self.touch(keys, epoch).await.map_err(|reason| Error::NotProtected { reason })?;
        }
        let store = self.clone();
        let raise = move || store.index.apply(&IndexBatch { raises, ..IndexBatch::default() });
        self.executor.run(raise).await
    }

    /// Whether a segment is on this disk.
    pub(crate) fn keeps(&self, segment: &SegmentId) -> bool {
        self.reader.knows(segment)
    }

    /// Segments that can be checked and up to where everything in them is durable, in the order of their names.
    pub(crate) fn segments(&self) -> Result<Vec<(SegmentFile, u64)>, Error> {
        let progress = self.index.progress()?;
        Ok(progress
            .into_iter()
            .filter_map(|(name, end)| Some((SegmentFile::parse(std::path::Path::new(""), &name)?, end)))
            .filter(|(file, _)| self.reserved.may_check(&file.id))
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
            let known = self.damage.ranges()?;
            let news: Vec<_> = bad.into_iter().filter(|range| !covered(range, &known)).collect();
            if !news.is_empty() {
                damaged_records = self.set_aside_in(&news)?;
            }
        }
        Ok(Checked { next, damaged_records })
    }

    /// Checks what stands around the records of a segment, and makes it anew where it is damaged and the records, which the
    /// index knows to end at `end`, are all good. Otherwise it is told: they are served, and a start has to walk them. Blocks
    /// on the disk.
    pub(crate) fn check_frame(&self, segment: SegmentId, end: u64) -> Result<(), Error> {
        let damaged = self.reader.check_frame(segment, end)?;
        let ranges: Vec<_> = damaged.iter().map(|(_, range)| *range).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        let what = damaged.iter().map(|(what, _)| *what).collect::<Vec<_>>().join(" and ");
        let is_news = self.note_damage(&ranges)? > 0;
        let segment_id = hex::encode(segment);
        match self.rewrite_frame(segment, end, &ranges) {
            Ok(true) => {
                metrics::frame_rewritten();
                tracing::warn!(
                    segment = segment_id,
                    what,
                    "damaged around the records of a segment: made anew from them"
                );
            }
            Ok(false) if is_news => tracing::error!(
                segment = segment_id,
                what,
                "damaged around the records of a segment, not all of which are good: those that are, are served"
            ),
            Ok(false) => {}
            // The segment is as it was: the next check tries again.
            Err(error) => {
                tracing::error!(segment = segment_id, what, %error, "damaged around the records of a segment, which cannot be made anew now");
            }
        }
        Ok(())
    }

    /// Only of a sealed segment: an open one gets its frame when it is sealed.
    fn rewrite_frame(&self, segment: SegmentId, end: u64, damaged: &[DamagedRange]) -> Result<bool, Error> {
        let Some(name) = self.name_of(segment) else { return Ok(false) };
        if !self.is_sealed(&name)? || !self.reserved.may_write(&segment) {
            return Ok(false);
        }
        let Frames { disk, quarantine, identity } = &self.frames;
        let context = Recovery { disk: &**disk, quarantine };
        let is_done =
            rewrite_frame(&context, &name, (*identity, self.reserved.of_unreadable()), end, damaged)?;
        self.reader.reopen(&segment);
        Ok(is_done)
    }

    /// Where a segment is.
    fn name_of(&self, segment: SegmentId) -> Option<SegmentFile> {
        let path = self.reader.path(&segment)?;
        SegmentFile::parse(path.parent()?, path.file_name()?.to_str()?)
    }

    /// Whether a segment takes no more records.
    pub(crate) fn is_sealed_segment(&self, segment: SegmentId) -> Result<bool, Error> {
        self.name_of(segment).map_or(Ok(false), |name| self.is_sealed(&name))
    }

    fn is_sealed(&self, name: &SegmentFile) -> Result<bool, Error> {
        let mark = name.mark_path();
        Ok(!self.frames.disk.exists(&mark).map_err(Error::io("look for", &mark))?)
    }

    /// Remembers damage that takes no record away; says how much of it was not known.
    pub(crate) fn note_damage(&self, ranges: &[DamagedRange]) -> Result<u64, Error> {
        if ranges.is_empty() {
            return Ok(0);
        }
        let new = self.damage.add(ranges)?;
        self.index.apply(&knows_damage(&self.damage.ranges()?))?;
        self.count_damaged(new);
        Ok(new)
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
        let new = self.damage.add(ranges)?;
        self.index.apply(&knows_damage(&self.damage.ranges()?))?;
        self.count_damaged(new);
        Ok(n)
    }
}

/// A record for another node, with all that is known here to protect it.
pub(crate) fn copy_of(mut record: SealedRecord, entry: &IndexEntry) -> Copy {
    let placement = &mut record.placement;
    placement.write_epoch = placement.write_epoch.max(entry.write_epoch);
    placement.lock_floor_ms = placement.lock_floor_ms.max(entry.lock_floor_ms);
    Copy { record: record.into_encoded(), touch_epoch: entry.touch_epoch }
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
