//! The versioned map partition → nodes of one pool.
//!
//! Both the chunk-id space and the pin space have 4,096 partitions: the first 12 bits of the chunk id, and the first 12
//! bits of BLAKE3(tenant ‖ resource) for pins. Owners are listed in order of preference: the first owner takes a write
//! and forwards it to the owners in other sites.

mod check;
mod compute;
mod flow;
mod moving;
mod plan;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use check::{LayoutFault, check_layout};
pub use moving::LayoutChange;
pub use plan::{LayoutPlan, NodeMove};

use crate::{ChunkId, DataFolderId, LayoutVersion, NodeId, PoolId, ResourceId, SiteName, TenantId};

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

/// What a node is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeDuty {
    /// It owns partitions by its capacity.
    #[default]
    Data,
    /// It keeps pins where the owners of the data are even in number, and no data.
    Witness,
    /// It is to own nothing, and gives away what it has.
    Drained,
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
    /// What it is there for.
    #[serde(default)]
    pub duty: NodeDuty,
    /// Where its state is; none until it was first seen. A node that comes with another folder has lost what it had.
    #[serde(default)]
    pub folder: Option<DataFolderId>,
}

impl LayoutNode {
    /// A node that keeps data and was not seen yet.
    pub fn new(id: NodeId, site: SiteName, address: String, capacity_bytes: u64) -> Self {
        Self { id, site, address, capacity_bytes, duty: NodeDuty::Data, folder: None }
    }

    /// What its share of the partitions is proportional to: nothing unless it keeps data.
    pub fn share_bytes(&self) -> u64 {
        if self.duty == NodeDuty::Data { self.capacity_bytes } else { 0 }
    }
}

/// Which pins new owners take over from the previous ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinHandover {
    /// Those that a majority of the previous owners has: that is what committed means.
    #[default]
    Committed,
    /// Every pin that any previous owner has. Some owners are lost for good, so a pin on a minority of the others may have been
    /// committed; keeping one that was not costs space and nothing else.
    AnyCopy,
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
    /// The version in which owners last changed: nodes refuse writes of whoever works by an older one.
    #[serde(default)]
    pub moved_in: LayoutVersion,
    /// The partitions that are moving, each with its pin owners before: indexes into `nodes`. They keep their data, and new
    /// owners fetch it from them, until every new owner has everything.
    #[serde(default)]
    pub previous: BTreeMap<PartitionId, Vec<u16>>,
    /// Which pins the new owners take over.
    #[serde(default)]
    pub handover: PinHandover,
}

/// The nodes cannot hold what is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Copies go to different sites.
    #[error("{copies} copies need {copies} sites with capacity, the pool '{pool}' has {sites}")]
    TooFewSites {
        /// The pool.
        pool: PoolId,
        /// Copies asked for.
        copies: u8,
        /// Sites there are.
        sites: usize,
    },
    /// A node is listed twice.
    #[error("{0} is listed twice: give each node an id of its own")]
    DuplicateNode(NodeId),
    /// More acknowledged sites than copies, or none.
    #[error("ack-sites is {ack_sites}: it must be at least 1 and at most copies, which is {copies}")]
    AckSites {
        /// Sites to acknowledge.
        ack_sites: u8,
        /// Copies kept.
        copies: u8,
    },
    /// Before the last move has ended.
    #[error(
        "{partitions} partitions are still moving: wait until the new owners have everything, or name the nodes that are lost"
    )]
    Moving {
        /// How many.
        partitions: usize,
    },
    /// Declaring these nodes lost would give data up.
    #[error(
        "{partitions} partitions have no other owner than the nodes named as lost: bring one of them back"
    )]
    NothingLeft {
        /// How many.
        partitions: usize,
    },
    /// A witness in a site that keeps data is of no use.
    #[error("{0} is a witness in a site that keeps data: give it a site of its own")]
    WitnessAmongData(NodeId),
}

impl Layout {
    /// The owners of a partition, the first owner first.
    pub fn owners_of(&self, partition: PartitionId) -> impl Iterator<Item = &LayoutNode> {
        self.at(self.owners.get(usize::from(partition.0)).map_or(&[][..], Vec::as_slice))
    }

    /// Every node that may have the data of a partition: its owners, then those it is moving away from.
    pub fn holders_of(&self, partition: PartitionId) -> impl Iterator<Item = &LayoutNode> {
        let leaving = self.previous_of(partition).filter(move |node| !self.owns(node.id, partition));
        self.owners_of(partition).chain(leaving.filter(|node| node.duty != NodeDuty::Witness))
    }

    /// The nodes that keep the pins of a partition: its owners, and a witness where they are even in number.
    pub fn pin_owners_of(&self, partition: PartitionId) -> impl Iterator<Item = &LayoutNode> {
        let wanted = usize::from(self.owners_of(partition).count().is_multiple_of(2));
        let witnesses = self.nodes.iter().filter(|node| node.duty == NodeDuty::Witness);
        self.owners_of(partition).chain(witnesses.take(wanted))
    }

    /// The pin owners a partition is moving away from; nobody when it is not moving.
    pub fn previous_of(&self, partition: PartitionId) -> impl Iterator<Item = &LayoutNode> {
        self.at(self.previous.get(&partition).map_or(&[][..], Vec::as_slice))
    }

    /// How many pin owners make a majority of a partition.
    pub fn pin_majority_of(&self, partition: PartitionId) -> usize {
        self.pin_owners_of(partition).count() / 2 + 1
    }

    fn at<'a>(&'a self, indexes: &'a [u16]) -> impl Iterator<Item = &'a LayoutNode> {
        indexes.iter().filter_map(|index| self.nodes.get(usize::from(*index)))
    }

    /// Whether partitions are moving.
    pub fn is_moving(&self) -> bool {
        !self.previous.is_empty()
    }

    /// Looks a node up.
    pub fn node(&self, id: NodeId) -> Option<&LayoutNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Whether a node owns a partition.
    pub fn owns(&self, node: NodeId, partition: PartitionId) -> bool {
        self.owners_of(partition).any(|owner| owner.id == node)
    }

    /// Whether a node keeps the pins of a partition.
    pub fn owns_pins(&self, node: NodeId, partition: PartitionId) -> bool {
        self.pin_owners_of(partition).any(|owner| owner.id == node)
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
    -(node.share_bytes().max(1) as f64) / uniform.ln()
}

#[cfg(test)]
mod tests;
