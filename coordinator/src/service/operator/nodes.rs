//! Storage nodes as they answer now.

use std::time::Duration;

use holdfast_model::{Layout, LayoutNode};
use holdfast_proto::coordinator::{ListNodesRequest, ListNodesResponse, Node, NodeUploads};
use holdfast_storage_client::{NodeStatus, UploadStatus};

use super::{
    OperatorService,
    layout::{duty_word, partitions_owned},
};
use crate::{
    catalog::audit::Actor,
    error::Error,
    layout_change::configuration_differs,
    storage_health::{is_nearly_full, is_not_uploading, is_replaced, storage_health},
};

impl OperatorService {
    pub(super) async fn nodes(&self, _: &Actor, _: ListNodesRequest) -> Result<ListNodesResponse, Error> {
        let layout = self.core.layout().await?;
        let answers = self.core.node_statuses(&layout).await;
        let storage = storage_health(&layout, &answers);
        let nodes = answers.into_iter().zip(partitions_owned(&layout)).map(|((node, answer), partitions)| {
            let wire = Node {
                id: node.id.0,
                duty: duty_word(&node).to_owned(),
                site: node.site.0.clone(),
                address: node.address.clone(),
                partitions,
                ..Default::default()
            };
            match answer {
                Ok(status) => {
                    let reason = reason(&node, &status, &layout);
                    Node { state: "up".to_owned(), reason, ..measured(wire, &status) }
                }
                Err(error) => Node { state: "down".to_owned(), reason: error.to_string(), ..wire },
            }
        });
        Ok(ListNodesResponse {
            nodes: nodes.collect(),
            moving: layout.is_moving(),
            configuration_differs: configuration_differs(&self.core.options.pool, &layout),
            storage: Some(storage),
        })
    }
}

/// What a human should know of a node that answers; empty when there is nothing.
fn reason(node: &LayoutNode, status: &NodeStatus, layout: &Layout) -> String {
    if is_replaced(node, status) {
        return format!(
            "it has another data folder than it had: mount the right disk, or run `holdfast layout apply --lost {}`",
            node.id.0
        );
    }
    if status.disks_lost > 0 {
        let (lost, disks) = (status.disks_lost, status.disks);
        return format!("{lost} of its {disks} disks lost: mount it again, or take it out of its `disks`");
    }
    if status.ingest_stopped {
        return "the disk is full: add a disk or a node".to_owned();
    }
    if is_not_uploading(status) {
        return "segments are not uploaded to its bucket, its log says why".to_owned();
    }
    if is_nearly_full(status) {
        return "the disk is nearly full, copies from other nodes are not taken in: add a disk or a node"
            .to_owned();
    }
    if status.layout_version < layout.version {
        return format!("it works by layout {}, not yet by {}", status.layout_version, layout.version);
    }
    if status.quarantined_records > 0 {
        return format!("{} damaged records are in quarantine", status.quarantined_records);
    }
    String::new()
}

fn measured(node: Node, status: &NodeStatus) -> Node {
    let repair = &status.repair;
    Node {
        bytes_used: status.bytes_used,
        bytes_free: status.bytes_free,
        records: status.records,
        pins: status.pins,
        partitions_incomplete: status.partitions_incomplete,
        records_below_policy: repair.records_below_policy,
        records_at_one_copy: repair.records_at_one_copy,
        damaged_waiting: repair.damaged_waiting,
        oldest_age_ms: millis(repair.oldest_age),
        last_comparison_ms: repair.last_comparison_ms.unwrap_or(0),
        last_scrub_ms: repair.last_scrub_ms.unwrap_or(0),
        scrub_permille: repair.scrub_permille.unwrap_or(0),
        quarantined_records: status.quarantined_records,
        repaired_records: repair.repaired_records,
        uploads: status.uploads.as_ref().map(wire_uploads),
        ..node
    }
}

fn wire_uploads(uploads: &UploadStatus) -> NodeUploads {
    NodeUploads {
        waiting_segments: uploads.waiting_segments,
        waiting_bytes: uploads.waiting_bytes,
        held_segments: uploads.held_segments,
        oldest_age_ms: millis(uploads.oldest_age),
        failing_ms: uploads.failing_for.map_or(0, millis),
        last_error_class: uploads.last_error_class.clone(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
