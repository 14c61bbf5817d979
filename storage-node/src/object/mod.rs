//! Sealed segments as objects of an S3 bucket; the local disk is the journal in front of it.
//!
//! A segment is written, synced and acknowledged on the local disk as everywhere. Once it is sealed it is uploaded as one
//! object, read back, noted, and only then removed locally ([`Uploader`]); from then on it is read by ranges ([`ObjectDisk`]).
//! The core knows nothing of all this: it sees a [`Disk`](crate::disk::Disk).
//!
//! Invariant: at any moment the local file or a read-back object holds all of a segment. A listing is complete or an error,
//! and a server that cannot be reached is never taken for a segment that is gone.

mod disk;
mod file;
mod load;
mod memory;
mod metrics;
mod notes;
mod open;
mod probe;
mod progress;
#[cfg(feature = "s3")]
mod s3;
#[cfg(test)]
mod tests;
mod upload;

use std::{
    io::{self, ErrorKind},
    ops::Range,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::Millis;

pub use disk::ObjectDisk;
pub use memory::{MemoryFaults, MemoryStore};
pub use open::{Objects, open, open_on};
pub use probe::probe;
pub use progress::{UploadError, UploadStatus};
#[cfg(feature = "s3")]
pub use s3::S3Store;
pub use upload::{UploadOptions, Uploader};

/// Pages of one listing: a server that always has one more is not believed.
const LIST_PAGES_MAX: usize = 100_000;

/// Why an object store did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// No object has that key.
    #[error("the object {key} is not there")]
    NotFound {
        /// Which.
        key: String,
    },
    /// It ends before the range that was asked for.
    #[error("the object {key} is shorter than it should be")]
    TooShort {
        /// Which.
        key: String,
    },
    /// There is an object of that key with other bytes.
    #[error(
        "the object {key} holds other bytes than the local segment, which is kept: find out who else writes under this node's prefix"
    )]
    Differs {
        /// Which.
        key: String,
    },
    /// No such bucket.
    #[error("the bucket does not exist: make it with versioning and object lock, or correct `s3.bucket`")]
    NoBucket,
    /// The access key is unknown, or does not fit its secret.
    #[error(
        "the S3 server knows no such access key, or the secret does not belong to it: correct `s3.access-key-id-file` or \
         `s3.secret-access-key-file`"
    )]
    Credentials,
    /// The access key lacks a permission.
    #[error("the access key may not {action}: give its role this permission on the bucket")]
    Denied {
        /// What was tried.
        action: &'static str,
    },
    /// No answer.
    #[error("the S3 server cannot be reached to {action}: {reason}")]
    Unreachable {
        /// What was tried.
        action: &'static str,
        /// As the network says.
        reason: String,
    },
    /// Another answer than success.
    #[error("the S3 server answered {code} when asked to {action}")]
    Server {
        /// What was tried.
        action: &'static str,
        /// Its error code.
        code: String,
    },
    /// A listing cannot be believed.
    #[error("the S3 server's listing is not complete: {problem}")]
    Listing {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The node is going down.
    #[error("the storage node is stopping")]
    Stopping,
}

impl ObjectError {
    /// What kind of error it is, in one word.
    pub fn class(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::TooShort { .. } => "missing",
            Self::Differs { .. } => "other-bytes",
            Self::NoBucket => "no-bucket",
            Self::Credentials => "access-key",
            Self::Denied { .. } => "denied",
            Self::Unreachable { .. } => "unreachable",
            Self::Server { .. } | Self::Listing { .. } => "server",
            Self::Stopping => "stopping",
        }
    }
}

impl From<ObjectError> for io::Error {
    /// Only an object that is gone or too short says something about what is stored.
    fn from(error: ObjectError) -> Self {
        let kind = match &error {
            ObjectError::NotFound { .. } => ErrorKind::NotFound,
            ObjectError::TooShort { .. } => ErrorKind::UnexpectedEof,
            ObjectError::Credentials | ObjectError::Denied { .. } => ErrorKind::PermissionDenied,
            ObjectError::Unreachable { .. } => ErrorKind::HostUnreachable,
            _ => ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// What became of a conditional create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutNew {
    /// The object is new.
    Stored,
    /// The key is taken; nothing was written.
    Exists,
}

/// An object as a listing tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its length.
    pub len: u64,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// In the order of their keys.
    pub objects: Vec<Listed>,
    /// Where the next page begins; none after the last.
    pub next: Option<String>,
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its length.
    pub len: u64,
    /// Its version, in a bucket with versioning.
    pub version: Option<String>,
    /// Locked in compliance mode until then.
    pub locked_until_ms: Option<Millis>,
}

/// Keeps immutable objects. Every call is safe to repeat, and retries transient failures a few times by itself.
#[async_trait]
pub trait ObjectStore: Send + Sync + 'static {
    /// Creates an object, locked until a time if one is given, unless the key is taken.
    async fn put_new(
        &self,
        key: &str,
        bytes: Bytes,
        locked_until_ms: Option<Millis>,
    ) -> Result<PutNew, ObjectError>;
    /// Reads exactly a range that is not empty.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError>;
    /// Looks at an object.
    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError>;
    /// One page of the keys that begin with a prefix.
    async fn list_page(&self, prefix: &str, from: Option<String>) -> Result<ListPage, ObjectError>;
    /// Whether the bucket keeps versions and has object lock switched on.
    async fn is_lockable(&self) -> Result<bool, ObjectError>;
    /// Deletes one version of an object. Only the probe does, to see itself refused.
    async fn delete_version(&self, key: &str, version: &str) -> Result<(), ObjectError>;
}

impl dyn ObjectStore {
    /// Everything whose key begins with a prefix: all of it, or an error.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let mut all: Vec<Listed> = Vec::new();
        let mut from = None;
        for _ in 0..LIST_PAGES_MAX {
            let page = self.list_page(prefix, from.clone()).await?;
            for object in page.objects {
                if all.last().is_some_and(|last| last.key >= object.key) {
                    return Err(ObjectError::Listing { problem: "its keys are not in order" });
                }
                if !object.key.starts_with(prefix) {
                    return Err(ObjectError::Listing { problem: "it has keys that were not asked for" });
                }
                all.push(object);
            }
            match page.next {
                None => return Ok(all),
                next if next == from => {
                    return Err(ObjectError::Listing { problem: "a page leads to itself" });
                }
                next => from = next,
            }
        }
        Err(ObjectError::Listing { problem: "it has no end" })
    }
}
