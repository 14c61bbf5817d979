//! The index together with the touches that are synced in the touch log and not in the index yet.
//!
//! A touch rewrites a page of the index, so touches wait here and reach it many at a time, in the order of their keys: at each
//! checkpoint, or earlier when more than [`WAITING_MAX`] wait. Invariants: only synced touches wait; whoever reads sees them as if
//! the index had them; the index notes how far a log is in it only together with the touches up to there, so that after a crash
//! the log is replayed from where the index ends.
//!
//! The race to know: a reader looks at what waits *before* it reads the index, and a touch ceases to wait only *after* it is in
//! the index. The other way round a touch that is just being applied would be seen in neither.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use holdfast_model::RecordKey;

use super::{ChunkIndex, IndexBatch, IndexEntry};
use crate::Error;

/// Touches that wait at most, and those of one group more: some 25 MiB. Enough that in an index of a few million records several
/// of them share a page.
pub const WAITING_MAX: usize = 1 << 18;

/// An index whose touches wait in memory.
pub struct TouchedIndex {
    inner: Arc<dyn ChunkIndex>,
    waiting: RwLock<Waiting>,
    /// Held while what waits is applied.
    applying: Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    touches: BTreeMap<RecordKey, u64>,
    /// By log: up to which offset its touches wait or are in the index.
    progress: BTreeMap<String, u64>,
    /// What is just being applied: touches in the order of their keys.
    leaving: Arc<IndexBatch>,
}

impl TouchedIndex {
    /// Nothing waits at first.
    pub fn new(inner: Arc<dyn ChunkIndex>) -> Self {
        Self { inner, waiting: RwLock::default(), applying: Mutex::default() }
    }

    /// Takes in touches that are synced in a log up to an offset. Blocks on the disk when too many wait.
    pub fn touch(&self, epoch: u64, keys: &[RecordKey], (log, end): (String, u64)) -> Result<(), Error> {
        let n = {
            let mut waiting = self.waiting_mut();
            for key in keys {
                waiting.add(*key, epoch);
            }
            waiting.progress.insert(log, end);
            waiting.touches.len()
        };
        if n > WAITING_MAX { self.apply_waiting() } else { Ok(()) }
    }

    fn apply_waiting(&self) -> Result<(), Error> {
        let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let leaving = self.waiting_mut().leave();
        if leaving.touches.is_empty() {
            return Ok(());
        }
        let applied = self.inner.apply(&leaving);
        let mut waiting = self.waiting_mut();
        waiting.leaving = Arc::default();
        if applied.is_err() {
            waiting.take_back(&leaving);
        }
        applied
    }

    fn waiting(&self) -> RwLockReadGuard<'_, Waiting> {
        self.waiting.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting_mut(&self) -> RwLockWriteGuard<'_, Waiting> {
        self.waiting.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.touches.is_empty() && self.leaving.touches.is_empty()
    }

    fn add(&mut self, key: RecordKey, epoch: u64) {
        let known = self.touches.entry(key).or_default();
        *known = epoch.max(*known);
    }

    /// The highest epoch of a key's touches; 0 is below every epoch.
    fn epoch(&self, key: &RecordKey) -> u64 {
        let leaving = &self.leaving.touches;
        let at = leaving.binary_search_by(|(leaving, _)| leaving.cmp(key));
        let leaving = at.map_or(0, |at| leaving[at].1);
        self.touches.get(key).copied().unwrap_or(0).max(leaving)
    }

    fn leave(&mut self) -> Arc<IndexBatch> {
        let touches = mem::take(&mut self.touches).into_iter().collect();
        let progress = mem::take(&mut self.progress).into_iter().collect();
        self.leaving = Arc::new(IndexBatch { touches, progress, ..IndexBatch::default() });
        self.leaving.clone()
    }

    /// After a failure: they wait on, among those that came since.
    fn take_back(&mut self, batch: &IndexBatch) {
        for (key, epoch) in &batch.touches {
            self.add(*key, *epoch);
        }
        for (log, end) in &batch.progress {
            self.progress.entry(log.clone()).or_insert(*end);
        }
    }
}

impl ChunkIndex for TouchedIndex {
    fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<IndexEntry>>, Error> {
        let waiting = self.waiting();
        if waiting.is_empty() {
            drop(waiting);
            return self.inner.get_many(keys);
        }
        let epochs: Vec<u64> = keys.iter().map(|key| waiting.epoch(key)).collect();
        drop(waiting);
        let mut found = self.inner.get_many(keys)?;
        for (entry, epoch) in found.iter_mut().zip(epochs) {
            *entry = entry.map(|entry| entry.touched(epoch));
        }
        Ok(found)
    }

    fn apply(&self, batch: &IndexBatch) -> Result<(), Error> {
        self.inner.apply(batch)
    }

    fn checkpoint(&self) -> Result<(), Error> {
        self.apply_waiting()?;
        self.inner.checkpoint()
    }

    fn progress(&self) -> Result<BTreeMap<String, u64>, Error> {
        self.inner.progress()
    }

    fn clear(&self) -> Result<(), Error> {
        *self.waiting_mut() = Waiting::default();
        self.inner.clear()
    }

    fn range(
        &self,
        from: &RecordKey,
        to: &RecordKey,
        n: usize,
    ) -> Result<Vec<(RecordKey, IndexEntry)>, Error> {
        // Which keys come is not known before: nothing may cease to wait until they are read.
        let waiting = self.waiting();
        let mut found = self.inner.range(from, to, n)?;
        for (key, entry) in &mut found {
            *entry = entry.touched(waiting.epoch(key));
        }
        Ok(found)
    }

    fn len(&self) -> Result<u64, Error> {
        self.inner.len()
    }
}

#[cfg(test)]
mod tests;
