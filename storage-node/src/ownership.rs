//! Whose data folder this is: a marker file, written once, checked at each start.
//!
//! Invariant: a node never writes into the folder of another node, another cluster or another format version.

use std::path::{Path, PathBuf};

use holdfast_model::Random;
use serde::{Deserialize, Serialize};

use holdfast_record::{Error as BytesError, FORMAT_VERSION, Features};

use crate::{
    Error, StorageNodeOptions,
    disk::Disk,
    format::{Reserved, check_segments},
};

const MARKER: &str = "holdfast-storage-node.json";
/// The version of the folder's layout.
const DATA_VERSION: u32 = FORMAT_VERSION as u32;

/// The folders and the identity of a node's disk.
#[derive(Debug)]
pub struct DataFolder {
    /// Segments and their marks.
    pub segments: PathBuf,
    /// Touch logs.
    pub touches: PathBuf,
    /// Damaged bytes.
    pub quarantine: PathBuf,
    /// The index.
    pub index: PathBuf,
    /// What must never be lost and is small.
    pub state: PathBuf,
    /// What is to be repaired.
    pub repair: PathBuf,
    /// The folder's own random id.
    pub disk_id: [u8; 16],
    /// What this build must leave alone in it.
    pub reserved: Reserved,
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
}

/// [`Features`] as they stand in the marker.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
struct MarkerFeatures {
    read: u64,
    write: u64,
    gc: u64,
    check: u64,
}

/// What every version of the marker has: looked at before anything else of it.
#[derive(Debug, Deserialize)]
struct MarkerVersion {
    version: u32,
}

impl Marker {
    fn owner(&self) -> String {
        format!("node {} of cluster '{}'", self.node_id, self.cluster)
    }

    fn features(&self) -> Features {
        let MarkerFeatures { read, write, gc, check } = self.features;
        Features { read, write, gc, check }
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
        let features = marker.features();
        features
            .check_read("data folder")
            .and_then(|()| features.check_write("data folder"))
            .map_err(refused)?;
        Ok(marker)
    }
}

impl DataFolder {
    /// Opens the folder, or makes it.
    pub fn open(options: &StorageNodeOptions, disk: &dyn Disk, random: &dyn Random) -> Result<Self, Error> {
        let data = &options.data;
        check_place(data, disk)?;
        disk.create_dir(data).map_err(Error::folder("create", data, data))?;
        let path = data.join(MARKER);
        if !disk.exists(&path).map_err(Error::io("look for", &path))? {
            write_marker(options, disk, random, &path)?;
        }
        let text = disk.read(&path).map_err(Error::io("read", &path))?;
        let marker = Marker::read(&text, data)?;
        let expected = Marker {
            version: DATA_VERSION,
            cluster: options.cluster.clone(),
            node_id: options.node_id,
            disk_id: String::new(),
            features: MarkerFeatures::default(),
        };
        if marker.owner() != expected.owner() {
            let (found, expected) = (marker.owner(), expected.owner());
            return Err(Error::ForeignData { path: data.clone(), found, expected });
        }
        let mut disk_id = [0; 16];
        hex::decode_to_slice(&marker.disk_id, &mut disk_id)
            .map_err(|_| Error::DamagedState("ownership marker"))?;
        let segments = data.join("segments");
        // Before anything is made, moved or opened.
        let reserved = match disk.exists(&segments).map_err(Error::io("look for", &segments))? {
            true => check_segments(disk, &segments, marker.features())?,
            false => Reserved::default(),
        };
        let folder = Self {
            segments,
            touches: data.join("touches"),
            quarantine: data.join("quarantine"),
            index: data.join("index.redb"),
            state: data.join("state.redb"),
            repair: data.join("repair.redb"),
            disk_id,
            reserved,
        };
        for dir in [&folder.segments, &folder.touches, &folder.quarantine] {
            disk.create_dir(dir).map_err(Error::io("create", dir))?;
        }
        disk.sync_dir(data).map_err(Error::io("sync", data))?;
        Ok(folder)
    }
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

/// Only into an empty folder: what is there belongs to someone.
fn write_marker(
    options: &StorageNodeOptions,
    disk: &dyn Disk,
    random: &dyn Random,
    path: &Path,
) -> Result<(), Error> {
    let data = &options.data;
    let temporary = path.with_extension("new");
    let others = disk.list(data).map_err(Error::io("list", data))?;
    // A file system's own folder, and what an interrupted first start left.
    let is_ours = |path: &Path| path == temporary || path.ends_with("lost+found");
    if others.iter().any(|path| !is_ours(path)) {
        return Err(Error::ForeignData {
            path: data.clone(),
            found: "something else (it is not empty and has no marker)".to_owned(),
            expected: format!("node {}", options.node_id),
        });
    }
    let mut disk_id = [0; 16];
    random.fill(&mut disk_id);
    let marker = Marker {
        version: DATA_VERSION,
        cluster: options.cluster.clone(),
        node_id: options.node_id,
        disk_id: hex::encode(disk_id),
        features: MarkerFeatures::default(),
    };
    let text = serde_json::to_vec_pretty(&marker).map_err(|_| Error::DamagedState("ownership marker"))?;
    disk.write(&temporary, &text).map_err(Error::folder("write", data, &temporary))?;
    disk.rename(&temporary, path).map_err(Error::io("rename", &temporary))?;
    disk.sync_dir(data).map_err(Error::io("sync", data))
}
