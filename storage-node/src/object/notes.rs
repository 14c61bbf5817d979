//! What the node remembers of each object it has uploaded: how long it is, its hash, and its frame, so that a start need not
//! ask the server for every one of them.
//!
//! `objects.redb`, table `objects-1`: name of the segment → version 1 · len 8 · SHA-256 32 · trailer · superblock without its
//! trailing zeros. The hash is zeros where the object was found in the bucket and not uploaded from here. All of it is
//! derived, except for one thing: an object that is noted and not listed is one that was lost. Invariant: a note is durable
//! before the local file is removed.

use std::{io, path::Path};

use holdfast_record::{SUPERBLOCK_BYTES, TRAILER_BYTES};
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition,
    TableError,
};

use crate::{Error, disk::Disk, format::check_tables};

const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects-1");
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 32;
/// Pages kept in memory: notes are read one by one, at the start.
const CACHE_BYTES: usize = 16 << 20;

/// What is remembered of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub len: u64,
    pub sha256: [u8; 32],
    pub superblock: Vec<u8>,
    pub trailer: Vec<u8>,
}

impl Note {
    fn encode(&self) -> Vec<u8> {
        let used = self.superblock.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.sha256);
        bytes.extend_from_slice(&self.trailer);
        bytes.extend_from_slice(&self.superblock[..used]);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let (trailer, superblock) = rest.split_at_checked(TRAILER_BYTES)?;
        if head[0] != VERSION || superblock.len() > SUPERBLOCK_BYTES {
            return None;
        }
        let mut padded = superblock.to_vec();
        padded.resize(SUPERBLOCK_BYTES, 0);
        Some(Self {
            len: u64::from_le_bytes(head[1..9].try_into().ok()?),
            sha256: head[9..].try_into().ok()?,
            superblock: padded,
            trailer: trailer.to_vec(),
        })
    }
}

/// The notes of one node.
pub(super) struct Notes(Database);

impl Notes {
    /// Opens the file, or makes it.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, Error> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let database = disk.database(path, &builder).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => Error::DataInUse(path.to_owned()),
            other => Error::Io { action: "open", path: path.to_owned(), source: io::Error::other(other) },
        })?;
        check_tables(&database, path)?;
        let folder = path.parent().unwrap_or(path);
        disk.sync_dir(folder).map_err(Error::io("sync", folder))?;
        // The process before this one may have ended over a failed sync.
        disk.write_again(path).map_err(Error::io("write", path))?;
        Ok(Self(database))
    }

    /// Remembers an object; durable when this returns.
    pub fn put(&self, name: &str, note: &Note) -> Result<(), Error> {
        let write = || -> Result<(), redb::Error> {
            let mut write = self.0.begin_write()?;
            write.set_durability(Durability::Immediate)?;
            write.set_two_phase_commit(true);
            write.open_table(OBJECTS)?.insert(name, note.encode().as_slice())?;
            Ok(write.commit()?)
        };
        write().map_err(Error::database)
    }

    /// What is remembered of an object. A note that cannot be read is as good as none: the object itself is asked.
    pub fn get(&self, name: &str) -> Result<Option<Note>, Error> {
        let read = self.0.begin_read().map_err(Error::database)?;
        let table = match read.open_table(OBJECTS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other.map_err(Error::database)?,
        };
        let found = table.get(name).map_err(Error::database)?;
        Ok(found.and_then(|value| Note::decode(value.value())))
    }

    /// Every name with the length it should have.
    pub fn lengths(&self) -> Result<Vec<(String, u64)>, Error> {
        let read = self.0.begin_read().map_err(Error::database)?;
        let table = match read.open_table(OBJECTS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            other => other.map_err(Error::database)?,
        };
        let mut all = Vec::new();
        for row in table.iter().map_err(Error::database)? {
            let (name, value) = row.map_err(Error::database)?;
            if let Some(note) = Note::decode(value.value()) {
                all.push((name.value().to_owned(), note.len));
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_and_hostile_ones_do_not() {
        let mut superblock = vec![0; SUPERBLOCK_BYTES];
        superblock[..3].copy_from_slice(b"abc");
        let note = Note { len: 7, sha256: [9; 32], superblock, trailer: vec![3; TRAILER_BYTES] };
        let bytes = note.encode();
        assert_eq!(bytes.len(), HEAD_BYTES + TRAILER_BYTES + 3);
        assert_eq!(Note::decode(&bytes), Some(note));
        for len in 0..HEAD_BYTES + TRAILER_BYTES {
            assert_eq!(Note::decode(&bytes[..len]), None);
        }
        assert_eq!(Note::decode(&[&bytes[..], &[1; SUPERBLOCK_BYTES][..]].concat()), None);
        assert_eq!(Note::decode(&[&[2], &bytes[1..]].concat()), None);
    }
}
