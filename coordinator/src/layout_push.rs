//! Keeps the stored layout equal to the configuration, and every node on the stored layout, generation and epoch.
//!
//! Nodes durably keep the highest numbers they have seen and refuse lower ones. A catalog that was restored from an older
//! copy is therefore behind them: its numbers are raised above theirs before anything is decided with it.

use std::sync::Arc;

use holdfast_model::{Epoch, Generation, Layout, LayoutVersion};
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

/// The layout of the configuration: stored as a new version when it differs or nodes have seen a higher one.
async fn stored_layout(
    core: &Core,
    leadership: &Leadership,
    seen: LayoutVersion,
) -> Result<Arc<Layout>, Error> {
    let newest = core.catalog.newest_layout(&core.options.pool.name).await?;
    let version = newest.as_ref().map_or(LayoutVersion(0), |layout| layout.version);
    let wanted = core.options.pool.layout(version)?;
    if let Some(layout) = newest.filter(|layout| *layout == wanted && seen <= version) {
        return Ok(Arc::new(layout));
    }
    let next = Layout { version: version.max(seen).next(), ..wanted };
    core.catalog.add_layout(leadership, &next).await?;
    tracing::info!(version = next.version.0, nodes = next.nodes.len(), "a new layout is stored");
    Ok(Arc::new(next))
}

fn highest(up: &[NodeStatus]) -> (Generation, Epoch, LayoutVersion) {
    up.iter().fold(
        Default::default(),
        |(generation, epoch, layout): (Generation, Epoch, LayoutVersion), node| {
            (generation.max(node.generation), epoch.max(node.epoch), layout.max(node.layout_version))
        },
    )
}
