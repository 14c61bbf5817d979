//! Whose folder this is: a marker file, written once, checked at each start. A node's data folder and each of its other disks
//! have one, under different names, so that neither is taken for the other.
//!
//! Invariant: a node never writes into the folder of another node, another cluster or another format version. All its folders
//! are looked at before anything is made in one of them.

use std::path::{Path, PathBuf};

use holdfast_model::Random;
use serde::{Deserialize, Serialize};

use holdfast_record::{Error as BytesError, FORMAT_VERSION, Features};

use crate::{
    Error, StorageNodeOptions,
    disk::Disk,
    format::{Reserved, check_segments},
    state::file,
};

/// The version of the folder's layout.
const DATA_VERSION: u32 = FORMAT_VERSION as u32;

/// What a folder is to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its data folder: the first disk, with the node's state.
    Data,
    /// One of its other disks.
    Disk,
}

impl Part {
    fn marker(self) -> &'static str {
        match self {
            Self::Data => "holdfast-storage-node.json",
            Self::Disk => "holdfast-storage-disk.json",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Disk => "disks",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Data => Self::Disk,
            Self::Disk => Self::Data,
        }
    }
}

/// The folders and the identity of one of a node's disks.
#[derive(Debug)]
pub struct DataFolder {
    /// All of it.
    pub path: PathBuf,
    /// Segments and their marks.
    pub segments: PathBuf,
    /// Touch logs.
    pub touches: PathBuf,
    /// Damaged bytes.
    pub quarantine: PathBuf,
    /// The index.
    pub index: PathBuf,
    /// The folder's own random id.
    pub disk_id: [u8; 16],
    /// What this build must leave alone in it.
    pub reserved: Reserved,
}

/// A folder that was looked at, and not changed.
#[derive(Debug)]
pub struct Inspected {
    path: PathBuf,
    part: Part,
    /// None where it has to be made.
    found: Option<Found>,
}

#[derive(Debug)]
struct Found {
    disk_id: [u8; 16],
    reserved: Reserved,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Marker {
    version: u32,
    cluster: String,
    node_id: u64,
    disk_id: String,
    /// What a build must know to deal with the folder; all 0 in format 1.
    #[serde(default)]
    features: MarkerFeatures,
    /// What any segment of the folder was ever written with: a build adds to it before it writes the first such segment.
    #[serde(default, skip_serializing_if = "MarkerFeatures::is_empty")]
    features_used: MarkerFeatures,
}

/// [`Features`] as they stand in the marker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct MarkerFeatures {
    read: u64,
    write: u64,
    gc: u64,
    check: u64,
}

impl MarkerFeatures {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn known(self) -> Features {
        let Self { read, write, gc, check } = self;
        Features { read, write, gc, check }
    }
}

/// What every version of the marker has: looked at before anything else of it.
#[derive(Debug, Deserialize)]
struct MarkerVersion {
    version: u32,
}

impl Marker {
    fn of(options: &StorageNodeOptions, disk_id: [u8; 16]) -> Self {
        Self {
            version: DATA_VERSION,
            cluster: options.cluster.clone(),
            node_id: options.node_id,
            disk_id: hex::encode(disk_id),
            features: MarkerFeatures::default(),
            features_used: MarkerFeatures::default(),
        }
    }

    fn owner(&self) -> String {
        format!("node {} of cluster '{}'", self.node_id, self.cluster)
    }

    /// Reads a marker of this version whose features allow to read and to write.
    fn read(text: &[u8], data: &Path) -> Result<Self, Error> {
        let damaged = |_| Error::DamagedState("ownership marker");
        let refused = |reason| Error::Format { path: data.to_owned(), reason };
        let MarkerVersion { version } = serde_json::from_slice(text).map_err(damaged)?;
        if version != DATA_VERSION {
            let found = u8::try_from(version).unwrap_or(u8::MAX);
            return Err(refused(BytesError::UnknownVersion { found, supported: FORMAT_VERSION }));
        }
        let marker: Self = serde_json::from_slice(text).map_err(damaged)?;
        let features = marker.features.known();
        features
            .check_read("data folder")
            .and_then(|()| features.check_write("data folder"))
            .map_err(refused)?;
        Ok(marker)
    }
}

impl Inspected {
    /// Looks at a folder of a node.
    pub fn look_at(
        path: &Path,
        part: Part,
        options: &StorageNodeOptions,
        disk: &dyn Disk,
    ) -> Result<Self, Error> {
        check_place(path, disk)?;
        let marker = path.join(part.marker());
        let found = match disk.exists(&marker).map_err(Error::folder("look for", path, &marker))? {
            true => {
                let found = read_folder(path, &marker, options, disk)?;
                if part == Part::Data {
                    file::check_there(disk, &state_of(path))?;
                }
                Some(found)
            }
            false => {
                check_unused(path, part, options, disk)?;
                None
            }
        };
        Ok(Self { path: path.to_owned(), part, found })
    }

    /// The id of the disk; none where the folder has to be made.
    pub fn disk_id(&self) -> Option<[u8; 16]> {
        self.found.as_ref().map(|found| found.disk_id)
    }

    /// Opens the folder, or makes it.
    pub fn open(
        self,
        options: &StorageNodeOptions,
        disk: &dyn Disk,
        random: &dyn Random,
    ) -> Result<DataFolder, Error> {
        let Self { path, part, found } = self;
        disk.create_dir(&path).map_err(Error::folder("create", &path, &path))?;
        let Found { disk_id, reserved } = match found {
            Some(found) => found,
            None => {
                // Before the marker: a folder with a marker and without a state has lost it.
                let made = (part == Part::Data).then(|| file::make(disk, &state_of(&path))).transpose()?;
                let disk_id = write_marker((&path, part), options, disk, random)?;
                drop(made);
                Found { disk_id, reserved: Reserved::default() }
            }
        };
        let folder = DataFolder {
            segments: path.join("segments"),
            touches: path.join("touches"),
            quarantine: path.join("quarantine"),
            index: path.join("index.redb"),
            disk_id,
            reserved,
            path,
        };
        for dir in [&folder.segments, &folder.touches, &folder.quarantine] {
            disk.create_dir(dir).map_err(Error::io("create", dir))?;
        }
        disk.sync_dir(&folder.path).map_err(Error::io("sync", &folder.path))?;
        Ok(folder)
    }
}

impl DataFolder {
    /// What must never be lost and is small: in the data folder only.
    pub fn state(&self) -> PathBuf {
        state_of(&self.path)
    }

    /// What is to be repaired: in the data folder only.
    pub fn repair(&self) -> PathBuf {
        self.path.join("repair.redb")
    }
}

fn state_of(data: &Path) -> PathBuf {
    data.join("state.redb")
}

/// Whether a disk of the node, opened before, still is where it was.
pub fn is_there(path: &Path, disk: &dyn Disk) -> bool {
    disk.exists(&path.join(Part::Disk.marker())).unwrap_or(false)
}

fn read_folder(
    path: &Path,
    marker: &Path,
    options: &StorageNodeOptions,
    disk: &dyn Disk,
) -> Result<Found, Error> {
    let text = disk.read(marker).map_err(Error::io("read", marker))?;
    let marker = Marker::read(&text, path)?;
    let expected = Marker::of(options, [0; 16]);
    if marker.owner() != expected.owner() {
        let (found, expected) = (marker.owner(), expected.owner());
        return Err(Error::ForeignData { path: path.to_owned(), found, expected });
    }
    let mut disk_id = [0; 16];
    hex::decode_to_slice(&marker.disk_id, &mut disk_id)
        .map_err(|_| Error::DamagedState("ownership marker"))?;
    let segments = path.join("segments");
    let reserved = match disk.exists(&segments).map_err(Error::io("look for", &segments))? {
        true => check_segments(disk, &segments, (marker.features.known(), marker.features_used.known()))?,
        false => Reserved::default(),
    };
    Ok(Found { disk_id, reserved })
}

/// What is above the folder is never made: where a disk is not mounted, the node must not begin anew on another one.
fn check_place(data: &Path, disk: &dyn Disk) -> Result<(), Error> {
    let above = data.parent().filter(|above| above.file_name().is_some());
    let is_there = |path: &Path| disk.exists(path).map_err(Error::folder("look for", data, path));
    if is_there(data)? || above.map_or(Ok(true), is_there)? {
        return Ok(());
    }
    let problem = "has no folder above it: mount its disk, or make that folder";
    Err(Error::DataFolder { path: data.to_owned(), problem })
}

/// A folder without a marker is made a node's only where it is empty: what is there belongs to someone.
fn check_unused(path: &Path, part: Part, options: &StorageNodeOptions, disk: &dyn Disk) -> Result<(), Error> {
    if !disk.exists(path).map_err(Error::io("look for", path))? {
        return Ok(());
    }
    let foreign =
        |found: String, expected: String| Err(Error::ForeignData { path: path.to_owned(), found, expected });
    let node = format!("node {}", options.node_id);
    let other = path.join(part.other().marker());
    if disk.exists(&other).map_err(Error::io("look for", &other))? {
        let found = format!("a node that names it in `{}`", part.other().option());
        return foreign(found, format!("{node}, which names it in `{}`", part.option()));
    }
    let others = disk.list(path).map_err(Error::folder("list", path, path))?;
    // A file system's own folder, and what an interrupted first start left.
    let temporary = temporary(&path.join(part.marker()));
    let is_state = |one: &Path| part == Part::Data && one == file::made(&state_of(path));
    let is_ours = |path: &Path| path == temporary || path.ends_with("lost+found") || is_state(path);
    if others.iter().any(|path| !is_ours(path)) {
        return foreign("something else (it is not empty and has no marker)".to_owned(), node);
    }
    Ok(())
}

fn temporary(marker: &Path) -> PathBuf {
    marker.with_extension("new")
}

fn write_marker(
    (path, part): (&Path, Part),
    options: &StorageNodeOptions,
    disk: &dyn Disk,
    random: &dyn Random,
) -> Result<[u8; 16], Error> {
    let name = path.join(part.marker());
    if disk.exists(&name).map_err(Error::io("look for", &name))? {
        let problem = "is named twice: name each disk once";
        return Err(Error::DataFolder { path: path.to_owned(), problem });
    }
    let mut disk_id = [0; 16];
    random.fill(&mut disk_id);
    let marker = Marker::of(options, disk_id);
    let text = serde_json::to_vec_pretty(&marker).map_err(|_| Error::DamagedState("ownership marker"))?;
    let temporary = temporary(&name);
    disk.write(&temporary, &text).map_err(Error::folder("write", path, &temporary))?;
    disk.rename(&temporary, &name).map_err(Error::io("rename", &temporary))?;
    disk.sync_dir(path).map_err(Error::io("sync", path))?;
    Ok(disk_id)
}
