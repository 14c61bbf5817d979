//! The daily verification: what the digests hide. Of every record that this node owns, its protection is raised to the highest
//! that any holder knows, the owners it moves away from among them; and a bounded sample of the index is read back.
//!
//! A touch survives everything, as every touch does. A raised write epoch and lock floor are in the index only: where it is
//! rebuilt they are raised again by the verification that follows, and until then the holder they came from has them.
//! Invariant: nothing is lowered, and nobody raises an epoch here beyond the one that follows this node's.

use std::collections::BTreeMap;

use futures::future::join_all;
use holdfast_model::{Layout, Millis, PARTITION_COUNT, PartitionId, RecordKey};
use holdfast_runtime::Step;
use serde::{Deserialize, Serialize};

use super::{
    Protection,
    digest::{Slice, Slices},
    peers::KEYS_MAX,
};
use crate::{
    Error, Node,
    index::{KEY_BYTES, decode_key, encode_key},
    metrics,
    node::fitting,
};

/// One verification begins so long after the one before it began.
const EVERY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Partitions looked into in one step; no more of them than bring a question's worth of keys.
const PARTITIONS_PER_STEP: usize = 64;
/// Records of the index that are read back in one verification,
const SAMPLE_RECORDS_MAX: u64 = 20_000;
/// and bytes of them, whichever is reached first. The next one goes on behind the last record.
const SAMPLE_BYTES_MAX: u64 = 2 << 30;
/// Records, and bytes, read back in one step.
const SAMPLE_STEP: usize = 64;
const SAMPLE_STEP_BYTES: usize = 8 << 20;
const NOTE: &str = "verify";

/// Where the verification is: kept in the repair queue, so that a restart goes on with it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Verify {
    stage: Stage,
    started_ms: Millis,
    /// The partition that is looked into.
    partition: u16,
    /// The last key of it that was looked at, in hexadecimal; empty before the first.
    after: String,
    n_raised: u64,
    /// The last key that was read back, in hexadecimal; empty before the first of the index.
    sampled_to: String,
    sampled_records: u64,
    sampled_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    #[default]
    Waiting,
    Raising,
    Sampling,
}

impl Node {
    /// Verifies some of what is here.
    pub async fn verify_step(&self, now_ms: Millis) -> Result<Step, Error> {
        let Some(layout) = self.layout() else { return Ok(Step::Idle) };
        let queue = self.repair.queue.clone();
        let noted = self.executor.run(move || queue.note::<Verify>(NOTE)).await?;
        let mut verify = noted.unwrap_or_default();
        match verify.stage {
            Stage::Waiting
                if verify.started_ms != 0 && now_ms < verify.started_ms.saturating_add(EVERY_MS) =>
            {
                return Ok(Step::Idle);
            }
            Stage::Waiting => {
                let sampled_to = verify.sampled_to;
                verify =
                    Verify { stage: Stage::Raising, started_ms: now_ms, sampled_to, ..Verify::default() };
            }
            Stage::Raising => self.raise_some(&layout, &mut verify).await?,
            Stage::Sampling => self.sample_some(&mut verify).await?,
        }
        let is_over = verify.stage == Stage::Waiting;
        if is_over {
            metrics::verify_ended(now_ms);
            tracing::info!(
                n_raised = verify.n_raised,
                n_sampled = verify.sampled_records,
                "verification complete"
            );
        }
        let queue = self.repair.queue.clone();
        self.executor.run(move || queue.set_note(NOTE, &verify)).await?;
        Ok(if is_over { Step::Idle } else { Step::More })
    }

    // === Protection ===

    async fn raise_some(&self, layout: &Layout, verify: &mut Verify) -> Result<(), Error> {
        let partitions = (verify.partition..PARTITION_COUNT).map(PartitionId);
        let owned: Vec<_> =
            partitions.filter(|one| layout.owns(self.id, *one)).take(PARTITIONS_PER_STEP).collect();
        let (store, after) = (self.store.clone(), key_of(&verify.after));
        let read = move || {
            let (mut found, mut after) = (Vec::new(), after);
            let slices = Slices::of(store.index())?;
            for partition in &owned {
                let n = KEYS_MAX - found.len();
                let of_this = after.take().filter(|key| PartitionId::of_chunk(key.id) == *partition);
                found.extend(slices.entries(Slice::partition(*partition), of_this.as_ref(), n)?);
                if found.len() >= KEYS_MAX {
                    return Ok((found, Some(*partition)));
                }
            }
            let is_last = owned.len() < PARTITIONS_PER_STEP;
            Ok((found, owned.last().filter(|_| !is_last).map(|last| PartitionId(last.0 + 1))))
        };
        let (found, next) = self.executor.run(read).await?;
        let last = found.last().map(|(key, _)| *key);
        let here = found.into_iter().map(|(key, entry)| (key, Protection::from(&entry))).collect();
        verify.n_raised += self.raise(layout, here).await?;
        match next {
            Some(next) => {
                let within = last.filter(|key| PartitionId::of_chunk(key.id) == next);
                verify.after = within.map(|key| hex::encode(encode_key(&key))).unwrap_or_default();
                verify.partition = next.0;
            }
            None => verify.stage = Stage::Sampling,
        }
        Ok(())
    }

    /// Raises what is here to what the other holders that answer know; says how many records that were.
    async fn raise(&self, layout: &Layout, here: Vec<(RecordKey, Protection)>) -> Result<u64, Error> {
        let keys: Vec<RecordKey> = here.iter().map(|(key, _)| *key).collect();
        let asked = self.other_holders(layout, keys.iter().map(|key| key.id));
        let answers = join_all(asked.values().map(|(peer, positions)| {
            let theirs: Vec<RecordKey> = positions.iter().map(|at| keys[*at]).collect();
            async move {
                let answer = self.peers.repair().holds(peer, &theirs).await;
                self.note_reach(peer, &answer);
                fitting(answer, theirs.len(), Vec::len)
            }
        }));
        let mut highest: Vec<Protection> = here.iter().map(|(_, protection)| *protection).collect();
        for ((peer, positions), answer) in asked.values().zip(answers.await) {
            match answer {
                Ok(held) => {
                    for (at, held) in positions.iter().zip(held) {
                        highest[*at] = Protection::higher(highest[*at], held.unwrap_or_default());
                    }
                }
                // The next verification asks again.
                Err(error) => {
                    tracing::debug!(peer = %peer.id, %error, "holder could not be asked how records are protected")
                }
            }
        }
        let last_epoch = self.state.epoch().next().0;
        let (mut touches, mut raises): (BTreeMap<u64, Vec<RecordKey>>, Vec<_>) =
            (BTreeMap::new(), Vec::new());
        let mut n_raised = 0;
        for ((key, own), highest) in here.into_iter().zip(highest) {
            let write_epoch = highest.write_epoch.min(last_epoch).max(own.write_epoch);
            let epoch = highest.touch_epoch.max(highest.write_epoch).min(last_epoch);
            let is_touched = epoch > own.touch_epoch.max(own.write_epoch);
            if is_touched {
                touches.entry(epoch).or_default().push(key);
            }
            let is_raised = write_epoch > own.write_epoch || highest.lock_floor_ms > own.lock_floor_ms;
            if is_raised {
                raises.push((key, write_epoch, highest.lock_floor_ms));
            }
            n_raised += u64::from(is_touched || is_raised);
        }
        if n_raised == 0 {
            return Ok(0);
        }
        self.store.protect(touches, raises).await?;
        metrics::protections_raised(n_raised);
        Ok(n_raised)
    }

    // === Sample ===

    async fn sample_some(&self, verify: &mut Verify) -> Result<(), Error> {
        let (store, after) = (self.store.clone(), key_of(&verify.sampled_to));
        let read = move || store.sample(after, SAMPLE_STEP, SAMPLE_STEP_BYTES);
        let sample = self.executor.run(read).await?;
        metrics::sampled(sample.n_records, sample.n_unreadable);
        if sample.n_unreadable > 0 {
            tracing::warn!(
                n_records = sample.n_unreadable,
                "the daily sample found records that cannot be read: they wait for repair"
            );
        }
        verify.sampled_records += sample.n_records;
        verify.sampled_bytes += sample.bytes;
        verify.sampled_to = sample.last.map(|key| hex::encode(encode_key(&key))).unwrap_or_default();
        let is_enough =
            verify.sampled_records >= SAMPLE_RECORDS_MAX || verify.sampled_bytes >= SAMPLE_BYTES_MAX;
        if is_enough || sample.last.is_none() {
            verify.stage = Stage::Waiting;
        }
        Ok(())
    }
}

/// A key as it is noted; one that cannot be read counts as none.
fn key_of(noted: &str) -> Option<RecordKey> {
    let mut key = [0; KEY_BYTES];
    hex::decode_to_slice(noted, &mut key).ok()?;
    Some(decode_key(&key))
}
