//! What a workload tells the engine of the way back.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_graph_client::{GraphError, Page};
use holdfast_repository::ItemEntry;

use super::restore_key::restore_key;
use crate::{JobError, workload::snapshot_folders::SnapshotFolders};

/// Where the items of one of the snapshot's folders go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Into the container with this id.
    In(String),
    /// Nowhere: its items are elsewhere too, or it has none.
    Nowhere,
}

/// Something that is in a place of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupant {
    /// Its id, as [`Target::delete`] takes it.
    pub id: String,
    /// The restore key, where a restore created it.
    pub restore_key: Option<String>,
    /// By what it can be recognised; see [`Target::look`].
    pub looks: Vec<String>,
}

/// One item of the snapshot, to be written.
pub struct ItemToWrite<'a, T> {
    /// Microsoft's id when it was backed up.
    pub id: &'a str,
    /// Its restore key.
    pub key: String,
    /// Its entry in the snapshot.
    pub entry: &'a ItemEntry,
    /// What the workload read of it.
    pub stored: T,
    /// The container that it goes to.
    pub container: &'a str,
    /// The occupant that it is to replace.
    pub replaces: Option<String>,
}

/// What was created of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id in the target.
    pub id: String,
    /// The codes of what could not be brought back.
    pub losses: Vec<String>,
}

/// Something of a container that could not be brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLoss {
    /// The position of the snapshot's folder.
    pub index: usize,
    /// The code.
    pub code: String,
}

/// One workload, as the engine sees it.
#[async_trait]
pub trait Target: Send + Sync + Sized {
    /// What a stored item's properties are read into.
    type Stored: Send + Sync;

    /// Whether a key tells only what an item is, not that this restore made it: such an occupant may be in the way of others.
    const KEY_IS_CONTENT: bool = false;

    /// Whether [`Self::create`] itself removes what is replaced, because the new one takes its name; else it goes when the new one
    /// is complete.
    const CREATE_REMOVES_REPLACED: bool = false;

    /// What one item may hold in memory while it is written, bytes.
    const ITEM_BYTES: u64;

    /// Before anything else: removes what a killed attempt left half-built.
    async fn clean_up(&self) -> Result<(), JobError> {
        Ok(())
    }

    /// After everything: what was only needed meanwhile goes. A failure is told and hurts nobody.
    async fn finish(&self) {}

    /// Where the items of a folder go; it is made where it is missing.
    async fn place(&mut self, folders: &SnapshotFolders, index: usize) -> Result<Place, JobError>;

    /// What could not be brought back of the containers that were placed since this was asked last.
    fn take_container_losses(&mut self) -> Vec<ContainerLoss> {
        Vec::new()
    }

    /// One page of what is in a container.
    async fn occupants(&self, container: &str, link: Option<&str>) -> Result<Page<Occupant>, GraphError>;

    /// Reads the stored properties.
    fn read(&self, meta: &Bytes) -> Result<Self::Stored, JobError>;

    /// By what an occupant is recognised that is the same as this item and has another id.
    fn look(&self, stored: &Self::Stored) -> String;

    /// The key by which what this restore created of the item is recognised by its later attempts. It begins with
    /// [`restore_prefix`](super::restore_prefix).
    fn key(&self, restore: &str, id: &str, _stored: &Self::Stored) -> String {
        restore_key(restore, id)
    }

    /// Creates an item with its restore key.
    async fn create(&self, item: &ItemToWrite<'_, Self::Stored>) -> Result<Created, JobError>;

    /// Gives a created item what does not go into its create: a picture, attachments, exceptions. Returns the codes of what
    /// could not be brought back. What an attempt that was killed gave it already is not given twice: `is_new` says whether
    /// this attempt created it.
    async fn complete(
        &self,
        _item: &ItemToWrite<'_, Self::Stored>,
        _id: &str,
        _is_new: bool,
    ) -> Result<Vec<String>, JobError> {
        Ok(Vec::new())
    }

    /// Deletes an occupant that was replaced, or is left of an earlier attempt to.
    async fn delete(&self, container: &str, id: &str) -> Result<(), GraphError>;
}
