//! Gathers small things of one resource into bundles, so that the index of storage stays small.
//!
//! Invariant: a place in a bundle has a name only once the bundle is closed; until then it is (bundle number, offset, length).

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use holdfast_record::{Chunker, RecordKind};
use tokio::sync::oneshot;

use crate::{
    blob::MAX_BLOB_REFS,
    content_writer::INLINE_MAX,
    error::Error,
    item::BlobRef,
    secret::ContentHash,
    upload::{Upload, Uploader},
};

/// A bundle is closed when it holds this much, which leaves room for one more blob below 1 MiB.
const CLOSE_BYTES: usize = (1 << 20) - INLINE_MAX;

/// Where a blob is or will be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slot {
    /// In a record that has its name.
    Named(BlobRef),
    /// In a bundle that may not have one yet.
    Bundled { bundle: u64, offset: u32, len: u32 },
}

/// The open bundle, and the closed ones whose places are not all in the tree yet.
#[derive(Default)]
pub(crate) struct Bundles {
    open: Vec<u8>,
    refs: BTreeSet<[u8; 16]>,
    number: u64,
    naming: HashMap<u64, oneshot::Receiver<ContentHash>>,
    names: HashMap<u64, ContentHash>,
}

impl Bundles {
    /// Finds a place for a blob: in the open bundle, or as a record of its own.
    pub(crate) async fn place(
        &mut self,
        uploader: &Uploader,
        blob: Bytes,
        refs: Vec<[u8; 16]>,
    ) -> Result<Slot, Error> {
        let len = u32::try_from(blob.len()).map_err(|_| Error::TooLarge {
            what: "blob",
            found: blob.len() as u64,
            limit: u64::from(u32::MAX),
        })?;
        if blob.len() > INLINE_MAX {
            let upload = Upload { kind: RecordKind::Data, chunker: Chunker::Whole, refs, plain: blob };
            let name = uploader.submit(upload).await?;
            return Ok(Slot::Named(BlobRef { h: uploader.named(name).await?, offset: 0, len }));
        }
        if self.refs.len() + refs.len() > MAX_BLOB_REFS {
            self.close(uploader).await?;
        }
        let offset = u32::try_from(self.open.len()).expect("a bundle is at most 1 MiB");
        let bundle = self.number;
        self.open.extend_from_slice(&blob);
        self.refs.extend(refs);
        if self.open.len() >= CLOSE_BYTES {
            self.close(uploader).await?;
        }
        Ok(Slot::Bundled { bundle, offset, len })
    }

    /// Hands the open bundle over; the next blob starts another.
    pub(crate) async fn close(&mut self, uploader: &Uploader) -> Result<(), Error> {
        let plain: Bytes = std::mem::take(&mut self.open).into();
        let refs = std::mem::take(&mut self.refs).into_iter().collect();
        let number = self.number;
        self.number += 1;
        let upload = Upload { kind: RecordKind::Bundle, chunker: Chunker::Whole, refs, plain };
        self.naming.insert(number, uploader.submit(upload).await?);
        Ok(())
    }

    /// The final place of a slot; closes its bundle if it is still open.
    pub(crate) async fn resolve(&mut self, uploader: &Uploader, slot: Slot) -> Result<BlobRef, Error> {
        match slot {
            Slot::Named(blob) => Ok(blob),
            Slot::Bundled { bundle, offset, len } => {
                if bundle == self.number {
                    self.close(uploader).await?;
                }
                if let Some(name) = self.naming.remove(&bundle) {
                    self.names.insert(bundle, uploader.named(name).await?);
                }
                let h = self.names.get(&bundle).copied().ok_or(Error::Interrupted)?;
                Ok(BlobRef { h, offset, len })
            }
        }
    }

    /// Forgets the names of closed bundles: every slot has been resolved.
    pub(crate) fn forget(&mut self) {
        self.naming.clear();
        self.names.clear();
    }
}
