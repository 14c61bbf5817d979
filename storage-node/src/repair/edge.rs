//! The gRPC edge of repair: wire to typed calls of the core and back. Only storage nodes get here: the role table says so.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_model::{PARTITION_COUNT, PartitionId, RecordKey};
use holdfast_proto::{
    convert::WireError,
    storage::{self, storage_repair_server},
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::{Copy, peers::KEYS_MAX};
use crate::{
    Error, Node,
    handover::{page_to_wire, question_from_wire},
    index::{KEY_BYTES, decode_key, encode_key},
    node::limit,
    roles::node_of,
    service::{MESSAGE_BYTES_MAX, wire_outcomes},
};

/// Calls with records that are worked on at a time; others wait.
const RECORD_CALLS_MAX: usize = 4;

/// The service over a node.
pub struct RepairService {
    node: Arc<Node>,
    room: Semaphore,
}

/// Makes the service. The only place where its message limits are set.
pub fn into_repair_server(node: Arc<Node>) -> storage_repair_server::StorageRepairServer<RepairService> {
    let service = RepairService { node, room: Semaphore::new(RECORD_CALLS_MAX) };
    storage_repair_server::StorageRepairServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

#[tonic::async_trait]
impl storage_repair_server::StorageRepair for RepairService {
    async fn digests(
        &self,
        request: Request<storage::DigestsRequest>,
    ) -> Result<Response<storage::DigestsResponse>, Status> {
        let partitions = request.into_inner().partitions.into_iter().map(partition);
        let digests = self.node.digests(partitions.collect::<Result<_, _>>()?).await?;
        Ok(Response::new(storage::DigestsResponse {
            digests: wire_digests(&digests.digests),
            layout_in_use: digests.layout_in_use.0,
        }))
    }

    async fn leaves(
        &self,
        request: Request<storage::LeavesRequest>,
    ) -> Result<Response<storage::LeavesResponse>, Status> {
        let leaves = self.node.leaves(partition(request.into_inner().partition)?).await?;
        Ok(Response::new(storage::LeavesResponse { digests: wire_digests(&leaves) }))
    }

    async fn keys(
        &self,
        request: Request<storage::KeysRequest>,
    ) -> Result<Response<storage::KeysResponse>, Status> {
        let asked = request.into_inner();
        let leaf = u8::try_from(asked.leaf).map_err(|_| wrong("leaf"))?;
        let after = if asked.after.is_empty() {
            None
        } else {
            Some(key(&asked.after).ok_or_else(|| wrong("after"))?)
        };
        let page = self.node.keys_of((partition(asked.partition)?, leaf), after).await?;
        Ok(Response::new(storage::KeysResponse { keys: wire_keys(&page.keys), more: page.more }))
    }

    async fn holds(
        &self,
        request: Request<storage::HoldsRequest>,
    ) -> Result<Response<storage::HoldsResponse>, Status> {
        let held = self.node.holds(keys(&request.into_inner().keys)?).await?;
        let held = held.into_iter().map(|held| {
            let protection = held.unwrap_or_default();
            storage::Held {
                present: held.is_some(),
                write_epoch: protection.write_epoch,
                touch_epoch: protection.touch_epoch,
                lock_floor_ms: protection.lock_floor_ms,
            }
        });
        Ok(Response::new(storage::HoldsResponse { held: held.collect() }))
    }

    async fn fetch(
        &self,
        request: Request<storage::FetchRequest>,
    ) -> Result<Response<storage::FetchResponse>, Status> {
        let keys = keys(&request.into_inner().keys)?;
        let _room = self.room.acquire().await.map_err(|_| Error::Stopping)?;
        let copies = self.node.copies(keys).await?;
        let copies = copies.into_iter().map(|copy| copy.map_or_else(storage::Copy::default, wire_copy));
        Ok(Response::new(storage::FetchResponse { copies: copies.collect() }))
    }

    async fn hand_over(
        &self,
        request: Request<storage::HandOverRequest>,
    ) -> Result<Response<storage::HandOverResponse>, Status> {
        let asker = node_of(&request).ok_or(Error::NotANode)?;
        let question = question_from_wire(request.into_inner())?;
        let page = self.node.hand_over(asker, question).await?;
        Ok(Response::new(page_to_wire(page)))
    }

    async fn mend(
        &self,
        request: Request<storage::MendRequest>,
    ) -> Result<Response<storage::MendResponse>, Status> {
        let copies = request.into_inner().copies.into_iter();
        let copies =
            copies.map(|storage::Copy { record, touch_epoch }| Copy { record, touch_epoch }).collect();
        let _room = self.room.acquire().await.map_err(|_| Error::Stopping)?;
        let put = self.node.mend(copies).await?;
        Ok(Response::new(storage::MendResponse { outcomes: wire_outcomes(put.outcomes), reason: put.reason }))
    }
}

fn wrong(field: &'static str) -> Error {
    Error::Wire(WireError { field, problem: "out of range or of the wrong length" })
}

fn partition(wire: u32) -> Result<PartitionId, Error> {
    let known = u16::try_from(wire).ok().filter(|one| *one < PARTITION_COUNT);
    known.map(PartitionId).ok_or_else(|| wrong("partition"))
}

pub(super) fn key(wire: &[u8]) -> Option<RecordKey> {
    Some(decode_key(<&[u8; KEY_BYTES]>::try_from(wire).ok()?))
}

fn keys(wire: &[Bytes]) -> Result<Vec<RecordKey>, Error> {
    limit("keys", wire.len(), KEYS_MAX)?;
    wire.iter().map(|one| key(one).ok_or_else(|| wrong("keys"))).collect()
}

pub(super) fn wire_keys(keys: &[RecordKey]) -> Vec<Bytes> {
    keys.iter().map(|key| Bytes::copy_from_slice(&encode_key(key))).collect()
}

pub(super) fn wire_copy(copy: Copy) -> storage::Copy {
    storage::Copy { record: copy.record, touch_epoch: copy.touch_epoch }
}

fn wire_digests(digests: &[[u8; 32]]) -> Vec<Bytes> {
    digests.iter().map(|one| Bytes::copy_from_slice(one)).collect()
}
