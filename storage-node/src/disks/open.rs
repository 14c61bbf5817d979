//! Opens the disks of a node, and decides what becomes of one that cannot be opened.
//!
//! A disk that was never opened is refused where it is not as it should be: it may be somebody's, or its mount may be missing.
//! One that was opened before is lost then: the node starts without it. It is never begun anew in the same place, because an
//! empty folder there may be what is below a missing mount. Invariant: before everything is decided, nothing is made.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use holdfast_model::{DataFolderId, PARTITION_COUNT, PartitionId};

use super::{Disks, OpenDisk, Spread};
use crate::{
    DiskOptions, Error, StorageNodeOptions, Store, StoreOptions,
    disk::Disk,
    ownership::{DataFolder, Inspected, Part},
    segment::{OPEN_FILES_MAX, SegmentIdentity},
    state::{Damage, KnownDisk, State},
};

/// The folders of a node, looked at and not changed.
pub(crate) struct Folders {
    /// The first.
    pub data: Inspected,
    /// The others, in the order of the configuration.
    pub others: Vec<Result<Inspected, Error>>,
}

impl Folders {
    /// Looks at all of them. Refuses what is wrong whatever the node knows of its disks.
    pub fn look_at(options: &StorageNodeOptions, disk: &dyn Disk) -> Result<Self, Error> {
        let data = Inspected::look_at(&options.data, Part::Data, options, disk)?;
        let mut seen: Vec<([u8; 16], PathBuf)> = Vec::new();
        seen.extend(data.disk_id().map(|id| (id, options.data.clone())));
        let mut others = Vec::new();
        for DiskOptions { path, .. } in &options.disks {
            let other = match Inspected::look_at(path, Part::Disk, options, disk) {
                // A new node knows no disk that it could have lost.
                Err(error) if !error.is_disk_failure() || data.disk_id().is_none() => return Err(error),
                other => other,
            };
            if let Some(id) = other.as_ref().ok().and_then(Inspected::disk_id) {
                if let Some((_, first)) = seen.iter().find(|(seen, _)| *seen == id) {
                    return Err(Error::DiskTwice { first: first.clone(), second: path.clone() });
                }
                seen.push((id, path.clone()));
            }
            others.push(other);
        }
        Ok(Self { data, others })
    }
}

/// What becomes of a disk beside the data folder.
enum Fate {
    Open(Inspected),
    Lost(String),
}

impl Fate {
    fn of(
        one: &DiskOptions,
        looked_at: Result<Inspected, Error>,
        known: &[KnownDisk],
    ) -> Result<Self, Error> {
        let was_here = known.iter().any(|known| known.path == one.path);
        match looked_at {
            Ok(folder) if was_here && folder.disk_id().is_none() => Ok(Self::Lost(
                "it is empty or not mounted: mount it, or give the disk that takes its place another path"
                    .to_owned(),
            )),
            Err(error) if was_here => Ok(Self::Lost(told(&error))),
            other => other.map(Self::Open),
        }
    }
}

/// What a node opens its disks with.
pub(crate) struct Opening<'a> {
    /// Its configuration.
    pub options: &'a StorageNodeOptions,
    /// Its state, which is on the first.
    pub state: &'a Arc<State>,
    /// What each store gets, but for the disk's own id and capacity.
    pub shared: StoreOptions,
}

impl Opening<'_> {
    /// Opens all of them.
    pub fn open(self, data: &DataFolder, others: Vec<Result<Inspected, Error>>) -> Result<Disks, Error> {
        let known = self.state.disks()?;
        let configured = &self.options.disks;
        let fates = configured.iter().zip(others).map(|(one, looked_at)| Fate::of(one, looked_at, &known));
        let fates: Vec<Fate> = fates.collect::<Result<_, Error>>()?;
        let store = self.store(data, self.options.capacity.bytes(), Damage::of_data(self.state.clone()))?;
        let mut open = vec![OpenDisk { path: data.path.clone(), store }];
        let (mut here, mut lost) = (Vec::new(), Vec::new());
        for (one, fate) in configured.iter().zip(fates) {
            let opened = match fate {
                Fate::Open(folder) => self.open_other(one, folder)?,
                Fate::Lost(reason) => Err(reason),
            };
            match opened {
                Ok((id, store)) => {
                    let (path, capacity_bytes) = (one.path.clone(), one.capacity.bytes());
                    open.push(OpenDisk { path: path.clone(), store });
                    here.push(KnownDisk { id, path, capacity_bytes });
                }
                Err(reason) => {
                    tracing::error!(
                        path = %one.path.display(),
                        reason,
                        "a disk is lost: the node goes on without it, and what it kept is brought back from other nodes"
                    );
                    lost.push(one.path.clone());
                }
            }
        }
        let data_disk = (DataFolderId(data.disk_id), self.options.capacity.bytes());
        self.note(data_disk, &here, &known, &lost)?;
        let all: Vec<_> = std::iter::once(data_disk).chain(here.iter().map(id_and_capacity)).collect();
        Ok(Disks {
            open,
            n_lost: lost.len(),
            spread: Spread::over(&all),
            disk: self.shared.disk,
            executor: self.shared.executor,
        })
    }

    fn store(&self, folder: &DataFolder, capacity_bytes: u64, damage: Damage) -> Result<Arc<Store>, Error> {
        let options = StoreOptions {
            identity: SegmentIdentity { disk: folder.disk_id, ..self.shared.identity },
            capacity_bytes,
            open_files: OPEN_FILES_MAX / (1 + self.options.disks.len()),
            ..self.shared.clone()
        };
        Store::open(folder, damage, options).map(Arc::new)
    }

    /// Opens a disk, or says why it is lost.
    fn open_other(
        &self,
        one: &DiskOptions,
        folder: Inspected,
    ) -> Result<Result<(DataFolderId, Arc<Store>), String>, Error> {
        let is_new = folder.disk_id().is_none();
        let StoreOptions { disk, random, .. } = &self.shared;
        let opened = folder.open(self.options, &**disk, &**random).and_then(|folder| {
            let id = DataFolderId(folder.disk_id);
            let damage = Damage::of_disk(self.state.clone(), id)?;
            Ok((id, self.store(&folder, one.capacity.bytes(), damage)?))
        });
        match opened {
            Err(error) if !is_new && error.is_disk_failure() && self.state.failure().is_none() => {
                Ok(Err(told(&error)))
            }
            other => other.map(Ok),
        }
    }

    /// Remembers which disks there are. What those had that are not here any more is compared with the other owners first.
    fn note(
        &self,
        data: (DataFolderId, u64),
        here: &[KnownDisk],
        known: &[KnownDisk],
        lost: &[PathBuf],
    ) -> Result<(), Error> {
        let is_here = |known: &&KnownDisk| here.iter().any(|here| here.id == known.id);
        let gone: Vec<&KnownDisk> = known.iter().filter(|known| !is_here(known)).collect();
        for one in gone.iter().filter(|gone| !lost.contains(&gone.path)) {
            tracing::warn!(
                path = %one.path.display(), disk = %one.id,
                "a disk of this node is not in its configuration any more: what it kept is brought back from other nodes"
            );
        }
        let still_lost = gone.iter().copied().filter(|gone| lost.contains(&gone.path));
        let now: Vec<KnownDisk> = here.iter().chain(still_lost).cloned().collect();
        if now != known {
            self.state.set_disks(&now)?;
        }
        if gone.is_empty() {
            return Ok(());
        }
        let before: Vec<_> = std::iter::once(data)
            .chain(here.iter().chain(gone.iter().copied()).map(id_and_capacity))
            .collect();
        let spread = Spread::over(&before);
        let numbers: BTreeSet<usize> = (1 + here.len()..before.len()).collect();
        let was_there = |one: &PartitionId| numbers.contains(&usize::from(spread.order(*one)[0]));
        let suspects: Vec<PartitionId> = (0..PARTITION_COUNT).map(PartitionId).filter(was_there).collect();
        self.shared.repair_queue.suspect(&suspects)
    }
}

fn id_and_capacity(disk: &KnownDisk) -> (DataFolderId, u64) {
    (disk.id, disk.capacity_bytes)
}

/// An error and what it comes from, in one line.
fn told(error: &Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
