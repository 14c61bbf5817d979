//! Exports a snapshot to files, without Microsoft: `.eml` files in folders, or one `.mbox` per folder.
//!
//! The invariant: a file under its final name is complete; it is written under another name first. Bytes are those of the
//! stored MIME; only mbox quotes lines that begin with `From `, as its readers expect.

use std::{
    collections::HashMap,
    io::SeekFrom,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use holdfast_model::{Account, ExportFormat};
use holdfast_record::Pin;
use holdfast_repository::{ChunkStore, ItemEntry, JobKeys, SnapshotReader};
use serde::Deserialize;
use tokio::{
    fs::File,
    io::{AsyncSeekExt as _, AsyncWriteExt as _, BufWriter},
};

use crate::{
    JobError,
    backup::Progress,
    restore::Restored,
    workload::mail::{FailedMessage, paths::SnapshotFolders},
};

/// The longest part of a file name made of a subject.
const MAX_SUBJECT_CHARS: usize = 60;
/// The longest name of a folder.
const MAX_FOLDER_CHARS: usize = 100;
/// Write buffers of open files.
const BUFFER_BYTES: usize = 256 << 10;

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
}

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
        let folders = SnapshotFolders::read(&reader).await?;
        let selection = folders.select(&reader, &self.paths).await?;
        let names = folder_names(&folders);
        let mut exporter =
            Exporter { job: self, reader: &reader, names, mbox: None, done: Restored::default() };
        let mut items = folders.selected(&reader, &selection);
        while let Some((folder, id, entry)) = items.try_next().await? {
            exporter.item(folder, &folders.all()[folder].path, &id, &entry).await?;
            progress.set(exporter.done.account);
        }
        drop(items);
        exporter.close_mbox().await?;
        Ok(exporter.done)
    }
}

struct OpenMbox {
    folder: usize,
    file: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
}

struct Exporter<'a> {
    job: &'a ExportJob,
    reader: &'a SnapshotReader,
    names: HashMap<usize, PathBuf>,
    mbox: Option<OpenMbox>,
    done: Restored,
}

impl Exporter<'_> {
    async fn item(&mut self, folder: usize, path: &str, id: &str, entry: &ItemEntry) -> Result<(), JobError> {
        self.done.account.listed += 1;
        let written = match self.job.format {
            ExportFormat::Eml => self.eml(folder, id, entry).await,
            ExportFormat::Mbox => self.mbox(folder, entry).await,
        };
        let account: &mut Account = &mut self.done.account;
        match written {
            Ok(bytes) => {
                account.stored += 1;
                account.bytes_read += bytes;
            }
            // Damage of one item must not keep the others from being saved.
            Err(JobError::Repository(error)) if !error.is_retryable() => {
                tracing::warn!(%error, "item cannot be read");
                account.failed_permanent += 1;
                self.done.failed.push(FailedMessage::ours(id, path, "unreadable", false));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn eml(&self, folder: usize, id: &str, entry: &ItemEntry) -> Result<u64, JobError> {
        let meta = self.reader.meta(entry).await?;
        let envelope: Envelope = serde_json::from_slice(&meta).unwrap_or_default();
        let directory = self.job.out.join(self.names.get(&folder).cloned().unwrap_or_default());
        tokio::fs::create_dir_all(&directory).await.map_err(cannot_write(&directory))?;
        let name = eml_name(entry.sort, envelope.subject.as_deref().unwrap_or_default(), id);
        let path = directory.join(&name);
        let temporary = directory.join(format!(".{name}.part"));
        let mut file = create(&temporary).await?;
        let mut bytes = 0;
        if let Some(mime) = self.reader.content(entry).await?.first() {
            let mut pieces = self.reader.read(mime);
            while let Some(piece) = pieces.try_next().await? {
                bytes += piece.len() as u64;
                file.write_all(&piece).await.map_err(cannot_write(&temporary))?;
            }
        }
        finish(file, &temporary, &path, Some(entry.sort)).await?;
        Ok(bytes)
    }

    async fn mbox(&mut self, folder: usize, entry: &ItemEntry) -> Result<u64, JobError> {
        if self.mbox.as_ref().is_none_or(|mbox| mbox.folder != folder) {
            self.close_mbox().await?;
            let name = self.names.get(&folder).cloned().unwrap_or_default();
            let path = self.job.out.join(if name.as_os_str().is_empty() { "Mailbox".into() } else { name });
            let path = path
                .with_file_name(format!("{}.mbox", path.file_name().unwrap_or_default().to_string_lossy()));
            let directory = path.parent().unwrap_or(&self.job.out).to_owned();
            tokio::fs::create_dir_all(&directory).await.map_err(cannot_write(&directory))?;
            let temporary = path.with_extension("mbox.part");
            self.mbox = Some(OpenMbox { folder, file: create(&temporary).await?, temporary, path });
        }
        let meta = self.reader.meta(entry).await?;
        let envelope: Envelope = serde_json::from_slice(&meta).unwrap_or_default();
        let Some(mbox) = &mut self.mbox else { return Ok(0) };
        let failed = cannot_write(&mbox.temporary);
        let start = mbox.file.stream_position().await.map_err(&failed)?;
        let written = append(self.reader, entry, &separator(&envelope, entry.sort), mbox).await;
        if written.is_err() {
            // Half a message would look whole to the readers of the file.
            mbox.file.flush().await.map_err(&failed)?;
            mbox.file.get_mut().set_len(start).await.map_err(&failed)?;
            mbox.file.seek(SeekFrom::Start(start)).await.map_err(&failed)?;
        }
        written
    }

    async fn close_mbox(&mut self) -> Result<(), JobError> {
        match self.mbox.take() {
            None => Ok(()),
            Some(mbox) => finish(mbox.file, &mbox.temporary, &mbox.path, None).await,
        }
    }
}

/// Appends one message; says how many bytes its MIME has.
async fn append(
    reader: &SnapshotReader,
    entry: &ItemEntry,
    separator: &str,
    mbox: &mut OpenMbox,
) -> Result<u64, JobError> {
    let failed = cannot_write(&mbox.temporary);
    mbox.file.write_all(separator.as_bytes()).await.map_err(&failed)?;
    let mut quoter = MboxQuoter::default();
    let mut bytes = 0;
    if let Some(mime) = reader.content(entry).await?.first() {
        let mut pieces = reader.read(mime);
        while let Some(piece) = pieces.try_next().await? {
            bytes += piece.len() as u64;
            mbox.file.write_all(&quoter.push(&piece)).await.map_err(&failed)?;
        }
    }
    mbox.file.write_all(&quoter.finish()).await.map_err(&failed)?;
    Ok(bytes)
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

/// Per folder a path that any file system takes, no two the same.
fn folder_names(folders: &SnapshotFolders) -> HashMap<usize, PathBuf> {
    let mut names: HashMap<usize, PathBuf> = HashMap::new();
    let mut taken = std::collections::HashSet::new();
    for (index, folder) in folders.all().iter().enumerate() {
        let Some(parent) = folder.parent else {
            names.insert(index, PathBuf::new());
            continue;
        };
        let base = names.get(&parent).cloned().unwrap_or_default();
        let mut path = base.join(file_name(&folder.name, MAX_FOLDER_CHARS));
        if !taken.insert(path.to_string_lossy().to_lowercase()) {
            path = base.join(format!(
                "{}-{}",
                file_name(&folder.name, MAX_FOLDER_CHARS),
                hex::encode(&folder.key[..4])
            ));
            taken.insert(path.to_string_lossy().to_lowercase());
        }
        names.insert(index, path);
    }
    names
}

/// Text as (a part of) a file name: nothing that any file system refuses, never hidden, never empty.
fn file_name(text: &str, max_chars: usize) -> String {
    let is_bad =
        |c: char| c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '\0');
    let clean: String = text.chars().map(|c| if is_bad(c) { '_' } else { c }).take(max_chars).collect();
    let clean = clean.trim_matches([' ', '.']);
    if clean.is_empty() { "_".to_owned() } else { clean.to_owned() }
}

fn eml_name(received_ms: u64, subject: &str, id: &str) -> String {
    let time = i64::try_from(received_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).strftime("%Y-%m-%dT%H-%M-%SZ").to_string();
    let hash = blake3::hash(id.as_bytes()).to_hex();
    // A file name is at most 255 bytes; a character at most 4.
    let mut subject = file_name(subject, MAX_SUBJECT_CHARS);
    while subject.len() > 180 {
        subject.pop();
    }
    format!("{time} {subject} {}.eml", &hash[..12])
}

fn separator(envelope: &Envelope, received_ms: u64) -> String {
    let address = envelope.from.as_ref().and_then(|from| from.email_address.as_ref());
    let address = address.and_then(|address| address.address.as_deref()).unwrap_or("MAILER-DAEMON");
    let address: String = address.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    let time = i64::try_from(received_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).strftime("%a %b %e %H:%M:%S %Y");
    let address = if address.is_empty() { "MAILER-DAEMON" } else { &address };
    format!("From {address} {time}\n")
}

/// Puts a `>` before every line that is `From ` behind any number of `>` (mboxrd), with LF line breaks.
#[derive(Default)]
struct MboxQuoter {
    /// The start of a line that may need a quote.
    start: Vec<u8>,
    is_within_line: bool,
    after_cr: bool,
}

impl MboxQuoter {
    fn push(&mut self, piece: &Bytes) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len() + 64);
        for byte in piece {
            if std::mem::take(&mut self.after_cr) && *byte != b'\n' {
                self.byte(b'\r', &mut out);
            }
            match byte {
                b'\r' => self.after_cr = true,
                byte => self.byte(*byte, &mut out),
            }
        }
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        const FROM: &[u8] = b"From ";
        if self.is_within_line {
            out.push(byte);
            self.is_within_line = byte != b'\n';
            return;
        }
        self.start.push(byte);
        let quotes = self.start.iter().take_while(|byte| **byte == b'>').count();
        let rest = &self.start[quotes..];
        if rest == FROM {
            out.push(b'>');
        } else if FROM.starts_with(rest) && self.start.len() < 256 {
            return;
        }
        out.append(&mut self.start);
        self.is_within_line = byte != b'\n';
    }

    /// The rest, and the empty line between messages.
    fn finish(mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.start);
        if self.is_within_line || !out.is_empty() {
            out.push(b'\n');
        }
        out.push(b'\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(text: &str, piece: usize) -> String {
        let mut quoter = MboxQuoter::default();
        let mut out: Vec<u8> = text
            .as_bytes()
            .chunks(piece)
            .flat_map(|piece| quoter.push(&Bytes::copy_from_slice(piece)))
            .collect();
        out.extend(quoter.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_that_look_like_separators_are_quoted_however_the_bytes_are_split() {
        for piece in 1..20 {
            let text = quote("From me\r\n>From you\r\n>>x\r\nFromage\r\nlast", piece);
            assert_eq!(text, ">From me\n>>From you\n>>x\nFromage\nlast\n\n", "pieces of {piece}");
        }
    }

    #[test]
    fn file_names_are_safe_and_unique() {
        let name = eml_name(1_714_557_600_000, "../..\\a:b\u{0}?", "id");
        assert!(name.starts_with("2024-05-01T10-00-00Z _.._a_b__"), "{name}");
        assert!(!name.contains('/') && name.ends_with(".eml"));
        assert_ne!(eml_name(0, "s", "a"), eml_name(0, "s", "b"));
        assert!(eml_name(0, &"\u{1F600}".repeat(500), "a").len() < 255);
    }
}
