//! The index on disk, in redb: commits without durability, made durable by checkpoints.
//!
//! Invariant: progress and entries are committed together, so that whatever a crash takes away is scanned again. After a failed
//! sync the file is not trusted: the system may show the next process pages that never reached the disk and call them stored.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_model::RecordKey;
use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table,
    TableDefinition, WriteTransaction,
};

use super::{ChunkIndex, ENTRY_BYTES, IndexBatch, IndexEntry, KEY_BYTES, decode_key, encode_key};
use crate::{Error, database::guarded, disk::Disk, segment::is_full};

const ENTRIES: TableDefinition<&[u8; KEY_BYTES], &[u8; ENTRY_BYTES]> = TableDefinition::new("entries-1");
const PROGRESS: TableDefinition<&str, u64> = TableDefinition::new("progress-1");
/// A file of at most this size is checked as a whole when it is opened. A larger one would hold up the start for long; what is
/// wrong in it the comparison with the other owners and the daily sample find.
const CHECK_BYTES_MAX: u64 = 1 << 30;
/// Pages kept in memory.
const CACHE_BYTES: usize = 256 << 20;

/// The index of one disk.
pub struct RedbIndex {
    /// `None` only while it is being closed.
    database: Option<Database>,
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl RedbIndex {
    /// Opens the file, or makes it. A damaged one is renamed to `.damaged` and an empty one takes its place.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, Error> {
        forget_distrusted(&*disk, path)?;
        let database = Some(Self::open_database(&*disk, path)?);
        Ok(Self { database, disk, path: path.to_owned() })
    }

    fn open_database(disk: &dyn Disk, path: &Path) -> Result<Database, Error> {
        match Self::try_open(disk, path) {
            Ok(database) => Ok(database),
            Err(error) if is_in_use(&error) => Err(Error::DataInUse(path.to_owned())),
            // No damage: it is whole again when there is room.
            Err(redb::Error::Io(source)) if is_full(&source) => {
                Err(Error::Io { action: "make room on the disk of", path: path.to_owned(), source })
            }
            Err(error) if disk.exists(path).map_err(Error::io("look for", path))? => {
                tracing::error!(path = %path.display(), %error, "index damaged: it is rebuilt from the segments");
                let aside = path.with_extension("redb.damaged");
                disk.rename(path, &aside).map_err(Error::io("rename", path))?;
                Self::try_open(disk, path).map_err(Error::database)
            }
            Err(error) => Err(Error::database(error)),
        }
    }

    fn try_open(disk: &dyn Disk, path: &Path) -> Result<Database, redb::Error> {
        let len = if disk.exists(path)? { disk.open_read(path)?.size()? } else { 0 };
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(len <= CHECK_BYTES_MAX);
        let database = disk.database(path, &builder)?;
        let read = database.begin_read()?;
        let is_new = read.open_table(ENTRIES).is_err() || read.open_table(PROGRESS).is_err();
        drop(read);
        // Only then: a full disk takes no write, and what is there can be read all the same.
        if is_new {
            let write = database.begin_write()?;
            write.open_table(ENTRIES)?;
            write.open_table(PROGRESS)?;
            write.commit()?;
        }
        Ok(database)
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("open until it is dropped")
    }

    /// Makes the next start build the index anew.
    fn distrust(&self, cause: &dyn std::error::Error) {
        tracing::warn!(path = %self.path.display(), error = %cause, "index could not be synced: the next start rebuilds it");
        let marker = distrusted(&self.path);
        let marked = match self.disk.create(&marker) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            created => created.and_then(|_| self.disk.sync_dir(marker.parent().unwrap_or(&marker))),
        };
        if let Err(error) = marked {
            tracing::error!(path = %marker.display(), %error, "index cannot be marked: remove it before the next start");
        }
    }

    fn write(&self, durability: Durability) -> Result<WriteTransaction, Error> {
        let mut write = self.database().begin_write().map_err(Error::database)?;
        write.set_durability(durability).map_err(Error::database)?;
        Ok(write)
    }
}

/// Says that the index beside it is not trusted.
fn distrusted(path: &Path) -> PathBuf {
    path.with_extension("redb.distrusted")
}

fn forget_distrusted(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    let marker = distrusted(path);
    if !disk.exists(&marker).map_err(Error::io("look for", &marker))? {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "index was not synced: it is rebuilt from the segments");
    for gone in [path, &marker] {
        if disk.exists(gone).map_err(Error::io("look for", gone))? {
            disk.remove(gone).map_err(Error::io("remove", gone))?;
        }
    }
    let folder = path.parent().unwrap_or(path);
    disk.sync_dir(folder).map_err(Error::io("sync", folder))
}

/// Closing syncs too.
impl Drop for RedbIndex {
    fn drop(&mut self) {
        let Some(database) = self.database.take() else { return };
        match guarded(|| database.close()) {
            Some(Ok(())) => {}
            Some(Err(error)) => self.distrust(&error),
            None => self.distrust(&redb::Error::Corrupted("its pages cannot be read".to_owned())),
        }
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
        if let Some(entry) = read(table, &key)?.filter(|entry| entry.touch_epoch < *epoch) {
            table.insert(&key, &entry.touched(*epoch).encode())?;
        }
    }
    for (key, write_epoch, lock_floor_ms) in &batch.raises {
        let key = encode_key(key);
        if let Some(entry) = read(table, &key)? {
            table.insert(&key, &entry.raised(*write_epoch, *lock_floor_ms).encode())?;
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
        let read = self.database().begin_read().map_err(Error::database)?;
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
        write.commit().map_err(|error| {
            let error = redb::Error::from(error);
            if matches!(&error, redb::Error::Io(source) if !is_full(source)) {
                self.distrust(&error);
            }
            Error::database(error)
        })
    }

    fn progress(&self) -> Result<BTreeMap<String, u64>, Error> {
        let read = self.database().begin_read().map_err(Error::database)?;
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

    fn range(
        &self,
        from: &RecordKey,
        to: &RecordKey,
        n: usize,
    ) -> Result<Vec<(RecordKey, IndexEntry)>, Error> {
        let read = self.database().begin_read().map_err(Error::database)?;
        let table = read.open_table(ENTRIES).map_err(Error::database)?;
        let (from, to) = (encode_key(from), encode_key(to));
        let rows = table.range::<&[u8; KEY_BYTES]>(&from..=&to).map_err(Error::database)?;
        rows.take(n)
            .map(|row| {
                let (key, value) = row.map_err(Error::database)?;
                Ok((decode_key(key.value()), IndexEntry::decode(value.value())))
            })
            .collect()
    }

    fn len(&self) -> Result<u64, Error> {
        let read = self.database().begin_read().map_err(Error::database)?;
        read.open_table(ENTRIES).map_err(Error::database)?.len().map_err(Error::database)
    }
}
