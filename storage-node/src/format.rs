//! Whether what is in a data folder is of the format and the features that this build knows, looked at before anything is opened.
//!
//! Invariant: a refusal changes nothing. A version or a feature is believed only where the checksum of the block that says so
//! agrees, so that damage is never taken for another format, nor another format for damage.

use std::{collections::BTreeSet, path::Path};

use holdfast_record::{
    Error as BytesError, FORMAT_VERSION, Features, SUPERBLOCK_BYTES, SegmentClass, Superblock,
};
use redb::{ReadableDatabase as _, TableHandle as _};

use crate::{
    Error,
    disk::Disk,
    segment::{SegmentFile, SegmentId, is_damage},
};

/// What every table of the node's databases ends with.
const TABLE_SUFFIX: &str = "-1";

/// What may not be done with some segments, because it needs to know more than this build does.
#[derive(Debug, Clone, Default)]
pub struct Reserved {
    unwritten: BTreeSet<SegmentId>,
    unchecked: BTreeSet<SegmentId>,
    kept: BTreeSet<SegmentId>,
    unreadable: Features,
}

impl Reserved {
    /// Whether the segment may be made anew, in part or whole.
    pub fn may_write(&self, segment: &SegmentId) -> bool {
        !self.unwritten.contains(segment)
    }

    /// Whether this build can tell if the segment is intact.
    pub fn may_check(&self, segment: &SegmentId) -> bool {
        !self.unchecked.contains(segment)
    }

    /// Whether anything in the segment may be condemned or dropped.
    pub fn may_condemn(&self, segment: &SegmentId) -> bool {
        !self.kept.contains(segment)
    }

    /// What a segment counts to have whose superblock cannot be read: all that any of the folder was written with.
    pub fn of_unreadable(&self) -> Features {
        self.unreadable
    }

    fn note(&mut self, path: &Path, segment: SegmentId, (features, folder): (Features, Features)) {
        if let Err(reason) = features.check_write("segment") {
            tracing::warn!(segment = %path.display(), %reason, "this segment is left as it is, damage around its records too");
            self.unwritten.insert(segment);
        }
        let features = features.with(folder);
        if let Err(reason) = features.check_check("segment") {
            tracing::warn!(segment = %path.display(), %reason, "the scrub passes over this segment");
            self.unchecked.insert(segment);
        }
        if let Err(reason) = features.check_gc("segment") {
            tracing::warn!(segment = %path.display(), %reason, "nothing in this segment is ever condemned");
            self.kept.insert(segment);
        }
    }
}

/// Looks at the superblock of every segment. `folder` are the features of the whole data folder, `used` those that any of its
/// segments was ever written with.
pub(crate) fn check_segments(
    disk: &dyn Disk,
    dir: &Path,
    (folder, used): (Features, Features),
) -> Result<Reserved, Error> {
    let mut reserved = Reserved { unreadable: used, ..Reserved::default() };
    for path in disk.list(dir).map_err(Error::io("list", dir))? {
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let (segment, features, class) = match superblock(disk, &path)? {
            Some(block) => (block.segment, block.features, block.class),
            None => match name_of(&path) {
                Some(name) => (name.id, used, name.class),
                // Of a pin segment that is damaged only the pins are read, and they are put elsewhere.
                None => continue,
            },
        };
        if let Err(reason) = features.check_read("segment") {
            return Err(Error::Format { path, reason });
        }
        if let Err(reason) = features.check_write("segment")
            && (class == SegmentClass::Pin || has_mark(disk, &path, segment)?)
        {
            // A sealed segment is not appended to anyway; an open one would also be cut off where it is torn.
            return Err(Error::Format { path, reason });
        }
        reserved.note(&path, segment, (features, folder));
    }
    Ok(reserved)
}

fn name_of(path: &Path) -> Option<SegmentFile> {
    SegmentFile::parse(path.parent()?, path.file_name()?.to_str()?)
}

/// The superblock; none where it is damaged or not written yet, which recovery deals with.
fn superblock(disk: &dyn Disk, path: &Path) -> Result<Option<Superblock>, Error> {
    let read = disk.open_read(path).and_then(|file| {
        let mut block = vec![0; SUPERBLOCK_BYTES];
        file.read_exact_at(&mut block, 0).map(|()| block)
    });
    let block = match read {
        Err(error) if is_damage(&error) => return Ok(None),
        other => other.map_err(Error::io("read", path))?,
    };
    match Superblock::decode(&block) {
        Ok(superblock) => Ok(Some(superblock)),
        Err(reason @ (BytesError::UnknownVersion { .. } | BytesError::UnknownFeatures { .. })) => {
            Err(Error::Format { path: path.to_owned(), reason })
        }
        Err(reason) => {
            tracing::warn!(segment = %path.display(), %reason, "the first block of a segment cannot be read");
            Ok(None)
        }
    }
}

fn has_mark(disk: &dyn Disk, path: &Path, segment: SegmentId) -> Result<bool, Error> {
    let mark = path.with_file_name(format!("{}.mark", hex::encode(segment)));
    disk.exists(&mark).map_err(Error::io("look for", mark))
}

/// Refuses a database with tables of another format: opened all the same, it would look empty.
pub(crate) fn check_tables(database: &redb::Database, path: &Path) -> Result<(), Error> {
    let read = database.begin_read().map_err(Error::database)?;
    for table in read.list_tables().map_err(Error::database)? {
        let name = table.name();
        if name.ends_with(TABLE_SUFFIX) {
            continue;
        }
        let found = name.rsplit_once('-').and_then(|(_, version)| version.parse().ok());
        let found = found.ok_or(Error::DamagedState("name of a table"))?;
        let reason = BytesError::UnknownVersion { found, supported: FORMAT_VERSION };
        return Err(Error::Format { path: path.to_owned(), reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
