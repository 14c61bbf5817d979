//! What a job checkpoint of a backup holds besides the partial trees, and when one is written: every so often, and when
//! Microsoft makes the job wait.
//!
//! The invariant: it is written only when nothing is in flight, so everything its links lead past is in the trees, on its
//! failed list, or pending.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_model::JobId;
use holdfast_repository::{StoreError, TreeRoots};
use serde::{Deserialize, Serialize};

use super::{
    Collector, FetchError, ItemFailure, Source, State, consider::Fetched, ledger::Ledger, split::Unmerged,
};
use crate::{JobError, backup::seal_checkpoint, metrics};

/// Job checkpoints above this are not written: the pin owners take no larger ones.
const MAX_BYTES: usize = 12 << 20;
/// What is being fetched when Microsoft stops the job gets so long to end; then it is pending.
const LAST_FETCHES: Duration = Duration::from_mins(1);

/// A container whose round was interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenContainer {
    /// The next page.
    pub next: String,
    /// It is a page of an initial round.
    pub is_full: bool,
}

/// A shard that is not merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptShard {
    id: JobId,
    /// The roots of its input, in hexadecimal.
    input: String,
}

impl KeptShard {
    pub fn of(shard: &Unmerged) -> Self {
        Self { id: shard.id, input: hex::encode(shard.input.to_bytes()) }
    }

    fn read(&self) -> Option<Unmerged> {
        let input = TreeRoots::from_bytes(&hex::decode(&self.input).ok()?).ok()?;
        Some(Unmerged { id: self.id, input })
    }
}

/// How far an attempt got.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    pub state: State,
    /// Containers that are done in this run.
    pub done: BTreeSet<String>,
    /// By container id.
    pub open: BTreeMap<String, OpenContainer>,
    pub failed: BTreeMap<String, ItemFailure>,
    /// Ids that were reported removed, with the key of the container, in hexadecimal.
    pub removed: BTreeMap<String, String>,
    /// Ids to be asked for again before anything is listed, with the path of their place: those that had no outcome, and the rest of
    /// the base's failed list. At most what a failed list and two shards hold, one that is open and one that was taken back, and one
    /// more than is fetched at once.
    #[serde(default)]
    pub pending: BTreeMap<String, String>,
    /// The rest of the ids that the base's run listed and did not find.
    #[serde(default)]
    pub gone_before: BTreeSet<String>,
    /// In the order in which they were made. Their items are listed, without an outcome, and not pending.
    #[serde(default)]
    pub shards: Vec<KeptShard>,
    pub removed_count: u64,
    pub bytes_read: u64,
    /// Items that were listed, packed; see [`Self::with_ledger`].
    pub listed: String,
}

impl Checkpoint {
    /// Reads it with its ledger; none when it is of another version or damaged.
    pub fn read(body: &[u8]) -> Option<(Self, Ledger)> {
        let checkpoint: Self = serde_json::from_slice(body).ok()?;
        checkpoint.unmerged()?;
        let ledger = checkpoint.ledger()?;
        Some((checkpoint, ledger))
    }

    /// Adds the ledger.
    pub fn with_ledger(mut self, ledger: &Ledger) -> Self {
        self.listed = STANDARD.encode(ledger.pack());
        self.removed_count = ledger.removed;
        self.bytes_read = ledger.bytes_read;
        self
    }

    /// The ledger; none when it is damaged.
    fn ledger(&self) -> Option<Ledger> {
        let mut ledger =
            Ledger::unpack(&STANDARD.decode(&self.listed).ok()?, &self.pending, !self.shards.is_empty())?;
        ledger.removed = self.removed_count;
        ledger.bytes_read = self.bytes_read;
        Some(ledger)
    }

    /// The shards; none when they are damaged.
    pub fn unmerged(&self) -> Option<Vec<Unmerged>> {
        self.shards.iter().map(KeptShard::read).collect()
    }

    /// The removed ids with the key of the container they were removed from.
    pub fn removed_keys(&self) -> HashMap<String, [u8; 16]> {
        let read = |(id, text): (&String, &String)| {
            let mut key = [0; 16];
            hex::decode_to_slice(text, &mut key).ok()?;
            Some((id.clone(), key))
        };
        self.removed.iter().filter_map(read).collect()
    }
}

impl<S: Source> Collector<S> {
    pub(super) async fn checkpoint_if_due(&mut self) -> Result<(), JobError> {
        let every = self.context.options.checkpoint_every;
        let elapsed = self.context.shared.clock.monotonic().saturating_sub(self.checkpointed_at);
        let is_due = self.since_checkpoint >= every.items || elapsed >= Duration::from_secs(every.seconds);
        if self.since_checkpoint == 0 || !is_due {
            return Ok(());
        }
        self.drain().await?;
        self.write_checkpoint().await
    }

    /// Ends a run that cannot go on. Where Microsoft is the cause, what was stored is kept in a job checkpoint, so that the next
    /// attempt fetches nothing twice. The error is the one to end with.
    pub(super) async fn leave(&mut self, error: JobError) -> JobError {
        if !matches!(error, JobError::Graph(_)) {
            return error;
        }
        match self.keep_for_later().await {
            Ok(()) => error,
            // Somebody else has the job.
            Err(lost) if lost.release().is_none() => lost,
            Err(problem) => {
                tracing::warn!(%problem, "no job checkpoint, the next attempt repeats what this one did");
                error
            }
        }
    }

    async fn keep_for_later(&mut self) -> Result<(), JobError> {
        self.finish_fetches().await?;
        self.report();
        if self.since_checkpoint == 0 {
            return Ok(());
        }
        self.write_checkpoint().await
    }

    /// Takes what still arrives. What does not, or may work later, stays without an outcome.
    async fn finish_fetches(&mut self) -> Result<(), JobError> {
        let limit = tokio::time::sleep(LAST_FETCHES);
        tokio::pin!(limit);
        loop {
            let fetched = tokio::select! {
                biased;
                fetched = self.in_flight.next() => fetched,
                () = &mut limit => None,
            };
            match fetched {
                None => break,
                Some(fetched) if may_work_later(&fetched) => {}
                Some(fetched) => self.settle(fetched).await?,
            }
        }
        self.in_flight.end().await;
        Ok(())
    }

    async fn write_checkpoint(&mut self) -> Result<(), JobError> {
        let roots = self.context.manifest.merge().await?;
        let mut pending = self.pending.clone();
        for (id, container) in self.ledger.unsettled() {
            if self.split.is_in_shard(id) {
                continue;
            }
            pending.entry(id.to_owned()).or_insert_with(|| self.path(container).to_owned());
        }
        let checkpoint = Checkpoint {
            state: self.state.clone(),
            done: self.done.clone(),
            open: self.open.clone(),
            failed: self.failed.clone(),
            removed: self.removed.iter().map(|(id, key)| (id.clone(), hex::encode(key))).collect(),
            pending,
            gone_before: self.gone_before.clone(),
            shards: self.split.kept(),
            ..Checkpoint::default()
        };
        let body = serde_json::to_vec(&checkpoint.with_ledger(&self.ledger))
            .map_err(|source| JobError::Stored { what: "job checkpoint", source })?;
        let sealed = seal_checkpoint(&self.context, &roots, &body);
        self.since_checkpoint = 0;
        self.checkpointed_at = self.context.shared.clock.monotonic();
        if sealed.len() > MAX_BYTES {
            tracing::warn!(bytes = sealed.len(), "job checkpoint is too large, going on without");
            return Ok(());
        }
        metrics::checkpoint(sealed.len());
        let mut root_ids = self.context.manifest.root_ids(&roots);
        root_ids.extend(self.shard_root_ids());
        match self.context.checkpoints.put(sealed, &root_ids).await {
            Ok(()) => {
                self.split.note_checkpoint();
                Ok(())
            }
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::warn!(%error, "job checkpoint was not written, going on without");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn may_work_later<S: Source>(fetched: &Fetched<S>) -> bool {
    let Err(FetchError::Graph(error)) = &fetched.result else { return false };
    error.is_retryable() || JobError::is_fatal_for_job(error)
}
