//! The versioned map partition → nodes of one pool.
//!
//! Both the chunk-id space and the pin space have 4,096 partitions: the first 12 bits of the chunk id, and the first 12
//! bits of BLAKE3(tenant ‖ resource) for pins. Owners are listed in order of preference: the first owner takes a write
//! and forwards it to the owners in other sites.

mod check;
mod compute;
mod flow;
mod plan;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use check::{LayoutFault, check_layout};
pub use plan::{LayoutPlan, NodeMove};

use crate::{ChunkId, LayoutVersion, NodeId, PoolId, ResourceId, SiteName, TenantId};

/// How many partitions a pool has: 12 bits of id.
pub const PARTITION_COUNT: u16 = 4096;

/// A slice of the id space, below [`PARTITION_COUNT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// The partition that holds a chunk.
    pub fn of_chunk(id: ChunkId) -> Self {
        Self::first_12_bits(id.0[0], id.0[1])
    }

    /// The partition whose owners keep the pins of a resource.
    pub fn of_pins(tenant: TenantId, resource: ResourceId) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&tenant.0);
        hasher.update(&resource.0);
        let hash = hasher.finalize();
        Self::first_12_bits(hash.as_bytes()[0], hash.as_bytes()[1])
    }

    fn first_12_bits(first: u8, second: u8) -> Self {
        Self((u16::from(first) << 4) | (u16::from(second) >> 4))
    }
}

/// A storage node as the layout knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutNode {
    /// The node.
    pub id: NodeId,
    /// Its failure domain.
    pub site: SiteName,
    /// Where it listens: `host:port`.
    pub address: String,
    /// Its share of the partitions is proportional to this.
    pub capacity_bytes: u64,
}

/// How many copies a pool keeps, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replication {
    /// Copies of every record, each in another site.
    pub copies: u8,
    /// Sites that must hold a record, fsynced, before it is acknowledged: 2 is level A2.
    pub ack_sites: u8,
}

impl Default for Replication {
    fn default() -> Self {
        Self { copies: 2, ack_sites: 2 }
    }
}

/// The layout of one pool at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Nodes refuse a lower version than they have seen.
    pub version: LayoutVersion,
    /// Whose layout it is.
    pub pool: PoolId,
    /// How many copies, and where.
    pub replication: Replication,
    /// Every node of the pool, ordered by id.
    pub nodes: Vec<LayoutNode>,
    /// Per partition the indexes into `nodes` of its owners, the first owner first.
    pub owners: Vec<Vec<u16>>,
}

/// The nodes cannot hold what is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Copies go to different sites.
    #[error("{copies} copies need {copies} sites, the pool '{pool}' has {sites}")]
    TooFewSites {
        /// The pool.
        pool: PoolId,
        /// Copies asked for.
        copies: u8,
        /// Sites there are.
        sites: usize,
    },
    /// A node is listed twice.
    #[error("node {0} is listed twice")]
    DuplicateNode(NodeId),
    /// More acknowledged sites than copies, or none.
    #[error("ack-sites is {ack_sites}: it must be at least 1 and at most copies, which is {copies}")]
    AckSites {
        /// Sites to acknowledge.
        ack_sites: u8,
        /// Copies kept.
        copies: u8,
    },
}

impl Layout {
    /// The owners of a partition, the first owner first.
    pub fn owners_of(&self, partition: PartitionId) -> impl Iterator<Item = &LayoutNode> {
        let indexes = self.owners.get(usize::from(partition.0)).map_or(&[][..], Vec::as_slice);
        indexes.iter().filter_map(|index| self.nodes.get(usize::from(*index)))
    }

    /// How many owners make a majority of a partition.
    pub fn majority_of(&self, partition: PartitionId) -> usize {
        self.owners_of(partition).count() / 2 + 1
    }

    /// Looks a node up.
    pub fn node(&self, id: NodeId) -> Option<&LayoutNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Whether a node owns a partition.
    pub fn owns(&self, node: NodeId, partition: PartitionId) -> bool {
        self.owners_of(partition).any(|owner| owner.id == node)
    }
}

/// The best node of each of the best `copies` sites, by descending weight.
fn rendezvous(partition: PartitionId, copies: u8, nodes: &[LayoutNode]) -> Vec<u16> {
    let mut ranked: Vec<(f64, u16)> =
        nodes.iter().zip(0u16..).map(|(node, index)| (weight(partition, node), index)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut taken = BTreeSet::new();
    ranked
        .into_iter()
        .filter(|(_, index)| taken.insert(&nodes[usize::from(*index)].site))
        .take(usize::from(copies))
        .map(|(_, index)| index)
        .collect()
}

/// `-capacity / ln(u)` with u uniform in (0, 1): the weighted rendezvous score.
#[allow(clippy::cast_precision_loss)]
fn weight(partition: PartitionId, node: &LayoutNode) -> f64 {
    let mut hasher = blake3::Hasher::new_derive_key("holdfast layout rendezvous 1");
    hasher.update(&partition.0.to_le_bytes());
    hasher.update(&node.id.0.to_le_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    let uniform = ((u64::from_le_bytes(bytes) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -(node.capacity_bytes.max(1) as f64) / uniform.ln()
}

#[cfg(test)]
mod tests;
