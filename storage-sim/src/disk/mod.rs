//! A simulated disk: files and folders in memory, which a power loss takes back to what was synced.
//!
//! Names have a life of their own: a created, renamed or removed name is durable only when its folder is synced; until then a
//! power loss undoes the newest changes of a folder first. The disk fails as told: syncs, room, listings, rot, and a fuse that
//! stops the machine in the middle of an operation.

mod database;
mod pages;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use holdfast_storage_node::disk::{Disk, DiskFile, DiskUsage};
use redb::{Builder, Database, DatabaseError};

use pages::Pages;
pub use pages::Unsynced;

use crate::{Planted, SimRandom};

/// The size of every simulated disk.
const DISK_BYTES: u64 = 1 << 30;

/// What ends a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The process alone: what it wrote is still there.
    Kill,
    /// The machine: what was not synced is at the mercy of the disk.
    PowerLoss(Unsynced),
}

/// What goes wrong by chance, in a thousand operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// A sync of a file fails.
    pub sync_fails: u64,
    /// A listing breaks off.
    pub list_fails: u64,
    /// Nothing that needs more room is written.
    pub is_full: bool,
}

/// One machine's disk. Clones share it; each start of a process gets its own [`SimDisk::attach`].
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    /// Handles of an earlier process see a dead disk.
    process: u64,
    is_dead: bool,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    folders: BTreeSet<PathBuf>,
    /// By folder: name changes not synced, oldest first.
    changes: BTreeMap<PathBuf, Vec<Change>>,
    files: BTreeMap<u64, Pages>,
    next_file: u64,
    faults: DiskFaults,
    /// The machine stops at the operation that brings this to zero.
    fuse: Option<u64>,
    random: SimRandom,
    planted: Option<Planted>,
}

enum Change {
    Add(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl SimDisk {
    /// An empty disk.
    pub fn new(random: SimRandom, planted: Option<Planted>) -> Self {
        Self(Arc::new(Mutex::new(State {
            process: 0,
            is_dead: true,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            folders: BTreeSet::new(),
            changes: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 0,
            faults: DiskFaults::default(),
            fuse: None,
            random,
            planted,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a newly started process sees.
    pub fn attach(&self) -> Arc<dyn Disk> {
        let mut state = self.state();
        state.process += 1;
        state.is_dead = false;
        Arc::new(Attached { disk: self.clone(), process: state.process })
    }

    /// Ends the process that is attached, or the machine. Nothing it still does reaches the disk.
    pub fn stop(&self, how: Stop) {
        let mut state = self.state();
        state.is_dead = true;
        state.fuse = None;
        if let Stop::PowerLoss(unsynced) = how {
            state.lose_power(unsynced);
        }
    }

    /// Whether the process was stopped by the fuse.
    pub fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    /// Another disk takes its place, an empty one. The process that is attached sees that it is gone.
    pub fn wipe(&self) {
        let mut state = self.state();
        state.is_dead = true;
        state.fuse = None;
        state.names.clear();
        state.durable_names.clear();
        state.folders.clear();
        state.changes.clear();
        state.files.clear();
    }

    /// The machine stops at the operation after so many more.
    pub fn set_fuse(&self, n_operations: u64) {
        self.state().fuse = Some(n_operations);
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.state().faults = faults;
    }

    /// Flips one bit of one record segment; says in which file.
    pub fn rot(&self) -> Option<(PathBuf, u64)> {
        const SUPERBLOCK: u64 = 4096;
        let mut state = self.state();
        let segments: Vec<(PathBuf, u64)> = state
            .names
            .iter()
            .filter(|(path, _)| is_record_segment(path))
            .map(|(path, file)| (path.clone(), *file))
            .collect();
        let (path, file) = state.random.pick(&segments)?.clone();
        let len = state.files[&file].len();
        if len <= SUPERBLOCK {
            return None;
        }
        let (offset, bit) = (state.random.between(SUPERBLOCK, len - 1), state.random.below(8));
        let bit = u8::try_from(bit).expect("below 8");
        state.files.get_mut(&file).expect("named files exist").rot(offset, bit);
        Some((path, offset))
    }

    /// Copies a file to another disk under the same name, whatever the processes there do.
    pub fn copy_to(&self, other: &Self, path: &Path) {
        let bytes = {
            let state = self.state();
            let Some(pages) = state.names.get(path).map(|file| &state.files[file]) else { return };
            let mut bytes = vec![0; usize::try_from(pages.len()).expect("a simulated file fits into memory")];
            pages.read(&mut bytes, 0).expect("within the length");
            bytes
        };
        let mut state = other.state();
        let file = state.add(path);
        state.durable_names.insert(path.to_owned(), file);
        let pages = state.files.get_mut(&file).expect("just added");
        pages.write(&bytes, 0);
        pages.sync();
    }

    /// The files of a folder.
    pub fn files(&self, folder: &Path) -> Vec<PathBuf> {
        self.state().names.keys().filter(|path| path.parent() == Some(folder)).cloned().collect()
    }
}

fn is_record_segment(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".seg") && !name.starts_with("pin-")
}

fn dead() -> io::Error {
    io::Error::other("the machine has stopped")
}

impl State {
    fn add(&mut self, path: &Path) -> u64 {
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, Pages::default());
        self.names.insert(path.to_owned(), file);
        self.note(path, Change::Add(path.to_owned(), file));
        file
    }

    fn note(&mut self, path: &Path, change: Change) {
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        self.changes.entry(folder).or_default().push(change);
    }

    fn make_durable(&mut self, change: Change) {
        match change {
            Change::Add(path, file) => drop(self.durable_names.insert(path, file)),
            Change::Remove(path) => drop(self.durable_names.remove(&path)),
            Change::Rename(from, to) => {
                if let Some(file) = self.durable_names.remove(&from) {
                    self.durable_names.insert(to, file);
                }
            }
        }
    }

    fn lose_power(&mut self, unsynced: Unsynced) {
        for (_, changes) in std::mem::take(&mut self.changes) {
            let n_kept = match unsynced {
                Unsynced::Lost => 0,
                Unsynced::Stored => changes.len() as u64,
                Unsynced::Torn => self.random.between(0, changes.len() as u64),
            };
            for (_, change) in (0..n_kept).zip(changes) {
                self.make_durable(change);
            }
        }
        self.names = self.durable_names.clone();
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
        for pages in self.files.values_mut() {
            pages.lose_power(unsynced, &self.random);
        }
    }

    /// Checks that a process may go on, and burns the fuse with each operation that changes something.
    fn operation(&mut self, process: u64, changes: bool) -> io::Result<()> {
        if self.is_dead || self.process != process {
            return Err(dead());
        }
        if changes && let Some(left) = &mut self.fuse {
            if *left == 0 {
                self.is_dead = true;
                return Err(dead());
            }
            *left -= 1;
        }
        Ok(())
    }

    fn lacks_room(&self, file: u64, end: u64) -> bool {
        self.faults.is_full && self.files.get(&file).is_none_or(|pages| end > pages.len())
    }
}

/// The disk as one process sees it.
struct Attached {
    disk: SimDisk,
    process: u64,
}

impl Attached {
    fn state(&self, changes: bool) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.disk.state();
        state.operation(self.process, changes)?;
        Ok(state)
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<OpenFile>> {
        let file = *self.state(false)?.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let is_record_segment = is_record_segment(path);
        Ok(Arc::new(OpenFile { disk: self.disk.clone(), process: self.process, file, is_record_segment }))
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<OpenFile>> {
        {
            let mut state = self.state(true)?;
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if state.faults.is_full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.add(path);
            let is_touch_log = path.extension().is_some_and(|extension| extension == "touch");
            if is_touch_log && state.planted == Some(Planted::DeleteBeforeIndex) {
                let is_other = |other: &Path| other.parent() == path.parent() && other != path;
                let others: Vec<PathBuf> = state.names.keys().filter(|one| is_other(one)).cloned().collect();
                for other in others {
                    state.names.remove(&other);
                    state.note(&other, Change::Remove(other.clone()));
                }
            }
        }
        self.open_file(path)
    }
}

impl Disk for Attached {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.create_file(path)?)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.open_file(path)?)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.open_file(path)?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state(true)?;
        if state.planted == Some(Planted::ForgetDirectoryFsync) {
            return Ok(());
        }
        for change in state.changes.remove(path).unwrap_or_default() {
            state.make_durable(change);
        }
        Ok(())
    }

    fn usage(&self, _path: &Path) -> io::Result<DiskUsage> {
        let state = self.state(false)?;
        let used: u64 = state.files.values().map(Pages::len).sum();
        let available_bytes = if state.faults.is_full { 0 } else { DISK_BYTES.saturating_sub(used) };
        Ok(DiskUsage { total_bytes: DISK_BYTES, available_bytes })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state(false)?;
        if !state.folders.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        let mut found: Vec<PathBuf> =
            state.names.keys().chain(&state.folders).filter(inside).cloned().collect();
        found.sort();
        if state.random.per_mille(state.faults.list_fails) {
            if state.planted != Some(Planted::TrustPartialListing) {
                return Err(io::Error::other("the listing broke off"));
            }
            found.truncate(usize::try_from(state.random.below(found.len() as u64)).unwrap_or(0));
        }
        Ok(found)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state(false)?;
        Ok(state.names.contains_key(path) || state.folders.contains(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state(true)?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        state.note(to, Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state(true)?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.note(path, Change::Remove(path.to_owned()));
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state(true)?;
        state.folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn protect(&self, path: &Path) -> io::Result<()> {
        let state = self.state(false)?;
        if state.names.contains_key(path) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn database(&self, path: &Path, builder: &Builder) -> Result<Database, DatabaseError> {
        let exists = self.state(false)?.names.contains_key(path);
        let file = if exists { self.open_file(path)? } else { self.create_file(path)? };
        builder.create_with_backend(database::Backend(file))
    }
}

/// A file that a process has open. It outlives its name.
struct OpenFile {
    disk: SimDisk,
    process: u64,
    file: u64,
    is_record_segment: bool,
}

impl OpenFile {
    fn with<T>(&self, changes: bool, run: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        state.operation(self.process, changes)?;
        // Removed and closed by a power loss of an earlier process: cannot be, since handles die with it.
        run(&mut state, self.file)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(true, |state, file| {
            if state.lacks_room(file, len) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            pages(state, file).set_len(len);
            Ok(())
        })
    }
}

fn pages(state: &mut State, file: u64) -> &mut Pages {
    state.files.entry(file).or_default()
}

impl DiskFile for OpenFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(false, |state, file| pages(state, file).read(buffer, offset))
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Err(stopped) = state.operation(self.process, true) {
            if state.process == self.process && state.fuse == Some(0) {
                // The machine stopped in the middle: a part of it was written, and none of that is synced.
                state.fuse = None;
                let n = usize::try_from(state.random.below(buffer.len() as u64 + 1)).unwrap_or(0);
                pages(&mut state, self.file).write(&buffer[..n], offset);
            }
            return Err(stopped);
        }
        if state.lacks_room(self.file, offset + buffer.len() as u64) {
            pages(&mut state, self.file).write(&buffer[..buffer.len() / 2], offset);
            return Err(io::ErrorKind::StorageFull.into());
        }
        pages(&mut state, self.file).write(buffer, offset);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.with(true, |state, file| {
            if self.is_record_segment && state.planted == Some(Planted::AckBeforeFsync) {
                return Ok(());
            }
            if state.random.per_mille(state.faults.sync_fails) {
                pages(state, file).fail_sync();
                if state.planted != Some(Planted::RetryFsync) {
                    return Err(io::Error::other("the disk could not store it"));
                }
            }
            pages(state, file).sync();
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.with(false, |state, file| Ok(pages(state, file).len()))
    }
}

#[cfg(test)]
mod tests;
