//! A person with a drive, and what a snapshot of it holds.

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use holdfast_graph_sim::{Population, SimOptions};
use holdfast_model::Workload;
use holdfast_repository::EntryKind;
use serde_json::{Value, json};

pub use crate::support::{World, blake3_hex, failures, outcome};

/// A drive with all that drives have, files small.
pub fn population(files: u32) -> Population {
    Population {
        users: 2,
        messages_per_user: 0,
        drive_files_per_user: files,
        drive_file_bytes: 20_000,
        drive_max_file_bytes: 2_000_000,
        drive_shared_percent: 20,
        drive_versioned_percent: 20,
        ..Population::default()
    }
}

impl World {
    pub async fn new(files: u32) -> Self {
        Self::with(population(files)).await
    }

    pub async fn with(population: Population) -> Self {
        Self::start(Workload::OneDrive, SimOptions { population, ..SimOptions::default() }).await
    }

    pub fn n_downloads(&self) -> u64 {
        let requests = self.requests();
        let of = |kind: &str| requests.get(kind).copied().unwrap_or(0);
        of("drive_download") + of("drive_content")
    }

    /// Compares the newest snapshot with what the drive holds, to the last byte of every readable file.
    pub async fn check_snapshot(&self) {
        let truth = self.truth_by_id().await;
        let reader = self.reader().await;
        let entries: Vec<_> = reader.items().try_collect().await.unwrap();
        let mut found = BTreeMap::new();
        for (key, entry) in entries {
            let id = String::from_utf8(key.0).unwrap();
            let meta: Value = serde_json::from_slice(&reader.meta(&entry).await.unwrap()).unwrap();
            if meta.get("root").is_some() {
                continue;
            }
            let expected = truth.get(&id).unwrap_or_else(|| panic!("{} is not there", meta["name"]));
            let path = expected["identity"].as_str().unwrap();
            assert_eq!(meta["name"].as_str().unwrap(), path.rsplit('/').next().unwrap(), "{path}");
            assert!(meta.get("@microsoft.graph.downloadUrl").is_none(), "an address is never stored");
            for (name, stored) in [
                ("createdDateTime", &meta["fileSystemInfo"]["createdDateTime"]),
                ("lastModifiedDateTime", &meta["fileSystemInfo"]["lastModifiedDateTime"]),
            ] {
                assert_eq!(*stored, expected[name], "{name} of {path}");
            }
            let permissions = meta["_holdfast"]["permissions"].as_array().map_or(0, Vec::len);
            assert_eq!(permissions, expected["permissions"].as_array().unwrap().len(), "{path}");
            if entry.kind == EntryKind::DriveFile && expected["kind"] == "file" {
                let parts = reader.content(&entry).await.unwrap();
                let bytes = reader.read_range(&parts[0], 0, parts[0].len).await.unwrap();
                assert_eq!(json!(blake3_hex(&bytes)), expected["blake3"], "{path}");
            }
            found.insert(id, ());
        }
        let lacking: Vec<_> = truth
            .iter()
            .filter(|(id, one)| !found.contains_key(*id) && one["isReadable"] != false)
            .map(|(_, one)| &one["identity"])
            .collect();
        assert!(lacking.is_empty(), "not stored: {lacking:?}");
    }
}
