//! Whose data folder this is: a marker file, written once, checked at each start.
//!
//! Invariant: a node never writes into the folder of another node, another cluster or another format version.

use std::path::{Path, PathBuf};

use holdfast_model::Random;
use serde::{Deserialize, Serialize};

use crate::{Error, StorageNodeOptions, disk::Disk};

const MARKER: &str = "holdfast-storage-node.json";
/// The version of the folder's layout; 0 is not frozen.
const DATA_VERSION: u32 = 0;

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
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Marker {
    version: u32,
    cluster: String,
    node_id: u64,
    disk_id: String,
}

impl Marker {
    fn owner(&self) -> String {
        format!("node {} of cluster '{}' in version {}", self.node_id, self.cluster, self.version)
    }
}

impl DataFolder {
    /// Opens the folder, or makes it.
    pub fn open(options: &StorageNodeOptions, disk: &dyn Disk, random: &dyn Random) -> Result<Self, Error> {
        let data = &options.data;
        disk.create_dir(data).map_err(Error::io("create", data))?;
        let path = data.join(MARKER);
        if !disk.exists(&path).map_err(Error::io("look for", &path))? {
            write_marker(options, disk, random, &path)?;
        }
        let text = disk.read(&path).map_err(Error::io("read", &path))?;
        let marker: Marker =
            serde_json::from_slice(&text).map_err(|_| Error::DamagedState("ownership marker"))?;
        let expected = Marker {
            version: DATA_VERSION,
            cluster: options.cluster.clone(),
            node_id: options.node_id,
            disk_id: String::new(),
        };
        if marker.owner() != expected.owner() {
            let (found, expected) = (marker.owner(), expected.owner());
            return Err(Error::ForeignData { path: data.clone(), found, expected });
        }
        let mut disk_id = [0; 16];
        hex::decode_to_slice(&marker.disk_id, &mut disk_id)
            .map_err(|_| Error::DamagedState("ownership marker"))?;
        let folder = Self {
            segments: data.join("segments"),
            touches: data.join("touches"),
            quarantine: data.join("quarantine"),
            index: data.join("index.redb"),
            state: data.join("state.redb"),
            repair: data.join("repair.redb"),
            disk_id,
        };
        for dir in [&folder.segments, &folder.touches, &folder.quarantine] {
            disk.create_dir(dir).map_err(Error::io("create", dir))?;
        }
        disk.sync_dir(data).map_err(Error::io("sync", data))?;
        Ok(folder)
    }
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
    };
    let text = serde_json::to_vec_pretty(&marker).map_err(|_| Error::DamagedState("ownership marker"))?;
    disk.write(&temporary, &text).map_err(Error::io("write", &temporary))?;
    disk.rename(&temporary, path).map_err(Error::io("rename", &temporary))?;
    disk.sync_dir(data).map_err(Error::io("sync", data))
}
