//! Says whether a layout keeps its own promises. It shares nothing with the code that computes layouts.
//!
//! Invariant: what passes here has every copy of every partition on another node in another site, and no node owns more than
//! it can hold.

use std::collections::BTreeSet;

use super::{Layout, PARTITION_COUNT, PartitionId};
use crate::NodeId;

/// What is wrong with a layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutFault {
    /// The map has too few or too many partitions.
    #[error("the layout maps {found} partitions instead of {PARTITION_COUNT}")]
    Partitions {
        /// How many it maps.
        found: usize,
    },
    /// An owner that is not among the nodes.
    #[error("partition {} names an owner that is not in the layout", .0.0)]
    UnknownOwner(PartitionId),
    /// Fewer or more copies than the pool keeps.
    #[error("partition {} has {found} copies instead of {copies}", .partition.0)]
    Copies {
        /// Which.
        partition: PartitionId,
        /// How many owners it has.
        found: usize,
        /// How many it must have.
        copies: u8,
    },
    /// Two copies where one fire takes both.
    #[error("partition {} has two copies in one site", .0.0)]
    SameSite(PartitionId),
    /// A node that is drained, a witness, or without capacity owns something.
    #[error("{0} is not to keep data and still owns partitions")]
    Drained(NodeId),
    /// A node gets more than it can hold.
    #[error("{node} would hold {bytes} bytes, its capacity is {capacity}: add nodes or capacity")]
    Overfull {
        /// Which.
        node: NodeId,
        /// What its partitions hold now.
        bytes: u64,
        /// What it may hold.
        capacity: u64,
    },
}

/// Checks a layout against its own replication and capacities; `partition_bytes` is what each partition holds now, one copy.
pub fn check_layout(
    layout: &Layout,
    partition_bytes: impl Fn(PartitionId) -> u64,
) -> Result<(), LayoutFault> {
    if layout.owners.len() != usize::from(PARTITION_COUNT) {
        return Err(LayoutFault::Partitions { found: layout.owners.len() });
    }
    let mut held = vec![0u64; layout.nodes.len()];
    for (owners, p) in layout.owners.iter().zip(0..) {
        let partition = PartitionId(p);
        let copies = layout.replication.copies;
        if owners.len() != usize::from(copies) {
            return Err(LayoutFault::Copies { partition, found: owners.len(), copies });
        }
        let mut sites = BTreeSet::new();
        for owner in owners {
            let index = usize::from(*owner);
            let node = layout.nodes.get(index).ok_or(LayoutFault::UnknownOwner(partition))?;
            if node.share_bytes() == 0 {
                return Err(LayoutFault::Drained(node.id));
            }
            if !sites.insert(&node.site) {
                return Err(LayoutFault::SameSite(partition));
            }
            held[index] = held[index].saturating_add(partition_bytes(partition));
        }
    }
    match layout.nodes.iter().zip(held).find(|(node, bytes)| *bytes > node.capacity_bytes) {
        None => Ok(()),
        Some((node, bytes)) => {
            Err(LayoutFault::Overfull { node: node.id, bytes, capacity: node.capacity_bytes })
        }
    }
}
