//! The check of the pin segments against the state, in both directions, while the node runs.
//!
//! A pass reads every pin segment once, one per step; what it remembers between steps is in memory only (16 bytes per pin),
//! because every start compares everything anyway. Invariant: a damaged pin segment leaves `segments/` only when every pin
//! that it may have held stands, synced, in another one, and never while it holds a pin that the state lacks.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use holdfast_model::Fence;
use holdfast_record::{Pin, SUPERBLOCK_BYTES, SegmentClass, Superblock};

use super::{PinLog, Place, find, place, scan};
use crate::{
    Error,
    disk::Disk,
    metrics,
    segment::{DamagedRange, SegmentFile, is_damage},
    state::State,
};

/// Pins written again in one step.
const REWRITE_BATCH: usize = 4_096;

/// A pin by its bytes.
type Print = [u8; 16];

/// A pass in progress.
#[derive(Default)]
pub(super) struct Pass {
    /// To be read, and up to where: behind that, pins are being written.
    files: Vec<(PathBuf, u64)>,
    /// Pins that stand in segments that are whole.
    found: BTreeSet<Print>,
    spoilt: Vec<Spoilt>,
    /// Pins that the state does not have, or has otherwise.
    n_unknown: u64,
    n_rewritten: u64,
}

/// A pin segment that is not whole.
struct Spoilt {
    path: PathBuf,
    /// It holds pins that the state lacks: then it stays where it is.
    has_unknown: bool,
}

/// What one pin segment told.
struct FileCheck {
    found: Vec<Print>,
    damaged: Vec<(u64, u64)>,
    is_spoilt: bool,
    n_unknown: u64,
}

/// What one step did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Damage that was found; where the file is gone, all of it.
    pub damaged: Vec<DamagedRange>,
    /// Bytes read.
    pub bytes: u64,
    /// The pass is complete.
    pub is_over: bool,
    /// Pins that were written again in it, once it is complete.
    pub n_rewritten: u64,
    /// And pins that the state does not have, or has otherwise.
    pub n_unknown: u64,
}

impl Pass {
    /// A pin was written and synced meanwhile.
    pub(super) fn saw(&mut self, pin: &[u8]) {
        self.found.insert(print(pin));
    }
}

/// Checks some of the pin segments. Blocks on the disk.
pub fn check_step(log: &Mutex<PinLog>, state: &State) -> Result<Checked, Error> {
    let next = {
        let mut log = lock(log);
        if log.pass.is_none() {
            log.begin_pass()?;
        }
        log.pass.as_mut().and_then(|pass| pass.files.pop())
    };
    match next {
        Some((path, end)) => check_file(log, state, path, end),
        None => finish(log, state),
    }
}

fn lock(log: &Mutex<PinLog>) -> MutexGuard<'_, PinLog> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PinLog {
    fn begin_pass(&mut self) -> Result<(), Error> {
        let paths = find(&*self.setup.disk, &self.setup.dir)?;
        if let Some(gone) = self.open.take_if(|open| !paths.contains(&open.path)) {
            // What would be written to it would be gone too.
            tracing::error!(segment = %gone.path.display(), "pin segment is gone: its pins are written again from the state");
        }
        let end = |path: &PathBuf| self.open.as_ref().filter(|open| open.path == *path).map(|open| open.end);
        let files = paths.into_iter().map(|path| (end(&path).unwrap_or(u64::MAX), path));
        let files = files.map(|(end, path)| (path, end)).collect();
        self.pass = Some(Pass { files, ..Pass::default() });
        Ok(())
    }
}

fn check_file(log: &Mutex<PinLog>, state: &State, path: PathBuf, end: u64) -> Result<Checked, Error> {
    let disk = lock(log).setup.disk.clone();
    let bytes = match disk.read(&path) {
        Err(error) if is_damage(&error) => Bytes::new(),
        read => Bytes::from(read.map_err(Error::io("read", &path))?),
    };
    let n_bytes = bytes.len() as u64;
    let file = look_through(bytes, end, state)?;
    let checked = |damaged: &[(u64, u64)]| {
        let segment = segment_of(&path);
        let range = |(offset, len): &(u64, u64)| DamagedRange { segment, offset: *offset, len: *len };
        Checked { damaged: damaged.iter().map(range).collect(), bytes: n_bytes, ..Checked::default() }
    };
    let mut log = lock(log);
    let is_open = log.open.take_if(|open| file.is_spoilt && open.path == path).is_some();
    if is_open {
        // What was appended to it since the pass began counts as found, but stands in a segment that is not whole.
        log.begin_pass()?;
        return Ok(checked(&file.damaged));
    }
    let Some(pass) = &mut log.pass else { return Ok(Checked::default()) };
    pass.n_unknown += file.n_unknown;
    if file.is_spoilt {
        pass.spoilt.push(Spoilt { path: path.clone(), has_unknown: file.n_unknown > 0 });
    } else {
        pass.found.extend(file.found);
    }
    Ok(checked(&file.damaged))
}

fn look_through(bytes: Bytes, end: u64, state: &State) -> Result<FileCheck, Error> {
    let (is_open, n_bytes) = (end != u64::MAX, bytes.len() as u64);
    let len = usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
    let bytes = bytes.slice(..len);
    let frame_is_good = Superblock::decode(&bytes).is_ok_and(|block| block.class == SegmentClass::Pin);
    let scan = scan(&bytes);
    let mut damaged = scan.damaged;
    if !frame_is_good {
        damaged.push((0, SUPERBLOCK_BYTES as u64));
    }
    if is_open && n_bytes < end {
        damaged.push((n_bytes, end - n_bytes));
    }
    // A last pin that is torn was acknowledged to nobody: it is put right, but it is no damage.
    let is_spoilt = !damaged.is_empty();
    if !is_open && frame_is_good && damaged.len() == 1 && damaged[0].0 >= scan.end {
        damaged.clear();
    }
    let mut check = FileCheck { found: Vec::new(), damaged, is_spoilt, n_unknown: 0 };
    for (pin, bytes) in scan.pins {
        let (space, sequence) = place(&pin);
        match state.pin(&space, sequence)? {
            Some(known) if known == bytes => check.found.push(print(&bytes)),
            // It was void, and gave way to the pin that was committed.
            Some(known) if is_above(&known, pin.fence) => {}
            known => {
                check.n_unknown += 1;
                tracing::error!(
                    tenant = %space.tenant, resource = %space.resource, workload = %space.workload,
                    sequence = sequence.0, is_known = known.is_some(),
                    "a pin segment has a pin that the state does not have so: the next start takes it from there if it lacks it"
                );
            }
        }
    }
    Ok(check)
}

/// Writes what no whole segment has, and then sets the others aside.
fn finish(log: &Mutex<PinLog>, state: &State) -> Result<Checked, Error> {
    let missing = missing(log, state)?;
    if !missing.is_empty() {
        // Without a pin between its place in the state and the one in the log.
        return state.deciding(|| rewrite(&mut lock(log), &missing)).map(|()| Checked::default());
    }
    let mut log = lock(log);
    let Some(pass) = log.pass.take() else { return Ok(Checked::default()) };
    for spoilt in &pass.spoilt {
        if spoilt.has_unknown {
            tracing::error!(segment = %spoilt.path.display(), "damaged pin segment is kept: the state lacks pins that it holds");
        } else {
            log.set_aside(spoilt)?;
        }
    }
    metrics::pins_unknown(pass.n_unknown);
    if pass.n_rewritten > 0 {
        metrics::pins_rewritten(pass.n_rewritten);
        tracing::warn!(
            n_pins = pass.n_rewritten,
            "pins that the pin segments lacked were written again from the state"
        );
    }
    let Pass { n_rewritten, n_unknown, .. } = pass;
    Ok(Checked { is_over: true, n_rewritten, n_unknown, ..Checked::default() })
}

/// Some pins of the state that no whole segment has.
fn missing(log: &Mutex<PinLog>, state: &State) -> Result<Vec<(Place, Bytes)>, Error> {
    let mut missing = Vec::new();
    let found = lock(log).pass.as_mut().map(|pass| std::mem::take(&mut pass.found)).unwrap_or_default();
    let looked = state.each_pin(|space, sequence, bytes| {
        if missing.len() < REWRITE_BATCH && !found.contains(&print(bytes)) {
            missing.push(((space, sequence), Bytes::copy_from_slice(bytes)));
        }
        Ok(())
    });
    if let Some(pass) = &mut lock(log).pass {
        // Pins may have been written meanwhile.
        let news = std::mem::replace(&mut pass.found, found);
        pass.found.extend(news);
        missing.retain(|(_, bytes)| !pass.found.contains(&print(bytes)));
    }
    looked.map(|()| missing)
}

fn rewrite(log: &mut PinLog, missing: &[(Place, Bytes)]) -> Result<(), Error> {
    let is_missing = |log: &PinLog, bytes: &Bytes| {
        log.pass.as_ref().is_some_and(|pass| !pass.found.contains(&print(bytes)))
    };
    let pins: Vec<_> = missing.iter().filter(|(_, bytes)| is_missing(log, bytes)).cloned().collect();
    log.append_all(&pins)?;
    if let Some(pass) = &mut log.pass {
        pass.n_rewritten += pins.len() as u64;
    }
    Ok(())
}

impl PinLog {
    fn set_aside(&self, spoilt: &Spoilt) -> Result<(), Error> {
        let (disk, path): (&dyn Disk, _) = (&*self.setup.disk, &spoilt.path);
        if !disk.exists(path).map_err(Error::io("look for", path))? {
            return Ok(());
        }
        let aside = self.quarantine.join(path.file_name().unwrap_or_default());
        disk.rename(path, &aside).map_err(Error::io("rename", path))?;
        disk.sync_dir(&self.quarantine).map_err(Error::io("sync", &self.quarantine))?;
        disk.sync_dir(&self.setup.dir).map_err(Error::io("sync", &self.setup.dir))?;
        tracing::warn!(segment = %path.display(), aside = %aside.display(), "pin segment that is not whole was set aside: all its pins stand in another");
        Ok(())
    }
}

fn segment_of(path: &std::path::Path) -> [u8; 16] {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    SegmentFile::pin_id(name).unwrap_or_default()
}

/// Whether a pin is of a higher fence.
fn is_above(pin: &Bytes, fence: Fence) -> bool {
    Pin::decode(pin).is_ok_and(|pin| pin.fence > fence)
}

fn print(pin: &[u8]) -> Print {
    let mut print = [0; 16];
    print.copy_from_slice(&blake3::hash(pin).as_bytes()[..16]);
    print
}
