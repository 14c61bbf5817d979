//! Exports a snapshot to files, without Microsoft: files per item in folders (`.eml`, `.ics`, `.vcf`, the files of a drive, JSON),
//! or one `.mbox` per folder.
//!
//! The invariant: a file under its final name is complete; it is written under another name first. Bytes are those of the
//! stored MIME; only mbox quotes lines that begin with `From `, as its readers expect.

mod content_line;
mod ics;
mod json;
mod mbox;
mod names;
mod render;
mod rrule;
mod vcf;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use holdfast_model::ExportFormat;
use holdfast_record::Pin;
use holdfast_repository::{ChunkStore, ItemEntry, JobKeys, SnapshotReader};
use serde::Deserialize;
use tokio::{
    fs::File,
    io::{AsyncWriteExt as _, BufWriter},
};

use self::{
    mbox::OpenMbox,
    names::folder_names,
    render::{Body, OutFile, Rendered},
};
use crate::{
    JobError,
    backup::{Progress, key},
    restore::Restored,
    workload::{
        collect::ItemFailure,
        snapshot_folders::{Selection, SnapshotFolders},
    },
};

/// Write buffers of open files.
const BUFFER_BYTES: usize = 256 << 10;
/// Messages written at once into files of their own: while one is synced, others are read.
const FILES_AT_ONCE: usize = 8;

/// Items whose properties and small contents are fetched before it is their turn.
const ITEMS_AHEAD: usize = 64;

/// One export job.
pub struct ExportJob {
    /// The snapshot.
    pub pin: Pin,
    /// Folder paths or item ids; empty for everything.
    pub paths: Vec<String>,
    /// What is written.
    pub format: ExportFormat,
    /// Where to.
    pub out: PathBuf,
    /// Bytes of content read ahead.
    pub read_ahead_bytes: usize,
}

/// What is exported, in order: (folder, id, entry).
type Items<'a> = BoxStream<'a, Result<(usize, String, ItemEntry), JobError>>;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Envelope {
    subject: Option<String>,
    from: Option<Sender>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Sender {
    email_address: Option<Address>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Address {
    address: Option<String>,
}

impl ExportJob {
    /// Runs to the end.
    pub async fn run(
        &self,
        store: Arc<dyn ChunkStore>,
        keys: Arc<JobKeys>,
        progress: Arc<Progress>,
    ) -> Result<Restored, JobError> {
        let reader = SnapshotReader::open(store, keys, &self.pin).await?;
        let reader = reader.with_read_ahead(self.read_ahead_bytes);
        let folders = SnapshotFolders::read(&reader).await?;
        let selection = folders.select(&reader, &self.paths).await?;
        let exporter = Exporter { out: &self.out, reader: &reader, names: folder_names(&folders) };
        let items = folders
            .selected(&reader, &selection)
            .inspect_ok(|(_, _, entry)| reader.prefetch(entry))
            .map(std::future::ready)
            .buffered(ITEMS_AHEAD)
            .boxed();
        let mut done = Done { folders: &folders, progress: &progress, restored: Restored::default() };
        match self.format {
            ExportFormat::Mbox => exporter.mboxes(items, &mut done).await?,
            format => exporter.files(format, items, &mut done).await?,
        }
        if self.format == ExportFormat::Json {
            exporter.definitions(&selection, &mut done).await?;
        }
        Ok(done.restored)
    }
}

/// What came of the items so far.
struct Done<'a> {
    folders: &'a SnapshotFolders,
    progress: &'a Progress,
    restored: Restored,
}

impl Done<'_> {
    /// Counts an item, whose bytes were written or not. Fails where the others would fail too.
    fn count(&mut self, folder: usize, id: &str, written: Result<u64, JobError>) -> Result<(), JobError> {
        let account = &mut self.restored.account;
        account.listed += 1;
        match written {
            Ok(bytes) => {
                account.stored += 1;
                account.bytes_read += bytes;
            }
            // Damage of one item must not keep the others from being saved.
            Err(JobError::Repository(error)) if !error.is_retryable() => {
                tracing::warn!(%error, "item cannot be read");
                account.failed_permanent += 1;
                let path = &self.folders.all()[folder].path;
                self.restored.failed.push(ItemFailure::ours(id, path, "unreadable", false));
            }
            Err(error) => return Err(error),
        }
        self.progress.set(self.restored.account);
        Ok(())
    }
}

struct Exporter<'a> {
    out: &'a Path,
    reader: &'a SnapshotReader,
    names: HashMap<usize, PathBuf>,
}

impl Exporter<'_> {
    /// Each item into files of its own, several at once.
    async fn files(
        &self,
        format: ExportFormat,
        items: Items<'_>,
        done: &mut Done<'_>,
    ) -> Result<(), JobError> {
        let mut written = items
            .map_ok(|(folder, id, entry)| async move {
                let result = self.item(format, folder, (&id, &entry)).await;
                Ok((folder, id, result))
            })
            .try_buffered(FILES_AT_ONCE);
        while let Some((folder, id, result)) = written.try_next().await? {
            done.count(folder, &id, result)?;
        }
        Ok(())
    }

    /// What has no items but is worth something by itself, such as a search folder or a rule: a file each, beside its siblings.
    async fn definitions(&self, selection: &Selection, done: &mut Done<'_>) -> Result<(), JobError> {
        for index in selection.folders.iter().copied() {
            let folder = &done.folders.all()[index];
            if folder.is_definition() {
                let written = self.definition(index, &folder.id).await;
                done.count(index, &folder.id.clone(), written)?;
            }
        }
        Ok(())
    }

    async fn definition(&self, index: usize, id: &str) -> Result<u64, JobError> {
        let Some(entry) = self.reader.item(&key(id)).await? else { return Ok(0) };
        let path = self.names.get(&index).cloned().unwrap_or_default();
        let body = json::definition(&self.reader.meta(&entry).await?)?;
        let name = format!("{}.json", path.file_name().unwrap_or_default().to_string_lossy());
        let directory = self.out.join(path.parent().unwrap_or(&path));
        self.file(&directory, OutFile { name: name.into(), modified_ms: 0, body: Body::Bytes(body) }).await
    }

    /// Writes what an item is made into; says how many bytes of content that are.
    async fn item(
        &self,
        format: ExportFormat,
        folder: usize,
        item: (&str, &ItemEntry),
    ) -> Result<u64, JobError> {
        let directory = self.out.join(self.names.get(&folder).cloned().unwrap_or_default());
        let Rendered { files } = render::item(self.reader, format, item).await?;
        let mut bytes = 0;
        for file in files {
            bytes += self.file(&directory, file).await?;
        }
        Ok(bytes)
    }

    async fn file(&self, directory: &Path, file: OutFile) -> Result<u64, JobError> {
        let path = directory.join(&file.name);
        let directory = path.parent().unwrap_or(directory);
        tokio::fs::create_dir_all(directory).await.map_err(cannot_write(directory))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory.join(format!(".{name}.part"));
        let mut out = create(&temporary).await?;
        let mut bytes = 0;
        match file.body {
            Body::Bytes(body) => out.write_all(&body).await.map_err(cannot_write(&temporary))?,
            Body::Part(part) => {
                let mut pieces = self.reader.read(&part);
                while let Some(piece) = pieces.try_next().await? {
                    bytes += piece.len() as u64;
                    out.write_all(&piece).await.map_err(cannot_write(&temporary))?;
                }
            }
        }
        finish(out, &temporary, &path, Some(file.modified_ms)).await?;
        Ok(bytes)
    }

    /// The messages of a folder into one file, one after the other.
    async fn mboxes(&self, mut items: Items<'_>, done: &mut Done<'_>) -> Result<(), JobError> {
        let mut open: Option<OpenMbox> = None;
        while let Some((folder, id, entry)) = items.try_next().await? {
            let written = self.mbox(&mut open, folder, &entry).await;
            done.count(folder, &id, written)?;
        }
        close(&mut open).await
    }

    async fn mbox(
        &self,
        open: &mut Option<OpenMbox>,
        folder: usize,
        entry: &ItemEntry,
    ) -> Result<u64, JobError> {
        if open.as_ref().is_none_or(|mbox| mbox.folder != folder) {
            close(open).await?;
            let name = self.names.get(&folder).cloned().unwrap_or_default();
            *open = Some(OpenMbox::create(self.out, folder, name).await?);
        }
        let envelope = self.envelope(entry).await?;
        let Some(mbox) = open else { return Ok(0) };
        mbox.append(self.reader, entry, &envelope).await
    }

    async fn envelope(&self, entry: &ItemEntry) -> Result<Envelope, JobError> {
        let meta = self.reader.meta(entry).await?;
        Ok(serde_json::from_slice(&meta).unwrap_or_default())
    }
}

async fn close(open: &mut Option<OpenMbox>) -> Result<(), JobError> {
    match open.take() {
        None => Ok(()),
        Some(mbox) => mbox.close().await,
    }
}

fn cannot_write(path: &Path) -> impl Fn(std::io::Error) -> JobError + use<> {
    let path = path.to_owned();
    move |source| JobError::File { path: path.clone(), source }
}

async fn create(path: &Path) -> Result<BufWriter<File>, JobError> {
    let file = File::create(path).await.map_err(cannot_write(path))?;
    Ok(BufWriter::with_capacity(BUFFER_BYTES, file))
}

async fn finish(
    mut file: BufWriter<File>,
    temporary: &Path,
    path: &Path,
    modified_ms: Option<u64>,
) -> Result<(), JobError> {
    file.flush().await.map_err(cannot_write(temporary))?;
    let file = file.into_inner();
    file.sync_all().await.map_err(cannot_write(temporary))?;
    if let Some(modified_ms) = modified_ms.filter(|time| *time > 0) {
        let time = UNIX_EPOCH + Duration::from_millis(modified_ms);
        file.into_std().await.set_modified(time).map_err(cannot_write(temporary))?;
    }
    tokio::fs::rename(temporary, path).await.map_err(cannot_write(path))
}
