//! Segments: append-only files of records. The writer makes them, the reader serves from them, recovery opens them again
//! after any kind of stop.
//!
//! Invariant: bytes below the durable mark are never cut off; only bytes above it, which nobody was told are stored, may be.

mod mark;
mod reader;
mod recovery;
mod rewrite;
mod writer;

use std::path::{Path, PathBuf};

use holdfast_record::SegmentClass;

pub use mark::MarkFile;
pub(crate) use reader::is_damage;
pub use reader::{OPEN_FILES_MAX, SegmentReader};
pub use recovery::{DamagedRange, Opened, Recovery, SegmentState, find_segments, read_footer, recover};
pub(crate) use recovery::{is_whole, walk_sealed};
pub(crate) use rewrite::{remove_leftovers, rewrite_frame};
pub(crate) use writer::is_full;
pub use writer::{OpenSegment, SegmentIdentity, SegmentWriter, WriterSetup};

/// A segment's own random id.
pub type SegmentId = [u8; 16];

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// In which segment.
    pub segment: SegmentId,
    /// From which offset.
    pub offset: u64,
    /// How many bytes, padding included.
    pub len: u32,
}

/// A segment file by its name: `<class>-<uuid>.seg`, with `<uuid>.mark` beside it while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its id.
    pub id: SegmentId,
    /// Its class.
    pub class: SegmentClass,
    /// The folder.
    dir: PathBuf,
}

impl SegmentFile {
    pub(crate) fn new(dir: &Path, class: SegmentClass, id: SegmentId) -> Self {
        Self { id, class, dir: dir.to_owned() }
    }

    pub(crate) fn parse(dir: &Path, name: &str) -> Option<Self> {
        let (class, rest) = name.strip_suffix(".seg")?.split_once('-')?;
        let class = match class {
            "data" => SegmentClass::Data,
            "tree" => SegmentClass::Tree,
            _ => return None,
        };
        let mut id = [0; 16];
        hex::decode_to_slice(rest, &mut id).ok()?;
        Some(Self::new(dir, class, id))
    }

    /// The id of a pin segment, by its file's name.
    pub(crate) fn pin_id(name: &str) -> Option<SegmentId> {
        let mut id = [0; 16];
        hex::decode_to_slice(name.strip_prefix("pin-")?.strip_suffix(".seg")?, &mut id).ok()?;
        Some(id)
    }

    /// The file's name: also the key of its progress in the index.
    pub fn name(&self) -> String {
        format!("{}-{}.seg", class_word(self.class), hex::encode(self.id))
    }

    /// Where the records are.
    pub fn path(&self) -> PathBuf {
        self.dir.join(self.name())
    }

    /// Where the durable mark is while the segment is open.
    pub fn mark_path(&self) -> PathBuf {
        self.dir.join(format!("{}.mark", hex::encode(self.id)))
    }

    /// The folder of both.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn class_word(class: SegmentClass) -> &'static str {
    match class {
        SegmentClass::Data => "data",
        SegmentClass::Tree => "tree",
        SegmentClass::Pin => "pin",
    }
}
