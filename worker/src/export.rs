//! Exports a snapshot to files, without Microsoft: files per item in folders (`.eml`, `.ics`, `.vcf`, the files of a drive, JSON),
//! one `.mbox` per folder, or one zip archive of the files.
//!
//! The invariant: a file under its final name is complete; it is written under another name first. Bytes are those of the
//! stored MIME; only mbox quotes lines that begin with `From `, as its readers expect.

mod archive;
mod content_line;
mod ics;
mod ics_zone;
mod json;
mod mbox;
mod names;
mod render;
mod rrule;
mod vcf;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use holdfast_model::ExportFormat;
use holdfast_record::Pin;
use holdfast_repository::{ChunkStore, ContentPart, ItemEntry, JobKeys, SnapshotReader};
use serde::Deserialize;
use tokio::{
    fs::File,
    io::{AsyncWriteExt as _, BufWriter},
};

use self::{
    archive::OpenZip,
    mbox::OpenMbox,
    names::Names,
    render::{Body, OutFile},
};
use crate::{
    JobError,
    backup::{Progress, key},
    restore::Restored,
    workload::snapshot_folders::{Selection, SnapshotFolders},
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

/// What items are made into, in order: (folder, id, files under their names in the export).
type Files<'a> = BoxStream<'a, Result<(usize, String, Result<Vec<OutFile>, JobError>), JobError>>;

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
        let exporter = Exporter { out: &self.out, reader: &reader };
        let mut names = Names::new(&folders);
        let items = folders
            .selected(&reader, &selection)
            .inspect_ok(|(_, _, entry)| reader.prefetch(entry))
            .map(std::future::ready)
            .buffered(ITEMS_AHEAD)
            .boxed();
        let mut done = Done { folders: &folders, progress: &progress, restored: Restored::default() };
        match self.format {
            ExportFormat::Mbox => exporter.mboxes(items, &names, &mut done).await?,
            ExportFormat::Zip => {
                let format = ExportFormat::natural(self.pin.workload);
                let items = exporter.rendered(format, items, &mut names);
                let zip = OpenZip::create(&self.out, &format!("{}.zip", self.pin.snapshot)).await?;
                exporter.zip(zip, items, &mut done).await?;
            }
            format => exporter.files(exporter.rendered(format, items, &mut names), &mut done).await?,
        }
        if self.format == ExportFormat::Json {
            exporter.definitions(&selection, &mut names, &mut done).await?;
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
            Err(JobError::Repository(error)) if !error.is_retryable() => {
                self.restored.count_unreadable(id, &self.folders.all()[folder].path, &error);
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
}

impl<'a> Exporter<'a> {
    /// Makes the files of items, several at once; names are given in the order of the items.
    fn rendered(&'a self, format: ExportFormat, items: Items<'a>, names: &'a mut Names) -> Files<'a> {
        items
            .map_ok(move |(folder, id, entry)| async move {
                let files = render::item(self.reader, format, (&id, &entry)).await;
                Ok((folder, id, files))
            })
            .try_buffered(FILES_AT_ONCE)
            .map_ok(|(folder, id, files)| {
                let files = files.map(|files| names.place(folder, &id, files));
                (folder, id, files)
            })
            .boxed()
    }

    /// Each item into files of its own, several at once.
    async fn files(&self, items: Files<'_>, done: &mut Done<'_>) -> Result<(), JobError> {
        let mut written = items
            .map_ok(|(folder, id, files)| async move {
                let result = match files {
                    Ok(files) => self.item(files).await,
                    Err(error) => Err(error),
                };
                Ok((folder, id, result))
            })
            .try_buffered(FILES_AT_ONCE);
        while let Some((folder, id, result)) = written.try_next().await? {
            done.count(folder, &id, result)?;
        }
        Ok(())
    }

    /// What has no items but is worth something by itself, such as a search folder or a rule: a file each, beside its siblings.
    async fn definitions(
        &self,
        selection: &Selection,
        names: &mut Names,
        done: &mut Done<'_>,
    ) -> Result<(), JobError> {
        for index in selection.folders.iter().copied() {
            let folder = &done.folders.all()[index];
            if folder.is_definition() {
                let id = folder.id.clone();
                let written = self.definition(&id, names.beside(index, "json")).await;
                done.count(index, &id, written)?;
            }
        }
        Ok(())
    }

    async fn definition(&self, id: &str, name: PathBuf) -> Result<u64, JobError> {
        let Some(entry) = self.reader.item(&key(id)).await? else { return Ok(0) };
        let body = json::definition(&self.reader.meta(&entry).await?)?;
        self.file(OutFile { name, modified_ms: 0, body: Body::Bytes(body) }).await
    }

    /// Writes the files of an item; says how many bytes of content that are.
    async fn item(&self, files: Vec<OutFile>) -> Result<u64, JobError> {
        let mut bytes = 0;
        for file in files {
            bytes += self.file(file).await?;
        }
        Ok(bytes)
    }

    /// All items into one archive, one file after the other.
    async fn zip(&self, mut zip: OpenZip, mut items: Files<'_>, done: &mut Done<'_>) -> Result<(), JobError> {
        while let Some((folder, id, files)) = items.try_next().await? {
            let result = match files {
                Ok(files) => self.zip_item(&mut zip, files).await,
                Err(error) => Err(error),
            };
            done.count(folder, &id, result)?;
        }
        zip.close().await
    }

    async fn zip_item(&self, zip: &mut OpenZip, files: Vec<OutFile>) -> Result<u64, JobError> {
        let mut bytes = 0;
        for file in files {
            zip.file(&file.name, file.modified_ms, file.body.len()).await?;
            match file.body {
                Body::Bytes(body) => zip.piece(body.into()).await?,
                Body::Part(part) => bytes += self.zip_part(zip, &part).await?,
            }
        }
        Ok(bytes)
    }

    async fn zip_part(&self, zip: &mut OpenZip, part: &ContentPart) -> Result<u64, JobError> {
        let mut pieces = self.reader.read(part);
        let mut bytes = 0;
        loop {
            match pieces.try_next().await {
                Ok(Some(piece)) => {
                    bytes += piece.len() as u64;
                    zip.piece(piece).await?;
                }
                Ok(None) => return Ok(bytes),
                Err(error) => {
                    // Half a file would look whole.
                    zip.abandon().await?;
                    return Err(error.into());
                }
            }
        }
    }

    async fn file(&self, file: OutFile) -> Result<u64, JobError> {
        let path = self.out.join(&file.name);
        let directory = path.parent().unwrap_or(self.out);
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
    async fn mboxes(&self, mut items: Items<'_>, names: &Names, done: &mut Done<'_>) -> Result<(), JobError> {
        let mut open: Option<OpenMbox> = None;
        while let Some((folder, id, entry)) = items.try_next().await? {
            let written = self.mbox(&mut open, (folder, names.folder(folder)), &entry).await;
            done.count(folder, &id, written)?;
        }
        close(&mut open).await
    }

    async fn mbox(
        &self,
        open: &mut Option<OpenMbox>,
        (folder, name): (usize, PathBuf),
        entry: &ItemEntry,
    ) -> Result<u64, JobError> {
        if open.as_ref().is_none_or(|mbox| mbox.folder != folder) {
            close(open).await?;
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
