//! The scrub: reads every stored record against its hashes, spread over a period, and goes on where it stopped.
//!
//! It goes segment by segment in the order of their names and reads each from front to back, up to where everything is
//! durable. Where it is, is kept in the repair queue: lost in a crash, a few minutes are read twice. Invariant: a record
//! that does not verify is set aside before the scrub passes it.

use holdfast_model::Millis;
use holdfast_record::SUPERBLOCK_BYTES;
use holdfast_runtime::Step;
use serde::{Deserialize, Serialize};

use super::RepairQueue;
use crate::{Error, Node, Store, metrics};

/// Bytes read in one step.
const STEP_BYTES: u64 = 4 << 20;
const NOTE: &str = "scrub";
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// How fast a scrub goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Once per period, as slowly as that allows.
    Scheduled,
    /// Now, and without waiting.
    AtOnce,
}

/// Where the scrub is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Scrub {
    is_running: bool,
    started_ms: Millis,
    /// The segment, by its name, and how far.
    segment: String,
    offset: u64,
    /// Bytes read since the start.
    scanned: u64,
    /// When the last complete scrub ended.
    ended_ms: Millis,
}

/// When the last scrub ended, and how far the running one is in thousandths.
pub(super) fn progress(queue: &RepairQueue, used_bytes: u64) -> Result<(Millis, u32), Error> {
    let scrub: Scrub = queue.note(NOTE)?.unwrap_or_default();
    let permille = scrub.scanned.saturating_mul(1_000) / used_bytes.max(1);
    let permille = u32::try_from(permille.clamp(1, 999)).expect("at most 999");
    Ok((scrub.ended_ms, if scrub.is_running { permille } else { 0 }))
}

impl Node {
    /// Checks some of the stored bytes.
    pub async fn scrub_step(&self, now_ms: Millis, pace: Pace) -> Result<Step, Error> {
        let (store, queue) = (self.store.clone(), self.repair.queue.clone());
        let period_ms = self.repair.options.scrub_period_days.saturating_mul(DAY_MS);
        self.executor.run(move || step(&store, &queue, (now_ms, period_ms), pace)).await
    }
}

fn step(
    store: &Store,
    queue: &RepairQueue,
    (now_ms, period_ms): (Millis, u64),
    pace: Pace,
) -> Result<Step, Error> {
    let mut scrub: Scrub = queue.note(NOTE)?.unwrap_or_default();
    let hurries = pace == Pace::AtOnce;
    if !scrub.is_running {
        if !hurries && scrub.ended_ms != 0 && now_ms < scrub.started_ms.saturating_add(period_ms) {
            return Ok(Step::Idle);
        }
        scrub = Scrub { is_running: true, started_ms: now_ms, ended_ms: scrub.ended_ms, ..Scrub::default() };
    }
    if !hurries
        && scrub.scanned
            > allowed(store.space().used_bytes(), now_ms.saturating_sub(scrub.started_ms), period_ms)
    {
        return Ok(Step::Idle);
    }
    let is_over = advance(store, &mut scrub)?;
    if is_over {
        tracing::info!(bytes = scrub.scanned, "scrub complete");
        metrics::scrub_ended(now_ms);
        (scrub.is_running, scrub.ended_ms) = (false, now_ms);
    }
    queue.set_note(NOTE, &scrub)?;
    Ok(if is_over { Step::Idle } else { Step::More })
}

/// How many bytes may have been read by now so that the period is just filled.
fn allowed(used_bytes: u64, elapsed_ms: u64, period_ms: u64) -> u64 {
    let share = u128::from(used_bytes) * u128::from(elapsed_ms) / u128::from(period_ms.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Reads on; says whether the end is reached.
fn advance(store: &Store, scrub: &mut Scrub) -> Result<bool, Error> {
    for (file, end) in store.segments()? {
        let name = file.name();
        if name < scrub.segment {
            continue;
        }
        if name != scrub.segment {
            store.check_frame(file.id)?;
            (scrub.segment, scrub.offset) = (name, SUPERBLOCK_BYTES as u64);
        }
        if scrub.offset >= end {
            continue;
        }
        let checked = store.check_bytes(file.id, (scrub.offset, end), STEP_BYTES)?;
        if checked.damaged_records > 0 {
            let n_records = checked.damaged_records;
            tracing::warn!(
                segment = scrub.segment,
                n_records,
                "scrub found damaged records: they wait for repair"
            );
        }
        let read = checked.next.saturating_sub(scrub.offset);
        metrics::scrubbed(read);
        scrub.scanned += read;
        scrub.offset = checked.next;
        return Ok(false);
    }
    Ok(true)
}
