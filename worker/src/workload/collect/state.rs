//! The state of a workload in a snapshot header: the delta links, per container.
//!
//! The invariant: a link stands here only when everything it leads past is stored or on the failed list.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Shares;

const VERSION: u32 = 1;

/// What the next run starts from. Mail had it first, so some names in the bytes are mail's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    version: u32,
    /// Per container id.
    #[serde(rename = "folders")]
    pub containers: BTreeMap<String, ContainerState>,
    /// Snapshots since the last slow correction.
    #[serde(rename = "sinceFlags", default)]
    pub since_correction: u32,
    /// Ids that were listed and then not found: looked for once more by the next run, because Microsoft replicates.
    #[serde(default)]
    pub gone: BTreeSet<String>,
    /// Container id by well-known name.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// How far the slow correction by time got.
    #[serde(default)]
    pub shares: Shares,
    /// Items in the snapshot.
    #[serde(default)]
    pub items: u64,
}

/// One container's part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Where its next delta round starts; empty: with a listing of everything.
    pub link: String,
}

impl State {
    /// Reads it; one that cannot be read, or of a later version, means a full enumeration, which loses nothing.
    pub fn read(bytes: &[u8]) -> Self {
        let state: Self = serde_json::from_slice(bytes).unwrap_or_default();
        if state.version == VERSION { state } else { Self::fresh(state.items) }
    }

    /// Without any links.
    pub fn fresh(items: u64) -> Self {
        Self { version: VERSION, items, ..Self::default() }
    }

    /// Writes it.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a map of strings is always valid JSON")
    }
}
