//! Where sealed records go: the seam between what a snapshot is made of and how it is stored.
//!
//! Invariant: what `have` answers with *true* and what `put` returned for stays readable until the session ends.

use async_trait::async_trait;
use holdfast_model::ChunkId;
use holdfast_record::SealedRecord;

/// Ids in one `have`.
pub const MAX_HAVE_IDS: usize = 4_096;

/// Keeps sealed records of one tenant, within one session.
#[async_trait]
pub trait ChunkStore: Send + Sync + 'static {
    /// Per id: whether the record is durable at the policy's level and protected until the session ends.
    async fn have(&self, ids: &[ChunkId]) -> Result<Vec<bool>, StoreError>;
    /// Stores records; returns when all are durable at the policy's level. Can be repeated.
    async fn put(&self, records: Vec<SealedRecord>) -> Result<(), StoreError>;
    /// Fetches records, in the order of the ids.
    async fn get(&self, ids: &[ChunkId]) -> Result<Vec<SealedRecord>, StoreError>;
    /// Every distinct copy of one record, for when the first does not open.
    async fn get_copies(&self, id: ChunkId) -> Result<Vec<SealedRecord>, StoreError>;
}

/// Storage cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No reachable node has it.
    #[error("the chunk {id} is on no reachable storage node")]
    Missing {
        /// The chunk.
        id: ChunkId,
    },
    /// A higher fence was seen: another attempt has taken over.
    #[error("fenced: another attempt has taken over")]
    Fenced,
    /// The session lapsed; open a new one and ask again.
    #[error("the session has ended")]
    SessionLost,
    /// Not enough storage nodes answer.
    #[error("storage is unavailable ({reason})")]
    Unavailable {
        /// What was tried.
        reason: String,
    },
    /// The pool's layout has changed since the session began; one with the new layout goes on.
    #[error("the layout of the storage has changed")]
    LayoutChanged,
    /// Nodes have no room.
    #[error("storage is full")]
    Full,
    /// Storage will not do it, now or later.
    #[error("storage refused the request ({reason})")]
    Refused {
        /// Why.
        reason: String,
    },
    /// No copy of it opens.
    #[error("no copy of the chunk {id} is intact")]
    Corrupt {
        /// The chunk.
        id: ChunkId,
    },
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full | Self::LayoutChanged)
    }
}
