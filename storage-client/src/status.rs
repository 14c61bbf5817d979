//! A node's status as an operator sees it, read from the wire.

use std::time::Duration;

use holdfast_model::{DataFolderId, Epoch, Generation, LayoutVersion, Millis, NodeId, SiteName};
use holdfast_proto::storage;

/// A node as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Who it is.
    pub node: NodeId,
    /// Where it is.
    pub site: SiteName,
    /// Bytes its segments take.
    pub bytes_used: u64,
    /// Bytes it may still take.
    pub bytes_free: u64,
    /// Records it keeps.
    pub records: u64,
    /// Pins it keeps.
    pub pins: u64,
    /// Sessions open on it.
    pub sessions: u64,
    /// The layout version it works by.
    pub layout_version: LayoutVersion,
    /// The generation it has seen.
    pub generation: Generation,
    /// The epoch it is in.
    pub epoch: Epoch,
    /// Whether it takes no more data.
    pub ingest_stopped: bool,
    /// Whether it takes no more copies from other nodes, as it does earlier.
    pub repair_stopped: bool,
    /// Disks by its configuration.
    pub disks: u64,
    /// Of those, the ones it goes on without.
    pub disks_lost: u64,
    /// Records set aside as damaged.
    pub quarantined_records: u64,
    /// The data folder that holds its state; none from a node that does not say.
    pub folder: Option<DataFolderId>,
    /// The highest layout version of whose partitions it has everything: pins and records.
    pub layout_complete: LayoutVersion,
    /// Partitions of the installed layout that it does not have complete yet.
    pub partitions_incomplete: u64,
    /// How far it knows of missing copies, and what it does about them.
    pub repair: RepairStatus,
    /// Segments on their way to its bucket; none without one.
    pub uploads: Option<UploadStatus>,
}

/// Sealed segments that are only on a node's local disk yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UploadStatus {
    /// How many.
    pub waiting_segments: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Of those, the ones that are not uploaded until somebody looks after them.
    pub held_segments: u64,
    /// For how long the oldest has been waiting.
    pub oldest_age: Duration,
    /// For how long uploads have been failing; none while they succeed.
    pub failing_for: Option<Duration>,
    /// What kind of error the last one was; empty for none.
    pub last_error_class: String,
}

/// What a node knows of missing and damaged copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepairStatus {
    /// Partitions the layout gives to the node.
    pub partitions_owned: u64,
    /// Records it knows to have fewer copies than the layout asks for.
    pub records_below_policy: u64,
    /// Of those, records with at most one known copy.
    pub records_at_one_copy: u64,
    /// Of those, records that turned out damaged there and are not restored yet.
    pub damaged_waiting: u64,
    /// How long the oldest of those has been waiting.
    pub oldest_age: Duration,
    /// Partitions to be compared with their other owners before the next round.
    pub partitions_suspect: u64,
    /// Damaged records that were restored from another node, over the life of the data folder.
    pub repaired_records: u64,
    /// When the last complete comparison of all partitions ended; none since the node started.
    pub last_comparison_ms: Option<Millis>,
    /// When the last complete scrub ended; none yet.
    pub last_scrub_ms: Option<Millis>,
    /// How far the running scrub is, in thousandths; none is running.
    pub scrub_permille: Option<u32>,
}

impl From<storage::StatusResponse> for NodeStatus {
    fn from(answer: storage::StatusResponse) -> Self {
        Self {
            node: NodeId(answer.node_id),
            site: SiteName(answer.site),
            bytes_used: answer.bytes_used,
            bytes_free: answer.bytes_free,
            records: answer.records,
            pins: answer.pins,
            sessions: answer.sessions,
            layout_version: LayoutVersion(answer.layout_version),
            generation: Generation(answer.generation),
            epoch: Epoch(answer.epoch),
            ingest_stopped: answer.ingest_stopped,
            repair_stopped: answer.repair_stopped,
            disks: answer.disks,
            disks_lost: answer.disks_lost,
            quarantined_records: answer.quarantined_records,
            folder: <[u8; 16]>::try_from(&answer.folder[..]).ok().map(DataFolderId),
            layout_complete: LayoutVersion(answer.layout_complete),
            partitions_incomplete: answer.partitions_incomplete,
            repair: answer.repair.map(RepairStatus::from).unwrap_or_default(),
            uploads: answer.uploads.map(UploadStatus::from),
        }
    }
}

impl From<storage::UploadStatus> for UploadStatus {
    fn from(answer: storage::UploadStatus) -> Self {
        Self {
            waiting_segments: answer.waiting_segments,
            waiting_bytes: answer.waiting_bytes,
            held_segments: answer.held_segments,
            oldest_age: Duration::from_millis(answer.oldest_age_ms),
            failing_for: (answer.failing_ms != 0).then(|| Duration::from_millis(answer.failing_ms)),
            last_error_class: answer.last_error_class,
        }
    }
}

impl From<storage::RepairStatus> for RepairStatus {
    fn from(answer: storage::RepairStatus) -> Self {
        let at = |ms: u64| (ms != 0).then_some(ms);
        Self {
            partitions_owned: answer.partitions_owned,
            records_below_policy: answer.records_below_policy,
            records_at_one_copy: answer.records_at_one_copy,
            damaged_waiting: answer.damaged_waiting,
            oldest_age: Duration::from_millis(answer.oldest_age_ms),
            partitions_suspect: answer.partitions_suspect,
            repaired_records: answer.repaired_records,
            last_comparison_ms: at(answer.last_comparison_ms),
            last_scrub_ms: at(answer.last_scrub_ms),
            scrub_permille: (answer.scrub_permille != 0).then_some(answer.scrub_permille),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_does_not_say_is_not_known() {
        let status = NodeStatus::from(storage::StatusResponse::default());
        assert_eq!((status.folder, status.layout_complete), (None, LayoutVersion(0)));
        assert_eq!(status.repair, RepairStatus::default());
        assert_eq!(status.uploads, None);
    }

    #[test]
    fn what_a_node_says_of_repair_and_moves_is_told() {
        let repair = storage::RepairStatus {
            records_below_policy: 3,
            oldest_age_ms: 1_500,
            last_scrub_ms: 7,
            scrub_permille: 250,
            ..Default::default()
        };
        let answer = storage::StatusResponse {
            folder: vec![5; 16].into(),
            layout_complete: 4,
            partitions_incomplete: 9,
            repair: Some(repair),
            ..Default::default()
        };
        let status = NodeStatus::from(answer);
        assert_eq!(status.folder, Some(DataFolderId([5; 16])));
        assert_eq!((status.layout_complete, status.partitions_incomplete), (LayoutVersion(4), 9));
        assert_eq!(status.repair.records_below_policy, 3);
        assert_eq!(status.repair.oldest_age, Duration::from_millis(1_500));
        assert_eq!((status.repair.last_comparison_ms, status.repair.last_scrub_ms), (None, Some(7)));
        assert_eq!(status.repair.scrub_permille, Some(250));
    }
}
