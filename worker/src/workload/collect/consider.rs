//! One listed item: is it known, does the stored version hold, what came of fetching it.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_graph_client::GraphError;
use holdfast_repository::{ContentSource, EntryFlags, ItemEntry, ItemFields};

use super::{
    Collector, Content, FetchError, Found, Held, ItemFailure, Judgement, Source,
    failed::{MAX_FAILED, Refusal, RefusalKind},
    ledger::{BEFORE_RESUME, IdHash, Listed, Outcome, id_hash},
    reconcile::Round,
};
use crate::{JobError, backup::key};

/// A listed item whose content is to be fetched, here or by a shard.
pub(super) struct ToFetch<I> {
    pub item: Box<I>,
    pub change: [u8; 16],
    pub container: u32,
}

/// An item whose content was asked for.
pub(super) struct Fetched<S: Source> {
    what: ToFetch<S::Item>,
    pub(super) result: Result<Found, FetchError>,
}

/// A new version of an item, wherever it was fetched.
pub(super) struct Fresh {
    pub fields: ItemFields,
    pub meta: Bytes,
    pub content: ContentSource,
    /// Where something of it is missing: the code, and the path of its place.
    pub missing: Option<(String, String)>,
}

/// What has to be done for the content of a listed item.
enum Verdict<H> {
    /// Nothing: it has its outcome.
    Settled,
    /// It has to be asked for; what is stored may turn out to be the same.
    Fetch(Option<Held<H>>),
}

impl<S: Source> Collector<S> {
    /// An item is there: decides what has to be done for it.
    pub(super) async fn consider(&mut self, item: Box<S::Item>, round: Round) -> Result<(), JobError> {
        let id = self.source.id(&item).to_owned();
        let item = if self.source.is_partial(&item) {
            match self.source.item(&id).await {
                Ok(item) => Box::new(item),
                Err(error) => {
                    self.ledger.list(&id, Listed::new(round.container, round.number, [0; 16]));
                    let path = self.path_of(&item, round.container);
                    return self.settle_failure(&id, &path, error).await;
                }
            }
        } else {
            item
        };
        // What was asked for may turn out to be a part of another item.
        let id = self.source.id(&item).to_owned();
        let hash = id_hash(&id);
        let change = self.source.change(&item)?;
        if self.removed.get(&id).is_some_and(|key| *key == self.container_key(round.container)) {
            self.removed.remove(&id);
        }
        if self.is_replay(&id, change, round).await? {
            return Ok(());
        }
        self.split.forget(&id);
        let before = self.ledger.get(&hash).and_then(|listed| listed.outcome);
        self.ledger.list(&id, Listed::new(round.container, round.number, change));
        let verdict = match self.context.manifest.entry(&id).await? {
            Some(entry) if self.source.is_item(entry.kind) && !entry.flags.contains(EntryFlags::STALE) => {
                self.judge(&item, entry, change, before).await?
            }
            _ => Verdict::Fetch(None),
        };
        let what = ToFetch { item, change, container: round.container };
        match verdict {
            Verdict::Settled => Ok(()),
            Verdict::Fetch(Some(held)) => self.fetch(what, Some(held)).await,
            Verdict::Fetch(None) => match self.gather(what).await? {
                Some(what) => self.fetch(what, None).await,
                None => Ok(()),
            },
        }
    }

    /// Fetches an item here, as soon as one of the fetches before has ended.
    pub(super) async fn fetch(
        &mut self,
        what: ToFetch<S::Item>,
        held: Option<Held<S::Stored>>,
    ) -> Result<(), JobError> {
        while self.in_flight.len() >= self.context.options.fetches {
            self.settle_next().await?;
        }
        let source = Arc::clone(&self.source);
        self.fetching.insert(id_hash(source.id(&what.item)));
        self.in_flight.start(async move {
            let result = source.fetch(&what.item, held).await;
            Fetched { what, result }
        });
        Ok(())
    }

    /// Whether this very version was dealt with in this run. An older one that is still being fetched is settled first, and
    /// made readable.
    async fn is_replay(&mut self, id: &str, change: [u8; 16], round: Round) -> Result<bool, JobError> {
        let hash = id_hash(id);
        let Some(before) = self.ledger.get(&hash).copied() else { return Ok(false) };
        // What an earlier attempt gave to a shard has no outcome, and no place among the containers of this one.
        let is_adopted = before.container == BEFORE_RESUME && before.outcome.is_none();
        if before.change == change && (before.container == round.container || is_adopted) {
            let (container, round) = (round.container, round.number);
            self.ledger.list(id, Listed { container, round, ..before });
            return Ok(true);
        }
        if self.fetching.contains(&hash) {
            self.drain().await?;
        }
        if self.context.manifest.entry(id).await?.is_some() {
            self.context.manifest.merge().await?;
        }
        Ok(false)
    }

    /// Whether the stored content is still the right one. `before` is the outcome that the item has in this run already.
    async fn judge(
        &mut self,
        item: &S::Item,
        entry: ItemEntry,
        change: [u8; 16],
        before: Option<Outcome>,
    ) -> Result<Verdict<S::Stored>, JobError> {
        let is_moved = entry.parent.0 != self.source.parent(item);
        if entry.change == change && !is_moved {
            let id = self.source.id(item);
            // A page that is listed again after a resume shows what this run stored itself.
            let outcome = before.filter(|outcome| outcome.is_stored()).unwrap_or(Outcome::Unchanged);
            self.ledger.settle(&id_hash(id), outcome, true);
            let id = id.to_owned();
            self.forget_failure(&id);
            return Ok(Verdict::Settled);
        }
        Ok(match self.source.judge(item, &entry, change, is_moved).await? {
            Judgement::Keep { meta } => {
                self.keep(item, change, &entry, meta).await?;
                Verdict::Settled
            }
            Judgement::Compare(stored) => Verdict::Fetch(Some(Held { entry, stored })),
            Judgement::Fetch => Verdict::Fetch(None),
        })
    }

    /// Stores the item's new properties with the content it has.
    async fn keep(
        &mut self,
        item: &S::Item,
        change: [u8; 16],
        entry: &ItemEntry,
        meta: Bytes,
    ) -> Result<(), JobError> {
        let id = self.source.id(item).to_owned();
        let is_partial = self.failed.get(&id).is_some_and(|failed| failed.is_partial);
        let outcome = if is_partial { Outcome::Incomplete } else { Outcome::Stored };
        if !self.ledger.settle(&id_hash(&id), outcome, true) {
            return Ok(());
        }
        let content = entry.content.map_or(ContentSource::None, ContentSource::Existing);
        let fields = self.source.fields(item, change, entry.size);
        self.context.manifest.writer().put_item(key(&id), fields, meta, content).await?;
        self.forget_failure(&id);
        self.since_checkpoint += 1;
        Ok(())
    }

    /// Settles everything that is in flight.
    pub(super) async fn drain(&mut self) -> Result<(), JobError> {
        while self.in_flight.len() > 0 {
            self.settle_next().await?;
        }
        Ok(())
    }

    async fn settle_next(&mut self) -> Result<(), JobError> {
        match self.in_flight.next().await {
            Some(fetched) => self.settle(fetched).await,
            None => Ok(()),
        }
    }

    pub(super) async fn settle(&mut self, fetched: Fetched<S>) -> Result<(), JobError> {
        let Fetched { what: ToFetch { item, change, container }, result } = fetched;
        let id = self.source.id(&item).to_owned();
        self.fetching.remove(&id_hash(&id));
        match result {
            Ok(Found::Content(content)) => {
                self.ledger.bytes_read += content.size;
                let Content { meta, drafts, size, missing } = content;
                let fresh = Fresh {
                    fields: self.source.fields(&item, change, size),
                    meta,
                    content: ContentSource::of(drafts),
                    missing: missing.map(|code| (code, self.path_of(&item, container))),
                };
                self.store(&id, fresh).await
            }
            Ok(Found::Same { entry, meta }) => self.keep(&item, change, &entry, meta).await,
            Err(FetchError::Job(error)) => Err(error),
            Err(FetchError::Graph(error)) => {
                let path = self.path_of(&item, container);
                self.settle_failure(&id, &path, error).await
            }
        }
    }

    /// Puts a new version into the snapshot, unless the item was removed in the meantime.
    pub(super) async fn store(&mut self, id: &str, fresh: Fresh) -> Result<(), JobError> {
        let outcome = if fresh.missing.is_some() { Outcome::Incomplete } else { Outcome::Stored };
        if !self.ledger.settle(&id_hash(id), outcome, true) {
            return Ok(());
        }
        if self.context.manifest.entry(id).await?.is_none() {
            self.state.items += 1;
        }
        let Fresh { fields, meta, content, missing } = fresh;
        self.context.manifest.writer().put_item(key(id), fields, meta, content).await?;
        match missing {
            None => {
                self.failed.remove(id);
            }
            Some((code, path)) => {
                let attempts = self.attempts.get(id).copied().unwrap_or(0) + 1;
                self.failed.insert(id.to_owned(), ItemFailure::partial(id, &path, code, attempts));
            }
        }
        self.since_checkpoint += 1;
        Ok(())
    }

    /// An item could not be had: gone, or on the failed list; or the whole job cannot go on.
    pub(super) async fn settle_failure(
        &mut self,
        id: &str,
        path: &str,
        error: GraphError,
    ) -> Result<(), JobError> {
        if JobError::is_fatal_for_job(&error) {
            return Err(error.into());
        }
        self.settle_refusal(id, path, Refusal::of(&error)).await
    }

    /// The same for what Microsoft said to anybody.
    pub(super) async fn settle_refusal(
        &mut self,
        id: &str,
        path: &str,
        refusal: Refusal,
    ) -> Result<(), JobError> {
        let hash: IdHash = id_hash(id);
        let entry = self.context.manifest.entry(id).await?;
        let outcome = match refusal.kind {
            RefusalKind::Gone => Outcome::Gone,
            RefusalKind::Retryable | RefusalKind::Changed => Outcome::FailedRetryable,
            RefusalKind::Permanent => Outcome::FailedPermanent,
        };
        if outcome == Outcome::Gone {
            self.ledger.settle(&hash, Outcome::Gone, entry.is_some());
            self.forget_failure(id);
            if self.state.gone.len() < MAX_FAILED {
                self.state.gone.insert(id.to_owned());
            }
            return Ok(());
        }
        if !self.ledger.settle(&hash, outcome, entry.is_some()) {
            return Ok(());
        }
        let attempts = self.attempts.get(id).copied().unwrap_or(0) + 1;
        let mut failed = ItemFailure::refused(id, path, refusal, attempts);
        if let Some(entry) = entry {
            failed.stale = true;
            self.mark_stale(id, &entry).await?;
        }
        tracing::debug!(code = %failed.code, retryable = failed.retryable, attempts, "item failed");
        self.failed.insert(id.to_owned(), failed);
        Ok(())
    }

    /// The path of the place where an item is: its own, that of its parent among the containers, or where it was listed.
    pub(super) fn path_of(&self, item: &S::Item, container: u32) -> String {
        let parent = self.source.parent(item);
        self.source
            .path(item)
            .or_else(|| self.containers.iter().find(|one| one.key == parent).map(|one| one.path.clone()))
            .unwrap_or_else(|| self.path(container).to_owned())
    }

    /// The item is there after all; what its stored content lacks it still lacks.
    fn forget_failure(&mut self, id: &str) {
        if self.failed.get(id).is_some_and(|failed| !failed.is_partial) {
            self.failed.remove(id);
        }
    }

    async fn mark_stale(&mut self, id: &str, entry: &ItemEntry) -> Result<(), JobError> {
        if entry.flags.contains(EntryFlags::STALE) {
            return Ok(());
        }
        let mut fields = entry.fields();
        fields.flags = fields.flags.with(EntryFlags::STALE);
        self.context.manifest.writer().update_fields(&key(id), fields).await?;
        Ok(())
    }
}
