//! Keeps every node on the stored layout, generation and epoch, and the layout on what is true: addresses of the
//! configuration, data folders that nodes told, no previous owners once the new ones have everything.
//!
//! Nodes durably keep the highest numbers they have seen and refuse lower ones. A catalog that was restored from an older
//! copy is therefore behind them: its numbers are raised above theirs before anything is decided with it.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use holdfast_model::{Epoch, Generation, Layout, LayoutVersion, NodeId};
use holdfast_runtime::Step;
use holdfast_storage_client::NodeStatus;

use crate::{
    catalog::term::Leadership,
    config::PoolOptions,
    core::{Core, NodeStatuses},
    error::Error,
    layout_change::{configuration_differs, up},
    metrics,
};

/// One look at all nodes.
pub(crate) async fn step(core: &Core, leadership: &Leadership) -> Result<Step, Error> {
    let layout = stored_layout(core, leadership).await?;
    let answers = core.node_statuses(&layout).await;
    metrics::nodes(up(&answers).count(), layout.nodes.len());
    metrics::storage(&layout, &answers, core.layout_differs.load(Ordering::Relaxed));
    let highest = highest(&answers);
    let (generation, epoch) = raised(core, leadership, &highest).await?;
    let layout = advanced(core, leadership, layout, (&answers, highest.2)).await?;
    let behind = |node: &NodeStatus| {
        node.generation < generation || node.epoch < epoch || node.layout_version < layout.version
    };
    // A node that joined with this version has not answered yet.
    if up(&answers).any(behind) || answers.len() < layout.nodes.len() {
        core.apply_layout(&layout, generation, epoch).await;
    }
    Ok(Step::Idle)
}

/// Generation and epoch, above what any node has seen of a newer catalog.
async fn raised(
    core: &Core,
    leadership: &Leadership,
    highest: &(Generation, Epoch, LayoutVersion),
) -> Result<(Generation, Epoch), Error> {
    let (generation, epoch) = core.catalog.numbers().await?;
    if highest.0 <= generation && highest.1 <= epoch {
        return Ok((generation, epoch));
    }
    let raised = if highest.0 > generation { highest.0.next() } else { generation };
    tracing::warn!(
        catalog_generation = generation.0,
        node_generation = highest.0.0,
        raised_to = raised.0,
        "the nodes have seen a newer catalog than this one: its generation is raised"
    );
    core.catalog.raise_numbers(leadership, raised, highest.1).await?;
    Ok((raised, highest.1.max(epoch)))
}

/// The layout in use; the configuration's for a new pool.
///
/// A configuration that would give partitions other owners changes nothing by itself: an operator plans and applies it.
async fn stored_layout(core: &Core, leadership: &Leadership) -> Result<Arc<Layout>, Error> {
    let pool = &core.options.pool;
    let Some(newest) = core.catalog.newest_layout(&pool.name).await? else {
        let first = pool.layout(LayoutVersion(1))?;
        core.catalog.add_layout(leadership, &first).await?;
        tracing::info!(nodes = first.nodes.len(), "the first layout is stored");
        return Ok(Arc::new(first));
    };
    let differs = configuration_differs(pool, &newest);
    if differs && !core.layout_differs.swap(differs, Ordering::Relaxed) {
        tracing::warn!(
            pool = %newest.pool,
            "the configuration asks for another layout than the one in use, which stays: see `holdfast layout plan`, then \
             `holdfast layout apply`"
        );
    }
    core.layout_differs.store(differs, Ordering::Relaxed);
    Ok(Arc::new(newest))
}

/// The layout with what has become true since: stored as a new version when something has, or when nodes have seen a higher one.
async fn advanced(
    core: &Core,
    leadership: &Leadership,
    layout: Arc<Layout>,
    (answers, seen): (&NodeStatuses, LayoutVersion),
) -> Result<Arc<Layout>, Error> {
    let pool = &core.options.pool;
    let version = layout.version.max(seen).next();
    let mut next = (*layout).clone();
    take_addresses(&mut next, pool);
    take_folders(&mut next, answers);
    if layout.is_moving() && has_everything(&layout, answers) {
        let configured: BTreeSet<NodeId> = pool.nodes.iter().map(|node| NodeId(node.id)).collect();
        next = next.settled(version, |id| configured.contains(&id));
        tracing::info!(version = version.0, "every owner has its partitions: the move has ended");
    }
    if next == *layout && seen <= layout.version {
        return Ok(layout);
    }
    next.version = version;
    core.catalog.add_layout(leadership, &next).await?;
    tracing::info!(version = next.version.0, nodes = next.nodes.len(), "a new layout is stored");
    Ok(Arc::new(next))
}

fn take_addresses(layout: &mut Layout, pool: &PoolOptions) {
    for node in &mut layout.nodes {
        if let Some(configured) = pool.nodes.iter().find(|one| one.id == node.id.0) {
            node.address.clone_from(&configured.address);
        }
    }
}

/// Remembers where each node keeps its state, once: a node that comes with another folder has lost what it had.
fn take_folders(layout: &mut Layout, answers: &NodeStatuses) {
    for node in &mut layout.nodes {
        let told = up(answers).find(|status| status.node == node.id).and_then(|status| status.folder);
        match (node.folder, told) {
            (None, told) => node.folder = told,
            (Some(known), Some(told)) if known != told => tracing::error!(
                node = %node.id,
                "the node has another data folder than it had: mount the right disk, or run `holdfast layout apply --lost {}`",
                node.id.0
            ),
            _ => {}
        }
    }
}

/// Whether every new owner of what is moving says that it is complete.
fn has_everything(layout: &Layout, answers: &NodeStatuses) -> bool {
    let owners: BTreeSet<NodeId> = layout
        .previous
        .keys()
        .flat_map(|partition| layout.pin_owners_of(*partition).map(|node| node.id))
        .collect();
    owners
        .into_iter()
        .all(|id| up(answers).any(|status| status.node == id && status.layout_complete >= layout.moved_in))
}

fn highest(answers: &NodeStatuses) -> (Generation, Epoch, LayoutVersion) {
    up(answers).fold(
        Default::default(),
        |(generation, epoch, layout): (Generation, Epoch, LayoutVersion), node| {
            (generation.max(node.generation), epoch.max(node.epoch), layout.max(node.layout_version))
        },
    )
}

#[cfg(test)]
mod tests {
    use holdfast_model::{DataFolderId, LayoutChange, LayoutNode, Replication};
    use holdfast_proto::storage::StatusResponse;

    use super::*;

    fn moving() -> Layout {
        let node = |id: u64, site: &str| LayoutNode::new(NodeId(id), site.into(), format!("n:{id}"), 10);
        let nodes = vec![node(1, "a"), node(2, "b")];
        let first = Layout::compute(LayoutVersion(1), "p".into(), Replication::default(), nodes).unwrap();
        let nodes = vec![node(1, "a"), node(2, "b"), node(3, "b")];
        let change = LayoutChange { nodes, replication: first.replication, lost: BTreeSet::new() };
        first.changed(LayoutVersion(2), change).unwrap()
    }

    fn answers(layout: &Layout, complete: [u64; 3]) -> NodeStatuses {
        let answer = |(node, complete): (&LayoutNode, u64)| {
            let status = StatusResponse {
                node_id: node.id.0,
                layout_complete: complete,
                folder: vec![7; 16].into(),
                ..Default::default()
            };
            (node.clone(), Ok(NodeStatus::from(status)))
        };
        layout.nodes.iter().zip(complete).map(answer).collect()
    }

    #[test]
    fn a_move_ends_only_when_every_new_owner_has_everything() {
        let layout = moving();
        assert!(has_everything(&layout, &answers(&layout, [2, 2, 3])));
        assert!(!has_everything(&layout, &answers(&layout, [2, 2, 1])));
        let mut silent = answers(&layout, [2, 2, 2]);
        silent.pop();
        assert!(!has_everything(&layout, &silent), "one does not answer");
    }

    #[test]
    fn a_folder_is_remembered_once_and_never_replaced() {
        let mut layout = moving();
        let told = answers(&layout, [1, 1, 1]);
        layout.nodes[0].folder = Some(DataFolderId([1; 16]));
        take_folders(&mut layout, &told);
        assert_eq!(layout.nodes[0].folder, Some(DataFolderId([1; 16])));
        assert_eq!(layout.nodes[1].folder, Some(DataFolderId([7; 16])));
    }
}
