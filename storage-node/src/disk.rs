//! The file operations the core needs, behind a trait, so that tests make a disk fail where they want.
//!
//! Invariant: nothing here retries. A failed sync is reported once, and the caller never asks again for the same bytes.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

/// How full the file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// Its size.
    pub total_bytes: u64,
    /// What is left for this process.
    pub available_bytes: u64,
}

impl DiskUsage {
    /// Used space in percent of what this process could use at all.
    pub fn used_percent(&self) -> u64 {
        let used = self.total_bytes.saturating_sub(self.available_bytes);
        used.saturating_mul(100) / self.total_bytes.max(1)
    }
}

/// Opens files. Renames and listings go to the file system directly: they happen at start only.
pub trait Disk: Send + Sync + 'static {
    /// Creates a file that must not exist.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file to read and write.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file to read.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes created, renamed and removed names durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// How full the file system of a path is.
    fn usage(&self, path: &Path) -> io::Result<DiskUsage>;
}

/// An open file. Positioned calls only, so that readers and the writer share it.
pub trait DiskFile: Send + Sync {
    /// Fills the buffer from an offset.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes the whole buffer at an offset.
    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written durable.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Its length.
    fn size(&self) -> io::Result<u64>;
}

/// The operating system's disk.
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(LocalFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LocalFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LocalFile(File::open(path)?)))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        let stats = nix::sys::statvfs::statvfs(path).map_err(io::Error::from)?;
        let unit = stats.fragment_size();
        // Blocks reserved for root count neither as used nor as available.
        let reserved = stats.blocks_free().saturating_sub(stats.blocks_available());
        let total_bytes = stats.blocks().saturating_sub(reserved).saturating_mul(unit);
        Ok(DiskUsage { total_bytes, available_bytes: stats.blocks_available().saturating_mul(unit) })
    }
}

struct LocalFile(File);

impl DiskFile for LocalFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
