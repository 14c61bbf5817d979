//! What one disk can take: ingest stops before it is full, reads and pins go on.
//!
//! Invariant: once ingest has stopped it starts again only when a later look finds room.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::disk::{Disk, DiskUsage};

/// The file system is looked at after so many stored bytes.
const MEASURE_EVERY_BYTES: u64 = 64 << 20;

/// The index is made durable only with this much room: once it has met a full disk, it is of no use until the next start.
const CHECKPOINT_ROOM_BYTES: u64 = 64 << 20;

/// So much of the file system stays free for pins and the index, whoever else writes to it,
const RESERVE_PERCENT: u64 = 2;
/// but not more than this.
const RESERVE_BYTES_MAX: u64 = 1 << 30;

/// Whether the index may be made durable. What is not is scanned at the next start.
pub fn has_checkpoint_room(disk: &dyn Disk, data: &Path) -> bool {
    disk.usage(data).is_ok_and(|usage| usage.available_bytes >= CHECKPOINT_ROOM_BYTES)
}

/// When the disk counts as full.
#[derive(Debug, Clone, Copy)]
pub struct StopPercents {
    /// For what workers send.
    pub ingest: u8,
    /// For copies from other nodes: earlier, so that what moves leaves room for what is new.
    pub repair: u8,
}

/// The room of one disk.
pub struct Space {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    capacity_bytes: u64,
    used_bytes: AtomicU64,
    unmeasured_bytes: AtomicU64,
    ingest: Stop,
    repair: Stop,
    /// Copies are taken in again, and nobody has asked yet.
    repair_resumed: AtomicBool,
    failed: AtomicBool,
}

/// Something that stops at a percentage.
struct Stop {
    percent: u64,
    file_system_full: AtomicBool,
    /// What the log was told last.
    told: AtomicBool,
}

impl Stop {
    fn at(percent: u8) -> Self {
        Self {
            percent: u64::from(percent),
            file_system_full: AtomicBool::new(false),
            told: AtomicBool::new(false),
        }
    }

    /// Whether this is another answer than the log was told.
    fn is_news(&self, is_stopped: bool) -> bool {
        self.told.swap(is_stopped, Ordering::Relaxed) != is_stopped
    }
}

impl Space {
    /// Starts with what is used already.
    pub fn new(disk: Arc<dyn Disk>, data: PathBuf, capacity_bytes: u64, stops: StopPercents) -> Self {
        Self {
            disk,
            data,
            capacity_bytes,
            used_bytes: AtomicU64::new(0),
            unmeasured_bytes: AtomicU64::new(0),
            ingest: Stop::at(stops.ingest),
            repair: Stop::at(stops.repair),
            repair_resumed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// Counts stored bytes, and looks at the file system after many of them: housekeeping alone could come too late.
    pub fn add(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        let unmeasured = self.unmeasured_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if unmeasured >= MEASURE_EVERY_BYTES {
            self.unmeasured_bytes.store(0, Ordering::Relaxed);
            self.refresh();
        }
        self.tell();
    }

    /// Bytes of records.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of capacity that are left, never more than the file system has, unless it keeps them only for a while.
    pub fn free_bytes(&self) -> u64 {
        let by_capacity = self.capacity_bytes.saturating_sub(self.used_bytes());
        if self.disk.elsewhere_bytes().is_some() {
            return by_capacity;
        }
        self.disk.usage(&self.data).map_or(by_capacity, |usage| usage.available_bytes.min(by_capacity))
    }

    /// Whether the index may be made durable now.
    pub fn has_checkpoint_room(&self) -> bool {
        has_checkpoint_room(&*self.disk, &self.data)
    }

    /// The disk said that it is full.
    pub fn note_full(&self) {
        self.ingest.file_system_full.store(true, Ordering::Relaxed);
        self.repair.file_system_full.store(true, Ordering::Relaxed);
        self.tell();
    }

    /// The disk failed otherwise: what it does from now on is not to be relied on.
    pub fn note_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Whether it ever failed since it was opened.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// How full the disk is for this node: what it keeps of what it keeps and could still take. What others keep on the same
    /// file system is no reason to stop while there is room; too little room is, whoever took it.
    fn percent_of(&self, usage: DiskUsage) -> u64 {
        let reserve_bytes = (usage.total_bytes / 100 * RESERVE_PERCENT).min(RESERVE_BYTES_MAX);
        if usage.available_bytes < reserve_bytes {
            return usage.used_percent();
        }
        // What is kept elsewhere takes no room here.
        let own = self.used_bytes().saturating_sub(self.disk.elsewhere_bytes().unwrap_or(0));
        own.saturating_mul(100) / own.saturating_add(usage.available_bytes).max(1)
    }

    /// Looks at the file system again.
    pub fn refresh(&self) {
        match self.disk.usage(&self.data) {
            Ok(usage) => {
                let percent = self.percent_of(usage);
                for stop in [&self.ingest, &self.repair] {
                    stop.file_system_full.store(percent >= stop.percent, Ordering::Relaxed);
                }
                self.tell();
            }
            Err(error) => tracing::warn!(%error, "free space cannot be measured"),
        }
    }

    /// Why nothing more is taken in, if so.
    pub fn stopped(&self) -> Option<String> {
        self.why(&self.ingest)
    }

    /// Why no copies from other nodes are taken in, if so: they stop before ingest does.
    pub fn repair_stopped(&self) -> Option<String> {
        self.why(&self.repair)
    }

    /// Whether copies from other nodes are taken in again, which is told once.
    pub fn take_repair_resumed(&self) -> bool {
        self.repair_resumed.swap(false, Ordering::Relaxed)
    }

    fn why(&self, stop: &Stop) -> Option<String> {
        if stop.file_system_full.load(Ordering::Relaxed) {
            let measured = self.disk.usage(&self.data).map_or(0, |usage| self.percent_of(usage));
            let percent = measured.max(stop.percent);
            return Some(format!("disk {percent}% full: add a disk or node, or drain"));
        }
        let limit = u128::from(self.capacity_bytes) * u128::from(stop.percent) / 100;
        (u128::from(self.used_bytes()) >= limit).then(|| {
            let percent = u128::from(self.used_bytes()) * 100 / u128::from(self.capacity_bytes.max(1));
            format!("capacity {percent}% full: raise `capacity`, add a disk or node, or drain")
        })
    }

    /// Tells the log once that something stops, and once that it goes on.
    fn tell(&self) {
        let data = self.data.display();
        let (ingest, repair) = (self.stopped(), self.repair_stopped());
        if self.ingest.is_news(ingest.is_some()) {
            match ingest {
                Some(reason) => tracing::error!(%data, reason, "ingest stops, reads and pins go on"),
                None => tracing::info!(%data, "ingest goes on: there is room again"),
            }
        }
        if self.repair.is_news(repair.is_some()) {
            match repair {
                Some(reason) => {
                    tracing::warn!(%data, reason, "copies from other nodes are not taken in until there is room");
                }
                None => {
                    self.repair_resumed.store(true, Ordering::Relaxed);
                    tracing::info!(%data, "copies from other nodes are taken in again: there is room");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;

    const GIB: u64 = 1 << 30;

    fn percent(own: u64, total: u64, available: u64) -> u64 {
        let space = Space::new(
            Arc::new(LocalDisk),
            PathBuf::from("/"),
            u64::MAX,
            StopPercents { ingest: 90, repair: 85 },
        );
        space.used_bytes.store(own, Ordering::Relaxed);
        space.percent_of(DiskUsage { total_bytes: total, available_bytes: available })
    }

    #[test]
    fn a_disk_of_its_own_is_full_by_what_the_node_keeps() {
        assert_eq!(percent(90 * GIB, 100 * GIB, 10 * GIB), 90);
        assert_eq!(percent(0, 100 * GIB, 100 * GIB), 0);
    }

    #[test]
    fn what_others_keep_on_the_disk_stops_nothing_while_there_is_room() {
        assert_eq!(percent(GIB, 250 * GIB, 15 * GIB), 6);
    }

    #[test]
    fn the_reserve_is_kept_whoever_fills_the_disk() {
        assert_eq!(percent(GIB / 1024, 250 * GIB, GIB - 1), 99);
        assert_eq!(percent(0, 100 << 20, 2 << 20), 0, "two percent of a small disk");
        assert_eq!(percent(0, 100 << 20, 1 << 20), 99);
    }
}
