//! Writing records until they are durable at the policy's level.
//!
//! The first live owner takes a record and forwards it; it is done when answers from owners in `ack_sites` sites cover it.
//! What an owner acknowledged in one attempt counts in the next, so two sites that do not see each other both serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use holdfast_model::{Layout, LayoutNode, NodeId, PartitionId, SessionId, SiteName};
use holdfast_proto::{
    status::ErrorCode,
    storage::{self, PutOutcome},
};
use holdfast_record::SealedRecord;
use holdfast_repository::StoreError;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::{
    error::{CallError, combine, most_telling},
    metrics,
    nodes::{Context, TokenCell},
    options::LANE_FRAMES_MAX,
    put_lane::{BudgetShare, Frame, PutLane},
};

/// Writes for one session.
pub(crate) struct Writer {
    pub(crate) context: Arc<Context>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) token: Arc<TokenCell>,
    pub(crate) session: SessionId,
    budget: Arc<Semaphore>,
    budget_bytes: u32,
    lanes: Mutex<BTreeMap<NodeId, mpsc::Sender<Frame>>>,
    loops: TaskTracker,
    cancel: CancellationToken,
}

/// A record on its way.
struct Pending {
    record: SealedRecord,
    partition: PartitionId,
    /// Sites that have it, fsynced.
    sites: BTreeSet<SiteName>,
}

/// What one frame came to: the records in it, and the answer.
type FrameResult = (Vec<usize>, Result<storage::PutResponse, CallError>);

impl Writer {
    pub(crate) fn new(
        context: Arc<Context>,
        layout: Arc<Layout>,
        token: Arc<TokenCell>,
        session: SessionId,
        (loops, cancel): (TaskTracker, CancellationToken),
    ) -> Self {
        let budget_bytes = u32::try_from(context.options.in_flight_bytes.0).unwrap_or(u32::MAX >> 1);
        Self {
            budget: Arc::new(Semaphore::new(budget_bytes as usize)),
            budget_bytes,
            context,
            layout,
            token,
            session,
            lanes: Mutex::default(),
            loops,
            cancel,
        }
    }

    pub(crate) fn in_flight_bytes(&self) -> u64 {
        u64::from(self.budget_bytes) - self.budget.available_permits() as u64
    }

    /// Puts records; returns when all are durable, or when `retry_for` was not enough.
    pub(crate) async fn put(&self, records: Vec<SealedRecord>) -> Result<(), StoreError> {
        let options = &self.context.options;
        let deadline = Instant::now() + options.retry_for.0;
        let ack_sites = usize::from(self.layout.replication.ack_sites);
        let mut pending: Vec<Pending> = records
            .into_iter()
            .map(|record| Pending {
                partition: PartitionId::of_chunk(record.header.id),
                sites: BTreeSet::new(),
                record,
            })
            .collect();
        let mut attempt = 0;
        loop {
            let errors = self.put_once(&mut pending, attempt).await?;
            pending.retain(|record| record.sites.len() < ack_sites);
            if pending.is_empty() {
                return Ok(());
            }
            if errors.iter().any(|error| !error.is_retryable()) {
                return Err(combine("the records were refused", &errors));
            }
            metrics::records_retried(pending.len());
            let pause = self.context.pause(attempt);
            if Instant::now() + pause >= deadline {
                return Err(self.not_durable(&pending, &errors));
            }
            if attempt == 0 {
                let reason = errors.first().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(records = pending.len(), %reason, "records are not durable yet and are put again");
            }
            sleep(pause).await;
            attempt += 1;
        }
    }

    /// Sends every pending record once and notes who has it.
    async fn put_once(&self, pending: &mut [Pending], attempt: u32) -> Result<Vec<CallError>, StoreError> {
        let mut by_target: BTreeMap<NodeId, (LayoutNode, Vec<usize>)> = BTreeMap::new();
        for (index, record) in pending.iter().enumerate() {
            let node = self.target(record, attempt)?;
            by_target.entry(node.id).or_insert_with(|| (node.clone(), Vec::new())).1.push(index);
        }
        let sending = by_target
            .into_values()
            .map(|(node, indexes)| self.send_to(node, indexes, pending))
            .collect::<Vec<_>>();
        let results = join_all(sending).await;
        let mut errors = Vec::new();
        for (indexes, result) in results.into_iter().flatten() {
            match result {
                Ok(answer) => self.note_answer(pending, &indexes, &answer, &mut errors),
                Err(error) => errors.push(error),
            }
        }
        Ok(errors)
    }

    /// Who gets a record in an attempt: the first live owner; later in turn the others, those who miss it above all.
    fn target(&self, record: &Pending, attempt: u32) -> Result<&LayoutNode, StoreError> {
        let (owners, n_live) = self.context.owners_for_write(&self.layout, record.partition);
        let missing = owners.iter().find(|owner| !record.sites.contains(&owner.site));
        let turn = attempt as usize % n_live.max(1);
        let chosen = match missing {
            Some(missing) if !record.sites.is_empty() && attempt % 2 == 1 => Some(missing),
            _ => owners.get(turn),
        };
        chosen.copied().ok_or_else(|| StoreError::Refused {
            reason: format!("the layout names no owner of partition {}", record.partition.0),
        })
    }

    /// Sends records to a node, frame by frame as the budget allows, and waits for all answers.
    async fn send_to(&self, node: LayoutNode, indexes: Vec<usize>, pending: &[Pending]) -> Vec<FrameResult> {
        let answers = FuturesUnordered::new();
        for (frame, bytes) in self.frames(indexes, pending) {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.budget_bytes);
            let permit =
                self.budget.clone().acquire_many_owned(bytes).await.expect("the budget is never closed");
            let (reply, answer) = oneshot::channel();
            let records = frame.iter().map(|index| pending[*index].record.encode()).collect();
            let out = Frame { records, share: BudgetShare::new(permit, bytes), reply, sends: 0 };
            // A lane that has ended drops the frame, and with it the reply.
            let _ = self.lane(&node).send(out).await;
            let ended = CallError::new(node.id, ErrorCode::SessionLost, "the session has ended");
            answers.push(async move { (frame, answer.await.unwrap_or(Err(ended))) });
        }
        answers.collect().await
    }

    /// Cuts records into frames, each with its size.
    fn frames(&self, indexes: Vec<usize>, pending: &[Pending]) -> Vec<(Vec<usize>, u64)> {
        let limit = self.context.options.put_frame_bytes.0;
        let mut frames: Vec<(Vec<usize>, u64)> = Vec::new();
        for index in indexes {
            let bytes = pending[index].record.encoded_len() as u64;
            match frames.last_mut() {
                Some((frame, size)) if *size + bytes <= limit => {
                    frame.push(index);
                    *size += bytes;
                }
                _ => frames.push((vec![index], bytes)),
            }
        }
        frames
    }

    /// The node's put stream, started with the first frame.
    fn lane(&self, node: &LayoutNode) -> mpsc::Sender<Frame> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || {
            let (frames, inbox) = mpsc::channel(LANE_FRAMES_MAX);
            let lane = PutLane {
                context: self.context.clone(),
                token: self.token.clone(),
                session: self.session,
                node: node.clone(),
            };
            self.loops.spawn(lane.run(inbox, self.cancel.clone()).in_current_span());
            frames
        };
        lanes.entry(node.id).or_insert_with(start).clone()
    }

    /// Counts the sites that an answer covers, record by record. Only owners of a record count.
    fn note_answer(
        &self,
        pending: &mut [Pending],
        indexes: &[usize],
        answer: &storage::PutResponse,
        errors: &mut Vec<CallError>,
    ) {
        for replica in &answer.replicas {
            let id = NodeId(replica.node_id);
            let Some(node) = self.layout.node(id).filter(|_| replica.outcomes.len() == indexes.len()) else {
                errors.push(CallError::new(
                    id,
                    ErrorCode::Internal,
                    "an answer that does not fit the request",
                ));
                continue;
            };
            let mut failed = false;
            for (index, outcome) in indexes.iter().zip(replica.outcomes()) {
                let record = &mut pending[*index];
                match outcome {
                    PutOutcome::Stored | PutOutcome::Exists if self.layout.owns(id, record.partition) => {
                        record.sites.insert(node.site.clone());
                    }
                    PutOutcome::Failed => failed = true,
                    _ => {}
                }
            }
            if failed {
                errors.push(CallError::new(id, ErrorCode::Unavailable, replica.reason.clone()));
            }
        }
    }

    /// Names what is missing, site by site.
    fn not_durable(&self, pending: &[Pending], errors: &[CallError]) -> StoreError {
        let mut missing: BTreeMap<&SiteName, BTreeSet<NodeId>> = BTreeMap::new();
        for record in pending {
            for owner in self.layout.owners_of(record.partition).filter(|o| !record.sites.contains(&o.site)) {
                missing.entry(&owner.site).or_default().insert(owner.id);
            }
        }
        let why = |node: &NodeId| match errors.iter().rev().find(|error| error.node == *node) {
            Some(error) => format!("{node} ({})", error.message),
            None => node.to_string(),
        };
        let sites: Vec<String> = missing
            .into_iter()
            .map(|(site, nodes)| {
                let nodes: Vec<String> = nodes.iter().map(why).collect();
                format!("not stored in site {site}: {}", nodes.join(", "))
            })
            .collect();
        let (sites, n_records) = (sites.join("; "), pending.len());
        let ack_sites = self.layout.replication.ack_sites;
        let reason = format!("{sites}; {n_records} records are not yet in {ack_sites} sites");
        most_telling(errors).unwrap_or(StoreError::Unavailable { reason })
    }
}
