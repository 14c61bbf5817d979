//! Asking which chunks are already durable, so that they need not be sent.
//!
//! Yes means: owners in `ack_sites` sites have said yes and protect the chunk until the session ends. Every doubt is a no,
//! which costs an upload; the put decides.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use holdfast_model::{ChunkId, LayoutNode, NodeId, PartitionId};
use holdfast_proto::{
    status::ErrorCode,
    storage::{self, Presence},
};
use holdfast_repository::StoreError;
use tonic::Response;

use crate::{error::CallError, nodes::Rpc, options::HAVE_CALLS_IN_FLIGHT, put::Writer};

type Batch = (LayoutNode, Vec<usize>);

/// Asks for each id, in order.
pub(crate) async fn have(writer: &Writer, ids: &[ChunkId]) -> Result<Vec<bool>, StoreError> {
    let mut durable = vec![false; ids.len()];
    let mut open: Vec<usize> = (0..ids.len()).collect();
    // An owner that does not answer is marked down, and one that refuses is passed over: the next round asks another first.
    for round in 0..usize::from(writer.layout.replication.copies).max(1) {
        if open.is_empty() {
            break;
        }
        let calls = batches(writer, ids, &open, round).into_iter().map(|(node, indexes)| async move {
            let answer = ask(writer, &node, ids, &indexes).await;
            (indexes, answer)
        });
        let answers: Vec<_> = stream::iter(calls).buffer_unordered(HAVE_CALLS_IN_FLIGHT).collect().await;
        open.clear();
        for (indexes, answer) in answers {
            match answer {
                Ok(answer) => note(writer, ids, &indexes, &answer, &mut durable),
                Err(error) if error.is_retryable() => {
                    tracing::debug!(node = %error.node, reason = %error.message, "another owner is asked what it has");
                    open.extend(indexes);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(durable)
}

/// The open ids by an owner, the first live one in the first round and the next in each further, in requests of limited size.
fn batches(writer: &Writer, ids: &[ChunkId], open: &[usize], round: usize) -> Vec<Batch> {
    let mut by_node: BTreeMap<NodeId, Batch> = BTreeMap::new();
    for index in open {
        let partition = PartitionId::of_chunk(ids[*index]);
        let (owners, n_live) = writer.context.owners_for_write(&writer.layout, partition);
        if let Some(node) = owners.get(round % n_live.max(1)) {
            by_node.entry(node.id).or_insert_with(|| ((*node).clone(), Vec::new())).1.push(*index);
        }
    }
    let size = writer.context.options.have_batch;
    by_node
        .into_values()
        .flat_map(|(node, indexes)| {
            indexes.chunks(size).map(|part| (node.clone(), part.to_vec())).collect::<Vec<_>>()
        })
        .collect()
}

async fn ask(
    writer: &Writer,
    node: &LayoutNode,
    ids: &[ChunkId],
    indexes: &[usize],
) -> Result<storage::HaveResponse, CallError> {
    let ids = indexes.iter().map(|index| Bytes::copy_from_slice(ids[*index].as_bytes())).collect();
    let message = storage::HaveRequest { session: writer.session.0, ids };
    let request = writer.token.request(stream::iter([message]));
    let call = |mut rpc: Rpc| async move {
        let answer = rpc.have(request).await?.into_inner().message().await?;
        answer.map(Response::new).ok_or_else(|| ErrorCode::Unavailable.status("the answer was cut off"))
    };
    writer.context.call(node, writer.context.options.request_timeout.0, call).await
}

/// Counts yes answers by site. Only owners of a chunk count.
fn note(
    writer: &Writer,
    ids: &[ChunkId],
    indexes: &[usize],
    answer: &storage::HaveResponse,
    durable: &mut [bool],
) {
    let layout = &writer.layout;
    let fitting: Vec<_> = answer
        .replicas
        .iter()
        .filter(|replica| replica.presence.len() == indexes.len())
        .filter_map(|replica| layout.node(NodeId(replica.node_id)).map(|node| (node, &replica.presence)))
        .collect();
    for (position, index) in indexes.iter().enumerate() {
        let partition = PartitionId::of_chunk(ids[*index]);
        let sites: BTreeSet<_> = fitting
            .iter()
            .filter(|(_, presence)| presence[position] == Presence::Yes as i32)
            .filter(|(node, _)| layout.owns(node.id, partition))
            .map(|(node, _)| &node.site)
            .collect();
        durable[*index] = sites.len() >= usize::from(layout.replication.ack_sites);
    }
}
