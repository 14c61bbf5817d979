//! What an operator asks of the layout: nodes join, are drained, are given up as lost. Planned first, checked by code that shares
//! nothing with the planner, then put to use in one transaction.
//!
//! Invariant: a plan only reads. What is put to use is what was planned, on the layout it was planned on.

use std::collections::BTreeSet;

use holdfast_model::{
    Layout, LayoutChange, LayoutNode, LayoutPlan, LayoutVersion, NodeDuty, NodeId, PARTITION_COUNT,
    PartitionId, check_layout,
};
use holdfast_storage_client::NodeStatus;

use crate::{
    config::PoolOptions,
    core::{Core, NodeStatuses},
    error::Error,
};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// The configuration's nodes; otherwise those of the layout in use.
    pub(crate) from_configuration: bool,
    /// Their data is gone for good.
    pub(crate) lost: BTreeSet<NodeId>,
    /// They are to own nothing.
    pub(crate) drain: BTreeSet<NodeId>,
    /// They may own something again.
    pub(crate) undrain: BTreeSet<NodeId>,
}

/// A layout that could be put to use.
pub(crate) struct Planned {
    pub(crate) before: LayoutVersion,
    pub(crate) after: Layout,
    pub(crate) moves: LayoutPlan,
}

/// The nodes and copies that a wish leads to.
fn target(pool: &PoolOptions, before: &Layout, wish: &Wish) -> Vec<LayoutNode> {
    let configured = pool.layout_nodes();
    let base = if wish.from_configuration { configured.clone() } else { before.nodes.clone() };
    let duty_of = |node: &LayoutNode| {
        let was_drained = before.node(node.id).is_some_and(|known| known.duty == NodeDuty::Drained);
        if wish.drain.contains(&node.id) || was_drained && !wish.undrain.contains(&node.id) {
            return NodeDuty::Drained;
        }
        configured.iter().find(|one| one.id == node.id).map_or(NodeDuty::Data, |one| one.duty)
    };
    let folder_of =
        |id: NodeId| before.node(id).filter(|_| !wish.lost.contains(&id)).and_then(|one| one.folder);
    base.into_iter()
        .map(|node| LayoutNode { duty: duty_of(&node), folder: folder_of(node.id), ..node })
        .collect()
}

/// Whether the configuration asks for other owners, sites, capacities or copies than the layout in use.
pub(crate) fn configuration_differs(pool: &PoolOptions, layout: &Layout) -> bool {
    let wish = Wish { from_configuration: true, ..Wish::default() };
    let wanted = target(pool, layout, &wish);
    let gist = |node: &LayoutNode| (node.id, node.site.clone(), node.capacity_bytes, node.duty);
    let wanted: Vec<_> = wanted.iter().map(gist).collect();
    // What is on its way out is missing from the configuration and asks for nothing more.
    let is_leaving = |node: &&LayoutNode| {
        layout.is_moving() && node.duty == NodeDuty::Drained && !wanted.iter().any(|one| one.0 == node.id)
    };
    let used: Vec<_> = layout.nodes.iter().filter(|node| !is_leaving(node)).map(gist).collect();
    pool.replication() != layout.replication || wanted != used
}

/// Plans what is asked for; none when it changes nothing.
pub(crate) async fn plan(core: &Core, wish: &Wish) -> Result<Option<Planned>, Error> {
    let pool = &core.options.pool;
    let before = core.layout().await?;
    let nodes = target(pool, &before, wish);
    check_names(&before, &nodes, wish)?;
    let replication = if wish.from_configuration { pool.replication() } else { before.replication };
    let is_same = |(one, other): (&LayoutNode, &LayoutNode)| {
        let one = LayoutNode { address: other.address.clone(), ..one.clone() };
        one == *other
    };
    let unchanged = nodes.len() == before.nodes.len() && nodes.iter().zip(&before.nodes).all(is_same);
    if unchanged && replication == before.replication && wish.lost.is_empty() {
        return Ok(None);
    }
    let change = LayoutChange { nodes, replication, lost: wish.lost.clone() };
    let statuses = core.node_statuses(&before).await;
    let seen = up(&statuses).map(|status| status.layout_version).max().unwrap_or_default();
    let mut after = before.changed(before.version.max(seen).next(), change)?;
    meet(core, &before, &mut after).await?;
    let bytes = bytes_of_partitions(&before, &statuses);
    let bytes_of = |partition: PartitionId| bytes.get(usize::from(partition.0)).copied().unwrap_or(0);
    check_layout(&after, bytes_of)?;
    let moves = LayoutPlan::between(&without(&before, &wish.lost), &after, bytes_of);
    Ok(Some(Planned { before: before.version, after, moves }))
}

/// A layout in which lost nodes own nothing: what they are given again must be copied.
fn without(layout: &Layout, lost: &BTreeSet<NodeId>) -> Layout {
    let mut layout = layout.clone();
    let is_lost: Vec<bool> = layout.nodes.iter().map(|node| lost.contains(&node.id)).collect();
    for row in &mut layout.owners {
        row.retain(|index| !is_lost.get(usize::from(*index)).copied().unwrap_or(false));
    }
    layout
}

fn check_names(before: &Layout, nodes: &[LayoutNode], wish: &Wish) -> Result<(), Error> {
    let known = |id: &NodeId| before.node(*id).is_some() || nodes.iter().any(|node| node.id == *id);
    let named = wish.lost.iter().chain(&wish.drain).chain(&wish.undrain);
    named.copied().find(|id| !known(id)).map_or(Ok(()), |id| {
        let hint = "`holdfast nodes` lists them".to_owned();
        Err(Error::NotFound { what: "storage node", name: id.to_string(), hint })
    })
}

/// Asks each node that joins, or comes back empty, who it is: writes to one that is not there would wait.
async fn meet(core: &Core, before: &Layout, after: &mut Layout) -> Result<(), Error> {
    let is_new = |node: &LayoutNode| node.folder.is_none() && node.duty != NodeDuty::Drained;
    if !after.nodes.iter().any(is_new) {
        return Ok(());
    }
    for (index, (node, answer)) in core.node_statuses(after).await.into_iter().enumerate() {
        if !is_new(&node) {
            continue;
        }
        let status = answer.map_err(|error| {
            let problem = format!("does not answer at {}: {error}. Start it first", node.address);
            Error::Invalid { field: "node", value: node.id.to_string(), problem }
        })?;
        let was = before.node(node.id).and_then(|known| known.folder);
        if was.is_some() && status.folder == was {
            let problem = "has the data folder it always had: it is not lost";
            return Err(Error::Invalid {
                field: "lost",
                value: node.id.to_string(),
                problem: problem.to_owned(),
            });
        }
        after.nodes[index].folder = status.folder;
    }
    Ok(())
}

pub(crate) fn up(statuses: &NodeStatuses) -> impl Iterator<Item = &NodeStatus> {
    statuses.iter().filter_map(|(_, answer)| answer.as_ref().ok())
}

/// What one copy of each partition holds, by what its owners say they keep on average: ids spread evenly.
fn bytes_of_partitions(layout: &Layout, statuses: &NodeStatuses) -> Vec<u64> {
    let average = |id: NodeId| {
        let status = up(statuses).find(|status| status.node == id)?;
        let held = (0..PARTITION_COUNT).map(PartitionId);
        let n_held = held.filter(|one| layout.holders_of(*one).any(|node| node.id == id)).count() as u64;
        status.bytes_used.checked_div(n_held)
    };
    let averages: Vec<Option<u64>> = layout.nodes.iter().map(|node| average(node.id)).collect();
    let of_row = |row: &Vec<u16>| {
        row.iter().filter_map(|index| averages.get(usize::from(*index)).copied().flatten()).max().unwrap_or(0)
    };
    layout.owners.iter().map(of_row).collect()
}

#[cfg(test)]
mod tests;
