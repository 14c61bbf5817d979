//! Finds and puts records on several disks. Each is looked for first where its partition chooses, then on the others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use holdfast_model::{Millis, PartitionId, RecordKey};
use holdfast_record::SealedRecord;

use super::Disks;
use crate::{
    Error, PutOutcome, ReplicaOutcome, ReplicaPut, Store,
    index::{ChunkIndex, IndexEntry},
    metrics,
    repair::{Copy, Protection},
    space::Space,
    store::{FIRST_KEY, LAST_KEY, copy_of},
};

/// What has entries in the order of their keys: an index, or the indexes of all disks.
pub trait Entries {
    /// The first `n` entries from one key up to another, both included.
    fn range(
        &self,
        from: &RecordKey,
        to: &RecordKey,
        n: usize,
    ) -> Result<Vec<(RecordKey, IndexEntry)>, Error>;
}

impl<T: ChunkIndex> Entries for T {
    fn range(
        &self,
        from: &RecordKey,
        to: &RecordKey,
        n: usize,
    ) -> Result<Vec<(RecordKey, IndexEntry)>, Error> {
        ChunkIndex::range(self, from, to, n)
    }
}

impl Entries for Disks {
    fn range(
        &self,
        from: &RecordKey,
        to: &RecordKey,
        n: usize,
    ) -> Result<Vec<(RecordKey, IndexEntry)>, Error> {
        if let Some(only) = self.only() {
            return only.index().range(from, to, n);
        }
        let mut merged: BTreeMap<RecordKey, IndexEntry> = BTreeMap::new();
        for store in self.stores() {
            for (key, entry) in store.index().range(from, to, n)? {
                let there = merged.entry(key).or_insert(entry);
                *there = protected_by_both(*there, &entry);
            }
        }
        self.check()?;
        Ok(merged.into_iter().take(n).collect())
    }
}

/// Of a record that is on two disks: one place, and the highest of what protects either.
fn protected_by_both(one: IndexEntry, other: &IndexEntry) -> IndexEntry {
    let Protection { write_epoch, touch_epoch, lock_floor_ms } =
        Protection::higher(Protection::from(&one), Protection::from(other));
    IndexEntry { write_epoch, touch_epoch, lock_floor_ms, ..one }
}

/// What reading back some records told.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// How many.
    pub n_records: u64,
    /// How many of them cannot be read.
    pub n_unreadable: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The last; none where the index ended.
    pub last: Option<RecordKey>,
}

/// Who sends a record, which decides how full a disk may be that takes it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// A worker, through this node or the first owner.
    Worker,
    /// Another storage node that repairs.
    Peer,
}

impl Sender {
    fn why_not(self, space: &Space) -> Option<String> {
        match self {
            Self::Worker => space.stopped(),
            Self::Peer => space.repair_stopped(),
        }
    }
}

impl Disks {
    /// All entries in order.
    pub(crate) fn index(&self) -> &dyn Entries {
        self
    }

    /// For each disk that is the `rank`-th choice of any of these: their positions.
    fn by_disk(
        &self,
        keys: &[RecordKey],
        rank: usize,
        wanted: impl Fn(usize) -> bool,
    ) -> BTreeMap<usize, Vec<usize>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (position, key) in keys.iter().enumerate().filter(|(position, _)| wanted(*position)) {
            let disk = self.spread.order(PartitionId::of_chunk(key.id))[rank];
            groups.entry(usize::from(disk)).or_default().push(position);
        }
        groups
    }

    /// Where each record is. Blocks on the disk.
    fn locate(&self, keys: &[RecordKey]) -> Result<Vec<Option<(usize, IndexEntry)>>, Error> {
        if let Some(only) = self.only() {
            let found = only.index().get_many(keys)?;
            return Ok(found.into_iter().map(|entry| entry.map(|entry| (0, entry))).collect());
        }
        let mut found = vec![None; keys.len()];
        for rank in 0..self.open.len() {
            for (disk, positions) in self.by_disk(keys, rank, |at| found[at].is_none()) {
                let asked: Vec<RecordKey> = positions.iter().map(|at| keys[*at]).collect();
                let entries = self.open[disk].store.index().get_many(&asked)?;
                for (at, entry) in positions.into_iter().zip(entries) {
                    found[at] = entry.map(|entry| (disk, entry));
                }
            }
        }
        // Last: an index may have answered after its disk had failed.
        self.check().map(|()| found)
    }

    /// Says which records are there. Those that are, are protected in that epoch before this returns.
    pub async fn have(&self, keys: Vec<RecordKey>, epoch: u64) -> Result<Vec<bool>, Error> {
        if let Some(only) = self.only() {
            return only.have(keys, epoch).await;
        }
        let mut found = vec![false; keys.len()];
        for rank in 0..self.open.len() {
            let asked = self.by_disk(&keys, rank, |at| !found[at]).into_iter().map(|(disk, positions)| {
                let of_disk: Vec<RecordKey> = positions.iter().map(|at| keys[*at]).collect();
                async move {
                    let there = self.open[disk].store.have(of_disk, epoch).await?;
                    Ok::<_, Error>(positions.into_iter().zip(there))
                }
            });
            for (at, there) in try_join_all(asked).await?.into_iter().flatten() {
                found[at] = there;
            }
        }
        self.check().map(|()| found)
    }

    /// Stores verified records from a worker.
    pub async fn put(&self, records: Vec<SealedRecord>, epoch: u64) -> ReplicaPut {
        self.put_from(Sender::Worker, records, epoch).await
    }

    /// Stores verified copies from other nodes; they are refused before ingest is.
    pub(crate) async fn put_copies(&self, records: Vec<SealedRecord>, epoch: u64) -> ReplicaPut {
        self.put_from(Sender::Peer, records, epoch).await
    }

    async fn put_from(&self, sender: Sender, records: Vec<SealedRecord>, epoch: u64) -> ReplicaPut {
        let n = records.len();
        if let Some(only) = self.only() {
            return match put_on(only, sender, records, epoch).await {
                Ok(outcomes) => ReplicaPut { outcomes, reason: String::new() },
                Err(reason) => ReplicaPut::failed(n, reason),
            };
        }
        let keys: Vec<RecordKey> = records.iter().map(SealedRecord::key).collect();
        // What is on any disk stays there, as it would on the chosen one.
        let there = match self.have(keys.clone(), epoch).await {
            Ok(there) => there,
            Err(error) => return ReplicaPut::failed(n, format!("not stored: {error}")),
        };
        let mut put = ReplicaPut::failed(n, String::new());
        let mut waiting = Vec::new();
        for (at, record) in records.into_iter().enumerate() {
            if there[at] {
                put.outcomes[at] = ReplicaOutcome::Exists;
            } else {
                waiting.push((at, record));
            }
        }
        // A disk may turn out to be full while it writes: then the next choice is tried, and each disk at most once.
        for _ in 0..self.open.len() {
            if waiting.is_empty() {
                break;
            }
            waiting = self.put_where_chosen(sender, waiting, epoch, &mut put).await;
        }
        if !put.outcomes.contains(&ReplicaOutcome::Failed) {
            put.reason.clear();
        }
        put
    }

    /// Stores each record on its disk; gives back those whose disk turned out to be full.
    async fn put_where_chosen(
        &self,
        sender: Sender,
        records: Vec<(usize, SealedRecord)>,
        epoch: u64,
        put: &mut ReplicaPut,
    ) -> Vec<(usize, SealedRecord)> {
        let mut groups: BTreeMap<usize, Vec<(usize, SealedRecord)>> = BTreeMap::new();
        for (at, record) in records {
            match self.choose(PartitionId::of_chunk(record.header.id), sender) {
                Ok(disk) => groups.entry(disk).or_default().push((at, record)),
                Err(reason) => put.reason = reason,
            }
        }
        let stored = join_all(groups.into_iter().map(|(disk, group)| async move {
            let records = group.iter().map(|(_, record)| record.clone()).collect();
            (disk, put_on(&self.open[disk].store, sender, records, epoch).await, group)
        }));
        let mut not_stored = Vec::new();
        for (disk, stored, group) in stored.await {
            match stored {
                Ok(outcomes) => {
                    let positions = group.iter().map(|(at, _)| *at);
                    positions.zip(outcomes).for_each(|(at, outcome)| put.outcomes[at] = outcome);
                }
                Err(reason) => {
                    put.reason = reason;
                    if sender.why_not(self.open[disk].store.space()).is_some() {
                        not_stored.extend(group);
                    }
                }
            }
        }
        not_stored
    }

    /// The disk that takes in what is new of a partition: the first choice that is not full.
    fn choose(&self, partition: PartitionId, sender: Sender) -> Result<usize, String> {
        let mut full = None;
        for disk in self.spread.order(partition).iter().copied().map(usize::from) {
            match sender.why_not(self.open[disk].store.space()) {
                None => return Ok(disk),
                Some(reason) => full = full.or(Some(reason)),
            }
        }
        Err(full.unwrap_or_default())
    }

    /// Reads records in order, up to about `budget` bytes but at least one key: what was read, and how many keys that was.
    ///
    /// Blocks on the disk. A record that does not verify counts as not there and is reported.
    pub fn read(&self, keys: &[RecordKey], budget: usize) -> Result<Vec<Option<Bytes>>, Error> {
        self.read_each(keys, budget, |record, _| record.into_encoded())
    }

    /// Copies of the first of these records, up to about `budget` bytes but at least one key. Blocks on the disk.
    pub(crate) fn copies(&self, keys: &[RecordKey], budget: usize) -> Result<Vec<Option<Copy>>, Error> {
        self.read_each(keys, budget, copy_of)
    }

    fn read_each<T>(
        &self,
        keys: &[RecordKey],
        budget: usize,
        take: impl Fn(SealedRecord, &IndexEntry) -> T,
    ) -> Result<Vec<Option<T>>, Error> {
        let (mut out, mut bytes, mut n) = (Vec::new(), 0, 0);
        for (key, place) in keys.iter().zip(self.locate(keys)?) {
            let len = place.map_or(0, |(_, entry)| entry.location.len as usize);
            if !out.is_empty() && bytes + len > budget {
                break;
            }
            let record = match place {
                Some((disk, entry)) => {
                    let record = self.open[disk].store.read_verified(key, &entry)?;
                    record.map(|record| take(record, &entry))
                }
                None => None,
            };
            bytes += len;
            n += u64::from(record.is_some());
            out.push(record);
        }
        metrics::records_read(n, bytes as u64);
        Ok(out)
    }

    /// How records are protected that are here. Blocks on the disk.
    pub(crate) fn protection(&self, keys: &[RecordKey]) -> Result<Vec<Option<Protection>>, Error> {
        let found = self.locate(keys)?;
        Ok(found.iter().map(|place| place.as_ref().map(|(_, entry)| Protection::from(entry))).collect())
    }

    /// The last epoch in which a record was written or touched: sessions of that epoch rely on it.
    pub fn protected_epoch(&self, key: &RecordKey) -> Result<Option<u64>, Error> {
        let found = self.protection(std::slice::from_ref(key))?;
        Ok(found.into_iter().flatten().next().map(|found| found.touch_epoch.max(found.write_epoch)))
    }

    /// Raises how records that are here are protected: touches by their epoch, and write epochs with lock floors.
    pub(crate) async fn protect(
        self: &Arc<Self>,
        touches: BTreeMap<u64, Vec<RecordKey>>,
        raises: Vec<(RecordKey, u64, Millis)>,
    ) -> Result<(), Error> {
        if let Some(only) = self.only() {
            return only.protect(touches, raises).await;
        }
        let raised = raises.iter().map(|(key, ..)| key);
        let keys: Vec<RecordKey> = touches.values().flatten().chain(raised).copied().collect();
        let disks = self.clone();
        let locate = move || {
            let found = disks.locate(&keys)?;
            Ok(keys.into_iter().zip(found).filter_map(|(key, place)| Some((key, place?.0))).collect())
        };
        let places: HashMap<RecordKey, usize> = self.executor.run(locate).await?;
        for (disk, one) in self.open.iter().enumerate() {
            // A touch of what is not there would count as a broken promise.
            let is_here = |key: &RecordKey| places.get(key) == Some(&disk);
            let of_disk = |keys: &Vec<RecordKey>| keys.iter().copied().filter(is_here).collect();
            let touches: BTreeMap<u64, Vec<RecordKey>> =
                touches.iter().map(|(epoch, keys)| (*epoch, of_disk(keys))).collect();
            let touches = touches.into_iter().filter(|(_, keys)| !keys.is_empty()).collect();
            let raises = raises.iter().copied().filter(|(key, ..)| is_here(key)).collect();
            one.store.protect(touches, raises).await?;
        }
        Ok(())
    }

    /// Reads back up to `n` records of the indexes behind a key, up to about `budget` bytes. Those that cannot be read are set
    /// aside. Blocks on the disk.
    pub(crate) fn sample(&self, after: Option<RecordKey>, n: usize, budget: usize) -> Result<Sample, Error> {
        let from = after.unwrap_or(FIRST_KEY);
        let mut sample = Sample::default();
        // The page may begin with the key itself.
        for (key, entry) in self.range(&from, &LAST_KEY, n.saturating_add(1))? {
            if Some(key) == after {
                continue;
            }
            let store = self.store_of(&entry.location.segment)?;
            sample.n_unreadable += u64::from(store.read_verified(&key, &entry)?.is_none());
            sample.n_records += 1;
            sample.bytes += u64::from(entry.location.len);
            sample.last = Some(key);
            if sample.bytes >= budget as u64 {
                break;
            }
        }
        Ok(sample)
    }
}

async fn put_on(
    store: &Store,
    sender: Sender,
    records: Vec<SealedRecord>,
    epoch: u64,
) -> Result<Vec<ReplicaOutcome>, String> {
    let stored = match sender {
        Sender::Worker => store.put(records, epoch).await?,
        Sender::Peer => store.put_copies(records, epoch).await?,
    };
    let outcomes = stored.into_iter().map(|outcome| match outcome {
        PutOutcome::Stored => ReplicaOutcome::Stored,
        PutOutcome::Exists => ReplicaOutcome::Exists,
    });
    Ok(outcomes.collect())
}
