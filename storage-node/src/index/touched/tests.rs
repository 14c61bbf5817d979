//! What waits is seen by everybody, and reaches the index with how far the log is in it.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use holdfast_model::{ChunkId, TenantId};

use super::*;
use crate::{index::MemoryIndex, segment::Location};

const LOG: &str = "5-0.touch";

fn key(n: u32) -> RecordKey {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    RecordKey { tenant: TenantId([1; 16]), id: ChunkId(id) }
}

fn logged(end: u64) -> (String, u64) {
    (LOG.to_owned(), end)
}

/// With records 0 to 9, written in epoch 1.
fn inner() -> MemoryIndex {
    let index = MemoryIndex::default();
    let entry = |offset| IndexEntry {
        location: Location { segment: [7; 16], offset, len: 8 },
        write_epoch: 1,
        touch_epoch: 1,
        lock_floor_ms: 0,
    };
    let inserts = (0..10).map(|n| (key(n), entry(u64::from(n) * 8))).collect();
    index.apply(&IndexBatch { inserts, ..IndexBatch::default() }).unwrap();
    index
}

fn touch_epoch(index: &dyn ChunkIndex, n: u32) -> u64 {
    index.get_many(&[key(n)]).unwrap()[0].unwrap().touch_epoch
}

/// A call of the inner index that does something before or after it, or fails.
#[derive(Default)]
struct Hooked {
    inner: MemoryIndex,
    outer: OnceLock<Arc<TouchedIndex>>,
    /// The outer index is asked for record 1 inside of each `apply`, on either side of it.
    seen_during_apply: Mutex<Vec<u64>>,
    /// What waits is applied inside of each lookup, on either side of it.
    applies_during_lookup: AtomicBool,
    fails: AtomicBool,
}

impl Hooked {
    fn under() -> (Arc<Self>, Arc<TouchedIndex>) {
        let hooked = Arc::new(Self { inner: inner(), ..Self::default() });
        let outer = Arc::new(TouchedIndex::new(hooked.clone()));
        hooked.outer.set(outer.clone()).unwrap_or_else(|_| panic!("set once"));
        (hooked, outer)
    }

    fn look(&self) {
        let seen = touch_epoch(&**self.outer.get().unwrap(), 1);
        self.seen_during_apply.lock().unwrap().push(seen);
    }

    fn apply_waiting(&self) {
        if self.applies_during_lookup.load(Ordering::Relaxed) {
            self.outer.get().unwrap().apply_waiting().unwrap();
        }
    }
}

impl ChunkIndex for Hooked {
    fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<IndexEntry>>, Error> {
        self.apply_waiting();
        let found = self.inner.get_many(keys);
        self.apply_waiting();
        found
    }

    fn apply(&self, batch: &IndexBatch) -> Result<(), Error> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::database(redb::Error::PreviousIo));
        }
        if !self.applies_during_lookup.load(Ordering::Relaxed) {
            self.look();
        }
        self.inner.apply(batch)?;
        if !self.applies_during_lookup.load(Ordering::Relaxed) {
            self.look();
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), Error> {
        self.inner.checkpoint()
    }

    fn progress(&self) -> Result<BTreeMap<String, u64>, Error> {
        self.inner.progress()
    }

    fn clear(&self) -> Result<(), Error> {
        self.inner.clear()
    }

    fn range(
        &self,
        from: &RecordKey,
        to: &RecordKey,
        n: usize,
    ) -> Result<Vec<(RecordKey, IndexEntry)>, Error> {
        self.inner.range(from, to, n)
    }

    fn len(&self) -> Result<u64, Error> {
        self.inner.len()
    }
}

#[test]
fn a_touch_is_seen_at_once_and_in_the_index_after_the_checkpoint() {
    let inner = Arc::new(inner());
    let index = TouchedIndex::new(inner.clone());
    index.touch(5, &[key(1), key(3), key(99)], logged(200)).unwrap();
    index.touch(4, &[key(1)], logged(300)).unwrap();
    let found = index.get_many(&[key(3), key(2), key(99)]).unwrap();
    assert_eq!((found[0].unwrap().touch_epoch, found[1].unwrap().touch_epoch, found[2]), (5, 1, None));
    let page = index.range(&key(1), &key(3), 9).unwrap();
    assert_eq!(page.iter().map(|(_, entry)| entry.touch_epoch).collect::<Vec<_>>(), vec![5, 1, 5]);
    assert_eq!((touch_epoch(&*inner, 1), inner.progress().unwrap().len()), (1, 0));

    index.checkpoint().unwrap();
    assert_eq!((touch_epoch(&*inner, 1), touch_epoch(&*inner, 2), touch_epoch(&*inner, 3)), (5, 1, 5));
    assert_eq!((touch_epoch(&index, 1), inner.progress().unwrap()[LOG]), (5, 300));
    assert_eq!(inner.len().unwrap(), 10, "a touch makes no record");
}

#[test]
fn a_touch_that_is_being_applied_is_seen_all_the_time() {
    let (hooked, index) = Hooked::under();
    index.touch(5, &[key(1)], logged(200)).unwrap();
    index.checkpoint().unwrap();
    assert_eq!(*hooked.seen_during_apply.lock().unwrap(), vec![5, 5]);
    assert_eq!(touch_epoch(&*index, 1), 5);
}

#[test]
fn a_reader_misses_no_touch_that_is_applied_while_it_reads() {
    let (hooked, index) = Hooked::under();
    hooked.applies_during_lookup.store(true, Ordering::Relaxed);
    for epoch in [5, 6] {
        index.touch(epoch, &[key(1)], logged(epoch * 100)).unwrap();
        assert_eq!(touch_epoch(&*index, 1), epoch);
        assert_eq!(touch_epoch(&hooked.inner, 1), epoch, "applied while it was read");
    }
}

#[test]
fn what_could_not_be_applied_waits_on() {
    let (hooked, index) = Hooked::under();
    index.touch(5, &[key(1)], logged(200)).unwrap();
    hooked.fails.store(true, Ordering::Relaxed);
    assert!(index.checkpoint().is_err());
    assert_eq!((touch_epoch(&*index, 1), touch_epoch(&hooked.inner, 1)), (5, 1));
    hooked.fails.store(false, Ordering::Relaxed);
    index.touch(5, &[key(2)], logged(300)).unwrap();
    index.checkpoint().unwrap();
    assert_eq!((touch_epoch(&hooked.inner, 1), touch_epoch(&hooked.inner, 2)), (5, 5));
    assert_eq!(hooked.inner.progress().unwrap()[LOG], 300);
}

#[test]
fn more_than_may_wait_is_applied_early() {
    let inner = Arc::new(inner());
    let index = TouchedIndex::new(inner.clone());
    let keys: Vec<_> = (0..u32::try_from(WAITING_MAX).unwrap()).map(key).collect();
    index.touch(5, &keys, logged(200)).unwrap();
    assert_eq!(touch_epoch(&*inner, 1), 1);
    // None of these is new, so none takes more room.
    index.touch(6, &keys[..2], logged(300)).unwrap();
    assert_eq!(touch_epoch(&*inner, 1), 1);
    index.touch(5, &[key(u32::MAX)], logged(400)).unwrap();
    assert_eq!((touch_epoch(&*inner, 1), touch_epoch(&*inner, 9)), (6, 5));
    assert_eq!(inner.progress().unwrap()[LOG], 400);
    assert!(index.waiting().is_empty());
}

#[test]
fn an_index_that_is_cleared_forgets_what_waits() {
    let index = TouchedIndex::new(Arc::new(inner()));
    index.touch(5, &[key(1)], logged(200)).unwrap();
    index.clear().unwrap();
    index.checkpoint().unwrap();
    assert!(index.progress().unwrap().is_empty() && index.is_empty().unwrap());
}
