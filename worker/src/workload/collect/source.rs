//! What a workload tells the engine.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use holdfast_graph_client::GraphError;
use holdfast_repository::{ContentDraft, EntryKind, ItemEntry, ItemFields, TreeRoots};

use super::{Collector, State};
use crate::{JobError, backup::Manifest, workload::container_key};

/// Something that holds items: a mail folder, a calendar, a contact folder, a to-do list, a drive.
#[derive(Debug, Clone)]
pub struct Container {
    /// Microsoft's id.
    pub id: String,
    /// What its items are filed under.
    pub key: [u8; 16],
    /// For people, and for selecting what to restore: `/Inbox/Projects`.
    pub path: String,
    /// Whether its items are listed; those of a search folder, for one, are elsewhere.
    pub is_listable: bool,
    /// Items that Microsoft counts in it; 0 when it does not say.
    pub n_items: u64,
}

impl Container {
    /// A listable container with the usual key.
    pub fn new(id: &str, path: String) -> Self {
        Self { id: id.to_owned(), key: container_key(id), path, is_listable: true, n_items: 0 }
    }
}

/// One entry of a listing.
#[derive(Debug)]
pub enum ItemChange<T> {
    /// It is there.
    Present(Box<T>),
    /// It is gone from this container; it may be in another.
    Removed {
        /// Microsoft's id.
        id: String,
    },
}

/// One page of a listing.
#[derive(Debug)]
pub struct ItemPage<T> {
    /// In order; the last entry of an id counts.
    pub items: Vec<ItemChange<T>>,
    /// The next page.
    pub next: Option<String>,
    /// Where the next run starts, on the last page of a delta.
    pub delta: Option<String>,
}

/// A stored version whose content may still be the right one.
#[derive(Debug)]
pub struct Held<H> {
    /// Its entry.
    pub entry: ItemEntry,
    /// What the workload knows of it.
    pub stored: H,
}

/// Whether a stored version still holds. That its change mark differs, or its place, is known already.
#[derive(Debug)]
pub enum Judgement<H> {
    /// The content is the same; the properties are written anew.
    Keep {
        /// The new properties.
        meta: Bytes,
    },
    /// Microsoft has to be asked; [`Source::fetch`] gets this.
    Compare(H),
    /// The content has to be fetched.
    Fetch,
}

/// A content that was fetched and is in the writer.
pub struct Content {
    /// The item's properties.
    pub meta: Bytes,
    /// Its parts, in order.
    pub drafts: Vec<ContentDraft>,
    /// Bytes of all parts.
    pub size: u64,
    /// Why something of it is missing; none when it is whole.
    pub missing: Option<String>,
}

/// What came of asking Microsoft for an item's content.
pub enum Found {
    /// A new one.
    Content(Content),
    /// The stored one is still the right one.
    Same {
        /// The stored version.
        entry: Box<ItemEntry>,
        /// The new properties.
        meta: Bytes,
    },
}

/// Why an item's content could not be had.
#[derive(Debug)]
pub enum FetchError {
    /// Microsoft.
    Graph(GraphError),
    /// Our own side: the job ends.
    Job(JobError),
}

impl From<GraphError> for FetchError {
    fn from(error: GraphError) -> Self {
        Self::Graph(error)
    }
}

impl From<JobError> for FetchError {
    fn from(error: JobError) -> Self {
        Self::Job(error)
    }
}

impl From<holdfast_repository::Error> for FetchError {
    fn from(error: holdfast_repository::Error) -> Self {
        Self::Job(error.into())
    }
}

/// One workload, as the engine sees it. It never touches the account, checkpoints, sessions or pins.
#[async_trait]
pub trait Source: Send + Sync + Sized + 'static {
    /// What a page lists.
    type Item: Send + Sync + 'static;
    /// What it keeps of a stored version while Microsoft is asked.
    type Stored: Send + 'static;

    /// Reads the containers and puts what changed of them into the manifest. The state is the base's, or an earlier attempt's.
    async fn containers(&self, state: &mut State) -> Result<Vec<Container>, JobError>;

    /// One page of a container: from the start, or where a link leads. `is_plain`: a listing without delta is wanted.
    async fn page(
        &self,
        container: &str,
        link: Option<&str>,
        is_plain: bool,
    ) -> Result<ItemPage<Self::Item>, GraphError>;

    /// One item by its id; where the id is that of a part of an item, that item.
    async fn item(&self, id: &str) -> Result<Self::Item, GraphError>;

    /// What names an item for good: Microsoft's id, or `container:id` where Microsoft finds it only so.
    fn id<'a>(&self, item: &'a Self::Item) -> &'a str;

    /// The key of what the item is filed under.
    fn parent(&self, item: &Self::Item) -> [u8; 16];

    /// The item as a page shows it is not all of it: it is asked for by its id.
    fn is_partial(&self, _item: &Self::Item) -> bool {
        false
    }

    /// What the item takes in memory while it waits, bytes.
    fn weight(&self, item: &Self::Item) -> u64;

    /// Changes with the item; the same for the same version.
    fn change(&self, item: &Self::Item) -> Result<[u8; 16], JobError>;

    /// The item's entry, but for its content.
    fn fields(&self, item: &Self::Item, change: [u8; 16], size: u64) -> ItemFields;

    /// Whether an entry of this kind is an item of the account, not only a place for others.
    fn is_item(&self, kind: EntryKind) -> bool {
        !kind.is_container()
    }

    /// The path of the place where the item is, where the container's own does not say it.
    fn path(&self, _item: &Self::Item) -> Option<String> {
        None
    }

    /// Whether a stored item is in this container.
    fn is_in(&self, entry: &ItemEntry, container: [u8; 16]) -> bool {
        entry.parent.0 == container
    }

    /// The ids of the stored items of a container, in merged trees.
    async fn items_in(
        &self,
        manifest: &Manifest,
        roots: TreeRoots,
        container: [u8; 16],
    ) -> Result<Vec<String>, JobError> {
        let mut children = manifest.children(roots, container);
        let mut ids = Vec::new();
        while let Some(child) = children.next().await {
            let child = child?;
            if self.is_item(child.kind)
                && let Ok(id) = String::from_utf8(child.key.0)
            {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Whether the stored version still holds, whose change mark or place (`is_moved`) is another.
    async fn judge(
        &self,
        item: &Self::Item,
        entry: &ItemEntry,
        change: [u8; 16],
        is_moved: bool,
    ) -> Result<Judgement<Self::Stored>, JobError>;

    /// Fetches the content, or says that the stored one is still right.
    async fn fetch(&self, item: &Self::Item, held: Option<Held<Self::Stored>>) -> Result<Found, FetchError>;

    /// Whether some of its items may be fetched by shards.
    fn splits(&self) -> bool {
        false
    }

    /// The bytes of the item's content, where it may be fetched by a shard; without them it is fetched by the run that lists.
    fn shard_size(&self, _item: &Self::Item) -> Option<u64> {
        None
    }

    /// What a shard needs to know of the item. Only of one that has a [`Self::shard_size`].
    fn for_shard(&self, _item: &Self::Item) -> Bytes {
        Bytes::new()
    }

    /// The item again, from what [`Self::for_shard`] gave.
    fn rebuild(&self, _stored: &[u8]) -> Result<Self::Item, JobError> {
        Err(JobError::NotSplit)
    }

    /// A delta cannot be had for this container now; a plain listing can.
    fn wants_plain_listing(&self, _error: &GraphError) -> bool {
        false
    }

    /// The changes from this link on would not be all: the container is listed whole instead.
    fn is_spent(&self, _link: &str) -> bool {
        false
    }

    /// After everything is listed, fetched and removed: what listings do not tell.
    async fn correct(_run: &mut Collector<Self>) -> Result<(), JobError> {
        Ok(())
    }
}
