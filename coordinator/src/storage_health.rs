//! What the storage nodes say together: whether new records find room and whether every record has its copies. The one place
//! where it is decided what counts as a problem; the operator's commands and the metrics only show it.

use std::time::Duration;

use holdfast_model::{Layout, LayoutNode};
use holdfast_proto::coordinator::StorageHealth;
use holdfast_storage_client::NodeStatus;

use crate::core::NodeStatuses;

/// Uploads that fail for less than this are no problem yet: buckets are away for minutes, and the local disk holds what waits.
const UPLOADS_MAY_FAIL: Duration = Duration::from_secs(3_600);

/// Adds up what the nodes of a layout answered.
pub(crate) fn storage_health(layout: &Layout, answers: &NodeStatuses) -> StorageHealth {
    let mut health = StorageHealth {
        nodes_away: answers.iter().filter(|(_, answer)| answer.is_err()).count() as u64,
        moving: layout.is_moving(),
        ..StorageHealth::default()
    };
    for (node, status) in answers.iter().filter_map(|(node, answer)| Some((node, answer.as_ref().ok()?))) {
        health.nodes_replaced += u64::from(is_replaced(node, status));
        health.disks_lost += status.disks_lost;
        health.nodes_full += u64::from(status.ingest_stopped);
        health.nodes_nearly_full += u64::from(is_nearly_full(status));
        health.nodes_not_uploading += u64::from(is_not_uploading(status));
        health.records_below_policy += status.repair.records_below_policy;
        health.records_at_one_copy += status.repair.records_at_one_copy;
        health.partitions_incomplete += status.partitions_incomplete;
    }
    health
}

/// Whether a node has lost the data folder that it is known by.
pub(crate) fn is_replaced(node: &LayoutNode, status: &NodeStatus) -> bool {
    node.folder.is_some() && status.folder != node.folder
}

/// Whether it takes in no more copies from other nodes, and still what is new.
pub(crate) fn is_nearly_full(status: &NodeStatus) -> bool {
    status.repair_stopped && !status.ingest_stopped
}

/// Whether somebody has to look why segments stay on its disk.
pub(crate) fn is_not_uploading(status: &NodeStatus) -> bool {
    status.uploads.as_ref().is_some_and(|uploads| {
        uploads.held_segments > 0 || uploads.failing_for.is_some_and(|since| since >= UPLOADS_MAY_FAIL)
    })
}

#[cfg(test)]
mod tests {
    use holdfast_model::{DataFolderId, LayoutVersion, NodeId, Replication};
    use holdfast_proto::storage::{RepairStatus, StatusResponse, UploadStatus};
    use holdfast_repository::StoreError;

    use super::*;

    fn layout() -> Layout {
        let node = |id: u64, site: &str| LayoutNode {
            folder: Some(DataFolderId([7; 16])),
            ..LayoutNode::new(NodeId(id), site.into(), format!("n:{id}"), 10)
        };
        let nodes = vec![node(1, "a"), node(2, "b")];
        Layout::compute(LayoutVersion(1), "p".into(), Replication::default(), nodes).unwrap()
    }

    fn healthy() -> StatusResponse {
        StatusResponse { folder: vec![7; 16].into(), ..StatusResponse::default() }
    }

    /// The first node as told, the second well.
    fn health(first: StatusResponse) -> StorageHealth {
        let layout = layout();
        let answers = [first, healthy()].map(|answer| Ok(NodeStatus::from(answer)));
        storage_health(&layout, &layout.nodes.iter().cloned().zip(answers).collect())
    }

    #[test]
    fn nodes_that_are_well_are_no_problem() {
        assert_eq!(health(healthy()), StorageHealth::default());
    }

    #[test]
    fn a_full_node_is_not_counted_as_nearly_full_too() {
        let nearly = health(StatusResponse { repair_stopped: true, ..healthy() });
        assert_eq!((nearly.nodes_full, nearly.nodes_nearly_full), (0, 1));
        let full = health(StatusResponse { ingest_stopped: true, repair_stopped: true, ..healthy() });
        assert_eq!((full.nodes_full, full.nodes_nearly_full), (1, 0));
    }

    #[test]
    fn a_node_that_is_away_or_has_another_disk_is_counted() {
        let other = health(StatusResponse { folder: vec![8; 16].into(), ..StatusResponse::default() });
        assert_eq!((other.nodes_away, other.nodes_replaced), (0, 1));
        let layout = layout();
        let away = Err(StoreError::Refused { reason: "away".to_owned() });
        let answers = vec![(layout.nodes[0].clone(), away)];
        assert_eq!(storage_health(&layout, &answers).nodes_away, 1);
    }

    #[test]
    fn lost_disks_are_added_up() {
        assert_eq!(health(StatusResponse { disks: 4, disks_lost: 2, ..healthy() }).disks_lost, 2);
    }

    #[test]
    fn what_lacks_copies_is_added_up() {
        let repair = RepairStatus { records_below_policy: 7, records_at_one_copy: 2, ..Default::default() };
        let below = health(StatusResponse { repair: Some(repair), partitions_incomplete: 3, ..healthy() });
        assert_eq!(
            (below.records_below_policy, below.records_at_one_copy, below.partitions_incomplete),
            (7, 2, 3)
        );
    }

    #[test]
    fn uploads_count_when_they_fail_for_an_hour_or_one_is_held_back() {
        let n = |uploads| health(StatusResponse { uploads: Some(uploads), ..healthy() }).nodes_not_uploading;
        let waits = UploadStatus { waiting_segments: 100, oldest_age_ms: u64::MAX, ..Default::default() };
        assert_eq!(n(waits), 0);
        assert_eq!(n(UploadStatus { failing_ms: 3_599_999, ..Default::default() }), 0);
        assert_eq!(n(UploadStatus { failing_ms: 3_600_000, ..Default::default() }), 1);
        assert_eq!(n(UploadStatus { held_segments: 1, ..Default::default() }), 1);
    }
}
