//! Searching the newest snapshots of a tenant, or one snapshot, without Microsoft. Hits are told as they are found.
//!
//! It costs the properties of every item looked at. Of the few snapshots that are searched at one time it holds the folders and a
//! few items' properties, whatever their size.

mod query;
mod searcher;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use holdfast_model::ResourceId;
use holdfast_proto::{
    coordinator::{
        SearchEnd, SearchProgress, SearchRequest, SearchResponse, UnreadSnapshot,
        operator_api_server::OperatorApi, search_response::Answer,
    },
    status::ErrorCode,
};
use tonic::Status;

use super::{
    OperatorService,
    backup::{snapshot_id, workloads},
    page_size,
};
use crate::{
    catalog::{audit::Actor, snapshot::SnapshotRow, tenant::TenantRow},
    error::Error,
};
use query::Query;
use searcher::{Event, Searcher};

/// Hits told when nothing else is asked: more than anybody reads.
const DEFAULT_HITS: u32 = 100;
/// Hits told at most: a search with more is no search.
const MAX_HITS: u32 = 10_000;
/// Snapshots searched at one time: most of a search is waiting for storage.
const SNAPSHOTS_AT_ONCE: usize = 4;
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
        let rows = self.to_search(&tenant, &request).await?;
        let names = self.names(&tenant).await?;
        let service = Self { core: self.core.clone() };
        let searcher = Arc::new(Searcher::new(service, actor.clone(), query, names));
        let snapshots_all = rows.len() as u64;
        let each = searcher.clone();
        let events = stream::iter(rows).map(move |row| each.clone().search(row));
        let search = Search {
            events: events.flatten_unordered(SNAPSHOTS_AT_ONCE).boxed(),
            searcher,
            hits_most: page_size(request.limit, DEFAULT_HITS, MAX_HITS).into(),
            snapshots_done: 0,
            snapshots_all,
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

/// A search under way: several snapshots at once, and their hits as they are found.
struct Search {
    events: BoxStream<'static, Event>,
    searcher: Arc<Searcher>,
    hits_most: u64,
    snapshots_done: u64,
    snapshots_all: u64,
    end: SearchEnd,
    is_over: bool,
}

impl Search {
    /// What is to be told next; then the end, then nothing.
    async fn next(&mut self) -> Result<Option<Answer>, Error> {
        if self.is_over {
            return Ok(None);
        }
        while self.end.hits < self.hits_most {
            match self.events.next().await {
                Some(Event::Hit(hit)) => {
                    self.end.hits += 1;
                    return Ok(Some(Answer::Hit(hit)));
                }
                Some(Event::Searched) => self.end.snapshots += 1,
                Some(Event::LeftOut(row, error)) => self.leave_out(&row, error)?,
                None => return Ok(Some(self.finish(false))),
            }
            self.snapshots_done += 1;
            if self.snapshots_all > 1 {
                return Ok(Some(self.progress()));
            }
        }
        Ok(Some(self.finish(true)))
    }

    fn progress(&self) -> Answer {
        Answer::Progress(SearchProgress {
            snapshots_done: self.snapshots_done,
            snapshots: self.snapshots_all,
            items: self.searcher.looked_at.load(Ordering::Relaxed),
        })
    }

    fn finish(&mut self, limit_reached: bool) -> Answer {
        self.is_over = true;
        self.end.limit_reached = limit_reached;
        self.end.items = self.searcher.looked_at.load(Ordering::Relaxed);
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
                resource: self.searcher.name(row),
                workload: row.workload.to_string(),
                reason: error.to_string(),
            });
        }
        Ok(())
    }
}
