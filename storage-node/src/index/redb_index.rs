//! The index on disk, in redb: commits without durability, made durable by checkpoints.
//!
//! Invariant: progress and entries are committed together, so that whatever a crash takes away is scanned again.

use std::{collections::BTreeMap, fs, path::Path};

use holdfast_model::RecordKey;
use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table,
    TableDefinition, WriteTransaction,
};

use super::{ChunkIndex, ENTRY_BYTES, IndexBatch, IndexEntry, KEY_BYTES, encode_key};
use crate::Error;

const ENTRIES: TableDefinition<&[u8; KEY_BYTES], &[u8; ENTRY_BYTES]> = TableDefinition::new("entries-0");
const PROGRESS: TableDefinition<&str, u64> = TableDefinition::new("progress-0");
/// Pages kept in memory.
const CACHE_BYTES: usize = 256 << 20;

/// The index of one disk.
pub struct RedbIndex {
    database: Database,
}

impl RedbIndex {
    /// Opens the file, or makes it. A damaged one is renamed to `.damaged` and an empty one takes its place.
    pub fn open(path: &Path) -> Result<Self, Error> {
        match Self::try_open(path) {
            Ok(index) => Ok(index),
            Err(error) if is_in_use(&error) => Err(Error::DataInUse(path.to_owned())),
            Err(error) if path.exists() => {
                tracing::error!(path = %path.display(), %error, "index damaged: it is rebuilt from the segments");
                let aside = path.with_extension("redb.damaged");
                fs::rename(path, &aside).map_err(Error::io("rename", path))?;
                Self::try_open(path).map_err(Error::database)
            }
            Err(error) => Err(Error::database(error)),
        }
    }

    fn try_open(path: &Path) -> Result<Self, redb::Error> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        let write = database.begin_write()?;
        write.open_table(ENTRIES)?;
        write.open_table(PROGRESS)?;
        write.commit()?;
        Ok(Self { database })
    }

    fn write(&self, durability: Durability) -> Result<WriteTransaction, Error> {
        let mut write = self.database.begin_write().map_err(Error::database)?;
        write.set_durability(durability).map_err(Error::database)?;
        Ok(write)
    }
}

fn is_in_use(error: &redb::Error) -> bool {
    matches!(error, redb::Error::DatabaseAlreadyOpen)
}

type Entries<'a> = Table<'a, &'static [u8; KEY_BYTES], &'static [u8; ENTRY_BYTES]>;

fn read(table: &Entries<'_>, key: &[u8; KEY_BYTES]) -> Result<Option<IndexEntry>, redb::StorageError> {
    Ok(table.get(key)?.map(|value| IndexEntry::decode(value.value())))
}

fn apply(table: &mut Entries<'_>, batch: &IndexBatch) -> Result<(), redb::StorageError> {
    for (key, entry) in &batch.inserts {
        let key = encode_key(key);
        let merged = read(table, &key)?.map_or(*entry, |old| entry.over(old));
        table.insert(&key, &merged.encode())?;
    }
    for (key, epoch) in &batch.touches {
        let key = encode_key(key);
        if let Some(mut entry) = read(table, &key)?.filter(|entry| entry.touch_epoch < *epoch) {
            entry.touch_epoch = *epoch;
            table.insert(&key, &entry.encode())?;
        }
    }
    for (key, location) in &batch.removals {
        let key = encode_key(key);
        if read(table, &key)?.is_some_and(|entry| entry.location == *location) {
            table.remove(&key)?;
        }
    }
    Ok(())
}

impl ChunkIndex for RedbIndex {
    fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<IndexEntry>>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(ENTRIES).map_err(Error::database)?;
        keys.iter()
            .map(|key| {
                let found = table.get(&encode_key(key)).map_err(Error::database)?;
                Ok(found.map(|value| IndexEntry::decode(value.value())))
            })
            .collect()
    }

    fn apply(&self, batch: &IndexBatch) -> Result<(), Error> {
        let write = self.write(Durability::None)?;
        {
            let mut entries = write.open_table(ENTRIES).map_err(Error::database)?;
            apply(&mut entries, batch).map_err(Error::database)?;
            let mut progress = write.open_table(PROGRESS).map_err(Error::database)?;
            for (file, offset) in &batch.progress {
                progress.insert(file.as_str(), offset).map_err(Error::database)?;
            }
        }
        write.commit().map_err(Error::database)
    }

    fn checkpoint(&self) -> Result<(), Error> {
        let mut write = self.write(Durability::Immediate)?;
        // Otherwise opening after a crash walks the whole file.
        write.set_quick_repair(true);
        write.commit().map_err(Error::database)
    }

    fn progress(&self) -> Result<BTreeMap<String, u64>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(PROGRESS).map_err(Error::database)?;
        let rows = table.iter().map_err(Error::database)?;
        rows.map(|row| {
            let (file, offset) = row.map_err(Error::database)?;
            Ok((file.value().to_owned(), offset.value()))
        })
        .collect()
    }

    fn clear(&self) -> Result<(), Error> {
        let write = self.write(Durability::Immediate)?;
        write.delete_table(ENTRIES).map_err(Error::database)?;
        write.delete_table(PROGRESS).map_err(Error::database)?;
        write.open_table(ENTRIES).map_err(Error::database)?;
        write.open_table(PROGRESS).map_err(Error::database)?;
        write.commit().map_err(Error::database)
    }

    fn len(&self) -> Result<u64, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        read.open_table(ENTRIES).map_err(Error::database)?.len().map_err(Error::database)
    }
}
