//! A shard at work: it fetches the items that its parent listed, and hands over what came of each.
//!
//! The invariant: an item that the result does not mention has no outcome, and the parent fetches it itself. So a shard that
//! Microsoft stops half-way loses nothing of what it has.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::StreamExt as _;
use holdfast_model::Account;
use holdfast_repository::{ContentSource, JobKeys, TreeRoots};
use serde::{Deserialize, Serialize};

use super::{
    Content, FetchError, Found, Source,
    failed::{Refusal, RefusalKind},
    fetches::Fetches,
};
use crate::{
    JobError,
    backup::{BackupContext, FinishedShard, RESULT_CONTEXT, key},
};

/// What a shard hands to its parent, besides the trees of what it stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShardResult {
    /// The roots of what it stored, in hexadecimal.
    output: String,
    pub bytes_read: u64,
    pub bytes_stored: u64,
    pub requests: u64,
    /// Items that Microsoft did not give, by id.
    pub refused: BTreeMap<String, Refusal>,
    /// Of the stored items, those that lack a part: the code by id.
    pub incomplete: BTreeMap<String, String>,
}

impl ShardResult {
    /// Reads it; none when it is damaged or of a later version.
    pub fn open(keys: &JobKeys, sealed: &[u8]) -> Option<(TreeRoots, Self)> {
        let plain = keys.open_blob(RESULT_CONTEXT, sealed).ok()?;
        let result: Self = serde_json::from_slice(&plain).ok()?;
        let output = TreeRoots::from_bytes(&hex::decode(&result.output).ok()?).ok()?;
        Some((output, result))
    }
}

/// Fetches what the input names, as far as Microsoft lets it.
pub(in crate::workload) async fn fetch_shard<S: Source>(
    source: S,
    context: &Arc<BackupContext>,
    input: TreeRoots,
) -> Result<FinishedShard, JobError> {
    let run = ShardRun {
        source: Arc::new(source),
        context: context.clone(),
        in_flight: Fetches::new(),
        account: Account::default(),
        result: ShardResult::default(),
    };
    run.run(input).await
}

struct Fetched<S: Source> {
    item: S::Item,
    change: [u8; 16],
    result: Result<Found, FetchError>,
}

struct ShardRun<S: Source> {
    source: Arc<S>,
    context: Arc<BackupContext>,
    in_flight: Fetches<Fetched<S>>,
    account: Account,
    result: ShardResult,
}

impl<S: Source> ShardRun<S> {
    async fn run(mut self, input: TreeRoots) -> Result<FinishedShard, JobError> {
        match self.fetch_all(input).await {
            Ok(()) => {}
            // What is here already is worth more than another attempt at all of it.
            Err(JobError::Graph(error)) if self.account.listed > 0 => {
                tracing::warn!(%error, "the shard ends early, its parent fetches the rest");
                self.in_flight.end().await;
            }
            Err(error) => return Err(error),
        }
        self.finish().await
    }

    async fn fetch_all(&mut self, input: TreeRoots) -> Result<(), JobError> {
        let mut items = self.context.manifest.items(input);
        while let Some(listed) = items.next().await {
            let (_, entry) = listed?;
            let item = self.source.rebuild(&self.context.manifest.meta(&entry).await?)?;
            while self.in_flight.len() >= self.context.options.fetches {
                self.settle_next().await?;
            }
            let source = Arc::clone(&self.source);
            self.in_flight.start(async move {
                let result = source.fetch(&item, None).await;
                Fetched { item, change: entry.change, result }
            });
        }
        while self.in_flight.len() > 0 {
            self.settle_next().await?;
        }
        Ok(())
    }

    async fn settle_next(&mut self) -> Result<(), JobError> {
        let Some(Fetched { item, change, result }) = self.in_flight.next().await else { return Ok(()) };
        match result {
            Ok(Found::Content(content)) => self.store(&item, change, content).await?,
            // Nothing was held: it cannot be the same. Not mentioned, it is fetched by the parent.
            Ok(Found::Same { .. }) => {}
            Err(FetchError::Job(error)) => return Err(error),
            Err(FetchError::Graph(error)) if JobError::is_fatal_for_job(&error) => return Err(error.into()),
            Err(FetchError::Graph(error)) => {
                self.account.listed += 1;
                let refusal = Refusal::of(&error);
                match refusal.kind {
                    RefusalKind::Gone => self.account.gone += 1,
                    RefusalKind::Retryable | RefusalKind::Changed => self.account.failed_retryable += 1,
                    RefusalKind::Permanent => self.account.failed_permanent += 1,
                }
                self.result.refused.insert(self.source.id(&item).to_owned(), refusal);
            }
        }
        self.report();
        Ok(())
    }

    async fn store(&mut self, item: &S::Item, change: [u8; 16], content: Content) -> Result<(), JobError> {
        let id = self.source.id(item);
        let fields = self.source.fields(item, change, content.size);
        let parts = ContentSource::of(content.drafts);
        self.context.manifest.writer().put_item(key(id), fields, content.meta, parts).await?;
        self.account.listed += 1;
        self.account.stored += 1;
        self.account.bytes_read += content.size;
        if let Some(code) = content.missing {
            self.account.incomplete += 1;
            self.result.incomplete.insert(id.to_owned(), code);
        }
        Ok(())
    }

    fn report(&self) {
        let requests = self.context.graph.requests();
        self.context.progress.set(Account { requests, ..self.account });
    }

    async fn finish(mut self) -> Result<FinishedShard, JobError> {
        let output = self.context.manifest.merge().await?;
        self.account.requests = self.context.graph.requests();
        self.account.bytes_stored = self.context.manifest.writer().stats().bytes_stored;
        self.result.output = hex::encode(output.to_bytes());
        self.result.bytes_read = self.account.bytes_read;
        self.result.bytes_stored = self.account.bytes_stored;
        self.result.requests = self.account.requests;
        let plain = serde_json::to_vec(&self.result)
            .map_err(|source| JobError::Stored { what: "shard result", source })?;
        let random = self.context.shared.random.as_ref();
        let result: Bytes = self.context.manifest.keys().seal_blob(RESULT_CONTEXT, random, &plain).into();
        Ok(FinishedShard { account: self.account, result })
    }
}
