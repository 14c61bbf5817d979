//! The pin segments: every pin that was stored here, once more, so that the segments alone tell what is committed.
//!
//! `segments/pin-<uuid>.seg`: superblock, pins at multiples of 8, zeros that are room for more. Invariant: a pin is in the
//! state before it is in here, and in here, synced, before it is acknowledged. So what is found here was never refused, and a
//! state that was lost gets its pins back. Of two pins of one sequence the one of the higher fence counts: the other was void,
//! and gave way to it at a handover.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use holdfast_model::{Fence, Sequence};
use holdfast_record::{Features, Pin, RECORD_ALIGN, SUPERBLOCK_BYTES, SegmentClass, Superblock};

use crate::{
    Error,
    disk::{Disk, DiskFile},
    segment::{SegmentFile, SegmentIdentity, WriterSetup},
    state::{PinSpace, State},
};

mod check;

pub use check::check_step;

use check::Pass;

/// Room made at a time, so that pins still fit when the disk is full.
const ROOM_BYTES: u64 = 256 << 10;
/// Pins put into the state at once while it is rebuilt.
const ADOPT_BATCH: usize = 4_096;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Which pin: there is one.
pub type Place = (PinSpace, Sequence);
/// Pins with their bytes as they were found.
type Found = Vec<(Pin, Bytes)>;

/// Writes pins.
pub struct PinLog {
    setup: WriterSetup,
    open: Option<OpenPins>,
    /// In the state, but not known to be in here.
    unlogged: BTreeSet<Place>,
    /// Where damaged pin segments go.
    quarantine: PathBuf,
    /// The check in progress.
    pass: Option<Pass>,
}

struct OpenPins {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    end: u64,
    /// Written with zeros up to here.
    room: u64,
}

impl PinLog {
    /// Reads what is there, gives the state the pins it lacks, and writes those that are only in the state.
    pub fn open(setup: WriterSetup, quarantine: PathBuf, state: &State) -> Result<Self, Error> {
        let mut log = Self { setup, open: None, unlogged: BTreeSet::new(), quarantine, pass: None };
        let (mut logged, mut adopted) = (BTreeSet::new(), BTreeSet::new());
        for path in find(&*log.setup.disk, &log.setup.dir)? {
            let (pins, resumable) = log.read(path)?;
            adopt(state, pins, &mut logged, &mut adopted)?;
            log.open = resumable.or(log.open);
        }
        if logged.len() as u64 != state.n_pins()? {
            let mut lacking = Vec::new();
            state.each_pin(|space, sequence, bytes| {
                if !logged.contains(&(space, sequence)) {
                    lacking.push(((space, sequence), Bytes::copy_from_slice(bytes)));
                }
                if lacking.len() < ADOPT_BATCH {
                    Ok(())
                } else {
                    log.append_all(&std::mem::take(&mut lacking))
                }
            })?;
            log.append_all(&lacking)?;
            tracing::warn!("the pin segments lacked pins: they were written again from the state");
        }
        Ok(log)
    }

    /// Writes a pin; synced when this returns. After an error the segment is not written to again.
    pub fn append(&mut self, place: Place, pin: &[u8]) -> Result<(), Error> {
        self.append_all(&[(place, Bytes::copy_from_slice(pin))])
    }

    /// The same for several, which share a sync.
    pub fn append_all(&mut self, pins: &[(Place, Bytes)]) -> Result<(), Error> {
        self.unlogged.extend(pins.iter().map(|(place, _)| *place));
        for pins in pins.chunks(ADOPT_BATCH) {
            if self.open.as_ref().is_none_or(|open| open.end >= self.setup.target_bytes) {
                self.open = Some(create(&self.setup)?);
            }
            let open = self.open.as_mut().expect("opened above");
            let written =
                open.append(pins.iter().map(|(_, pin)| pin)).map_err(Error::io("append to", &open.path));
            if let Err(error) = written {
                self.open = None;
                return Err(error);
            }
            for (place, pin) in pins {
                self.unlogged.remove(place);
                if let Some(pass) = &mut self.pass {
                    pass.saw(pin);
                }
            }
        }
        Ok(())
    }

    /// Writes a pin that the state has, if it failed to be written before.
    pub fn append_if_missing(&mut self, place: Place, pin: &[u8]) -> Result<(), Error> {
        if self.lacks(&place) { self.append(place, pin) } else { Ok(()) }
    }

    /// Whether a pin that the state has failed to be written.
    pub fn lacks(&self, place: &Place) -> bool {
        self.unlogged.contains(place)
    }

    /// The pins of a file; and the file to go on with, if nothing in it is damaged.
    fn read(&self, path: PathBuf) -> Result<(Found, Option<OpenPins>), Error> {
        let bytes = Bytes::from(self.setup.disk.read(&path).map_err(Error::io("read", &path))?);
        let Scan { pins, damaged, end } = scan(&bytes);
        let good = Superblock::decode(&bytes).is_ok_and(|block| block.class == SegmentClass::Pin);
        if !damaged.is_empty() || !good {
            // The last pin may be torn, which nobody was told is stored. The next check puts the others elsewhere.
            tracing::warn!(segment = %path.display(), damaged_ranges = damaged.len(), "pin segment is not whole: no more is written to it");
            return Ok((pins, None));
        }
        let file = self.setup.disk.open(&path).map_err(Error::io("open", &path))?;
        let room = bytes.len() as u64;
        Ok((pins, Some(OpenPins { path, file, end, room })))
    }
}

impl OpenPins {
    fn append<'a>(&mut self, pins: impl Iterator<Item = &'a Bytes>) -> io::Result<()> {
        for pin in pins {
            let len = pin.len().next_multiple_of(RECORD_ALIGN);
            if self.end + len as u64 > self.room {
                // A disk that is full may still have room for this one pin.
                match self.make_room() {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                    Err(error) => return Err(error),
                }
            }
            let mut padded = pin.to_vec();
            padded.resize(len, 0);
            self.file.write_all_at(&padded, self.end)?;
            self.end += len as u64;
        }
        self.file.sync()
    }

    fn make_room(&mut self) -> io::Result<()> {
        let target = self.room.max(self.end) + ROOM_BYTES;
        while self.room < target {
            let piece = usize::try_from(target - self.room).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..piece], self.room)?;
            self.room += piece as u64;
        }
        Ok(())
    }
}

/// What stands in a pin segment.
struct Scan {
    pins: Found,
    /// Offset and length of what is neither a pin nor room, one range between two pins.
    damaged: Vec<(u64, u64)>,
    /// Behind the last pin.
    end: u64,
}

fn scan(bytes: &Bytes) -> Scan {
    let mut scan = Scan { pins: Vec::new(), damaged: Vec::new(), end: SUPERBLOCK_BYTES as u64 };
    let mut at = SUPERBLOCK_BYTES;
    let mut bad: Option<(usize, usize)> = None;
    let range = |(start, end): (usize, usize)| (start as u64, (end - start) as u64);
    while let Some(rest) = bytes.get(at..) {
        let Some(zeros) = rest.iter().position(|byte| *byte != 0) else { break };
        at += zeros / RECORD_ALIGN * RECORD_ALIGN;
        match Pin::decode_first(&bytes[at..]) {
            Ok((pin, len)) => {
                scan.damaged.extend(bad.take().map(range));
                scan.pins.push((pin, bytes.slice(at..at + len)));
                at += len.next_multiple_of(RECORD_ALIGN);
                scan.end = at as u64;
            }
            Err(_) => {
                let start = bad.map_or(at, |(start, _)| start);
                at += RECORD_ALIGN;
                bad = Some((start, at.min(bytes.len())));
            }
        }
    }
    scan.damaged.extend(bad.map(range));
    scan
}

fn place(pin: &Pin) -> Place {
    (PinSpace { tenant: pin.tenant, resource: pin.resource, workload: pin.workload }, pin.sequence)
}

/// Puts pins of one file into the state that it lacks: it was lost, since every pin is in the state first. Adds to `logged` the
/// places whose pin stands in the state as it stands here, and to `adopted` those that were lacking.
fn adopt(
    state: &State,
    pins: Found,
    logged: &mut BTreeSet<Place>,
    adopted: &mut BTreeSet<Place>,
) -> Result<(), Error> {
    let mut lacking: BTreeMap<Place, (Fence, Bytes)> = BTreeMap::new();
    for (pin, bytes) in pins {
        let place = place(&pin);
        let known = state.pin(&place.0, place.1)?;
        if known.as_ref() == Some(&bytes) {
            logged.insert(place);
            continue;
        }
        // What the state had by itself stays. What another file gave it may have been void.
        let is_newer = known.is_none_or(|known| adopted.contains(&place) && is_below(&known, pin.fence));
        if is_newer && lacking.get(&place).is_none_or(|(fence, _)| *fence < pin.fence) {
            lacking.insert(place, (pin.fence, bytes));
        }
    }
    if lacking.is_empty() {
        return Ok(());
    }
    tracing::error!(
        n_pins = lacking.len(),
        "state lacked pins: taken from the pin segments; fences, sessions and job checkpoints behind them are lost"
    );
    logged.extend(lacking.keys());
    adopted.extend(lacking.keys());
    let lacking = lacking.into_iter().map(|((space, sequence), (fence, pin))| (space, sequence, fence, pin));
    lacking.collect::<Vec<_>>().chunks(ADOPT_BATCH).try_for_each(|batch| state.put_pins(batch))
}

/// Whether a pin is of a lower fence.
fn is_below(pin: &Bytes, fence: Fence) -> bool {
    Pin::decode(pin).is_ok_and(|pin| pin.fence < fence)
}

fn find(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = disk.list(dir).map_err(Error::io("list", dir))?;
    found.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("pin-") && name.ends_with(".seg")
    });
    Ok(found)
}

fn create(setup: &WriterSetup) -> Result<OpenPins, Error> {
    let mut id = [0; 16];
    setup.random.fill(&mut id);
    let path = SegmentFile::new(&setup.dir, SegmentClass::Pin, id).path();
    let SegmentIdentity { cluster, node, disk, generation } = setup.identity;
    let (class, features) = (SegmentClass::Pin, Features::default());
    let superblock = Superblock { cluster, node, disk, segment: id, generation, class, features }.encode();
    let file = setup.disk.create(&path).map_err(Error::io("create", &path))?;
    file.write_all_at(&superblock, 0).map_err(Error::io("write", &path))?;
    let start = SUPERBLOCK_BYTES as u64;
    let mut open = OpenPins { path, file, end: start, room: start };
    open.make_room().map_err(Error::io("write", &open.path))?;
    open.file.sync().map_err(Error::io("sync", &open.path))?;
    setup.disk.sync_dir(&setup.dir).map_err(Error::io("sync", &setup.dir))?;
    Ok(open)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::{
        Error,
        pin::PinOutcome,
        testing::{Rig, caller, pin, put_pin},
    };

    const LATE: u64 = 9_000_000_000;

    fn shown(node: &crate::Node) -> Vec<bytes::Bytes> {
        node.read_pins(&caller(9), 0).unwrap().pins
    }

    #[test]
    fn pins_outlive_the_state_that_held_them() {
        let rig = Rig::new();
        let node = rig.open();
        for n in 1..=3 {
            assert_eq!(put_pin(&node, n, n).unwrap().0, PinOutcome::Stored);
        }
        let (killed_rig, killed) = rig.after_a_kill();
        drop(killed);
        killed_rig.lose_state();
        let node = killed_rig.open();
        assert_eq!(shown(&node), (1..=3).map(|n| pin(n, n, 5, LATE).encode()).collect::<Vec<_>>());
        // With the pin its fence is back: an older attempt commits nothing.
        assert_eq!(put_pin(&node, 4, 2).unwrap().0, PinOutcome::Fenced);
        assert_eq!(put_pin(&node, 4, 3).unwrap().0, PinOutcome::Stored);
    }

    #[test]
    fn a_state_without_pin_segments_writes_them_again() {
        let rig = Rig::new();
        let node = rig.open();
        put_pin(&node, 1, 1).unwrap();
        drop(node);
        fs::remove_file(rig.segment("pin")).unwrap();
        drop(rig.open());
        rig.lose_state();
        assert_eq!(shown(&rig.open()), vec![pin(1, 1, 5, LATE).encode()]);
    }

    #[test]
    fn a_damaged_or_torn_pin_takes_no_other_with_it_and_ends_the_segment() {
        let rig = Rig::new();
        let node = rig.open();
        for n in 1..=3 {
            put_pin(&node, n, 1).unwrap();
        }
        drop(node);
        let path = rig.segment("pin");
        let mut bytes = fs::read(&path).unwrap();
        let len = pin(1, 1, 5, LATE).encode().len().next_multiple_of(8);
        bytes[4096 + len + 50] ^= 1;
        fs::write(&path, &bytes).unwrap();
        // The state still has it, and writes it once more, elsewhere.
        drop(rig.open());
        assert_eq!(fs::read(&path).unwrap(), bytes);
        rig.lose_state();
        let all: Vec<_> = (1..=3).map(|n| pin(n, 1, 5, LATE).encode()).collect();
        assert_eq!(shown(&rig.open()), all);
    }

    #[test]
    fn a_pin_is_acknowledged_only_when_its_segment_is_synced() {
        let rig = Rig::new();
        let node = rig.open();
        put_pin(&node, 1, 1).unwrap();
        rig.faults.fail_pin_sync.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(matches!(put_pin(&node, 2, 1), Err(Error::Io { .. })));
        // It is in the state by now, but that does not make it acknowledged.
        assert!(matches!(put_pin(&node, 2, 1), Err(Error::Io { .. })));
        rig.faults.fail_pin_sync.store(false, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(put_pin(&node, 2, 1).unwrap().0, PinOutcome::Stored);
        let (killed_rig, killed) = rig.after_a_kill();
        drop(killed);
        killed_rig.lose_state();
        assert_eq!(shown(&killed_rig.open()).len(), 2);
    }
}
