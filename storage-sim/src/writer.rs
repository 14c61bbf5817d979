//! A writer: one attempt of a backup, through the real storage client.
//!
//! It knows what an honest worker knows, and does what one does; whatever it is told goes to the oracle. Some are zombies:
//! cut off or paused until another attempt has taken over, and then they go on.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use holdfast_model::{ChunkId, SessionId, SnapshotId};
use holdfast_record::{Pin, SealedRecord};
use holdfast_repository::{ChunkStore as _, StoreError};
use holdfast_storage_client::{CommitOutcome, SessionParams, StorageClient, StorageSession};
use tokio::time::sleep;

use crate::{
    SimRandom,
    authority::{Lease, WORKLOAD, outcome_word},
    content::{ChunkNumber, TENANT, snapshot},
    net::Place,
    world::World,
};

/// Times one batch is tried.
const TRIES: u32 = 3;
/// Chunks of one batch.
const BATCH_CHUNKS_MAX: u64 = 16;

/// When an attempt stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Never.
    Never,
    /// Between its batches.
    Between(Duration),
    /// With the ticket in its hand.
    BeforeCommit(Duration),
}

/// One attempt.
pub struct Attempt {
    pub world: Arc<World>,
    pub lease: Lease,
    pub client: StorageClient,
    pub place: Place,
    pub random: SimRandom,
    pub pause: Pause,
    /// Whether the machine is cut off while it stands still.
    pub cut_off: bool,
}

impl Attempt {
    /// Runs to its end; says whether its pin was committed.
    pub async fn run(self) -> bool {
        let Lease { fence, sequence, resource, .. } = &self.lease;
        let who = format!("attempt {fence} of {:02x}", resource.0[0]);
        self.world.log.add(format_args!("{who} starts for {sequence}, pause {:?}", self.pause));
        let ended = self.back_up().await;
        match &ended {
            Ok(outcome) => self.world.log.add(format_args!("{who} ends: {}", outcome_word(outcome))),
            Err(error) => self.world.log.add(format_args!("{who} gives up: {error}")),
        }
        matches!(ended, Ok(Ok(CommitOutcome::Committed { .. })))
    }

    async fn back_up(&self) -> Result<Result<CommitOutcome, StoreError>, StoreError> {
        let params = SessionParams {
            session: SessionId(self.random.draw()),
            tenant: TENANT,
            resource: self.lease.resource,
            workload: WORKLOAD,
            base_pin: self.lease.base,
        };
        let session =
            self.client.open_session(self.lease.layout.clone(), self.lease.token.clone(), params).await?;
        let mut chunks = Vec::new();
        let n_batches = self.random.between(1, 4);
        for n in 0..n_batches {
            let batch = self.choose();
            self.store(&session, &batch.iter().map(|chunk| chunk.record()).collect::<Vec<_>>()).await?;
            chunks.extend(batch);
            if self.random.per_mille(250) {
                self.checkpoint(&session, n + 1, &chunks).await?;
            }
            if self.random.per_mille(300) {
                self.read_back(&session).await;
            }
            if let (Pause::Between(time), 0) = (self.pause, n) {
                self.stand_still(time).await;
            }
        }
        chunks.sort_unstable();
        chunks.dedup();
        let object = snapshot(self.random.draw(), &chunks);
        self.store(&session, std::slice::from_ref(&object)).await?;
        let outcome = self.commit(&session, &object).await;
        session.close().await;
        outcome
    }

    /// Some chunks that others have too, some that are new.
    fn choose(&self) -> Vec<ChunkNumber> {
        let next = &self.world.next_chunk;
        let mut chunks: Vec<ChunkNumber> = (0..self.random.between(1, BATCH_CHUNKS_MAX))
            .map(|_| {
                let known = next.load(Ordering::Relaxed);
                let is_new = known == 0 || self.random.per_mille(500);
                ChunkNumber(if is_new {
                    next.fetch_add(1, Ordering::Relaxed)
                } else {
                    self.random.below(known)
                })
            })
            .collect();
        chunks.sort_unstable();
        chunks.dedup();
        chunks
    }

    /// Asks what is there and sends the rest.
    async fn store(&self, session: &StorageSession, records: &[SealedRecord]) -> Result<(), StoreError> {
        self.world.oracle.expect(records);
        let mut tries = 1;
        loop {
            match self.store_once(session, records).await {
                Err(error) if error.is_retryable() && tries < TRIES => {
                    tries += 1;
                    sleep(Duration::from_millis(self.random.between(10, 2_000))).await;
                }
                ended => return ended,
            }
        }
    }

    async fn store_once(&self, session: &StorageSession, records: &[SealedRecord]) -> Result<(), StoreError> {
        let (oracle, terms) = (&self.world.oracle, (self.lease.epoch.0, self.lease.layout.version));
        let ids: Vec<ChunkId> = records.iter().map(|record| record.header.id).collect();
        let there = session.have(&ids).await?;
        oracle.acked(ids.iter().zip(&there).filter(|(_, there)| **there).map(|(id, _)| *id), terms);
        let missing: Vec<SealedRecord> = records
            .iter()
            .zip(&there)
            .filter(|(_, there)| !**there)
            .map(|(record, _)| record.clone())
            .collect();
        let missing_ids: Vec<ChunkId> = missing.iter().map(|record| record.header.id).collect();
        session.put(missing).await?;
        oracle.acked(missing_ids, terms);
        Ok(())
    }

    async fn checkpoint(
        &self,
        session: &StorageSession,
        revision: u64,
        chunks: &[ChunkNumber],
    ) -> Result<(), StoreError> {
        let roots: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id()).collect();
        let body = Bytes::from(vec![0x5a; 200]);
        match session.put_checkpoint(self.lease.fence, revision, body, &roots).await {
            // The next one may succeed; until then a resumed attempt does more again.
            Err(error) if error.is_retryable() => Ok(()),
            ended => ended,
        }
    }

    /// Reads something that is acknowledged.
    async fn read_back(&self, session: &StorageSession) {
        let acked = self.world.oracle.acked_by(self.lease.layout.version);
        let mut ids: Vec<ChunkId> = (0..5).filter_map(|_| self.random.pick(&acked).copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        if !ids.is_empty() {
            let read = session.get(&ids).await;
            self.world.oracle.read(&ids, None, &read);
        }
    }

    async fn commit(
        &self,
        session: &StorageSession,
        object: &SealedRecord,
    ) -> Result<Result<CommitOutcome, StoreError>, StoreError> {
        let pin = Pin {
            tenant: TENANT,
            resource: self.lease.resource,
            workload: WORKLOAD,
            sequence: self.lease.sequence,
            fence: self.lease.fence,
            epoch: session.epoch(),
            snapshot: SnapshotId(self.random.draw().to_le_bytes()),
            root: object.header.id,
            sealed_root: Bytes::from_static(b"sealed"),
            previous: self.lease.base,
            created_ms: 1,
            retain_until_ms: 0,
            items: 1,
            items_missing: 0,
        };
        let bytes = pin.encode();
        let authority = &self.world.authority;
        let Some(ticket) = authority.prepare_commit(&pin, &bytes) else { return Err(StoreError::Fenced) };
        if let Pause::BeforeCommit(time) = self.pause {
            self.stand_still(time).await;
        }
        let (layout, token) = (self.lease.layout.clone(), self.lease.token.clone());
        let version = layout.version;
        // A session that knows that it is lost would not send it; a process that has just woken up may.
        let outcome = match self.pause {
            Pause::Never => session.commit_pin(&ticket, &bytes).await,
            _ => self.client.commit_pin(layout, token, TENANT, pin.resource, &ticket, &bytes).await,
        };
        match &outcome {
            Ok(CommitOutcome::Committed { .. }) => authority.record_commit(&pin, version),
            Ok(CommitOutcome::Fenced { .. } | CommitOutcome::Conflict) => {
                self.world.oracle.void(&pin, version)
            }
            Err(_) => {}
        }
        Ok(outcome)
    }

    async fn stand_still(&self, time: Duration) {
        self.world.log.add(format_args!("attempt {} stands still for {time:?}", self.lease.fence));
        if self.cut_off {
            for index in 0..self.world.n_nodes() {
                let node = self.world.node(index).place;
                self.world.net.block(self.place, node);
                self.world.net.block(node, self.place);
            }
        }
        sleep(time).await;
        self.world.net.heal_place(self.place);
        self.world.log.add(format_args!("attempt {} goes on", self.lease.fence));
    }
}
