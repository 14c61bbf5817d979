//! Whether there is room: ingest stops before the disk is full, reads and pins go on.
//!
//! Invariant: once ingest has stopped it starts again only when a later look finds room.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{disk::Disk, metrics};

/// The file system is looked at after so many stored bytes.
const MEASURE_EVERY_BYTES: u64 = 64 << 20;

/// The room of one disk.
pub struct Space {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    capacity_bytes: u64,
    stop_percent: u64,
    used_bytes: AtomicU64,
    unmeasured_bytes: AtomicU64,
    file_system_full: AtomicBool,
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

    /// The disk said that it is full.
    pub fn note_full(&self) {
        if !self.file_system_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(data = %self.data.display(), "disk full: ingest stops until there is room");
        }
    }

    /// Looks at the file system again.
    pub fn refresh(&self) {
        match self.disk.usage(&self.data) {
            Ok(usage) => {
                let full = usage.used_percent() >= self.stop_percent;
                if self.file_system_full.swap(full, Ordering::Relaxed) != full {
                    tracing::warn!(
                        full,
                        used_percent = usage.used_percent(),
                        "ingest stops or goes on: disk space"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "free space cannot be measured"),
        }
        metrics::space(self.used_bytes(), self.stopped().is_some());
    }

    /// Why nothing more is taken in, if so.
    pub fn stopped(&self) -> Option<String> {
        let limit = u128::from(self.capacity_bytes) * u128::from(self.stop_percent) / 100;
        let over_capacity = u128::from(self.used_bytes()) >= limit;
        (over_capacity || self.file_system_full.load(Ordering::Relaxed)).then(|| {
            format!("disk {}% full: add a disk or node, or drain", self.used_percent().max(self.stop_percent))
        })
    }

    fn used_percent(&self) -> u64 {
        let by_capacity = u128::from(self.used_bytes()) * 100 / u128::from(self.capacity_bytes.max(1));
        let by_capacity = u64::try_from(by_capacity).unwrap_or(u64::MAX);
        self.disk.usage(&self.data).map_or(by_capacity, |usage| usage.used_percent().max(by_capacity))
    }
}
