//! The file of the state: made once, and missed when it is gone.
//!
//! Order of a first start: the file beside its place, whole and synced → the folder's marker → the file in its place. So a folder
//! with a marker has one of the two; where it has neither, what the node promised is lost, and a new state in silence would
//! deny it. Only an operator's word, an empty file, lets the node go on with what the pin segments tell.

use std::{
    io,
    path::{Path, PathBuf},
};

use redb::{Builder, Database, DatabaseError, StorageError};

use crate::{Error, database::OpenDatabase, disk::Disk};

/// Where an operator makes an empty file, this node goes on without the state that it had.
const REBUILD: &str = "rebuild-state";

/// Where the state is made before it gets its name.
pub(crate) fn made(path: &Path) -> PathBuf {
    path.with_extension("redb.new")
}

fn rebuild(path: &Path) -> PathBuf {
    path.with_file_name(REBUILD)
}

/// Whether a file is there with something in it: of an empty one the database would make a new one.
fn has_content(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    Ok(disk.exists(path)? && disk.open_read(path)?.size()? > 0)
}

/// Refuses a folder with a marker whose state is gone. Changes nothing.
pub(crate) fn check_there(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    let look =
        || Ok(has_content(disk, path)? || has_content(disk, &made(path))? || disk.exists(&rebuild(path))?);
    match look() {
        Ok(true) => Ok(()),
        Ok(false) => {
            let problem = "has a marker and no state.redb: bring that file back, or empty the folder and name the node as lost; if no \
                 other node has a copy, an empty file `rebuild-state` in it lets the node go on with the pins of its segments";
            Err(Error::DataFolder { path: path.parent().unwrap_or(path).to_owned(), problem })
        }
        Err(error) => Err(Error::io("look for", path)(error)),
    }
}

/// Makes the state beside its place, durable with its name, before the folder gets a marker. It is locked until the result is
/// dropped.
pub(crate) fn make(disk: &dyn Disk, path: &Path) -> Result<OpenDatabase, Error> {
    let made = made(path);
    let database = try_make(disk, &made).map_err(failed("make", path))?;
    let folder = path.parent().unwrap_or(path);
    disk.sync_dir(folder).map_err(Error::io("sync", folder))?;
    Ok(OpenDatabase::new(database, &made))
}

fn try_make(disk: &dyn Disk, made: &Path) -> Result<Database, DatabaseError> {
    // Left by a start that did not get as far as the marker: nobody knows what of it is synced.
    if disk.exists(made).map_err(io_failed)? {
        if let Err(DatabaseError::DatabaseAlreadyOpen) = disk.database(made, &builder()) {
            return Err(DatabaseError::DatabaseAlreadyOpen);
        }
        disk.remove(made).map_err(io_failed)?;
    }
    disk.database(made, &builder())
}

/// Opens the state where it is, or gives the one that was made its place.
pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Database, Error> {
    let io = |action| Error::io(action, path);
    let rebuild = rebuild(path);
    let is_asked = disk.exists(&rebuild).map_err(io("look for"))?;
    let is_there = has_content(disk, path).map_err(io("look for"))?;
    if is_asked && !is_there {
        tracing::warn!(path = %path.display(), "the state is made anew: sessions and fences without a pin are forgotten");
        drop(make(disk, path)?);
    }
    if is_asked {
        // It was for this once.
        disk.remove(&rebuild).map_err(Error::io("remove", &rebuild))?;
        let folder = path.parent().unwrap_or(path);
        disk.sync_dir(folder).map_err(Error::io("sync", folder))?;
    }
    let opened = if is_there { disk.database(path, &builder()) } else { take_place(disk, path) };
    opened.map_err(failed("open", path))
}

fn take_place(disk: &dyn Disk, path: &Path) -> Result<Database, DatabaseError> {
    let made = made(path);
    let database = disk.database(&made, &builder())?;
    // Whoever opens it holds it until it has its place: what is there now is another process's, and this one an empty one.
    if has_content(disk, path).map_err(io_failed)? {
        drop(database);
        disk.remove(&made).map_err(io_failed)?;
        return disk.database(path, &builder());
    }
    disk.rename(&made, path).map_err(io_failed)?;
    Ok(database)
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_check_integrity_on_open(true);
    builder
}

fn io_failed(error: io::Error) -> DatabaseError {
    DatabaseError::Storage(StorageError::Io(error))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(DatabaseError) -> Error {
    let path = path.to_owned();
    move |error| match error {
        DatabaseError::DatabaseAlreadyOpen => Error::DataInUse(path),
        DatabaseError::Storage(StorageError::Io(error)) => {
            Error::folder(action, path.parent().unwrap_or(&path), &path)(error)
        }
        other => Error::Io { action, path, source: io::Error::other(other) },
    }
}
