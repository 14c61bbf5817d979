//! The layout: what is in use, what a change would move, and the change.

use std::collections::BTreeSet;

use holdfast_model::{Layout, LayoutNode, NodeDuty, NodeId};
use holdfast_proto::coordinator::{
    ChangeLayoutRequest, ChangeLayoutResponse, GetLayoutRequest, GetLayoutResponse, LayoutMember, NodeMove,
};

use super::OperatorService;
use crate::{
    catalog::audit::Actor,
    error::Error,
    layout_change::{self, Planned, Wish},
};

/// The word for what a node is there for.
pub(super) fn duty_word(node: &LayoutNode) -> &'static str {
    match node.duty {
        NodeDuty::Data => "data",
        NodeDuty::Witness => "witness",
        NodeDuty::Drained => "drained",
    }
}

/// How many partitions a layout gives to each node, in its order.
pub(super) fn partitions_owned(layout: &Layout) -> Vec<u64> {
    let mut owned = vec![0; layout.nodes.len()];
    for index in layout.owners.iter().flatten() {
        if let Some(n) = owned.get_mut(usize::from(*index)) {
            *n += 1;
        }
    }
    owned
}

impl OperatorService {
    pub(super) async fn layout(&self, _: &Actor, _: GetLayoutRequest) -> Result<GetLayoutResponse, Error> {
        let layout = self.core.layout().await?;
        let answers = self.core.node_statuses(&layout).await;
        let members =
            answers.into_iter().zip(partitions_owned(&layout)).map(|((node, answer), partitions)| {
                let status = answer.ok();
                LayoutMember {
                    id: node.id.0,
                    duty: duty_word(&node).to_owned(),
                    site: node.site.0,
                    address: node.address,
                    capacity_bytes: node.capacity_bytes,
                    partitions,
                    complete: status.as_ref().is_some_and(|one| one.layout_complete >= layout.moved_in),
                    partitions_incomplete: status.map_or(0, |one| one.partitions_incomplete),
                }
            });
        Ok(GetLayoutResponse {
            pool: layout.pool.0.clone(),
            version: layout.version.0,
            copies: layout.replication.copies.into(),
            ack_sites: layout.replication.ack_sites.into(),
            nodes: members.collect(),
            partitions_moving: layout.previous.len() as u64,
            configuration_differs: layout_change::configuration_differs(&self.core.options.pool, &layout),
        })
    }

    pub(super) async fn change_layout(
        &self,
        actor: &Actor,
        request: ChangeLayoutRequest,
    ) -> Result<ChangeLayoutResponse, Error> {
        let ids = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect::<BTreeSet<_>>();
        let wish = Wish {
            from_configuration: request.from_configuration,
            lost: ids(&request.lost),
            drain: ids(&request.drain),
            undrain: ids(&request.undrain),
        };
        let Some(planned) = layout_change::plan(&self.core, &wish).await? else {
            let version_before = self.core.layout().await?.version.0;
            return Ok(ChangeLayoutResponse { version_before, ..Default::default() });
        };
        if request.planned_on != 0 && request.planned_on != planned.before.0 {
            return Err(Error::LayoutChanged { version: planned.before });
        }
        let mut answer = to_wire(&planned);
        if !request.dry_run {
            let subject = subject(&wish, &planned);
            let next = (planned.before, &planned.after);
            self.core.catalog.change_layout(actor, next, &subject).await?;
            tracing::info!(version = planned.after.version.0, subject, "a new layout is stored");
            answer.applied = true;
            let (generation, epoch) = self.core.catalog.numbers().await?;
            self.core.apply_layout(&planned.after, generation, epoch).await;
        }
        Ok(answer)
    }
}

/// What the audit row says.
fn subject(wish: &Wish, planned: &Planned) -> String {
    let names = |what: &str, ids: &BTreeSet<NodeId>| {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        if ids.is_empty() { String::new() } else { format!(" {what} {}", ids.join(", ")) }
    };
    format!(
        "layout {}{}{}{}{}",
        planned.after.version.0,
        if wish.from_configuration { " by the configuration" } else { "" },
        names("lost", &wish.lost),
        names("drain", &wish.drain),
        names("undrain", &wish.undrain),
    )
}

fn to_wire(planned: &Planned) -> ChangeLayoutResponse {
    let site = |id: NodeId| planned.after.node(id).map(|node| node.site.0.clone()).unwrap_or_default();
    let nodes = planned.moves.nodes.iter().map(|(id, one)| NodeMove {
        id: id.0,
        site: site(*id),
        partitions_in: one.partitions_in.into(),
        partitions_out: one.partitions_out.into(),
        bytes_in: one.bytes_in,
        bytes_out: one.bytes_out,
    });
    ChangeLayoutResponse {
        version_before: planned.before.0,
        version_after: planned.after.version.0,
        partitions_moving: planned.after.previous.len() as u64,
        bytes_to_move: planned.moves.bytes_to_move,
        nodes: nodes.collect(),
        applied: false,
    }
}
