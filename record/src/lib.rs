//! The bytes that storage keeps: sealed records, segments and pins, with every check that needs no key. No I/O, no keys.
//!
//! Invariant: nothing read from outside is trusted before its checksum, its lengths and its version are checked, and no
//! input whatsoever makes this crate panic. `FORMAT.md` beside this crate is the normative description.

mod ciphertext;
mod cursor;
mod error;
mod features;
mod header;
mod pin;
mod record;
pub mod segment;

pub use ciphertext::Ciphertext;
pub use error::{Error, version_refusal};
pub use features::Features;
pub use header::{Chunker, Codec, FORMAT_VERSION, RecordKind, SealedHeader, hash_refs, short_ref};
pub use pin::{MAX_PIN_BYTES, MAX_SEALED_ROOT_BYTES, Pin};
pub use record::{
    HEADER_PEEK_BYTES, MAX_PLAINTEXT_BYTES, MAX_RECORD_BYTES, MAX_REFS, Placement, RECORD_ALIGN,
    RecordHeaderPeek, SealedRecord, check_header_at, header_len, scan_len,
};
pub use segment::{Footer, FooterEntry, SUPERBLOCK_BYTES, SegmentClass, Superblock, TRAILER_BYTES, Trailer};
