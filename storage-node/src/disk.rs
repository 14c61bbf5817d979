//! The file operations the core needs, behind a trait: tests make a disk fail where they want, and the simulation has one of
//! its own. The core touches no file in another way.
//!
//! Invariant: nothing here retries. A failed sync is reported once, and the caller never asks again for the same bytes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Builder, Database, DatabaseError};

/// Bytes written again at a time.
const WRITE_AGAIN_BYTES: usize = 1 << 20;
/// The first block of a file.
const BLOCK: u64 = 4096;

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

/// Opens files and changes names. A name is durable only after [`Disk::sync_dir`] of its folder.
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
    /// Bytes of sealed segments that are kept elsewhere and take no room of the file system; none where it keeps everything.
    fn elsewhere_bytes(&self) -> Option<u64> {
        None
    }
    /// What is in a folder, in order. Complete, or an error: what is missing from it counts as lost.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether something has that name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Gives a file another name; what had it is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder and those above it, unless they are there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a file read-only: nobody writes to a sealed segment by mistake.
    fn protect(&self, path: &Path) -> io::Result<()>;
    /// Opens a database, or makes it.
    fn database(&self, path: &Path, builder: &Builder) -> Result<Database, DatabaseError>;
}

impl dyn Disk {
    /// Reads a whole file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open_read(path)?;
        let len = usize::try_from(file.size()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Writes a file's bytes once more and syncs them: after a failed sync the system may call pages clean that never reached
    /// the disk, and a later sync passes them over. The first block comes last: in a database it says which others count.
    /// A full disk that has no room even for this is no error: it then leaves everything as it is.
    pub fn write_again(&self, path: &Path) -> io::Result<()> {
        match self.try_write_again(path) {
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => Ok(()),
            written => written,
        }
    }

    fn try_write_again(&self, path: &Path) -> io::Result<()> {
        let file = self.open(path)?;
        let len = file.size()?;
        let mut buffer = vec![0; WRITE_AGAIN_BYTES];
        for range in [BLOCK.min(len)..len, 0..BLOCK.min(len)] {
            let mut at = range.start;
            while at < range.end {
                let want = (range.end - at).min(WRITE_AGAIN_BYTES as u64);
                let piece = &mut buffer[..usize::try_from(want).map_err(io::Error::other)?];
                file.read_exact_at(piece, at)?;
                file.write_all_at(piece, at)?;
                at += want;
            }
            file.sync()?;
        }
        Ok(())
    }

    /// Writes a whole file, in place of one that is there, and syncs it. Its name is not synced.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.exists(path)? {
            self.remove(path)?;
        }
        let file = self.create(path)?;
        file.write_all_at(bytes, 0)?;
        file.sync()
    }
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

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir)? {
            paths.push(entry?.path());
        }
        paths.sort();
        Ok(paths)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn protect(&self, path: &Path) -> io::Result<()> {
        let mut permissions = fs::metadata(path)?.permissions();
        permissions.set_readonly(true);
        fs::set_permissions(path, permissions)
    }

    fn database(&self, path: &Path, builder: &Builder) -> Result<Database, DatabaseError> {
        builder.create(path)
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
