//! Writes a snapshot of files back into a folder: contents, modes and times, nothing synced, as the rivals do.
//!
//! Files are written on the runtime's threads for blocking work, a small one in one go; what its content is read from comes
//! through the product's reader.

use std::{
    fs::{self, File, Permissions},
    io::{ErrorKind, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use holdfast_repository::{EntryKind, ItemEntry, SnapshotReader};
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::ours::FileMeta;

/// Files written at once: more only wait for each other at the folder that they are made in.
const FILES_AT_ONCE: usize = 4;
/// What is read ahead: half of what a job of a worker has with the default `memory-budget` and slots.
const READ_AHEAD_BYTES: usize = 16 << 20;
/// Small files whose contents are fetched before it is their turn: those of one or two bundles.
const FILES_AHEAD: usize = 64;

/// Writes every file of a snapshot; how many.
pub async fn everything(reader: SnapshotReader, target: &Path) -> anyhow::Result<u64> {
    fs::create_dir_all(target)?;
    let reader = reader.with_read_ahead(READ_AHEAD_BYTES);
    let mut restored = reader
        .items()
        .map_err(anyhow::Error::from)
        .inspect_ok(|(_, entry)| reader.prefetch(entry))
        .map(std::future::ready)
        .buffered(FILES_AHEAD)
        .map_ok(|(key, entry)| {
            let (reader, target) = (reader.clone(), target.to_owned());
            let one = async move {
                let path = target.join(std::str::from_utf8(&key.0)?);
                item(&reader, path, &entry).await
            };
            async { AbortOnDropHandle::new(tokio::spawn(one)).await? }
        })
        .try_buffer_unordered(FILES_AT_ONCE);
    let (mut n_files, mut folders) = (0, Vec::new());
    while let Some(folder) = restored.try_next().await? {
        match folder {
            None => n_files += 1,
            Some(folder) => folders.push(folder),
        }
    }
    // At the end, because what is written into a folder changes its time.
    folders.iter().try_for_each(|(path, meta)| finish(&File::open(path)?, meta))?;
    Ok(n_files)
}

/// Writes a file, or makes a folder, which is handed back.
async fn item(
    reader: &SnapshotReader,
    path: PathBuf,
    entry: &ItemEntry,
) -> anyhow::Result<Option<(PathBuf, FileMeta)>> {
    let meta: FileMeta = serde_json::from_slice(&reader.meta(entry).await?)?;
    if entry.kind == EntryKind::Folder {
        fs::create_dir_all(&path)?;
        return Ok(Some((path, meta)));
    }
    let parts = reader.content(entry).await?;
    let mut left: u64 = parts.iter().map(|part| part.len).sum();
    let mut pieces = futures::stream::iter(parts).flat_map(|part| reader.read(&part));
    let mut target = Target { path, meta, file: None };
    loop {
        let piece = match left {
            0 => Bytes::new(),
            _ => pieces.try_next().await?.context("the content ends early")?,
        };
        left -= piece.len() as u64;
        target = spawn_blocking(move || target.write(&piece, left == 0)).await??;
        if left == 0 {
            return Ok(None);
        }
    }
}

struct Target {
    path: PathBuf,
    meta: FileMeta,
    file: Option<File>,
}

impl Target {
    /// Appends; the file is there from the first piece on, and finished with the last.
    fn write(mut self, piece: &[u8], is_last: bool) -> anyhow::Result<Self> {
        let mut file = self.file.take().map_or_else(|| create(&self.path), Ok)?;
        file.write_all(piece)?;
        if is_last {
            finish(&file, &self.meta)?;
        }
        self.file = Some(file);
        Ok(self)
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    match File::create_new(path) {
        // Its folder may come later.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
            Ok(File::create_new(path)?)
        }
        other => Ok(other?),
    }
}

fn finish(file: &File, meta: &FileMeta) -> anyhow::Result<()> {
    let (seconds, nanoseconds) = meta.modified;
    let modified: SystemTime =
        UNIX_EPOCH + Duration::new(u64::try_from(seconds)?, u32::try_from(nanoseconds)?);
    file.set_permissions(Permissions::from_mode(meta.mode))?;
    Ok(file.set_modified(modified)?)
}
