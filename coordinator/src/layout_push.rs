//! Keeps the stored layout's addresses equal to the configuration, and every node on the stored layout, generation and epoch.
//!
//! Nodes durably keep the highest numbers they have seen and refuse lower ones. A catalog that was restored from an older
//! copy is therefore behind them: its numbers are raised above theirs before anything is decided with it.

use std::sync::{Arc, atomic::Ordering};

use holdfast_model::{Epoch, Generation, Layout, LayoutNode, LayoutVersion};
use holdfast_runtime::Step;
use holdfast_storage_client::NodeStatus;

use crate::{catalog::term::Leadership, core::Core, error::Error, metrics};

/// One look at all nodes.
pub(crate) async fn step(core: &Core, leadership: &Leadership) -> Result<Step, Error> {
    let layout = stored_layout(core, leadership, LayoutVersion(0)).await?;
    let answers = core.node_statuses(&layout).await;
    let up: Vec<NodeStatus> =
        answers.iter().filter_map(|(_, answer)| answer.as_ref().ok().cloned()).collect();
    metrics::nodes(up.len(), layout.nodes.len());
    let (generation, epoch) = core.catalog.numbers().await?;
    let highest = highest(&up);
    let (generation, epoch) = if highest.0 > generation || highest.1 > epoch {
        let raised = if highest.0 > generation { highest.0.next() } else { generation };
        tracing::warn!(
            catalog_generation = generation.0,
            node_generation = highest.0.0,
            raised_to = raised.0,
            "the nodes have seen a newer catalog than this one: its generation is raised"
        );
        core.catalog.raise_numbers(leadership, raised, highest.1).await?;
        (raised, highest.1.max(epoch))
    } else {
        (generation, epoch)
    };
    let layout = stored_layout(core, leadership, highest.2).await?;
    let behind = |node: &NodeStatus| {
        node.generation < generation || node.epoch < epoch || node.layout_version < layout.version
    };
    if up.iter().any(behind) {
        for (node, outcome) in core.apply_layout(&layout, generation, epoch).await {
            match outcome {
                Ok(applied) => tracing::info!(%node, version = applied.layout_version.0, "layout applied"),
                Err(error) => tracing::warn!(%node, %error, "the layout was not applied; tried again"),
            }
        }
    }
    Ok(Step::Idle)
}

/// The layout in use: the configuration's for a new pool, then the stored one with the configuration's addresses. It is stored
/// as a new version when an address differs or nodes have seen a higher one.
///
/// A configuration that would give partitions other owners changes nothing: they would not have the data.
async fn stored_layout(
    core: &Core,
    leadership: &Leadership,
    seen: LayoutVersion,
) -> Result<Arc<Layout>, Error> {
    let pool = &core.options.pool;
    let newest = core.catalog.newest_layout(&pool.name).await?;
    let version = newest.as_ref().map_or(LayoutVersion(0), |layout| layout.version);
    let configured = pool.layout(version)?;
    let wanted = match &newest {
        None => configured,
        Some(newest) => {
            let moves = !differ_in_address_only(newest, &configured);
            if moves && !core.layout_differs.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    pool = %newest.pool,
                    "the configuration has other nodes, sites, capacities or copies than the layout in use, which stays: \
                     give [pool] back what it had; this version cannot move data between nodes yet"
                );
            }
            let nodes = if moves { newest.nodes.clone() } else { configured.nodes };
            Layout { nodes, ..newest.clone() }
        }
    };
    if let Some(layout) = newest.filter(|layout| *layout == wanted && seen <= version) {
        return Ok(Arc::new(layout));
    }
    let next = Layout { version: version.max(seen).next(), ..wanted };
    core.catalog.add_layout(leadership, &next).await?;
    tracing::info!(version = next.version.0, nodes = next.nodes.len(), "a new layout is stored");
    Ok(Arc::new(next))
}

fn differ_in_address_only(a: &Layout, b: &Layout) -> bool {
    let same = |(a, b): (&LayoutNode, &LayoutNode)| {
        (a.id, &a.site, a.capacity_bytes) == (b.id, &b.site, b.capacity_bytes)
    };
    a.replication == b.replication && a.nodes.len() == b.nodes.len() && a.nodes.iter().zip(&b.nodes).all(same)
}

fn highest(up: &[NodeStatus]) -> (Generation, Epoch, LayoutVersion) {
    up.iter().fold(
        Default::default(),
        |(generation, epoch, layout): (Generation, Epoch, LayoutVersion), node| {
            (generation.max(node.generation), epoch.max(node.epoch), layout.max(node.layout_version))
        },
    )
}

#[cfg(test)]
mod tests {
    use holdfast_model::{NodeId, Replication};

    use super::*;

    fn layout(nodes: [(u64, &str, &str, u64); 2]) -> Layout {
        let nodes = nodes.map(|(id, site, address, capacity_bytes)| {
            LayoutNode::new(NodeId(id), site.into(), address.to_owned(), capacity_bytes)
        });
        Layout::compute(LayoutVersion(1), "p".into(), Replication::default(), nodes.to_vec()).unwrap()
    }

    #[test]
    fn only_an_address_may_change_without_moving_data() {
        let before = layout([(1, "a", "one:1", 10), (2, "b", "two:1", 10)]);
        let moved_house = layout([(1, "a", "one:2", 10), (2, "b", "two:1", 10)]);
        assert!(differ_in_address_only(&before, &moved_house));
        for other in [
            layout([(1, "a", "one:1", 10), (3, "b", "two:1", 10)]),
            layout([(1, "a", "one:1", 10), (2, "c", "two:1", 10)]),
            layout([(1, "a", "one:1", 10), (2, "b", "two:1", 11)]),
            Layout { replication: Replication { copies: 2, ack_sites: 1 }, ..before.clone() },
        ] {
            assert!(!differ_in_address_only(&before, &other), "{:?}", other.nodes);
        }
    }
}
