//! The coordinator's part when owners change: it issues layouts, brings them to the nodes, and ends a move when every new owner
//! has everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_model::{Layout, LayoutChange, LayoutError, LayoutNode, NodeId, PinHandover};
use holdfast_storage_client::NodeStatus;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Authority, Catalog};
use crate::{Planted, shape};

/// How often the nodes are asked how far they are.
const TEND_EVERY: Duration = Duration::from_millis(1_500);

impl Authority {
    /// The newest layout.
    pub fn layout(&self) -> Arc<Layout> {
        self.catalog().layout.clone()
    }

    /// The nodes there are to be.
    pub fn configured(&self) -> BTreeSet<NodeId> {
        self.catalog().configured.clone()
    }

    /// How many moves came to their end.
    pub fn n_moves(&self) -> usize {
        self.catalog().n_moves
    }

    /// The operator's `layout apply`. The nodes learn of it by [`Self::tend`].
    pub fn change_layout(&self, change: LayoutChange) -> Result<(), LayoutError> {
        let mut catalog = self.catalog();
        let configured = change.nodes.iter().map(|node| node.id).collect();
        let lost = change.lost.clone();
        let next = shape::changed(&catalog.layout, change)?;
        self.log.add(format_args!(
            "layout {} for {configured:?}, lost {lost:?}: {} partitions move, handover {:?}",
            next.version,
            next.previous.len(),
            next.handover
        ));
        if next.is_moving() && next.handover == PinHandover::AnyCopy {
            self.oracle.takes_any_copy(next.moved_in);
        }
        catalog.configured = configured;
        catalog.layout = Arc::new(next);
        Ok(())
    }

    /// Looks after the layout until it is told to stop.
    pub async fn keep_tending(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.tend().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = sleep(TEND_EVERY) => {}
            }
        }
    }

    /// Whether nothing is left to do: no partition moves, and every node has the newest layout.
    pub async fn is_at_rest(&self) -> bool {
        let layout = self.layout();
        let statuses = self.statuses(&layout).await;
        let is_current =
            |id: &NodeId| statuses.get(id).is_some_and(|one| one.layout_version == layout.version);
        !layout.is_moving() && layout.nodes.iter().all(|node| is_current(&node.id))
    }

    /// One round: learns folders, ends a move that is complete, and brings the layout where it is not yet.
    pub async fn tend(&self) {
        let layout = self.layout();
        let statuses = self.statuses(&layout).await;
        let next = with_folders(&layout, &statuses).or_else(|| {
            let configured = self.configured();
            let settle = layout.is_moving() && self.may_settle(&layout, &statuses);
            settle.then(|| layout.settled(layout.version.next(), |id| configured.contains(&id)))
        });
        let is_new = next.is_some_and(|next| self.replace(&layout, next));
        let behind = |status: &NodeStatus| {
            let Catalog { generation, epoch, .. } = *self.catalog();
            (status.layout_version, status.generation, status.epoch) < (layout.version, generation, epoch)
        };
        if is_new || statuses.values().any(behind) {
            self.apply_everywhere().await;
        }
    }

    async fn statuses(&self, layout: &Layout) -> BTreeMap<NodeId, NodeStatus> {
        let answers = self.client.status(layout).await;
        answers.into_iter().filter_map(|(node, status)| Some((node.id, status.ok()?))).collect()
    }

    /// Whether every node that is to have something of what moves says that it has it.
    fn may_settle(&self, layout: &Layout, statuses: &BTreeMap<NodeId, NodeStatus>) -> bool {
        let is_complete = |status: &NodeStatus| match self.planted {
            Some(Planted::SettleEarly) => status.layout_version >= layout.version,
            _ => status.layout_complete >= layout.version,
        };
        let mut behind = layout.nodes.iter().filter(|node| !statuses.get(&node.id).is_some_and(is_complete));
        let is_waited_for = |id| layout.previous.keys().any(|partition| layout.owns_pins(id, *partition));
        !behind.any(|node| is_waited_for(node.id))
    }

    /// Stores a layout unless another one has come in between.
    fn replace(&self, from: &Layout, next: Layout) -> bool {
        let mut catalog = self.catalog();
        let is_next = catalog.layout.version == from.version;
        if is_next {
            let settles = from.is_moving() && !next.is_moving();
            catalog.n_moves += usize::from(settles);
            let word = if settles { "settles" } else { "knows more folders" };
            self.log.add(format_args!("layout {} {word}: nodes {:?}", next.version, ids(&next)));
            catalog.layout = Arc::new(next);
        }
        is_next
    }
}

fn ids(layout: &Layout) -> Vec<NodeId> {
    layout.nodes.iter().map(|node| node.id).collect()
}

/// The next version, if a node was seen whose folder the layout does not name yet.
fn with_folders(layout: &Layout, statuses: &BTreeMap<NodeId, NodeStatus>) -> Option<Layout> {
    let seen = |node: &LayoutNode| statuses.get(&node.id).and_then(|status| status.folder);
    let is_new = |node: &LayoutNode| node.folder.is_none() && seen(node).is_some();
    if !layout.nodes.iter().any(is_new) {
        return None;
    }
    let mut next = layout.clone();
    next.version = layout.version.next();
    for node in &mut next.nodes {
        node.folder = node.folder.or_else(|| seen(node));
    }
    Some(next)
}
