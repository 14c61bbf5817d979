//! The scrub: reads every stored record against its hashes, spread over a period, and goes on where it stopped.
//!
//! Three things take turns. Once a day, and at the start of a scrub that was asked for, the pin segments are compared with
//! the state (`pin_log`). What is new, which nothing has read back yet, comes before everything else: it is looked for every
//! hour. The rest goes segment by segment in the order of their names, each from front to back, up to where everything is
//! durable, with the frame around its records. Where it is, is kept in the repair queue: lost in a crash, a few minutes are
//! read twice. Invariant: a record that does not verify is set aside before the scrub passes it.

use std::sync::{Arc, Mutex};

use holdfast_model::Millis;
use holdfast_record::SUPERBLOCK_BYTES;
use holdfast_runtime::Step;
use serde::{Deserialize, Serialize};

use super::RepairQueue;
use crate::{
    Error, Node,
    disks::Disks,
    metrics,
    pin_log::{PinLog, check_step},
    segment::SegmentFile,
    state::State,
};

/// Bytes read in one step; of pin segments, one file.
const STEP_BYTES: u64 = 4 << 20;
/// How often new data is looked for.
const FRESH_LOOK_MS: u64 = 60 * 60 * 1_000;
/// Segments with new data that are remembered at a time; the others are found when these are read.
const FRESH_MAX: usize = 256;
const NOTE: &str = "scrub";
const FRESH_NOTE: &str = "scrub new";
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const FIRST: u64 = SUPERBLOCK_BYTES as u64;

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
#[serde(default)]
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
    /// The pin segments are to be checked first.
    wants_pins: bool,
    /// When that was last done.
    pins_ms: Millis,
}

/// Segments with data that nothing has read back yet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Fresh {
    /// When they were last looked for.
    looked_ms: Millis,
    /// More were found than are remembered.
    has_more: bool,
    /// By their names, the first one last.
    waiting: Vec<String>,
}

/// How far a segment was ever read back, under its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ReadBack {
    end: u64,
    /// The frame too, since it was sealed.
    frame: bool,
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
        let scrubber = Scrubber {
            store: self.store.clone(),
            queue: self.repair.queue.clone(),
            state: self.state.clone(),
            pin_log: self.pin_log.clone(),
            period_ms: self.repair.options.scrub_period_days.saturating_mul(DAY_MS),
        };
        self.executor.run(move || scrubber.step(now_ms, pace)).await
    }
}

/// What a step works on.
struct Scrubber {
    store: Arc<Disks>,
    queue: Arc<RepairQueue>,
    state: Arc<State>,
    pin_log: Arc<Mutex<PinLog>>,
    period_ms: u64,
}

impl Scrubber {
    fn step(&self, now_ms: Millis, pace: Pace) -> Result<Step, Error> {
        let mut scrub: Scrub = self.queue.note(NOTE)?.unwrap_or_default();
        let hurries = pace == Pace::AtOnce;
        let is_due =
            hurries || scrub.ended_ms == 0 || now_ms >= scrub.started_ms.saturating_add(self.period_ms);
        let starts = !scrub.is_running && is_due;
        if starts {
            let (ended_ms, pins_ms) = (scrub.ended_ms, scrub.pins_ms);
            scrub = Scrub { is_running: true, started_ms: now_ms, ended_ms, pins_ms, ..Scrub::default() };
            self.queue.set_note(NOTE, &scrub)?;
        }
        scrub.wants_pins |= (starts && hurries) || now_ms >= scrub.pins_ms.saturating_add(DAY_MS);
        if scrub.wants_pins {
            scrub.wants_pins = !self.check_pins().unwrap_or_else(|error| {
                // Records are checked all the same.
                tracing::error!(%error, cause = ?std::error::Error::source(&error), "pin segments could not be checked: tried again tomorrow");
                true
            });
            scrub.pins_ms = now_ms;
            self.queue.set_note(NOTE, &scrub)?;
            if scrub.wants_pins {
                return Ok(Step::More);
            }
        }
        // One in a hurry reads everything anyway.
        if !hurries && self.read_fresh(now_ms)? {
            return Ok(Step::More);
        }
        if !scrub.is_running || (!hurries && scrub.scanned > self.allowed(&scrub, now_ms)) {
            return Ok(Step::Idle);
        }
        let is_over = self.advance(&mut scrub)?;
        if is_over {
            tracing::info!(bytes = scrub.scanned, "scrub complete");
            metrics::scrub_ended(now_ms);
            (scrub.is_running, scrub.ended_ms) = (false, now_ms);
        }
        self.queue.set_note(NOTE, &scrub)?;
        Ok(if is_over { Step::Idle } else { Step::More })
    }

    /// How many bytes may have been read by now so that the period is just filled.
    fn allowed(&self, scrub: &Scrub, now_ms: Millis) -> u64 {
        let used_bytes = self.store.used_bytes();
        let elapsed_ms = now_ms.saturating_sub(scrub.started_ms);
        let share = u128::from(used_bytes) * u128::from(elapsed_ms) / u128::from(self.period_ms.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Checks a pin segment; says whether that was all.
    fn check_pins(&self) -> Result<bool, Error> {
        let checked = check_step(&self.pin_log, &self.state)?;
        metrics::scrubbed(checked.bytes);
        if self.store.note_pin_damage(&checked.damaged)? > 0 {
            tracing::error!(
                n_ranges = checked.damaged.len(),
                segment = hex::encode(checked.damaged[0].segment),
                "damage found in a pin segment: its pins are written again from the state"
            );
        }
        Ok(checked.is_over)
    }

    /// Reads on; says whether the end is reached.
    fn advance(&self, scrub: &mut Scrub) -> Result<bool, Error> {
        for (file, end) in self.store.segments()? {
            let name = file.name();
            if name < scrub.segment {
                continue;
            }
            if name != scrub.segment {
                self.store.check_frame(file.id, end)?;
                (scrub.segment, scrub.offset) = (name, FIRST);
            }
            if scrub.offset >= end {
                continue;
            }
            let from = scrub.offset;
            scrub.offset = self.read(&file, (from, end))?;
            scrub.scanned += scrub.offset.saturating_sub(from);
            if scrub.offset >= end {
                let frame = self.store.is_sealed_segment(file.id)?;
                self.was_read(&scrub.segment, ReadBack { end, frame })?;
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// Reads records of a segment; says how far.
    fn read(&self, file: &SegmentFile, (from, end): (u64, u64)) -> Result<u64, Error> {
        let checked = self.store.check_bytes(file.id, (from, end), STEP_BYTES)?;
        if checked.damaged_records > 0 {
            tracing::warn!(
                segment = file.name(),
                n_records = checked.damaged_records,
                "scrub found damaged records: they wait for repair"
            );
        }
        metrics::scrubbed(checked.next.saturating_sub(from));
        Ok(checked.next)
    }

    // === What is new ===

    fn read_back(&self, name: &str) -> Result<ReadBack, Error> {
        Ok(self.queue.note(name)?.unwrap_or_default())
    }

    fn was_read(&self, name: &str, now: ReadBack) -> Result<(), Error> {
        if self.read_back(name)? == now { Ok(()) } else { self.queue.set_note(name, &now) }
    }

    /// Reads some of what nothing has read back yet; says whether there was any.
    fn read_fresh(&self, now_ms: Millis) -> Result<bool, Error> {
        let mut fresh: Fresh = self.queue.note(FRESH_NOTE)?.unwrap_or_default();
        let is_due = fresh.looked_ms == 0 || now_ms >= fresh.looked_ms.saturating_add(FRESH_LOOK_MS);
        if fresh.waiting.is_empty() && (fresh.has_more || is_due) {
            fresh = self.look_for_fresh(now_ms)?;
            self.queue.set_note(FRESH_NOTE, &fresh)?;
        }
        let Some(name) = fresh.waiting.last() else { return Ok(false) };
        let segments = self.store.segments()?;
        let is_read = match segments.iter().find(|(file, _)| file.name() == *name) {
            Some((file, end)) => self.read_fresh_of(file, *end)?,
            // It is gone, which the index knows.
            None => true,
        };
        if is_read {
            fresh.waiting.pop();
            self.queue.set_note(FRESH_NOTE, &fresh)?;
        }
        Ok(true)
    }

    /// Says whether all of it is read now.
    fn read_fresh_of(&self, file: &SegmentFile, end: u64) -> Result<bool, Error> {
        let name = file.name();
        let ReadBack { end: before, frame } = self.read_back(&name)?;
        let mut at = before.max(FIRST);
        if at < end {
            at = self.read(file, (at, end))?;
        }
        let ends = at >= end && !frame && self.store.is_sealed_segment(file.id)?;
        if ends {
            self.store.check_frame(file.id, end)?;
        }
        self.was_read(&name, ReadBack { end: at, frame: frame || ends })?;
        Ok(at >= end)
    }

    fn look_for_fresh(&self, now_ms: Millis) -> Result<Fresh, Error> {
        let mut fresh = Fresh { looked_ms: now_ms, ..Fresh::default() };
        for (file, end) in self.store.segments()? {
            let name = file.name();
            let known = self.read_back(&name)?;
            let is_new = known.end < end || (!known.frame && self.store.is_sealed_segment(file.id)?);
            if !is_new {
                continue;
            }
            if fresh.waiting.len() >= FRESH_MAX {
                fresh.has_more = true;
                break;
            }
            fresh.waiting.push(name);
        }
        fresh.waiting.reverse();
        Ok(fresh)
    }
}
