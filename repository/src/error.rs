//! What can go wrong between items and storage.

use holdfast_model::ChunkId;
use holdfast_record::version_refusal;

use crate::{chunk_store::StoreError, key_file::KeyError};

/// A snapshot cannot be written or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Storage says no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A sealed name does not open.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What was decrypted is authentic and still not what it should be.
    #[error("the {what} cannot be read: {reason}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Written in a format this build does not read.
    #[error("the {what}: {}", version_refusal((*found).into(), (*supported).into()))]
    UnknownVersion {
        /// What was read.
        what: &'static str,
        /// Its version.
        found: u8,
        /// The version read.
        supported: u8,
    },
    /// Larger than the format allows.
    #[error("the {what} has {found}, at most {limit} are allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The snapshot object and the pin that names it disagree.
    #[error("the snapshot object does not belong to its pin: {field} differs")]
    WrongSnapshot {
        /// The first field that differs.
        field: &'static str,
    },
    /// The work in the background ended before its time: a panic, or a shutdown.
    #[error("the work was interrupted before its end")]
    Interrupted,
}

impl Error {
    /// Whether the same work may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Interrupted => true,
            _ => false,
        }
    }
}

/// Refuses what the format does not allow.
pub(crate) fn within(what: &'static str, found: usize, limit: usize) -> Result<(), Error> {
    if found > limit {
        return Err(Error::TooLarge { what, found: found as u64, limit: limit as u64 });
    }
    Ok(())
}

/// A record cannot be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Wrong key or changed bytes.
    #[error("the chunk {id} does not open: wrong key or changed bytes")]
    NotAuthentic {
        /// The chunk.
        id: ChunkId,
    },
    /// The lease does not hold the key it was encrypted with.
    #[error("the chunk {id} was encrypted with key epoch {epoch}, which this job does not hold")]
    NoKey {
        /// The chunk.
        id: ChunkId,
        /// The epoch.
        epoch: u32,
    },
    /// It opens, and what is in it is something else.
    #[error("the chunk {id} opens, but its content is not the one asked for")]
    WrongContent {
        /// The chunk.
        id: ChunkId,
    },
    /// The compressor's output did not decompress to its input.
    #[error("compression did not reproduce its input")]
    Compression,
    /// Larger than a record may be.
    #[error("{found} bytes or references do not fit in a record (at most {limit})")]
    TooLarge {
        /// How many.
        found: usize,
        /// The limit.
        limit: usize,
    },
}
