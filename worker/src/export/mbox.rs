//! One `.mbox` per folder. Messages come one after the other; the file is open while they are of the same folder.

use std::{
    io::SeekFrom,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use holdfast_repository::{ItemEntry, SnapshotReader};
use tokio::{
    fs::File,
    io::{AsyncSeekExt as _, AsyncWriteExt as _, BufWriter},
};

use super::{Envelope, cannot_write, create, finish};
use crate::JobError;

/// The mbox that is being written.
pub(super) struct OpenMbox {
    pub(super) folder: usize,
    file: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
}

impl OpenMbox {
    /// Starts the file of a folder, whose path is relative to the export's.
    pub(super) async fn create(out: &Path, folder: usize, name: PathBuf) -> Result<Self, JobError> {
        let path = out.join(if name.as_os_str().is_empty() { "Mailbox".into() } else { name });
        let path =
            path.with_file_name(format!("{}.mbox", path.file_name().unwrap_or_default().to_string_lossy()));
        let directory = path.parent().unwrap_or(out).to_owned();
        tokio::fs::create_dir_all(&directory).await.map_err(cannot_write(&directory))?;
        let temporary = path.with_extension("mbox.part");
        Ok(Self { folder, file: create(&temporary).await?, temporary, path })
    }

    /// Appends a message, whole or not at all; says how many bytes its MIME has.
    pub(super) async fn append(
        &mut self,
        reader: &SnapshotReader,
        entry: &ItemEntry,
        envelope: &Envelope,
    ) -> Result<u64, JobError> {
        let failed = cannot_write(&self.temporary);
        let start = self.file.stream_position().await.map_err(&failed)?;
        let written = self.write(reader, entry, &separator(envelope, entry.sort)).await;
        if written.is_err() {
            // Half a message would look whole to the readers of the file.
            self.file.flush().await.map_err(&failed)?;
            self.file.get_mut().set_len(start).await.map_err(&failed)?;
            self.file.seek(SeekFrom::Start(start)).await.map_err(&failed)?;
        }
        written
    }

    async fn write(
        &mut self,
        reader: &SnapshotReader,
        entry: &ItemEntry,
        separator: &str,
    ) -> Result<u64, JobError> {
        let failed = cannot_write(&self.temporary);
        self.file.write_all(separator.as_bytes()).await.map_err(&failed)?;
        let mut quoter = MboxQuoter::default();
        let mut bytes = 0;
        if let Some(mime) = reader.content(entry).await?.first() {
            let mut pieces = reader.read(mime);
            while let Some(piece) = pieces.try_next().await? {
                bytes += piece.len() as u64;
                self.file.write_all(&quoter.push(&piece)).await.map_err(&failed)?;
            }
        }
        self.file.write_all(&quoter.finish()).await.map_err(&failed)?;
        Ok(bytes)
    }

    /// Gives the file its final name.
    pub(super) async fn close(self) -> Result<(), JobError> {
        finish(self.file, &self.temporary, &self.path, None).await
    }
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
}
