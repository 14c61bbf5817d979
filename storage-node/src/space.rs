//! Whether there is room: ingest stops before the disk is full, reads and pins go on.
//!
//! Invariant: once ingest has stopped it starts again only when a later look finds room.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{disk::Disk, metrics};

/// The file system is looked at after so many stored bytes.
const MEASURE_EVERY_BYTES: u64 = 64 << 20;

/// The index is made durable only with this much room: once it has met a full disk, it is of no use until the next start.
const CHECKPOINT_ROOM_BYTES: u64 = 64 << 20;

/// Whether the index may be made durable. What is not is scanned at the next start.
pub fn has_checkpoint_room(disk: &dyn Disk, data: &Path) -> bool {
    disk.usage(data).is_ok_and(|usage| usage.available_bytes >= CHECKPOINT_ROOM_BYTES)
}

/// The room of one disk.
pub struct Space {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    capacity_bytes: u64,
    stop_percent: u64,
    used_bytes: AtomicU64,
    unmeasured_bytes: AtomicU64,
    file_system_full: AtomicBool,
    /// What the log was told last.
    told_stopped: AtomicBool,
}

impl Space {
    /// Starts with what is used already.
    pub fn new(disk: Arc<dyn Disk>, data: PathBuf, capacity_bytes: u64, stop_percent: u8) -> Self {
        Self {
            disk,
            data,
            capacity_bytes,
            stop_percent: u64::from(stop_percent),
            used_bytes: AtomicU64::new(0),
            unmeasured_bytes: AtomicU64::new(0),
            file_system_full: AtomicBool::new(false),
            told_stopped: AtomicBool::new(false),
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

    /// Bytes of capacity that are left, never more than the file system has.
    pub fn free_bytes(&self) -> u64 {
        let by_capacity = self.capacity_bytes.saturating_sub(self.used_bytes());
        self.disk.usage(&self.data).map_or(by_capacity, |usage| usage.available_bytes.min(by_capacity))
    }

    /// Whether the index may be made durable now.
    pub fn has_checkpoint_room(&self) -> bool {
        has_checkpoint_room(&*self.disk, &self.data)
    }

    /// The disk said that it is full.
    pub fn note_full(&self) {
        self.file_system_full.store(true, Ordering::Relaxed);
        self.tell();
    }

    /// Looks at the file system again.
    pub fn refresh(&self) {
        match self.disk.usage(&self.data) {
            Ok(usage) => {
                let full = usage.used_percent() >= self.stop_percent;
                self.file_system_full.store(full, Ordering::Relaxed);
                self.tell();
            }
            Err(error) => tracing::warn!(%error, "free space cannot be measured"),
        }
        metrics::space(self.used_bytes(), self.stopped().is_some());
    }

    /// Why nothing more is taken in, if so.
    pub fn stopped(&self) -> Option<String> {
        if self.file_system_full.load(Ordering::Relaxed) {
            let measured = self.disk.usage(&self.data).map_or(0, |usage| usage.used_percent());
            let percent = measured.max(self.stop_percent);
            return Some(format!("disk {percent}% full: add a disk or node, or drain"));
        }
        let limit = u128::from(self.capacity_bytes) * u128::from(self.stop_percent) / 100;
        (u128::from(self.used_bytes()) >= limit).then(|| {
            let percent = u128::from(self.used_bytes()) * 100 / u128::from(self.capacity_bytes.max(1));
            format!("capacity {percent}% full: raise `capacity`, add a disk or node, or drain")
        })
    }

    /// Tells the log once that ingest stops, and once that it goes on.
    fn tell(&self) {
        let reason = self.stopped();
        if self.told_stopped.swap(reason.is_some(), Ordering::Relaxed) == reason.is_some() {
            return;
        }
        let data = self.data.display();
        match reason {
            Some(reason) => tracing::error!(%data, reason, "ingest stops, reads and pins go on"),
            None => tracing::info!(%data, "ingest goes on: there is room again"),
        }
    }
}
