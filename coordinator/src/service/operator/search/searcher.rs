//! Searches one snapshot.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use holdfast_model::ResourceId;
use holdfast_proto::coordinator::SearchHit;
use holdfast_repository::{FolderKey, ItemEntry, ItemKey, SnapshotReader};

use super::{
    super::{OperatorService, folders::Folders, properties::Properties},
    query::Query,
};
use crate::{
    catalog::{audit::Actor, snapshot::SnapshotRow},
    error::Error,
};

/// Properties read at one time of one snapshot.
const READ_AHEAD: usize = 16;

/// What comes of a snapshot: hits, then one of the others.
pub(super) enum Event {
    Hit(SearchHit),
    /// To its end.
    Searched,
    /// Not to its end, because of this.
    LeftOut(Box<SnapshotRow>, Error),
}

/// What the search of every snapshot needs.
pub(super) struct Searcher {
    service: OperatorService,
    actor: Actor,
    query: Arc<Query>,
    names: HashMap<ResourceId, String>,
    /// Items, of all snapshots.
    pub(super) looked_at: Arc<AtomicU64>,
}

type Hits = BoxStream<'static, Result<SearchHit, Error>>;

impl Searcher {
    pub(super) fn new(
        service: OperatorService,
        actor: Actor,
        query: Arc<Query>,
        names: HashMap<ResourceId, String>,
    ) -> Self {
        Self { service, actor, query, names, looked_at: Arc::default() }
    }

    /// Whose snapshot it is.
    pub(super) fn name(&self, row: &SnapshotRow) -> String {
        self.names.get(&row.resource).cloned().unwrap_or_default()
    }

    /// Searches one snapshot; nothing is opened before the first event is asked for.
    pub(super) fn search(self: Arc<Self>, row: SnapshotRow) -> BoxStream<'static, Event> {
        let of = row.clone();
        let hits: Hits = stream::once(async move { self.hits(&of).await }).try_flatten().boxed();
        let events = stream::unfold(Some((row, hits)), |searched| async move {
            let (row, mut hits) = searched?;
            Some(match hits.next().await {
                Some(Ok(hit)) => (Event::Hit(hit), Some((row, hits))),
                Some(Err(error)) => (Event::LeftOut(Box::new(row), error), None),
                None => (Event::Searched, None),
            })
        });
        events.boxed()
    }

    async fn hits(&self, row: &SnapshotRow) -> Result<Hits, Error> {
        let reader = self.service.open_snapshot(&self.actor, "snapshot.search", row).await?;
        let folders = Folders::read(&reader).await?;
        let within: Vec<HashSet<FolderKey>> =
            self.query.folders.iter().map(|path| folders.under(path).into_iter().collect()).collect();
        let searched = Arc::new(Searched {
            query: self.query.clone(),
            snapshot: row.id.to_string(),
            resource: self.name(row),
            workload: row.workload.to_string(),
            reader,
            folders,
        });
        let (query, looked_at) = (self.query.clone(), self.looked_at.clone());
        let items = searched.reader.items().map_err(Error::from).try_filter(move |(_, item)| {
            looked_at.fetch_add(1, Ordering::Relaxed);
            let may_match = query.may_match(item) && within.iter().all(|keys| keys.contains(&item.parent));
            futures::future::ready(may_match)
        });
        let hits = items.map_ok(move |(key, item)| {
            let searched = searched.clone();
            async move { searched.hit(&key, &item).await }
        });
        Ok(hits.try_buffered(READ_AHEAD).try_filter_map(async |hit| Ok(hit)).boxed())
    }
}

/// A snapshot that is searched.
struct Searched {
    query: Arc<Query>,
    snapshot: String,
    resource: String,
    workload: String,
    reader: SnapshotReader,
    folders: Folders,
}

impl Searched {
    async fn hit(&self, key: &ItemKey, item: &ItemEntry) -> Result<Option<SearchHit>, Error> {
        let properties = Properties::read(&self.reader.meta(item).await?);
        if !self.query.matches(item, &properties) {
            return Ok(None);
        }
        Ok(Some(SearchHit {
            snapshot: self.snapshot.clone(),
            resource: self.resource.clone(),
            workload: self.workload.clone(),
            entry: Some(properties.entry(key, item)),
            path: self.folders.path(item.parent),
        }))
    }
}
