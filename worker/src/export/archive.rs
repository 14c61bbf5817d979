//! One zip archive. A thread compresses and writes; what is exported reaches it through a short queue.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinHandle};
use zip::{
    CompressionMethod, ZipWriter,
    write::{ExtendedFileOptions, FileOptions},
};

use super::{BUFFER_BYTES, cannot_write};
use crate::JobError;

/// Pieces that wait for the thread; a piece is a chunk.
const QUEUED_PIECES: usize = 4;
/// Mail shrinks well at any level, and most other files at none: the fast one.
const COMPRESSION_LEVEL: i64 = 1;
/// A file that may become this long gets the long fields of zip64. Less than 4 GiB: what does not shrink grows a little.
const LARGE_FILE_BYTES: u64 = 4_000_000_000;
/// The extra field with the time in UTC, to the second (Info-ZIP). The other time has no zone and only even seconds.
const EXTENDED_TIME: u16 = 0x5455;
/// Of the times of [`EXTENDED_TIME`] only that of the last change is there.
const ONLY_MODIFIED: u8 = 1;

enum Order {
    File { name: String, modified_ms: u64, bytes: u64 },
    Piece(Bytes),
    Abandon,
    Finish,
}

/// The archive that is being written.
pub(super) struct OpenZip {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<io::Result<()>>,
    temporary: PathBuf,
    path: PathBuf,
}

impl OpenZip {
    /// Starts an archive in a folder.
    pub(super) async fn create(out: &Path, name: &str) -> Result<Self, JobError> {
        tokio::fs::create_dir_all(out).await.map_err(cannot_write(out))?;
        let temporary = out.join(format!(".{name}.part"));
        let file = tokio::fs::File::create(&temporary).await.map_err(cannot_write(&temporary))?;
        let file = file.into_std().await;
        let (orders, queue) = mpsc::channel(QUEUED_PIECES);
        let thread = tokio::task::spawn_blocking(move || write(file, queue));
        Ok(Self { orders, thread, temporary, path: out.join(name) })
    }

    /// Starts a file of so many bytes; what was before it is complete.
    pub(super) async fn file(&mut self, name: &Path, modified_ms: u64, bytes: u64) -> Result<(), JobError> {
        let parts: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
        self.order(Order::File { name: parts.join("/"), modified_ms, bytes }).await
    }

    /// Appends to the file that was started last.
    pub(super) async fn piece(&mut self, piece: Bytes) -> Result<(), JobError> {
        self.order(Order::Piece(piece)).await
    }

    /// Takes the file that was started last out again.
    pub(super) async fn abandon(&mut self) -> Result<(), JobError> {
        self.order(Order::Abandon).await
    }

    /// Completes the archive and gives it its final name.
    pub(super) async fn close(mut self) -> Result<(), JobError> {
        self.order(Order::Finish).await?;
        self.ended().await?;
        tokio::fs::rename(&self.temporary, &self.path).await.map_err(cannot_write(&self.path))
    }

    async fn order(&mut self, order: Order) -> Result<(), JobError> {
        if self.orders.send(order).await.is_ok() {
            return Ok(());
        }
        self.ended().await?;
        let gone = io::Error::other("the thread that writes the archive has ended");
        Err(cannot_write(&self.temporary)(gone))
    }

    async fn ended(&mut self) -> Result<(), JobError> {
        let result = (&mut self.thread).await.map_err(io::Error::other);
        result.and_then(|written| written).map_err(cannot_write(&self.temporary))
    }
}

/// Follows the orders to the end. Without the last of them the archive stays incomplete, under its temporary name.
fn write(file: File, mut queue: mpsc::Receiver<Order>) -> io::Result<()> {
    let mut zip = ZipWriter::new(BufWriter::with_capacity(BUFFER_BYTES, file));
    while let Some(order) = queue.blocking_recv() {
        match order {
            Order::File { name, modified_ms, bytes } => zip.start_file(name, options(modified_ms, bytes)?)?,
            Order::Piece(piece) => zip.write_all(&piece)?,
            Order::Abandon => zip.abort_file()?,
            Order::Finish => return zip.finish()?.into_inner()?.sync_all(),
        }
    }
    Ok(())
}

fn options(modified_ms: u64, bytes: u64) -> io::Result<FileOptions<'static, ExtendedFileOptions>> {
    let options = FileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(COMPRESSION_LEVEL))
        .large_file(bytes >= LARGE_FILE_BYTES);
    let time = i64::try_from(modified_ms).ok().filter(|ms| *ms > 0);
    let Some(time) = time.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) else {
        return Ok(options);
    };
    let mut options = match time.to_zoned(jiff::tz::TimeZone::UTC).datetime().try_into() {
        Ok(civil) => options.last_modified_time(civil),
        // Before 1980.
        Err(_) => options,
    };
    // Its seconds have 32 bits.
    if let Ok(seconds) = i32::try_from(time.as_second()) {
        let mut field = vec![ONLY_MODIFIED];
        field.extend(seconds.to_le_bytes());
        options.add_extra_data(EXTENDED_TIME, field, false)?;
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_abandoned_is_not_in_the_archive() {
        let out = tempfile::tempdir().unwrap();
        let mut zip = OpenZip::create(out.path(), "x.zip").await.unwrap();
        for (name, is_kept) in [("a/1", true), ("a/2", false), ("b", true), ("c", false)] {
            zip.file(Path::new(name), 1_714_557_601_000, 100_000).await.unwrap();
            zip.piece(Bytes::from(vec![b'x'; 100_000])).await.unwrap();
            zip.piece(Bytes::from(name)).await.unwrap();
            if !is_kept {
                zip.abandon().await.unwrap();
            }
        }
        zip.close().await.unwrap();
        let mut zip = zip::ZipArchive::new(File::open(out.path().join("x.zip")).unwrap()).unwrap();
        assert_eq!(zip.file_names().collect::<Vec<_>>(), ["a/1", "b"]);
        let mut text = String::new();
        zip.by_name("b").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.len(), text.trim_start_matches('x')), (100_001, "b"));
        assert!(!out.path().join(".x.zip.part").exists());
    }

    #[tokio::test]
    async fn a_large_file_and_a_time_before_zip_are_taken() {
        let out = tempfile::tempdir().unwrap();
        let mut zip = OpenZip::create(out.path(), "x.zip").await.unwrap();
        zip.file(Path::new("old"), 1, LARGE_FILE_BYTES).await.unwrap();
        zip.piece(Bytes::from_static(b"x")).await.unwrap();
        zip.close().await.unwrap();
        let mut zip = zip::ZipArchive::new(File::open(out.path().join("x.zip")).unwrap()).unwrap();
        assert_eq!(zip.by_name("old").unwrap().size(), 1);
    }
}
