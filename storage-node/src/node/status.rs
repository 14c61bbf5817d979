//! What an operator sees of a node.

use holdfast_model::{DataFolderId, LayoutVersion};

use crate::{Error, Node, repair::RepairStatus};

/// What an operator sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Bytes of records.
    pub bytes_used: u64,
    /// Bytes of room.
    pub bytes_free: u64,
    /// Records.
    pub records: u64,
    /// Pins.
    pub pins: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Whether records are refused for lack of room.
    pub ingest_stopped: bool,
    /// Whether copies from other nodes are refused for lack of room, as they are earlier.
    pub repair_stopped: bool,
    /// Damaged ranges that are not served.
    pub quarantined_records: u64,
    /// What repair knows and does.
    pub repair: RepairStatus,
    /// The data folder that holds the node's state.
    pub folder: DataFolderId,
    /// Disks by its configuration.
    pub n_disks: u64,
    /// Of those, lost ones: nothing that they kept counts as here.
    pub n_disks_lost: u64,
    /// The highest layout version of whose partitions this node has everything.
    pub layout_complete: LayoutVersion,
    /// Partitions of the installed layout that it does not have complete yet.
    pub partitions_incomplete: u64,
}

impl Node {
    /// What an operator sees. Blocks on the disk.
    pub fn status(&self) -> Result<NodeStatus, Error> {
        let (layout_complete, partitions_incomplete) = self.completeness();
        let (n_disks, n_disks_lost) = self.store.n_disks();
        Ok(NodeStatus {
            bytes_used: self.store.used_bytes(),
            bytes_free: self.store.free_bytes(),
            records: self.store.n_records()?,
            pins: self.state.n_pins()?,
            sessions: self.state.n_sessions() as u64,
            ingest_stopped: self.store.stopped().is_some(),
            repair_stopped: self.store.repair_stopped().is_some(),
            quarantined_records: self.store.n_damaged(),
            repair: self.repair_status()?,
            folder: self.folder,
            n_disks: n_disks as u64,
            n_disks_lost: n_disks_lost as u64,
            layout_complete,
            partitions_incomplete,
        })
    }
}
