//! The disks of a node: a [`Store`] on each, and above them what makes one of them all.
//!
//! A record is put on the disk that its partition chooses (`spread`), unless that is full, and is there wherever it is found: a
//! disk that is added later takes its share of what is new, and nothing is moved. With one disk every call is handed on.
//!
//! Invariant: an answer about a record is an answer of every disk of the node. Once a disk has failed nothing is answered, and
//! the node ends; a disk that does not open at the next start is lost, nothing of it counts as here, and the comparison with
//! the other owners that every start begins with brings it back.

mod open;
mod records;
mod segments;
mod spread;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_model::PartitionId;

use crate::{Error, Store, disk::Disk, executor::Executor, metrics, ownership::is_there, space::Space};
pub(crate) use open::{Folders, Opening};
pub(crate) use records::Entries;
use spread::Spread;

/// The disks of a node.
pub struct Disks {
    /// The data folder first. Those that are lost are not among them.
    open: Vec<OpenDisk>,
    /// Configured disks that are not open.
    n_lost: usize,
    spread: Spread,
    disk: Arc<dyn Disk>,
    executor: Executor,
}

struct OpenDisk {
    path: PathBuf,
    store: Arc<Store>,
}

impl Disks {
    /// The only one, where there is one.
    fn only(&self) -> Option<&Arc<Store>> {
        match &self.open[..] {
            [only] => Some(&only.store),
            _ => None,
        }
    }

    /// The store of a node with one disk, for tests that look into it.
    #[cfg(test)]
    pub(crate) fn alone(&self) -> &Arc<Store> {
        self.only().expect("one disk")
    }

    fn stores(&self) -> impl Iterator<Item = &Arc<Store>> {
        self.open.iter().map(|disk| &disk.store)
    }

    fn spaces(&self) -> impl Iterator<Item = &Space> {
        self.stores().map(|store| store.space())
    }

    /// How many there are, and how many of them are lost.
    pub fn n_disks(&self) -> (usize, usize) {
        (self.open.len() + self.n_lost, self.n_lost)
    }

    /// One of several that failed since it was opened. A single disk fails each request by itself.
    pub fn failed(&self) -> Option<&Path> {
        let failed = self.open.iter().find(|disk| disk.store.space().has_failed());
        failed.filter(|_| self.open.len() > 1).map(|disk| disk.path.as_path())
    }

    /// Refuses to answer for records while some may be on a disk that failed.
    fn check(&self) -> Result<(), Error> {
        self.failed().map_or(Ok(()), |path| Err(Error::DiskFailed(path.to_owned())))
    }

    /// Looks at the disks: whether each still is there, and at its room.
    pub fn look_after(&self) {
        for OpenDisk { path, store } in self.open.iter().skip(1) {
            if !is_there(path, &*self.disk) {
                tracing::error!(path = %path.display(), "the disk is gone");
                store.space().note_failed();
            }
        }
        self.spaces().for_each(Space::refresh);
        metrics::space(self.used_bytes(), self.stopped().is_some(), self.repair_stopped().is_some());
        metrics::disks(self.n_disks());
    }

    // === Room ===

    /// Bytes of records.
    pub fn used_bytes(&self) -> u64 {
        self.spaces().map(Space::used_bytes).sum()
    }

    /// Bytes of room.
    pub fn free_bytes(&self) -> u64 {
        self.spaces().map(Space::free_bytes).sum()
    }

    /// Why no disk takes anything in, if so.
    pub fn stopped(&self) -> Option<String> {
        self.all_say(Space::stopped)
    }

    /// Why no disk takes in copies from other nodes, if so.
    pub fn repair_stopped(&self) -> Option<String> {
        self.all_say(Space::repair_stopped)
    }

    fn all_say(&self, why: impl Fn(&Space) -> Option<String>) -> Option<String> {
        let reasons: Option<Vec<String>> = self.spaces().map(why).collect();
        reasons.and_then(|reasons| reasons.into_iter().next())
    }

    /// Whether one takes in copies from other nodes again, which is told once.
    pub fn take_repair_resumed(&self) -> bool {
        self.spaces().filter(|space| space.take_repair_resumed()).count() > 0
    }

    /// Whether the disk of the state has room for what the state needs at a start.
    pub fn has_checkpoint_room(&self) -> bool {
        self.spaces().next().is_some_and(Space::has_checkpoint_room)
    }

    // === Counts ===

    /// How many records. One that is on two disks counts twice.
    pub fn n_records(&self) -> Result<u64, Error> {
        self.stores().map(|store| store.n_records()).sum()
    }

    /// How many ranges are damaged.
    pub fn n_damaged(&self) -> u64 {
        self.stores().map(|store| store.n_damaged()).sum()
    }

    /// How many records of each partition were set aside since the start.
    pub(crate) fn set_aside_by_partition(&self) -> BTreeMap<PartitionId, u64> {
        let mut all: BTreeMap<PartitionId, u64> = BTreeMap::new();
        for (partition, n) in self.stores().flat_map(|store| store.set_aside_by_partition()) {
            *all.entry(partition).or_default() += n;
        }
        all
    }

    /// Finishes what was sent, checkpoints the indexes and ends the committers.
    pub async fn close(&self) -> Result<(), Error> {
        let closed = self.stores().map(|store| store.close());
        futures::future::join_all(closed).await.into_iter().collect()
    }
}
