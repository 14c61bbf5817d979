//! What can go wrong in a storage node. The gRPC edge maps each variant to one code (`service.rs`).

use std::{
    io,
    path::{Path, PathBuf},
};

use holdfast_model::{Epoch, Fence, LayoutVersion, NodeId, PartitionId, Role, Verb};
use holdfast_proto::{convert::WireError, signed::SignedError};

use crate::segment::is_full;

/// A request was refused, or the node cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator has not installed a layout.
    #[error("no layout yet")]
    NoLayout,
    /// The layout gives the partition to other nodes.
    #[error("this node does not own partition {}", .0.0)]
    NotOwner(PartitionId),
    /// The caller works by a layout from before the last move.
    #[error(
        "the caller works by layout {offered}, the pool moved in layout {moved_in}: it gets the new one with its next lease"
    )]
    StaleLayout {
        /// The caller's.
        offered: LayoutVersion,
        /// The version in which owners last changed.
        moved_in: LayoutVersion,
    },
    /// Its pins have not been taken over from the owners before.
    #[error("the pins of partition {} are still being taken over from their owners before: try again", .0.0)]
    NotReady(PartitionId),
    /// The node that asks for the pins of a partition does not keep them.
    #[error("{asker} keeps no pins of partition {}: nothing of it is handed over to it", .partition.0)]
    NotHanded {
        /// Who asks.
        asker: NodeId,
        /// For what.
        partition: PartitionId,
    },
    /// The certificate does not say which node it is.
    #[error(
        "the certificate of the caller does not name a storage node: its name must be `node-` and the node's id"
    )]
    NotANode,
    /// The record or pin belongs to someone else than the token.
    #[error("the {0} is not the one of the session token")]
    NotYours(&'static str),
    /// The token does not allow it.
    #[error("the session token does not allow to {}", verb_word(*.0))]
    VerbMissing(Verb),
    /// A higher fence has been seen.
    #[error("fence {offered} is over: {highest} has been seen")]
    Fenced {
        /// The caller's.
        offered: Fence,
        /// The highest of this (tenant, resource, workload).
        highest: Fence,
    },
    /// The session started too many epochs ago: its promises no longer hold.
    #[error("epoch {offered} is over, this node is in epoch {current}: open a new session")]
    StaleEpoch {
        /// The caller's.
        offered: Epoch,
        /// The node's.
        current: Epoch,
    },
    /// It was never opened here, was closed, or its lease lapsed.
    #[error("the session is not open here: open it again")]
    SessionUnknown,
    /// The id is in use by another job.
    #[error("the session id belongs to another job")]
    SessionTaken,
    /// The pin to build on is not there.
    #[error("the base pin is not stored here")]
    BasePinUnknown,
    /// Its lock has ended: it may be dropped any time.
    #[error("the base pin has expired")]
    BasePinExpired,
    /// The signed ticket and the pin contradict each other.
    #[error("the commit ticket names another {0} than the pin")]
    TicketMismatch(&'static str),
    /// Lower than what this node has seen: an old coordinator speaks.
    #[error("{what} {offered} is lower than {seen}, which this node has seen")]
    StaleAuthority {
        /// Generation, epoch or layout version.
        what: &'static str,
        /// The coordinator's.
        offered: u64,
        /// The node's.
        seen: u64,
    },
    /// The same version with other content, or this node under another name.
    #[error("layout version {version} is refused: {problem}")]
    LayoutRefused {
        /// Its version.
        version: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A limit of the protocol.
    #[error("too many {what}: at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// A record or pin cannot be believed.
    #[error("the {what} is refused: {source}")]
    BadBytes {
        /// What was read.
        what: &'static str,
        /// Why.
        source: holdfast_record::Error,
    },
    /// A field cannot be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The token or ticket cannot be believed.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// The role may not do this without a token.
    #[error("role {0} needs a session token for this")]
    TokenNeeded(Role),
    /// The data folder belongs to another node, cluster or version.
    #[error("{path} belongs to {found}, but this is {expected}: give this node its own data folder", path = .path.display())]
    ForeignData {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asks.
        expected: String,
    },
    /// Something in the data folder is of a format or has features that this build does not know. Nothing was changed.
    #[error("{path}: {reason}", path = .path.display())]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What it is, and what to do.
        reason: holdfast_record::Error,
    },
    /// The disk is not there, or cannot be used as one.
    #[error("the data folder {path} {problem}", path = .path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process: stop the storage node that runs on it, or give this node a `data` folder of its own", path = .0.display())]
    DataInUse(PathBuf),
    /// Somebody else listens there.
    #[error(
        "{address} is already in use: stop the process that listens there or set another address in `{option}`"
    )]
    AddressInUse {
        /// The option's name in the file.
        option: &'static str,
        /// The address asked for.
        address: String,
    },
    /// A file operation failed.
    #[error("{action} {path}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// One of the node's databases failed.
    #[error("the node's database failed")]
    Database(#[source] Box<redb::Error>),
    /// The index failed once: it answers nothing until it is opened again.
    #[error(
        "the node's index failed and takes no more: start the node again, it is rebuilt from the segments"
    )]
    IndexFailed,
    /// A stored value of the node's own state does not decode.
    #[error("the node's state is damaged: {0} cannot be read")]
    DamagedState(&'static str),
    /// An option cannot be used.
    #[error("option {option} {problem}")]
    Option {
        /// Its name in the file.
        option: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// What is there cannot be protected: the touch did not become durable.
    #[error("presence cannot be promised now: {reason}")]
    NotProtected {
        /// Why.
        reason: String,
    },
    /// The state could not be written or synced: nobody knows what the disk holds of it.
    #[error(
        "the node's state could not be written and takes no more: check the disk and start the node again, what it acknowledged \
         is read back"
    )]
    StateFailed,
    /// One of several disks does not work any more, or is gone.
    #[error(
        "the disk {path} failed or is gone: the node ends, and goes on without that disk if it does not open then", path = .0.display()
    )]
    DiskFailed(PathBuf),
    /// Two folders of a configuration are one disk.
    #[error("{second} is the same disk as {first}, or a copy of it: name each disk once", first = .first.display(), second = .second.display())]
    DiskTwice {
        /// The one named first.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The object store did not do what it was asked to.
    #[error(transparent)]
    Objects(crate::object::ObjectError),
    /// The node is going down.
    #[error("the storage node is stopping")]
    Stopping,
    /// The gRPC server failed.
    #[error("the gRPC server failed")]
    Grpc(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NoLayout
                | Self::NotOwner(_)
                | Self::StaleLayout { .. }
                | Self::NotReady(_)
                | Self::NotProtected { .. }
                | Self::DiskFailed(_)
                | Self::Stopping
        )
    }

    /// Whether a node that ended so is well again after another start: what it acknowledged is on its disks or on other nodes.
    pub fn is_mended_by_restart(&self) -> bool {
        matches!(self, Self::StateFailed | Self::DiskFailed(_))
    }

    /// Whether it says that a disk does not work or is not there.
    pub(crate) fn is_disk_failure(&self) -> bool {
        match self {
            Self::IndexFailed | Self::DataFolder { .. } => true,
            Self::Database(error) => !matches!(&**error, redb::Error::Io(source) if is_scarcity(source)),
            Self::Io { source, .. } => !is_scarcity(source),
            _ => false,
        }
    }

    /// Names the file that an operation failed on.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// The same for what is done first in a data folder: says what to do about a disk that is not as it should be.
    pub(crate) fn folder(action: &'static str, data: &Path, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let (data, path) = (data.to_owned(), path.to_owned());
        move |source| match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => Self::DataFolder {
                path: data,
                problem: "is on a disk that is mounted read-only: mount it writable",
            },
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                Self::DataFolder { path: data, problem: "is a file, or below one: name a folder in `data`" }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// A database error of any kind.
    pub(crate) fn database<E: Into<redb::Error>>(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }

    /// A record or pin that does not decode or verify.
    pub(crate) fn bad(what: &'static str) -> impl FnOnce(holdfast_record::Error) -> Self {
        move |source| Self::BadBytes { what, source }
    }
}

/// Whether something is short that may be there again: room, memory, open files. That says nothing of a disk.
fn is_scarcity(source: &io::Error) -> bool {
    is_full(source)
        || source.kind() == io::ErrorKind::OutOfMemory
        || matches!(source.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE))
}

fn verb_word(verb: Verb) -> &'static str {
    match verb {
        Verb::Read => "read",
        Verb::Write => "write",
        Verb::Commit => "commit",
    }
}
