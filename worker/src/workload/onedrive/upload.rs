//! One file on its way to a drive, under a temporary name.
//!
//! Memory: one fragment. The one thing to know: a session that is gone begins the file again, a bounded number of times; every
//! other trouble goes on where it stopped. Where nobody knows whether a write arrived, what is there is looked at before it is
//! written again: a second write would make a second version.

use bytes::BytesMut;
use futures::TryStreamExt as _;
use holdfast_graph_client::{
    DriveItem, DriveUpload, DriveUploadProgress, ErrorClass, FileTimes, GraphError, NameConflict,
    NewDriveFile, QuickXorHash,
};
use holdfast_repository::ContentPart;

use super::meta::StoredFile;
use crate::{JobError, restore::RestoreContext};

/// A file up to this goes in one call.
const ONE_CALL_BYTES: u64 = 4 << 20;
/// How often a file is begun.
const ATTEMPTS: u32 = 4;
/// How often one version is written of which nobody knows whether it arrived.
const WRITES: u32 = 4;
/// How often a file is written that does not arrive as it was sent: Microsoft rewrites some.
const PROOFS: u32 = 2;
/// What was restored is not what Microsoft says that it has.
const DIFFERS: &str = "ContentDiffers";

/// The uploads of one item.
pub(super) struct Upload<'a> {
    context: &'a RestoreContext,
    drive: &'a str,
    folder: &'a str,
    /// The same in every attempt, so that one finds what another left.
    name: String,
}

impl<'a> Upload<'a> {
    /// Of the item with this restore key.
    pub(super) fn new(context: &'a RestoreContext, drive: &'a str, folder: &'a str, key: &str) -> Self {
        let hash = blake3::hash(key.as_bytes()).to_hex();
        Self { context, drive, folder, name: format!("holdfast-restoring-{}.tmp", &hash[..24]) }
    }

    /// Writes earlier versions, of which the newest comes first, and what is to be the current one. Where Microsoft then has
    /// something else it is begun again.
    pub(super) async fn write(
        &self,
        current: &ContentPart,
        earlier: &[ContentPart],
        file: &StoredFile,
    ) -> Result<DriveItem, JobError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.write_once(current, earlier).await {
                Ok(written) if prove(&written, file).is_empty() || attempt >= PROOFS => return Ok(written),
                Ok(_) => tracing::debug!(attempt, "an upload did not arrive as it was sent"),
                Err(JobError::Graph(error)) if begins_again(&error) && attempt < ATTEMPTS => {
                    tracing::debug!(code = error.code(), attempt, "an upload is begun again");
                }
                Err(error) => return Err(error),
            }
            self.clear().await?;
        }
    }

    /// Each becomes a version of the next one.
    async fn write_once(
        &self,
        current: &ContentPart,
        earlier: &[ContentPart],
    ) -> Result<DriveItem, JobError> {
        let mut there = None;
        for part in earlier.iter().rev() {
            there = Some(self.put(part, there.as_ref()).await?);
        }
        self.put(current, there.as_ref()).await
    }

    /// Takes away what an attempt left under the temporary name.
    async fn clear(&self) -> Result<(), JobError> {
        match self.context.graph.drive_item_named(self.drive, self.folder, &self.name).await {
            Ok(item) => Ok(self.context.graph.delete_drive_item(self.drive, &item.id).await?),
            Err(error) if error.class() == ErrorClass::Gone => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes one version on top of what is there.
    async fn put(&self, part: &ContentPart, there: Option<&DriveItem>) -> Result<DriveItem, JobError> {
        let mut n_writes = 0;
        loop {
            n_writes += 1;
            let mut sent = Sent { len: part.len, hash: QuickXorHash::new() };
            let put = match part.len {
                0..=ONE_CALL_BYTES => self.in_one_call(part, conflict(there), &mut sent).await,
                _ => self.in_fragments(part, conflict(there), &mut sent).await,
            };
            let error = match put {
                Err(JobError::Graph(error @ GraphError::Ambiguous { .. })) => error,
                other => return other,
            };
            match self.look(&sent, there).await? {
                Seen::Arrived(item) => return Ok(*item),
                Seen::AsBefore if n_writes < WRITES => {
                    tracing::debug!(n_writes, "what was sent did not arrive, sending it again");
                }
                Seen::AsBefore | Seen::Other => return Err(error.into()),
            }
        }
    }

    /// Finds out what became of a write.
    async fn look(&self, sent: &Sent, there: Option<&DriveItem>) -> Result<Seen, JobError> {
        match self.context.graph.drive_item_named(self.drive, self.folder, &self.name).await {
            Ok(found) if there.is_some_and(|there| there.etag.is_some() && there.etag == found.etag) => {
                Ok(Seen::AsBefore)
            }
            Ok(found) if sent.is(&found) => Ok(Seen::Arrived(Box::new(found))),
            Ok(_) => Ok(Seen::Other),
            Err(error) if error.class() == ErrorClass::Gone && there.is_none() => Ok(Seen::AsBefore),
            Err(error) => Err(error.into()),
        }
    }

    async fn in_one_call(
        &self,
        part: &ContentPart,
        conflict: NameConflict,
        sent: &mut Sent,
    ) -> Result<DriveItem, JobError> {
        let content = self.context.reader.read_range(part, 0, part.len).await?;
        sent.hash.update(&content);
        let graph = &self.context.graph;
        Ok(graph.put_drive_file(self.drive, self.folder, &self.name, content, conflict).await?)
    }

    async fn in_fragments(
        &self,
        part: &ContentPart,
        conflict: NameConflict,
        sent: &mut Sent,
    ) -> Result<DriveItem, JobError> {
        let file =
            NewDriveFile { name: self.name.clone(), size: part.len, times: FileTimes::default(), conflict };
        let mut upload = self.context.graph.create_drive_upload(self.drive, self.folder, &file).await?;
        let mut pieces = self.context.reader.read(part);
        let mut buffer = BytesMut::new();
        loop {
            while buffer.len() < upload.fragment_size()
                && let Some(piece) = pieces.try_next().await?
            {
                sent.hash.update(&piece);
                buffer.extend_from_slice(&piece);
            }
            if buffer.is_empty() {
                return Err(JobError::ShortAttachment);
            }
            if let Some(item) = self.send(&mut upload, &mut buffer).await? {
                return Ok(item);
            }
        }
    }

    /// Sends a fragment and takes what was received out of the buffer; the file, when it was the last.
    async fn send(
        &self,
        upload: &mut DriveUpload,
        buffer: &mut BytesMut,
    ) -> Result<Option<DriveItem>, JobError> {
        let (graph, before) = (&self.context.graph, upload.next_offset());
        let n_bytes = upload.fragment_size().min(buffer.len());
        let fragment = buffer.clone().split_to(n_bytes).freeze();
        match graph.upload_drive_fragment(upload, fragment).await {
            Ok(DriveUploadProgress::Done(item)) => Ok(Some(*item)),
            Ok(DriveUploadProgress::More { next }) => {
                let taken = usize::try_from(next - before).unwrap_or(usize::MAX);
                let _received = buffer.split_to(taken.min(buffer.len()));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What was sent of one version.
struct Sent {
    len: u64,
    hash: QuickXorHash,
}

impl Sent {
    /// Whether an item has it. Where Microsoft gives no hash its length has to do.
    fn is(&self, item: &DriveItem) -> bool {
        item.size == self.len && item.hash().is_none_or(|hash| hash == self.hash.clone().finish())
    }
}

/// What is found after a write of which nobody knows whether it arrived.
enum Seen {
    /// What was sent.
    Arrived(Box<DriveItem>),
    /// What was there before it.
    AsBefore,
    /// Something else.
    Other,
}

/// The first version is not to take the place of what a killed attempt left.
fn conflict(there: Option<&DriveItem>) -> NameConflict {
    if there.is_some() { NameConflict::Replace } else { NameConflict::Fail }
}

/// Whether the file has to be begun again: its session is gone, nobody knows whether it was written, or an attempt that was
/// killed left one under its temporary name.
fn begins_again(error: &GraphError) -> bool {
    matches!(error, GraphError::Ambiguous { .. })
        || error.class() == ErrorClass::Reread
        || error.status() == Some(409)
}

/// Compares what Microsoft says that it has with what is stored; the codes of what differs.
pub(super) fn prove(written: &DriveItem, file: &StoredFile) -> Vec<String> {
    let is_same = written.size == file.len && written.hash().is_none_or(|hash| hash == file.quick_xor_hash);
    if is_same { Vec::new() } else { vec![DIFFERS.to_owned()] }
}
