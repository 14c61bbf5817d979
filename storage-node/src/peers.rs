//! The way to the other owners of a partition, as the core sees it.
//!
//! Invariant: a call to a peer ends within its deadline, whatever the peer does, and holds a bounded amount of memory until then.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::{ChunkId, LayoutNode, LayoutVersion, SessionId};
use holdfast_proto::storage::SessionToken;

use crate::repair::{NoRepair, RepairPeers};

/// On whose behalf a peer is called.
#[derive(Clone)]
pub struct PeerCall {
    /// The caller's token: the peer checks it too.
    pub token: SessionToken,
    /// The caller's session.
    pub session: SessionId,
    /// The layout that this node works by.
    pub layout: LayoutVersion,
}

/// Whether a replica has a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Durable there, and protected until the session ends.
    Yes,
    /// Not there.
    Absent,
    /// The replica could not be asked.
    Unknown,
    /// It does not own the partition.
    NotOwner,
}

/// What became of a record at a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaOutcome {
    /// New there, and synced.
    Stored,
    /// It was there.
    Exists,
    /// It could not be stored.
    Failed,
    /// The replica does not own the partition.
    NotOwner,
}

/// A replica's answer to a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaPut {
    /// One per record.
    pub outcomes: Vec<ReplicaOutcome>,
    /// Why, if one failed.
    pub reason: String,
}

impl ReplicaPut {
    pub(crate) fn failed(n_records: usize, reason: impl Into<String>) -> Self {
        Self { outcomes: vec![ReplicaOutcome::Failed; n_records], reason: reason.into() }
    }
}

/// A peer did not answer usefully.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It cannot be reached.
    #[error("unreachable: {reason}")]
    Unreachable {
        /// What the transport says.
        reason: String,
    },
    /// It was unreachable a moment ago and is not asked again yet.
    #[error("unreachable a moment ago: asked again in {wait_ms} ms")]
    BackingOff {
        /// When it is asked again.
        wait_ms: u64,
    },
    /// It is too slow.
    #[error("no answer in time")]
    TooSlow,
    /// It refused.
    #[error("refused: {reason}")]
    Refused {
        /// What it says.
        reason: String,
    },
    /// Its answer does not fit the question.
    #[error("the answer does not fit the question")]
    Nonsense,
}

/// Calls other storage nodes.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// The calls of repair. Peers that do not speak them count as unreachable for it.
    fn repair(&self) -> &dyn RepairPeers {
        &NoRepair
    }

    /// Stores records there alone.
    async fn replicate(
        &self,
        peer: &LayoutNode,
        call: &PeerCall,
        records: Vec<Bytes>,
    ) -> Result<ReplicaPut, PeerError>;

    /// Asks it alone what it has.
    async fn have_local(
        &self,
        peer: &LayoutNode,
        call: &PeerCall,
        ids: &[ChunkId],
    ) -> Result<Vec<Presence>, PeerError>;
}
