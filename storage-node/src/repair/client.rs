//! Calls the repair service of other storage nodes over the channel that [`PeerClient`] has to them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::{LayoutNode, LayoutVersion, PartitionId, RecordKey};
use holdfast_proto::storage;
use tokio::time::timeout;
use tonic::{Response, Status};

use super::{
    Copy, Digest, Digests, KeyPage, Protection, RepairPeers,
    edge::{key, wire_copy, wire_keys},
};
use crate::{
    PeerClient,
    handover::{HandoverQuestion, SpacePage, page_from_wire, question_to_wire},
    peer_client::{RepairClient, refused_or_unreachable, replica_outcomes},
    peers::{PeerError, ReplicaPut},
};

/// How long any of these calls may take.
const DEADLINE: Duration = Duration::from_secs(30);

impl PeerClient {
    async fn repair_call<A, F>(
        &self,
        node: &LayoutNode,
        call: impl FnOnce(RepairClient) -> F + Send,
    ) -> Result<A, PeerError>
    where
        F: Future<Output = Result<Response<A>, Status>> + Send,
    {
        let peer = self.peer(node)?;
        self.admit(&peer)?;
        let result = match timeout(DEADLINE, call(peer.repair_client())).await {
            Err(_) => Err(PeerError::TooSlow),
            Ok(Err(status)) => Err(refused_or_unreachable(&status)),
            Ok(Ok(answer)) => Ok(answer.into_inner()),
        };
        self.note(&peer, &result);
        result
    }
}

#[async_trait]
impl RepairPeers for PeerClient {
    async fn digests(&self, peer: &LayoutNode, partitions: &[PartitionId]) -> Result<Digests, PeerError> {
        let partitions = partitions.iter().map(|one| u32::from(one.0)).collect();
        let call = |mut client: RepairClient| async move {
            client.digests(storage::DigestsRequest { partitions }).await
        };
        let answer = self.repair_call(peer, call).await?;
        let layout_in_use = LayoutVersion(answer.layout_in_use);
        Ok(Digests { digests: digests(&answer.digests)?, layout_in_use })
    }

    async fn leaves(&self, peer: &LayoutNode, partition: PartitionId) -> Result<Vec<Digest>, PeerError> {
        let call = |mut client: RepairClient| async move {
            client.leaves(storage::LeavesRequest { partition: partition.0.into() }).await
        };
        digests(&self.repair_call(peer, call).await?.digests)
    }

    async fn keys(
        &self,
        peer: &LayoutNode,
        (partition, leaf): (PartitionId, u8),
        after: Option<RecordKey>,
    ) -> Result<KeyPage, PeerError> {
        let after = after.and_then(|after| wire_keys(&[after]).pop()).unwrap_or_default();
        let request = storage::KeysRequest { partition: partition.0.into(), leaf: leaf.into(), after };
        let call = |mut client: RepairClient| async move { client.keys(request).await };
        let answer = self.repair_call(peer, call).await?;
        let keys = answer.keys.iter().map(|one| key(one).ok_or(PeerError::Nonsense));
        Ok(KeyPage { keys: keys.collect::<Result<_, _>>()?, more: answer.more })
    }

    async fn holds(
        &self,
        peer: &LayoutNode,
        keys: &[RecordKey],
    ) -> Result<Vec<Option<Protection>>, PeerError> {
        let request = storage::HoldsRequest { keys: wire_keys(keys) };
        let call = |mut client: RepairClient| async move { client.holds(request).await };
        let answer = self.repair_call(peer, call).await?;
        let held = answer.held.into_iter().map(|held| {
            let storage::Held { present, write_epoch, touch_epoch, lock_floor_ms } = held;
            present.then_some(Protection { write_epoch, touch_epoch, lock_floor_ms })
        });
        Ok(held.collect())
    }

    async fn fetch(&self, peer: &LayoutNode, keys: &[RecordKey]) -> Result<Vec<Option<Copy>>, PeerError> {
        let request = storage::FetchRequest { keys: wire_keys(keys) };
        let call = |mut client: RepairClient| async move { client.fetch(request).await };
        let answer = self.repair_call(peer, call).await?;
        let copies = answer.copies.into_iter().map(|storage::Copy { record, touch_epoch }| {
            (!record.is_empty()).then_some(Copy { record, touch_epoch })
        });
        Ok(copies.collect())
    }

    async fn mend(&self, peer: &LayoutNode, copies: Vec<Copy>) -> Result<ReplicaPut, PeerError> {
        let request = storage::MendRequest { copies: copies.into_iter().map(wire_copy).collect() };
        let call = |mut client: RepairClient| async move { client.mend(request).await };
        let answer = self.repair_call(peer, call).await?;
        let outcomes = replica_outcomes(answer.outcomes())?;
        Ok(ReplicaPut { outcomes, reason: answer.reason })
    }

    async fn hand_over(
        &self,
        peer: &LayoutNode,
        question: &HandoverQuestion,
    ) -> Result<SpacePage, PeerError> {
        let request = question_to_wire(question);
        let call = |mut client: RepairClient| async move { client.hand_over(request).await };
        page_from_wire(self.repair_call(peer, call).await?).map_err(|_| PeerError::Nonsense)
    }
}

fn digests(wire: &[Bytes]) -> Result<Vec<Digest>, PeerError> {
    wire.iter().map(|one| Digest::try_from(&one[..]).map_err(|_| PeerError::Nonsense)).collect()
}
