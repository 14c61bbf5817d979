//! A database file whose end takes nobody with it.
//!
//! Pages that were damaged behind redb's back while it had the file open make it panic when it meets them, at the latest when
//! it closes. Invariant: such a panic is told and ends here; the next start checks the file as a whole and does not believe it.

use std::{
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::Database;

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

/// Runs something on a database; none where redb met what it cannot read.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
