//! From one layout to the next while data is there: who owned what before stays in the layout until the new owners have it.
//!
//! Invariant: no layout forgets a node that may have the only copy of something, unless it is named as lost.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Layout, LayoutError, LayoutNode, NodeDuty, PARTITION_COUNT, PartitionId, PinHandover, Replication,
};
use crate::{LayoutVersion, NodeId};

/// What is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutChange {
    /// All nodes there are to be. One that is missing here is drained first and leaves when the move has ended.
    pub nodes: Vec<LayoutNode>,
    /// How many copies, and where.
    pub replication: Replication,
    /// Nodes whose data is gone for good: nobody waits for them. One that is among `nodes` too comes back empty.
    pub lost: BTreeSet<NodeId>,
}

impl Layout {
    /// The layout after this one: as few partitions move as the change allows, and what moves keeps its previous owners until
    /// [`Layout::settled`].
    pub fn changed(&self, version: LayoutVersion, change: LayoutChange) -> Result<Self, LayoutError> {
        let LayoutChange { mut nodes, replication, lost } = change;
        if self.is_moving() && lost.is_empty() {
            return Err(LayoutError::Moving { partitions: self.previous.len() });
        }
        let listed: BTreeSet<NodeId> = nodes.iter().map(|node| node.id).collect();
        let leaves = |node: &&LayoutNode| !listed.contains(&node.id) && !lost.contains(&node.id);
        let leaving = self.nodes.iter().filter(leaves);
        nodes.extend(leaving.map(|node| LayoutNode { duty: NodeDuty::Drained, ..node.clone() }));
        let mut next = self.recompute(version, replication, nodes)?;
        let mut n_nothing_left = 0;
        for partition in (0..PARTITION_COUNT).map(PartitionId) {
            let before = self.sources_of(partition, &lost);
            let after: BTreeSet<NodeId> = next.pin_owners_of(partition).map(|node| node.id).collect();
            if before == after && !self.previous.contains_key(&partition) {
                continue;
            }
            n_nothing_left += usize::from(!self.is_kept_without(partition, &lost));
            let indexes = before.iter().filter_map(|id| next.index_of(*id)).collect();
            next.previous.insert(partition, indexes);
        }
        if n_nothing_left > 0 {
            return Err(LayoutError::NothingLeft { partitions: n_nothing_left });
        }
        let with_doubt = !lost.is_empty() || self.handover == PinHandover::AnyCopy && self.is_moving();
        next.handover = if with_doubt { PinHandover::AnyCopy } else { PinHandover::Committed };
        next.moved_in = if next.is_moving() { version } else { self.moved_in };
        Ok(next)
    }

    /// The layout after this one, without what is over: nobody is asked any more who owned a partition before the move. Nodes
    /// that are not to stay and own nothing leave.
    pub fn settled(&self, version: LayoutVersion, stays: impl Fn(NodeId) -> bool) -> Self {
        let owning: BTreeSet<u16> = self.owners.iter().flatten().copied().collect();
        let mut places = BTreeMap::new();
        let mut nodes = Vec::new();
        for (index, node) in (0..).zip(&self.nodes) {
            if owning.contains(&index) || stays(node.id) {
                places.insert(index, u16::try_from(nodes.len()).unwrap_or(u16::MAX));
                nodes.push(node.clone());
            }
        }
        let owners = self.owners.iter().map(|row| row.iter().filter_map(|index| places.get(index).copied()));
        Self {
            version,
            pool: self.pool.clone(),
            replication: self.replication,
            owners: owners.map(Iterator::collect).collect(),
            nodes,
            moved_in: self.moved_in,
            previous: BTreeMap::new(),
            handover: PinHandover::Committed,
        }
    }

    /// Who may have something of a partition and is not lost.
    fn sources_of(&self, partition: PartitionId, lost: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let all = self.pin_owners_of(partition).chain(self.previous_of(partition));
        all.map(|node| node.id).filter(|id| !lost.contains(id)).collect()
    }

    /// Whether a node that is not lost has everything of a partition.
    fn is_kept_without(&self, partition: PartitionId, lost: &BTreeSet<NodeId>) -> bool {
        let keeps = |node: &LayoutNode| node.duty != NodeDuty::Witness && !lost.contains(&node.id);
        match self.previous.contains_key(&partition) {
            true => self.previous_of(partition).any(keeps),
            false => self.owners_of(partition).any(keeps),
        }
    }

    fn index_of(&self, id: NodeId) -> Option<u16> {
        self.nodes.iter().position(|node| node.id == id).and_then(|index| u16::try_from(index).ok())
    }
}
