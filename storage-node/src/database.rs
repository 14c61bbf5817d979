//! A database file whose end takes nobody with it, and that is there as a whole or not at all.
//!
//! Pages that were damaged behind redb's back while it had the file open make it panic when it meets them, at the latest when
//! it closes. Invariant: such a panic is told and ends here; the next start checks the file as a whole and does not believe it.

use std::{
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{Builder, Database, DatabaseError, StorageError};

use crate::disk::Disk;

/// An open database.
pub struct OpenDatabase {
    /// `None` only while it is being closed.
    database: Option<Database>,
    path: PathBuf,
}

impl OpenDatabase {
    /// Takes it over.
    pub fn new(database: Database, path: &Path) -> Self {
        Self { database: Some(database), path: path.to_owned() }
    }
}

impl Deref for OpenDatabase {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.database.as_ref().expect("open until it is dropped")
    }
}

impl Drop for OpenDatabase {
    fn drop(&mut self) {
        let database = self.database.take();
        if guarded(|| drop(database)).is_none() {
            tracing::error!(path = %self.path.display(), "database is damaged: it was not closed, and the next start checks it");
        }
    }
}

/// Opens a database, or makes it: under another name until it is whole. A start would take a part of one for a damaged one.
pub fn open_or_make(disk: &dyn Disk, path: &Path, builder: &Builder) -> Result<Database, DatabaseError> {
    let failed = |error| DatabaseError::Storage(StorageError::Io(error));
    if disk.exists(path).map_err(failed)? {
        return disk.database(path, builder);
    }
    let part = path.with_extension("redb.new");
    let made = match disk.database(&part, builder) {
        // Left by a start that did not get further.
        Err(error) if !matches!(error, DatabaseError::DatabaseAlreadyOpen) => {
            if disk.exists(&part).map_err(failed)? {
                disk.remove(&part).map_err(failed)?;
            }
            disk.database(&part, builder)?
        }
        made => made?,
    };
    // Who makes it holds it open, so a second process finds either that or the whole one.
    if disk.exists(path).map_err(failed)? {
        drop(made);
        return disk.database(path, builder);
    }
    disk.rename(&part, path).map_err(failed)?;
    Ok(made)
}

/// Runs something on a database; none where redb met what it cannot read.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
