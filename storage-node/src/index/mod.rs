//! Where each record stands: derived data, rebuilt from the segments whenever it is missing or damaged.
//!
//! Invariant: an entry is inserted only after its record is durable, and epochs and lock floors in it only grow.

mod memory;
mod redb_index;
mod touched;

use std::collections::BTreeMap;

use holdfast_model::{ChunkId, Millis, RecordKey, TenantId};

use crate::{
    Error,
    segment::{Location, SegmentId},
};

pub use memory::MemoryIndex;
pub use redb_index::RedbIndex;
pub use touched::{TouchedIndex, WAITING_MAX};

/// Length of an encoded entry.
pub(crate) const ENTRY_BYTES: usize = 52;
/// Length of an encoded key.
pub(crate) const KEY_BYTES: usize = 48;

/// What is known of a record without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where it stands.
    pub location: Location,
    /// The epoch of its write.
    pub write_epoch: u64,
    /// The last epoch in which a session was told that it is there.
    pub touch_epoch: u64,
    /// Not dropped before.
    pub lock_floor_ms: Millis,
}

/// Changes that become visible together.
#[derive(Debug, Default)]
pub struct IndexBatch {
    /// Records that became durable.
    pub inserts: Vec<(RecordKey, IndexEntry)>,
    /// Records that were touched in an epoch.
    pub touches: Vec<(RecordKey, u64)>,
    /// Records whose write epoch and lock floor are at least these, if they are there.
    pub raises: Vec<(RecordKey, u64, Millis)>,
    /// Records that turned out bad, if they still stand there.
    pub removals: Vec<(RecordKey, Location)>,
    /// By file: up to which offset everything is in the index.
    pub progress: Vec<(String, u64)>,
}

/// The chunk index of one disk.
pub trait ChunkIndex: Send + Sync + 'static {
    /// Looks keys up, in order.
    fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<IndexEntry>>, Error>;
    /// Applies a batch; it survives a crash only after the next [`Self::checkpoint`].
    fn apply(&self, batch: &IndexBatch) -> Result<(), Error>;
    /// Makes everything applied durable.
    fn checkpoint(&self) -> Result<(), Error>;
    /// By file: up to which offset everything is in the index.
    fn progress(&self) -> Result<BTreeMap<String, u64>, Error>;
    /// Forgets everything, to be rebuilt.
    fn clear(&self) -> Result<(), Error>;
    /// The first `n` entries from one key up to another, both included, in the order of their keys.
    fn range(
        &self,
        from: &RecordKey,
        to: &RecordKey,
        n: usize,
    ) -> Result<Vec<(RecordKey, IndexEntry)>, Error>;
    /// How many records.
    fn len(&self) -> Result<u64, Error>;
    /// Whether there are none.
    fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }
}

impl IndexEntry {
    /// Whether a session of this epoch may be told `yes` without another touch.
    pub fn protects(&self, epoch: u64) -> bool {
        self.touch_epoch.max(self.write_epoch) >= epoch
    }

    /// The newer location with the higher of all numbers.
    fn over(self, old: Self) -> Self {
        Self {
            location: self.location,
            write_epoch: self.write_epoch.max(old.write_epoch),
            touch_epoch: self.touch_epoch.max(old.touch_epoch),
            lock_floor_ms: self.lock_floor_ms.max(old.lock_floor_ms),
        }
    }

    /// The same, touched in this epoch at the earliest.
    fn touched(self, epoch: u64) -> Self {
        Self { touch_epoch: self.touch_epoch.max(epoch), ..self }
    }

    /// The same, protected at least so.
    fn raised(self, write_epoch: u64, lock_floor_ms: Millis) -> Self {
        Self {
            write_epoch: self.write_epoch.max(write_epoch),
            lock_floor_ms: self.lock_floor_ms.max(lock_floor_ms),
            ..self
        }
    }

    /// segment 16 · offset 8 · len 4 · write epoch 8 · touch epoch 8 · lock floor 8.
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[..16].copy_from_slice(&self.location.segment);
        out[16..24].copy_from_slice(&self.location.offset.to_le_bytes());
        out[24..28].copy_from_slice(&self.location.len.to_le_bytes());
        out[28..36].copy_from_slice(&self.write_epoch.to_le_bytes());
        out[36..44].copy_from_slice(&self.touch_epoch.to_le_bytes());
        out[44..52].copy_from_slice(&self.lock_floor_ms.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let segment: SegmentId = bytes[..16].try_into().expect("16 bytes");
        let len = u32::from_le_bytes(bytes[24..28].try_into().expect("4 bytes"));
        Self {
            location: Location { segment, offset: number(16), len },
            write_epoch: number(28),
            touch_epoch: number(36),
            lock_floor_ms: number(44),
        }
    }
}

/// tenant ‖ id.
pub(crate) fn encode_key(key: &RecordKey) -> [u8; KEY_BYTES] {
    let mut out = [0; KEY_BYTES];
    out[..16].copy_from_slice(&key.tenant.0);
    out[16..].copy_from_slice(&key.id.0);
    out
}

pub(crate) fn decode_key(bytes: &[u8; KEY_BYTES]) -> RecordKey {
    let (tenant, id) = bytes.split_at(16);
    RecordKey {
        tenant: TenantId(tenant.try_into().expect("16 bytes")),
        id: ChunkId(id.try_into().expect("32 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::LocalDisk;

    fn key(n: u8) -> RecordKey {
        RecordKey { tenant: TenantId([1; 16]), id: ChunkId([n; 32]) }
    }

    fn entry(offset: u64, epoch: u64) -> IndexEntry {
        let location = Location { segment: [7; 16], offset, len: 99 };
        IndexEntry { location, write_epoch: epoch, touch_epoch: 0, lock_floor_ms: epoch * 10 }
    }

    fn behaves_like_an_index(index: &dyn ChunkIndex) {
        let batch = IndexBatch {
            inserts: vec![(key(1), entry(8, 5)), (key(2), entry(16, 5))],
            progress: vec![("s".to_owned(), 24)],
            ..IndexBatch::default()
        };
        index.apply(&batch).unwrap();
        assert_eq!(
            index.get_many(&[key(2), key(3), key(1)]).unwrap(),
            vec![Some(entry(16, 5)), None, Some(entry(8, 5))]
        );
        assert_eq!((index.len().unwrap(), index.progress().unwrap()["s"]), (2, 24));

        let raise = IndexBatch { touches: vec![(key(1), 6), (key(1), 3), (key(9), 6)], ..Default::default() };
        index.apply(&raise).unwrap();
        let touched = index.get_many(&[key(1)]).unwrap()[0].unwrap();
        assert_eq!((touched.touch_epoch, touched.protects(6), touched.protects(7)), (6, true, false));

        // A second copy takes the place, and no number goes down.
        index.apply(&IndexBatch { inserts: vec![(key(1), entry(64, 2))], ..Default::default() }).unwrap();
        let moved = index.get_many(&[key(1)]).unwrap()[0].unwrap();
        assert_eq!((moved.location.offset, moved.write_epoch, moved.touch_epoch), (64, 5, 6));

        let raises = vec![(key(1), 7, 90), (key(1), 6, 20), (key(8), 7, 90)];
        index.apply(&IndexBatch { raises, ..Default::default() }).unwrap();
        let moved = IndexEntry { write_epoch: 7, lock_floor_ms: 90, ..moved };
        assert_eq!(index.get_many(&[key(1), key(8)]).unwrap(), vec![Some(moved), None]);

        index.apply(&IndexBatch { inserts: vec![(key(4), entry(80, 5))], ..Default::default() }).unwrap();
        let page = |from, to, n| -> Vec<_> {
            index
                .range(&key(from), &key(to), n)
                .unwrap()
                .into_iter()
                .map(|(key, entry)| (key, entry.location.offset))
                .collect()
        };
        assert_eq!(page(1, 3, 9), vec![(key(1), 64), (key(2), 16)]);
        assert_eq!(page(2, 9, 1), vec![(key(2), 16)]);
        assert_eq!((page(3, 4, 9), page(5, 9, 9)), (vec![(key(4), 80)], vec![]));
        index
            .apply(&IndexBatch { removals: vec![(key(4), entry(80, 5).location)], ..Default::default() })
            .unwrap();

        let stale = vec![(key(1), entry(8, 5).location), (key(2), entry(16, 5).location)];
        index.apply(&IndexBatch { removals: stale, ..Default::default() }).unwrap();
        assert_eq!(index.get_many(&[key(1), key(2)]).unwrap(), vec![Some(moved), None]);
        index.checkpoint().unwrap();
        index.clear().unwrap();
        assert!(index.is_empty().unwrap() && index.progress().unwrap().is_empty());
    }

    #[test]
    fn all_indexes_behave_alike() {
        behaves_like_an_index(&MemoryIndex::default());
        behaves_like_an_index(&TouchedIndex::new(Arc::new(MemoryIndex::default())));
        let dir = tempfile::tempdir().unwrap();
        behaves_like_an_index(&RedbIndex::open(Arc::new(LocalDisk), &dir.path().join("index.redb")).unwrap());
    }

    #[test]
    fn a_damaged_index_file_is_set_aside_and_starts_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        std::fs::write(&path, vec![0x5a; 10_000]).unwrap();
        let index = RedbIndex::open(Arc::new(LocalDisk), &path).unwrap();
        assert!(index.is_empty().unwrap());
        assert!(dir.path().join("index.redb.damaged").exists());
    }
}
