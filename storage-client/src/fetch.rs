//! Reading records: from the best holder, and from the next where that one has no good copy.
//!
//! A copy counts only when it decodes, verifies, and is the one asked for. A chunk is missing only when every holder said so: its
//! owners, and while it is moving also those it is moving away from.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, future::join_all, stream};
use holdfast_model::{ChunkId, Layout, LayoutNode, NodeId, PartitionId, TenantId};
use holdfast_proto::{status::ErrorCode, storage};
use holdfast_record::SealedRecord;
use holdfast_repository::StoreError;
use tokio::time::{sleep, timeout};
use tonic::Streaming;

use crate::{
    error::{CallError, combine},
    metrics,
    nodes::{Context, TokenCell},
    options::{GET_CALLS_IN_FLIGHT, READ_PASSES},
};

/// Reads a tenant's records.
#[derive(Clone)]
pub(crate) struct Fetcher {
    context: Arc<Context>,
    layout: Arc<Layout>,
    token: Arc<TokenCell>,
    tenant: TenantId,
}

/// One record wanted.
struct Slot {
    id: ChunkId,
    record: Option<SealedRecord>,
    /// Holders without a good copy.
    answered: Vec<NodeId>,
    /// Holders that did not answer in this pass.
    away: Vec<NodeId>,
    corrupt: bool,
}

/// What one holder had.
enum Copy {
    Good(Box<SealedRecord>),
    Absent,
    Corrupt,
}

/// What a node answered: for the first so many of the ids, and the error that ended it.
type Answer = (LayoutNode, Vec<usize>, Vec<Copy>, Option<CallError>);

impl Fetcher {
    pub(crate) fn new(
        context: Arc<Context>,
        layout: Arc<Layout>,
        token: Arc<TokenCell>,
        tenant: TenantId,
    ) -> Self {
        Self { context, layout, token, tenant }
    }

    pub(crate) fn token(&self) -> &TokenCell {
        &self.token
    }

    /// Fetches records, in the order of the ids.
    pub(crate) async fn get(&self, ids: &[ChunkId]) -> Result<Vec<SealedRecord>, StoreError> {
        let slot = |id: &ChunkId| Slot {
            id: *id,
            record: None,
            answered: Vec::new(),
            away: Vec::new(),
            corrupt: false,
        };
        let mut slots: Vec<Slot> = ids.iter().map(slot).collect();
        let mut errors = Vec::new();
        for pass in 0..READ_PASSES {
            errors.clear();
            self.one_pass(&mut slots, &mut errors).await;
            let retry = slots.iter().any(|slot| slot.record.is_none() && !slot.away.is_empty());
            if !retry || !errors.iter().any(CallError::is_retryable) {
                break;
            }
            if pass + 1 < READ_PASSES {
                slots.iter_mut().for_each(|slot| slot.away.clear());
                sleep(self.context.pause(pass + 1)).await;
            }
        }
        slots.into_iter().map(|slot| result(slot, &errors)).collect()
    }

    /// Asks holder after holder until each slot has its record or no holder is left.
    async fn one_pass(&self, slots: &mut [Slot], errors: &mut Vec<CallError>) {
        loop {
            let batches = self.batches(slots);
            if batches.is_empty() {
                return;
            }
            let calls = batches.into_iter().map(|(node, indexes)| {
                let ids: Vec<ChunkId> = indexes.iter().map(|index| slots[*index].id).collect();
                async move {
                    let (copies, error) = self.get_from(&node, &ids).await;
                    (node, indexes, copies, error)
                }
            });
            // The slots are free to change only when all answers are here.
            let calls: Vec<_> = calls.collect();
            let answers: Vec<Answer> =
                stream::iter(calls).buffer_unordered(GET_CALLS_IN_FLIGHT).collect().await;
            for answer in answers {
                note(slots, answer, errors);
            }
        }
    }

    /// The open slots by the best holder not yet asked, in requests of limited size.
    fn batches(&self, slots: &[Slot]) -> Vec<(LayoutNode, Vec<usize>)> {
        let mut by_node: BTreeMap<NodeId, (&LayoutNode, Vec<usize>)> = BTreeMap::new();
        for (index, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.record.is_none()) {
            let holders = self.context.holders_for_read(&self.layout, PartitionId::of_chunk(slot.id));
            let next = holders
                .into_iter()
                .find(|node| !slot.answered.contains(&node.id) && !slot.away.contains(&node.id));
            if let Some(node) = next {
                by_node.entry(node.id).or_insert_with(|| (node, Vec::new())).1.push(index);
            }
        }
        let size = self.context.options.get_batch;
        by_node
            .into_values()
            .flat_map(|(node, indexes)| {
                indexes.chunks(size).map(|part| (node.clone(), part.to_vec())).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Fetches from one node what it has. After an error the copies are those that came before it.
    async fn get_from(&self, node: &LayoutNode, ids: &[ChunkId]) -> (Vec<Copy>, Option<CallError>) {
        let mut copies = Vec::with_capacity(ids.len());
        let error = match self.open(node, ids).await {
            Ok(answers) => self.drain(node, ids, answers, &mut copies).await.err(),
            Err(error) => Some(error),
        };
        self.context.note(node, error.as_ref());
        (copies, error)
    }

    async fn open(
        &self,
        node: &LayoutNode,
        ids: &[ChunkId],
    ) -> Result<Streaming<storage::GetResponse>, CallError> {
        let started = self.context.monotonic();
        let ids = ids.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect();
        let request = self.token.request(storage::GetRequest { ids });
        let call = |mut rpc: crate::nodes::Rpc| async move { rpc.get(request).await };
        let answers = self.context.call(node, self.context.options.request_timeout.0, call).await?;
        self.context.note_latency(node, self.context.monotonic().saturating_sub(started));
        Ok(answers)
    }

    async fn drain(
        &self,
        node: &LayoutNode,
        ids: &[ChunkId],
        mut answers: Streaming<storage::GetResponse>,
        copies: &mut Vec<Copy>,
    ) -> Result<(), CallError> {
        let limit = self.context.options.request_timeout.0;
        while copies.len() < ids.len() {
            let answer = timeout(limit, answers.message())
                .await
                .map_err(|_| CallError::timeout(node.id))?
                .map_err(|status| CallError::of(node.id, &status))?
                .ok_or_else(|| CallError::new(node.id, ErrorCode::Unavailable, "the answer was cut off"))?;
            for bytes in answer.records {
                let Some(id) = ids.get(copies.len()) else {
                    return Err(CallError::new(node.id, ErrorCode::Internal, "more records than asked for"));
                };
                copies.push(self.check(node, *id, bytes));
            }
        }
        Ok(())
    }

    /// Whether these bytes are the record asked for.
    fn check(&self, node: &LayoutNode, id: ChunkId, bytes: Bytes) -> Copy {
        if bytes.is_empty() {
            return Copy::Absent;
        }
        let problem = match SealedRecord::decode(bytes).and_then(|record| record.verify().map(|()| record)) {
            Ok(record) if record.header.id == id && record.header.tenant == self.tenant => {
                return Copy::Good(Box::new(record));
            }
            Ok(_) => "it is another record".to_owned(),
            Err(error) => error.to_string(),
        };
        metrics::corrupt_copy();
        tracing::warn!(node = %node.id, chunk = %id, %problem, "a copy does not verify");
        Copy::Corrupt
    }

    /// Fetches every distinct good copy of one record.
    pub(crate) async fn get_copies(&self, id: ChunkId) -> Result<Vec<SealedRecord>, StoreError> {
        let holders = self.context.holders_for_read(&self.layout, PartitionId::of_chunk(id));
        let ids = [id];
        let answers = join_all(holders.into_iter().map(|node| self.get_from(node, &ids))).await;
        let (mut copies, mut errors, mut corrupt): (Vec<SealedRecord>, _, _) =
            (Vec::new(), Vec::new(), false);
        for (found, error) in answers {
            errors.extend(error);
            for copy in found {
                match copy {
                    Copy::Good(record) if copies.iter().all(|known| !same_content(known, &record)) => {
                        copies.push(*record);
                    }
                    Copy::Corrupt => corrupt = true,
                    _ => {}
                }
            }
        }
        match copies.is_empty() {
            false => Ok(copies),
            true => Err(failure(id, corrupt, !errors.is_empty(), &errors)),
        }
    }
}

/// Whether two copies differ in nothing but where they are kept.
fn same_content(a: &SealedRecord, b: &SealedRecord) -> bool {
    (a.ct, a.nonce, &a.refs) == (b.ct, b.nonce, &b.refs) && a.header.aad() == b.header.aad()
}

fn note(slots: &mut [Slot], (node, indexes, copies, error): Answer, errors: &mut Vec<CallError>) {
    let answered = copies.len();
    for (index, copy) in indexes.iter().zip(copies) {
        let slot = &mut slots[*index];
        match copy {
            Copy::Good(record) => {
                if !slot.answered.is_empty() || !slot.away.is_empty() {
                    metrics::fell_over(1);
                }
                slot.record = Some(*record);
            }
            Copy::Absent => slot.answered.push(node.id),
            Copy::Corrupt => {
                slot.corrupt = true;
                slot.answered.push(node.id);
            }
        }
    }
    for index in indexes.iter().skip(answered) {
        slots[*index].away.push(node.id);
    }
    errors.extend(error);
}

fn result(slot: Slot, errors: &[CallError]) -> Result<SealedRecord, StoreError> {
    slot.record.ok_or_else(|| failure(slot.id, slot.corrupt, !slot.away.is_empty(), errors))
}

/// Why a record cannot be had. A holder that is away may have it, so nothing is missing or corrupt before all answered.
fn failure(id: ChunkId, corrupt: bool, away: bool, errors: &[CallError]) -> StoreError {
    if away {
        combine("not every holder of a chunk answers, and those that do have no good copy", errors)
    } else if corrupt {
        StoreError::Corrupt { id }
    } else {
        StoreError::Missing { id }
    }
}
