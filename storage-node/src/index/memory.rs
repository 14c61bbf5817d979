//! The reference model of the index: what every other one must behave like.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use holdfast_model::RecordKey;

use super::{ChunkIndex, IndexBatch, IndexEntry};
use crate::Error;

/// An index in memory; a checkpoint does nothing.
#[derive(Default)]
pub struct MemoryIndex {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    entries: BTreeMap<RecordKey, IndexEntry>,
    progress: BTreeMap<String, u64>,
}

impl MemoryIndex {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkIndex for MemoryIndex {
    fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<IndexEntry>>, Error> {
        let tables = self.tables();
        Ok(keys.iter().map(|key| tables.entries.get(key).copied()).collect())
    }

    fn apply(&self, batch: &IndexBatch) -> Result<(), Error> {
        let mut tables = self.tables();
        for (key, entry) in &batch.inserts {
            let merged = tables.entries.get(key).map_or(*entry, |old| entry.over(*old));
            tables.entries.insert(*key, merged);
        }
        for (key, epoch) in &batch.touches {
            if let Some(entry) = tables.entries.get_mut(key) {
                *entry = entry.touched(*epoch);
            }
        }
        for (key, write_epoch, lock_floor_ms) in &batch.raises {
            if let Some(entry) = tables.entries.get_mut(key) {
                *entry = entry.raised(*write_epoch, *lock_floor_ms);
            }
        }
        for (key, location) in &batch.removals {
            if tables.entries.get(key).is_some_and(|entry| entry.location == *location) {
                tables.entries.remove(key);
            }
        }
        tables.progress.extend(batch.progress.iter().cloned());
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), Error> {
        Ok(())
    }

    fn progress(&self) -> Result<BTreeMap<String, u64>, Error> {
        Ok(self.tables().progress.clone())
    }

    fn clear(&self) -> Result<(), Error> {
        *self.tables() = Tables::default();
        Ok(())
    }

    fn range(
        &self,
        from: &RecordKey,
        to: &RecordKey,
        n: usize,
    ) -> Result<Vec<(RecordKey, IndexEntry)>, Error> {
        let tables = self.tables();
        Ok(tables.entries.range(*from..=*to).take(n).map(|(key, entry)| (*key, *entry)).collect())
    }

    fn len(&self) -> Result<u64, Error> {
        Ok(self.tables().entries.len() as u64)
    }
}
