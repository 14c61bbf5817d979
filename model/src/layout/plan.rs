//! What changes between two layouts: which copies move, and how many bytes that is for each node.
//!
//! Invariant: a plan only reads; it is what an operator sees before anything is applied.

use std::collections::BTreeMap;

use super::{Layout, PARTITION_COUNT, PartitionId};
use crate::NodeId;

/// The way from one layout to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayoutPlan {
    /// Every copy that a node must fetch.
    pub arrivals: Vec<(PartitionId, NodeId)>,
    /// Every copy that a node may let go of once the new owners have it.
    pub departures: Vec<(PartitionId, NodeId)>,
    /// Per node what it gains and what it may let go of.
    pub nodes: BTreeMap<NodeId, NodeMove>,
    /// All bytes that are copied.
    pub bytes_to_move: u64,
}

/// One node's part of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeMove {
    /// Partitions it newly owns.
    pub partitions_in: u32,
    /// Partitions it owns no longer.
    pub partitions_out: u32,
    /// Bytes it fetches.
    pub bytes_in: u64,
    /// Bytes it may let go of.
    pub bytes_out: u64,
}

impl LayoutPlan {
    /// Compares two layouts; `partition_bytes` is what one copy of a partition holds now.
    pub fn between(before: &Layout, after: &Layout, partition_bytes: impl Fn(PartitionId) -> u64) -> Self {
        let mut plan = Self::default();
        for partition in (0..PARTITION_COUNT).map(PartitionId) {
            let bytes = partition_bytes(partition);
            for owner in after.owners_of(partition).filter(|owner| !before.owns(owner.id, partition)) {
                plan.arrivals.push((partition, owner.id));
                let node = plan.nodes.entry(owner.id).or_default();
                node.partitions_in += 1;
                node.bytes_in = node.bytes_in.saturating_add(bytes);
                plan.bytes_to_move = plan.bytes_to_move.saturating_add(bytes);
            }
            for owner in before.owners_of(partition).filter(|owner| !after.owns(owner.id, partition)) {
                plan.departures.push((partition, owner.id));
                let node = plan.nodes.entry(owner.id).or_default();
                node.partitions_out += 1;
                node.bytes_out = node.bytes_out.saturating_add(bytes);
            }
        }
        plan
    }

    /// Whether nothing moves.
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty() && self.departures.is_empty()
    }
}
