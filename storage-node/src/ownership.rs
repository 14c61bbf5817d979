//! Whose data folder this is: a marker file, written once, checked at each start.
//!
//! Invariant: a node never writes into the folder of another node, another cluster or another format version.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

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
        fs::create_dir_all(data).map_err(Error::io("create", data))?;
        let path = data.join(MARKER);
        if !path.exists() {
            write_marker(options, disk, random, &path)?;
        }
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let marker: Marker =
            serde_json::from_str(&text).map_err(|_| Error::DamagedState("ownership marker"))?;
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
            disk_id,
        };
        for dir in [&folder.segments, &folder.touches, &folder.quarantine] {
            fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
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
    let mut others = fs::read_dir(data).map_err(Error::io("list", data))?;
    // A file system's own folder, and what an interrupted first start left.
    let is_ours = |path: PathBuf| path == temporary || path.ends_with("lost+found");
    if others.any(|entry| entry.is_ok_and(|entry| !is_ours(entry.path()))) {
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
    let mut file = fs::File::create(&temporary).map_err(Error::io("create", &temporary))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(Error::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::io("rename", &temporary))?;
    disk.sync_dir(data).map_err(Error::io("sync", data))
}
