//! The way to other storage nodes for repair, as the core sees it.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::{LayoutNode, LayoutVersion, PartitionId, RecordKey};

use super::{digest::Digest, entry::Protection};
use crate::{
    handover::{HandoverQuestion, SpacePage},
    peers::{PeerError, ReplicaPut},
};

/// Keys in one question or answer.
pub const KEYS_MAX: usize = 4_096;
/// Partitions in one question.
pub const PARTITIONS_MAX: usize = 64;
/// Bytes of records in one message, unless a single record is larger.
pub const COPY_BYTES: usize = 8 << 20;

/// A record on its way to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// As crate `record` encodes it, with its write epoch and lock floor.
    pub record: Bytes,
    /// The last epoch in which a session was told that it is there.
    pub touch_epoch: u64,
}

/// What a node has of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// One per partition.
    pub digests: Vec<Digest>,
    /// The oldest layout version that a write which ran before they were taken was admitted by.
    pub layout_in_use: LayoutVersion,
}

/// A page of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPage {
    /// In order.
    pub keys: Vec<RecordKey>,
    /// Whether there are more.
    pub more: bool,
}

/// Calls other storage nodes to find and mend missing copies. Every call ends within its deadline.
#[async_trait]
pub trait RepairPeers: Send + Sync + 'static {
    /// Digests of partitions, one each.
    async fn digests(&self, peer: &LayoutNode, partitions: &[PartitionId]) -> Result<Digests, PeerError>;
    /// Digests of the leaves of one.
    async fn leaves(&self, peer: &LayoutNode, partition: PartitionId) -> Result<Vec<Digest>, PeerError>;
    /// Keys of a leaf behind a key.
    async fn keys(
        &self,
        peer: &LayoutNode,
        leaf: (PartitionId, u8),
        after: Option<RecordKey>,
    ) -> Result<KeyPage, PeerError>;
    /// What it has of these, and how that is protected.
    async fn holds(
        &self,
        peer: &LayoutNode,
        keys: &[RecordKey],
    ) -> Result<Vec<Option<Protection>>, PeerError>;
    /// Copies of the first of these.
    async fn fetch(&self, peer: &LayoutNode, keys: &[RecordKey]) -> Result<Vec<Option<Copy>>, PeerError>;
    /// Stores copies there.
    async fn mend(&self, peer: &LayoutNode, copies: Vec<Copy>) -> Result<ReplicaPut, PeerError>;
    /// What it knows of the pins of partitions that moved.
    async fn hand_over(&self, peer: &LayoutNode, question: &HandoverQuestion)
    -> Result<SpacePage, PeerError>;
}

/// Peers that do not repair.
pub struct NoRepair;

fn nobody<T>() -> Result<T, PeerError> {
    Err(PeerError::Unreachable { reason: "there is no way to repair".to_owned() })
}

#[async_trait]
impl RepairPeers for NoRepair {
    async fn digests(&self, _: &LayoutNode, _: &[PartitionId]) -> Result<Digests, PeerError> {
        nobody()
    }

    async fn leaves(&self, _: &LayoutNode, _: PartitionId) -> Result<Vec<Digest>, PeerError> {
        nobody()
    }

    async fn keys(
        &self,
        _: &LayoutNode,
        _: (PartitionId, u8),
        _: Option<RecordKey>,
    ) -> Result<KeyPage, PeerError> {
        nobody()
    }

    async fn holds(&self, _: &LayoutNode, _: &[RecordKey]) -> Result<Vec<Option<Protection>>, PeerError> {
        nobody()
    }

    async fn fetch(&self, _: &LayoutNode, _: &[RecordKey]) -> Result<Vec<Option<Copy>>, PeerError> {
        nobody()
    }

    async fn mend(&self, _: &LayoutNode, _: Vec<Copy>) -> Result<ReplicaPut, PeerError> {
        nobody()
    }

    async fn hand_over(&self, _: &LayoutNode, _: &HandoverQuestion) -> Result<SpacePage, PeerError> {
        nobody()
    }
}
