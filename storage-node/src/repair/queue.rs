//! What is to be repaired: a persistent queue of records and of suspect partitions, fewest copies first.
//!
//! It is derived data: what a crash takes from it (the commits since the last [`RepairQueue::flush`]), the comparison that
//! every start begins with finds again. Invariant: epochs and lock floors of a queued record only grow, and what does not
//! fit into the queue makes its partition suspect instead of being forgotten.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use holdfast_model::{Clock, Millis, PartitionId, RecordKey};
use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table,
    TableDefinition, WriteTransaction,
};
use serde::{Serialize, de::DeserializeOwned};

use super::entry::{Entry, Protection, WANTED_BYTES, Why};
use crate::{
    Error,
    database::OpenDatabase,
    disk::Disk,
    index::{KEY_BYTES, decode_key, encode_key},
};

type Key = &'static [u8; KEY_BYTES];
/// Copies known, then when it is due, then the record.
type Turn = (u8, u64, Key);

const RECORDS: TableDefinition<Key, &[u8; WANTED_BYTES]> = TableDefinition::new("records-1");
const TURNS: TableDefinition<Turn, ()> = TableDefinition::new("turns-1");
const AGES: TableDefinition<(u64, Key), ()> = TableDefinition::new("ages-1");
const SUSPECTS: TableDefinition<u16, ()> = TableDefinition::new("suspects-1");
const NOTES: TableDefinition<&str, &[u8]> = TableDefinition::new("notes-1");

/// Records in the queue. About 200 MiB on disk.
const RECORDS_MAX: u64 = 1_000_000;
/// Records made due in one commit.
const RELEASE_BATCH: usize = 10_000;
/// Pages kept in memory.
const CACHE_BYTES: usize = 16 << 20;

/// How much is waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Records.
    pub records: u64,
    /// Of those, with at most one known copy.
    pub at_one_copy: u64,
    /// Of those, damaged here.
    pub damaged: u64,
    /// When the oldest came.
    pub oldest_ms: Option<Millis>,
    /// Suspect partitions.
    pub suspects: u64,
}

/// The queue of one node.
pub struct RepairQueue {
    database: OpenDatabase,
    clock: Arc<dyn Clock>,
    limit: u64,
    /// Something was committed that a crash would take.
    unflushed: AtomicBool,
    at_one_copy: AtomicU64,
    damaged: AtomicU64,
}

/// What one change did to the counters.
#[derive(Default)]
struct Counted {
    at_one_copy: i64,
    damaged: i64,
}

impl Counted {
    fn add(&mut self, entry: &Entry, sign: i64) {
        self.at_one_copy += if entry.copies <= 1 { sign } else { 0 };
        self.damaged += if entry.why == Why::Damaged { sign } else { 0 };
    }
}

impl RepairQueue {
    /// Opens the file, or makes it. A damaged one is renamed to `.damaged` and an empty one takes its place.
    pub fn open(disk: &dyn Disk, path: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let database = match open(disk, path) {
            Ok(database) => database,
            Err(redb::Error::DatabaseAlreadyOpen) => return Err(Error::DataInUse(path.to_owned())),
            Err(error) if disk.exists(path).map_err(Error::io("look for", path))? => {
                tracing::error!(path = %path.display(), %error, "repair queue damaged: it starts empty, the comparison with the other owners fills it");
                let aside = path.with_extension("redb.damaged");
                disk.rename(path, &aside).map_err(Error::io("rename", path))?;
                open(disk, path).map_err(Error::database)?
            }
            Err(error) => return Err(Error::database(error)),
        };
        let queue = Self {
            database: OpenDatabase::new(database, path),
            clock,
            limit: RECORDS_MAX,
            unflushed: AtomicBool::new(false),
            at_one_copy: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        };
        let mut counted = Counted::default();
        let read = queue.database.begin_read().map_err(Error::database)?;
        for row in read.open_table(RECORDS).map_err(Error::database)?.iter().map_err(Error::database)? {
            counted.add(&Entry::decode(row.map_err(Error::database)?.1.value()), 1);
        }
        queue.count(&counted);
        Ok(queue)
    }

    #[cfg(test)]
    pub(super) fn with_limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    fn count(&self, counted: &Counted) {
        for (counter, change) in [(&self.at_one_copy, counted.at_one_copy), (&self.damaged, counted.damaged)]
        {
            counter.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
        }
    }

    fn commit<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        let mut write = self.database.begin_write().map_err(Error::database)?;
        write.set_durability(durability).map_err(Error::database)?;
        let changed = change(&write).map_err(Error::database)?;
        write.commit().map_err(Error::database)?;
        let is_durable = matches!(durability, Durability::Immediate);
        self.unflushed.store(!is_durable, Ordering::Relaxed);
        Ok(changed)
    }

    /// Makes everything durable that was not yet.
    pub fn flush(&self) -> Result<(), Error> {
        if self.unflushed.load(Ordering::Relaxed) {
            self.commit(Durability::Immediate, |_| Ok(()))?;
        }
        Ok(())
    }

    // === Records ===

    /// Adds records; those that wait already are merged. Of a full queue the partition becomes suspect.
    pub fn add(&self, wanted: &[(RecordKey, Entry)]) -> Result<(), Error> {
        if wanted.is_empty() {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let mut counted = Counted::default();
        self.commit(Durability::None, |write| {
            let mut tables = Tables::open(write)?;
            let mut suspects = write.open_table(SUSPECTS)?;
            for (key, entry) in wanted {
                let known = tables.get(key)?;
                if known.is_none() && tables.records.len()? >= self.limit {
                    suspects.insert(PartitionId::of_chunk(key.id).0, ())?;
                    continue;
                }
                let entry = known.map_or(Entry { queued_ms: now_ms, ..*entry }, |known| entry.over(&known));
                tables.replace(key, known.as_ref(), Some(&entry), &mut counted)?;
            }
            Ok(())
        })?;
        self.count(&counted);
        Ok(())
    }

    /// Records whose turn it is: fewest copies first, then those that wait longest.
    pub fn due(&self, now_ms: Millis, n: usize) -> Result<Vec<(RecordKey, Entry)>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let turns = read.open_table(TURNS).map_err(Error::database)?;
        let records = read.open_table(RECORDS).map_err(Error::database)?;
        let mut due = Vec::new();
        let mut copies = Some(0_u8);
        while let Some(from) = copies {
            let rows = turns.range((from, 0, &[0; KEY_BYTES])..).map_err(Error::database)?;
            copies = None;
            for row in rows {
                let (turn, _) = row.map_err(Error::database)?;
                let (class, due_ms, key) = turn.value();
                if due.len() >= n {
                    return Ok(due);
                }
                if due_ms > now_ms {
                    copies = class.checked_add(1);
                    break;
                }
                if let Some(entry) = records.get(key).map_err(Error::database)? {
                    due.push((decode_key(key), Entry::decode(entry.value())));
                }
            }
        }
        Ok(due)
    }

    /// Takes out what is done, unless more has become known of it since, and puts back what is not.
    pub fn settle(&self, done: &[(RecordKey, Entry)], later: &[(RecordKey, Entry)]) -> Result<(), Error> {
        if done.is_empty() && later.is_empty() {
            return Ok(());
        }
        let mut counted = Counted::default();
        self.commit(Durability::None, |write| {
            let mut tables = Tables::open(write)?;
            for (key, seen) in done {
                let known = tables.get(key)?.filter(|known| known == seen);
                tables.replace(key, known.as_ref(), None, &mut counted)?;
            }
            for (key, entry) in later {
                let known = tables.get(key)?;
                let protection = Protection::higher(
                    entry.protection,
                    known.map_or_else(Default::default, |known| known.protection),
                );
                let entry = Entry { protection, ..*entry };
                tables.replace(key, known.as_ref(), Some(&entry), &mut counted)?;
            }
            Ok(())
        })?;
        self.count(&counted);
        Ok(())
    }

    /// Makes everything due that waits for a later try: a node came back, or the layout changed.
    pub fn release(&self, now_ms: Millis) -> Result<u64, Error> {
        let mut from = (0, 0, [0; KEY_BYTES]);
        let mut released = 0;
        loop {
            let page = self.waiting_behind(&from, now_ms)?;
            let Some(last) = page.last() else { return Ok(released) };
            from = *last;
            released += page.len() as u64;
            let mut counted = Counted::default();
            self.commit(Durability::None, |write| {
                let mut tables = Tables::open(write)?;
                for (_, _, key) in &page {
                    let key = decode_key(key);
                    let Some(known) = tables.get(&key)? else { continue };
                    let entry = Entry { not_before_ms: now_ms, ..known };
                    tables.replace(&key, Some(&known), Some(&entry), &mut counted)?;
                }
                Ok(())
            })?;
        }
    }

    fn waiting_behind(
        &self,
        from: &(u8, u64, [u8; KEY_BYTES]),
        now_ms: Millis,
    ) -> Result<Vec<(u8, u64, [u8; KEY_BYTES])>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let turns = read.open_table(TURNS).map_err(Error::database)?;
        let mut page = Vec::new();
        for row in turns.range((from.0, from.1, &from.2)..).map_err(Error::database)? {
            let (turn, _) = row.map_err(Error::database)?;
            let (copies, due_ms, key) = turn.value();
            if due_ms > now_ms && (copies, due_ms, key) != (from.0, from.1, &from.2) {
                page.push((copies, due_ms, *key));
            }
            if page.len() >= RELEASE_BATCH {
                break;
            }
        }
        Ok(page)
    }

    /// What is known of a record that waits.
    pub fn entry(&self, key: &RecordKey) -> Result<Option<Entry>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let records = read.open_table(RECORDS).map_err(Error::database)?;
        let found = records.get(&encode_key(key)).map_err(Error::database)?;
        Ok(found.map(|entry| Entry::decode(entry.value())))
    }

    /// Whether no more records fit.
    pub fn is_full(&self) -> Result<bool, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let n = read.open_table(RECORDS).map_err(Error::database)?.len().map_err(Error::database)?;
        Ok(n >= self.limit)
    }

    /// How much waits.
    pub fn backlog(&self) -> Result<Backlog, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let ages = read.open_table(AGES).map_err(Error::database)?;
        let oldest = ages.first().map_err(Error::database)?;
        Ok(Backlog {
            records: ages.len().map_err(Error::database)?,
            at_one_copy: self.at_one_copy.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
            oldest_ms: oldest.map(|(age, _)| age.value().0),
            suspects: read.open_table(SUSPECTS).map_err(Error::database)?.len().map_err(Error::database)?,
        })
    }

    // === Partitions ===

    /// Marks partitions to be compared before the next round.
    pub fn suspect(&self, partitions: &[PartitionId]) -> Result<(), Error> {
        if partitions.is_empty() {
            return Ok(());
        }
        self.commit(Durability::None, |write| {
            let mut suspects = write.open_table(SUSPECTS)?;
            for partition in partitions {
                suspects.insert(partition.0, ())?;
            }
            Ok(())
        })
    }

    /// The first suspect partitions.
    pub fn suspects(&self, n: usize) -> Result<Vec<PartitionId>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let suspects = read.open_table(SUSPECTS).map_err(Error::database)?;
        let rows = suspects.iter().map_err(Error::database)?.take(n);
        rows.map(|row| Ok(PartitionId(row.map_err(Error::database)?.0.value()))).collect()
    }

    /// Takes partitions back, before they are compared: what goes wrong meanwhile marks them again.
    pub fn unsuspect(&self, partitions: &[PartitionId]) -> Result<(), Error> {
        if partitions.is_empty() {
            return Ok(());
        }
        self.commit(Durability::None, |write| {
            let mut suspects = write.open_table(SUSPECTS)?;
            for partition in partitions {
                suspects.remove(partition.0)?;
            }
            Ok(())
        })
    }

    // === Notes ===

    /// A value kept under a name; one that cannot be read counts as absent.
    pub fn note<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let notes = read.open_table(NOTES).map_err(Error::database)?;
        let found = notes.get(name).map_err(Error::database)?;
        Ok(found.and_then(|json| serde_json::from_slice(json.value()).ok()))
    }

    /// Keeps a value under a name.
    pub fn set_note<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let json = serde_json::to_vec(value).map_err(|_| Error::DamagedState("value to store"))?;
        self.commit(Durability::None, |write| {
            write.open_table(NOTES)?.insert(name, json.as_slice())?;
            Ok(())
        })
    }
}

fn open(disk: &dyn Disk, path: &Path) -> Result<Database, redb::Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    let database = disk.database(path, &builder)?;
    disk.write_again(path)?;
    let write = database.begin_write()?;
    Tables::open(&write)?;
    write.open_table(SUSPECTS)?;
    write.open_table(NOTES)?;
    write.commit()?;
    Ok(database)
}

/// The three tables of records, changed together.
struct Tables<'a> {
    records: Table<'a, Key, &'static [u8; WANTED_BYTES]>,
    turns: Table<'a, Turn, ()>,
    ages: Table<'a, (u64, Key), ()>,
}

impl<'a> Tables<'a> {
    fn open(write: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            records: write.open_table(RECORDS)?,
            turns: write.open_table(TURNS)?,
            ages: write.open_table(AGES)?,
        })
    }

    fn get(&self, key: &RecordKey) -> Result<Option<Entry>, redb::Error> {
        Ok(self.records.get(&encode_key(key))?.map(|entry| Entry::decode(entry.value())))
    }

    fn replace(
        &mut self,
        key: &RecordKey,
        old: Option<&Entry>,
        new: Option<&Entry>,
        counted: &mut Counted,
    ) -> Result<(), redb::Error> {
        let key = encode_key(key);
        if let Some(old) = old {
            counted.add(old, -1);
            self.turns.remove((old.copies, old.not_before_ms, &key))?;
            self.ages.remove((old.queued_ms, &key))?;
            self.records.remove(&key)?;
        }
        if let Some(new) = new {
            counted.add(new, 1);
            self.turns.insert((new.copies, new.not_before_ms, &key), ())?;
            self.ages.insert((new.queued_ms, &key), ())?;
            self.records.insert(&key, &new.encode())?;
        }
        Ok(())
    }
}

impl Entry {
    /// The same record, asked for once more: what was known stays, except that damage outweighs the rest and is due at once.
    fn over(&self, known: &Self) -> Self {
        let news = self.why == Why::Damaged && known.why != Why::Damaged;
        let first = if news { self } else { known };
        Self {
            why: first.why,
            tries: first.tries,
            not_before_ms: self.not_before_ms.min(known.not_before_ms),
            queued_ms: known.queued_ms,
            copies: self.copies.min(known.copies),
            protection: Protection::higher(self.protection, known.protection),
        }
    }
}
