//! Searching the newest snapshots of a tenant, or one snapshot, without Microsoft. Hits are told as they are found.
//!
//! It costs the properties of every item looked at, and holds a few of them at a time, whatever the snapshots' size.

mod query;

use std::{
    collections::{HashMap, HashSet, VecDeque},
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
use holdfast_proto::{
    coordinator::{
        SearchEnd, SearchHit, SearchRequest, SearchResponse, UnreadSnapshot,
        operator_api_server::OperatorApi, search_response::Answer,
    },
    status::ErrorCode,
};
use holdfast_repository::{FolderKey, ItemEntry, ItemKey, SnapshotReader};
use tonic::Status;

use super::{
    OperatorService,
    backup::{snapshot_id, workloads},
    folders::Folders,
    page_size,
    properties::Properties,
};
use crate::{
    catalog::{audit::Actor, snapshot::SnapshotRow, tenant::TenantRow},
    error::Error,
};
use query::Query;

/// Hits told when nothing else is asked: more than anybody reads.
const DEFAULT_HITS: u32 = 100;
/// Hits told at most: a search with more is no search.
const MAX_HITS: u32 = 10_000;
/// Properties read at one time.
const READ_AHEAD: usize = 16;
/// Unreadable snapshots named; the cause is the same for most.
const MAX_UNREAD_NAMED: usize = 20;

impl OperatorService {
    pub(super) async fn search_snapshots(
        &self,
        actor: &Actor,
        request: SearchRequest,
    ) -> Result<<Self as OperatorApi>::SearchStream, Error> {
        let query = Arc::new(Query::parse(&request.query)?);
        let tenant = self.core.catalog.tenant_by_name(&request.tenant).await?;
        let search = Search {
            service: Self { core: self.core.clone() },
            actor: actor.clone(),
            snapshots: self.to_search(&tenant, &request).await?.into(),
            names: self.names(&tenant).await?,
            hits_most: page_size(request.limit, DEFAULT_HITS, MAX_HITS).into(),
            query,
            at: None,
            looked_at: Arc::default(),
            end: SearchEnd::default(),
            is_over: false,
        };
        Ok(Box::pin(stream::try_unfold(search, |mut search| async move {
            let answer = search.next().await.map_err(Status::from)?;
            Ok(answer.map(|answer| (SearchResponse { answer: Some(answer) }, search)))
        })))
    }

    async fn to_search(
        &self,
        tenant: &TenantRow,
        request: &SearchRequest,
    ) -> Result<Vec<SnapshotRow>, Error> {
        let catalog = &self.core.catalog;
        if !request.snapshot.is_empty() {
            let row = catalog.snapshot(snapshot_id(&request.snapshot)?).await?;
            if row.tenant == tenant.id {
                return Ok(vec![row]);
            }
            let problem = format!("it is not of tenant {}", tenant.name);
            return Err(Error::Invalid { field: "snapshot", value: request.snapshot.clone(), problem });
        }
        let mut resources = HashSet::new();
        for text in &request.resources {
            resources.insert(catalog.resource_by_name(tenant.id, &tenant.name, text).await?.id);
        }
        let mut rows = catalog.newest_snapshots(Some(tenant.id)).await?;
        if !resources.is_empty() {
            rows.retain(|row| resources.contains(&row.resource));
        }
        if !request.workloads.is_empty() {
            let workloads = workloads(&request.workloads)?;
            rows.retain(|row| workloads.contains(&row.workload));
        }
        Ok(rows)
    }

    async fn names(&self, tenant: &TenantRow) -> Result<HashMap<ResourceId, String>, Error> {
        let rows = self.core.catalog.resources(tenant.id).await?;
        Ok(rows.into_iter().map(|row| (row.id, row.written())).collect())
    }
}

/// A search under way: snapshot by snapshot.
struct Search {
    service: OperatorService,
    actor: Actor,
    query: Arc<Query>,
    snapshots: VecDeque<SnapshotRow>,
    names: HashMap<ResourceId, String>,
    hits_most: u64,
    /// The snapshot that is searched now, and its hits.
    at: Option<(SnapshotRow, BoxStream<'static, Result<SearchHit, Error>>)>,
    looked_at: Arc<AtomicU64>,
    end: SearchEnd,
    is_over: bool,
}

impl Search {
    /// The next hit, then the end, then nothing.
    async fn next(&mut self) -> Result<Option<Answer>, Error> {
        if self.is_over {
            return Ok(None);
        }
        while self.end.hits < self.hits_most {
            let Some((row, hits)) = &mut self.at else {
                let Some(row) = self.snapshots.pop_front() else { return Ok(Some(self.finish(false))) };
                match self.start(&row).await {
                    Ok(hits) => self.at = Some((row, hits)),
                    Err(error) => self.leave_out(&row, error)?,
                }
                continue;
            };
            match hits.next().await {
                Some(Ok(hit)) => {
                    self.end.hits += 1;
                    return Ok(Some(Answer::Hit(hit)));
                }
                Some(Err(error)) => {
                    let row = row.clone();
                    self.at = None;
                    self.leave_out(&row, error)?;
                }
                None => {
                    self.end.snapshots += 1;
                    self.at = None;
                }
            }
        }
        Ok(Some(self.finish(true)))
    }

    fn finish(&mut self, limit_reached: bool) -> Answer {
        self.is_over = true;
        self.end.limit_reached = limit_reached;
        self.end.items = self.looked_at.load(Ordering::Relaxed);
        Answer::End(std::mem::take(&mut self.end))
    }

    /// One damaged snapshot does not keep the others from being searched; storage that is away does.
    fn leave_out(&mut self, row: &SnapshotRow, error: Error) -> Result<(), Error> {
        if error.code() == ErrorCode::Unavailable {
            return Err(error);
        }
        tracing::warn!(snapshot = %row.id, %error, "a snapshot could not be searched");
        if self.end.unread.len() < MAX_UNREAD_NAMED {
            self.end.unread.push(UnreadSnapshot {
                snapshot: row.id.to_string(),
                resource: self.names.get(&row.resource).cloned().unwrap_or_default(),
                workload: row.workload.to_string(),
                reason: error.to_string(),
            });
        }
        Ok(())
    }

    /// `&mut`: what is searched now may be sent to another thread, not shared with one.
    async fn start(
        &mut self,
        row: &SnapshotRow,
    ) -> Result<BoxStream<'static, Result<SearchHit, Error>>, Error> {
        let reader = self.service.open_snapshot(&self.actor, "snapshot.search", row).await?;
        let folders = Folders::read(&reader).await?;
        let within: Vec<HashSet<FolderKey>> =
            self.query.folders.iter().map(|path| folders.under(path).into_iter().collect()).collect();
        let searched = Arc::new(Searched {
            query: self.query.clone(),
            snapshot: row.id.to_string(),
            resource: self.names.get(&row.resource).cloned().unwrap_or_default(),
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
