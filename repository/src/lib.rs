//! What a snapshot is made of: chunker, seal, manifest trees, snapshot reader and writer, key hierarchy.
//!
//! Invariant: whatever leaves this crate towards storage is sealed; content hashes, keys and plaintext stay inside.
//! `FORMAT.md` beside this crate describes the plaintext structures; the sealed ones are described with `record`.

mod aead;
mod blob;
mod bundle;
mod bundle_cache;
mod chunk_store;
pub mod chunker;
mod content_blob;
mod content_reader;
mod content_writer;
mod error;
mod fetch;
mod item;
mod key_file;
mod keys;
mod memory_store;
mod metrics;
mod read_ahead;
pub mod recipe;
mod seal;
mod secret;
mod snapshot;
mod snapshot_reader;
mod snapshot_writer;
mod tree;
mod upload;
#[cfg(test)]
mod vectors;
mod wire;

pub use blob::{MAX_PARTS, check_content_blob};
pub use chunk_store::{ChunkStore, MAX_HAVE_IDS, StoreError};
pub use chunker::Chunker;
pub use content_reader::ContentPart;
pub use content_writer::{ContentDraft, ContentWriter, FILE_INLINE_MAX, INLINE_MAX};
pub use error::{Error, SealError};
pub use item::{
    BlobRef, ChildEntry, EntryFlags, EntryKind, FolderKey, ItemEntry, ItemFields, ItemKey, MAX_KEY_BYTES,
};
pub use key_file::{KeyError, KeyFile, KeyFileProvider, KeyProvider};
pub use keys::{JobKeys, MAX_KEY_EPOCHS, ResourceKey, TenantKeys};
pub use memory_store::MemoryStore;
pub use recipe::MimeWriter;
pub use seal::{DEFAULT_ZSTD_LEVEL, SealOptions, Sealer};
pub use secret::{ContentHash, Key};
pub use snapshot::{SnapshotHeader, TreeRoots};
pub use snapshot_reader::{
    Change, ChildCursor, ChildPage, MAX_PAGE, MAX_RANGE_BYTES, SnapshotReader, TreeReader, diff,
};
pub use snapshot_writer::{ContentSource, FinishedSnapshot, SnapshotWriter, WriterOptions, WriterStats};
