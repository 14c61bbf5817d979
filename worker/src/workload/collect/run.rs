//! One run: containers, then the failed list, then the changes of every container, then what is gone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    Container, ItemChange, ItemFailure, Source, State,
    checkpoint::{Checkpoint, OpenContainer},
    consider::Fetched,
    failed::MAX_FAILED,
    fetches::Fetches,
    ledger::{IdHash, Ledger},
    lister::{Lister, Listing, ToList},
    reconcile::Round,
    split::Split,
    state::ContainerState,
};
use crate::{
    JobError,
    backup::{BackupContext, Collected},
};

/// A run in progress.
pub struct Collector<S: Source> {
    pub(super) source: Arc<S>,
    pub(super) context: Arc<BackupContext>,
    pub(super) containers: Vec<Container>,
    /// The containers of the base with their links.
    pub(super) known: BTreeMap<String, ContainerState>,
    /// What the next run starts from.
    pub(super) state: State,
    pub(super) ledger: Ledger,
    pub(super) failed: BTreeMap<String, ItemFailure>,
    /// Ids reported removed, with the key of the container.
    pub(super) removed: HashMap<String, [u8; 16]>,
    /// What is asked for by its id before anything is listed, with the path of its place.
    pub(super) pending: BTreeMap<String, String>,
    /// What the base's run listed and did not find.
    pub(super) gone_before: BTreeSet<String>,
    pub(super) attempts: HashMap<String, u32>,
    pub(super) done: BTreeSet<String>,
    pub(super) open: BTreeMap<String, OpenContainer>,
    pub(super) in_flight: Fetches<Fetched<S>>,
    pub(super) fetching: HashSet<IdHash>,
    pub(super) split: Split<S>,
    pub(super) since_checkpoint: u64,
    pub(super) checkpointed_at: Duration,
}

impl<S: Source> Collector<S> {
    /// Starts from the base, or from where an earlier attempt got to.
    pub async fn open(source: S, context: Arc<BackupContext>) -> Result<Self, JobError> {
        let base = context.base.as_ref();
        let before = base.map(|header| State::read(&header.state)).unwrap_or_else(|| State::fresh(0));
        let to_retry: Vec<ItemFailure> =
            base.map(|header| serde_json::from_slice(&header.failed).unwrap_or_default()).unwrap_or_default();
        let attempts = to_retry.iter().filter(|failed| !failed.is_partial);
        let attempts = attempts.map(|failed| (failed.id.clone(), failed.attempts)).collect();
        let (kept, to_retry): (Vec<_>, Vec<_>) =
            to_retry.into_iter().partition(|failed| failed.is_partial || failed.is_parked());
        let known = before.containers.clone();
        let resumed = context.resume.as_deref().and_then(Checkpoint::read);
        let is_resumed = resumed.is_some();
        let (checkpoint, ledger) = resumed.unwrap_or_default();
        let mut state = if is_resumed { checkpoint.state.clone() } else { before };
        let containers = source.containers(&mut state).await?;
        let (pending, gone_before) = if is_resumed {
            (checkpoint.pending.clone(), checkpoint.gone_before.clone())
        } else {
            let to_retry = to_retry.into_iter().map(|failed| (failed.id, failed.path));
            (to_retry.collect(), std::mem::take(&mut state.gone))
        };
        for container in &containers {
            state.containers.entry(container.id.clone()).or_default();
        }
        let unmerged = checkpoint.unmerged().unwrap_or_default();
        let checkpointed_at = context.shared.clock.monotonic();
        Ok(Self {
            source: Arc::new(source),
            context,
            containers,
            known,
            state,
            ledger,
            removed: checkpoint.removed_keys(),
            failed: if is_resumed { checkpoint.failed } else { by_id(kept) },
            pending,
            gone_before,
            attempts,
            done: checkpoint.done,
            open: checkpoint.open,
            in_flight: Fetches::new(),
            fetching: HashSet::new(),
            split: Split::new(unmerged),
            since_checkpoint: 0,
            checkpointed_at,
        })
    }

    /// Runs to the end.
    pub async fn run(mut self) -> Result<Collected, JobError> {
        if let Err(error) = self.collect().await {
            return Err(self.leave(error).await);
        }
        if self.failed.len() > MAX_FAILED {
            tracing::error!(failed = self.failed.len(), "more items failed than a snapshot may list");
            return Err(JobError::TooManyFailed { failed: self.failed.len(), limit: MAX_FAILED });
        }
        let mut account = self.ledger.close(self.state.items)?;
        account.add(&self.split.cost());
        let failed = self.failed.into_values().collect();
        Ok(Collected { account, state: self.state.write(), failed, items: self.state.items })
    }

    async fn collect(&mut self) -> Result<(), JobError> {
        if self.context.base.is_none() {
            self.context.progress.expect_items(self.containers.iter().map(|one| one.n_items).sum());
        }
        self.note_vanished_containers().await?;
        self.adopt_shards().await?;
        self.ask_for_pending().await?;
        self.look_again().await?;
        let buffer_bytes = self.context.options.page_buffer_bytes;
        let mut lister = Lister::spawn(self.source.clone(), self.to_list(), buffer_bytes);
        while let Some(listing) = lister.next().await {
            self.take(listing).await?;
            self.report();
        }
        self.finish_split().await?;
        self.drain().await?;
        self.apply_removals().await?;
        S::correct(self).await
    }

    pub(super) fn container_key(&self, container: u32) -> [u8; 16] {
        self.containers.get(container as usize).map_or([0xff; 16], |container| container.key)
    }

    pub(super) fn path(&self, container: u32) -> &str {
        self.containers.get(container as usize).map_or("", |container| &container.path)
    }

    fn to_list(&self) -> Vec<ToList> {
        let to_list = |(index, container): (u32, &Container)| {
            let open = self.open.get(&container.id);
            let known = self.known.get(&container.id).map(|state| state.link.clone());
            let is_usable = |link: &String| !link.is_empty() && !self.source.is_spent(link);
            ToList {
                index,
                id: container.id.clone(),
                link: open.map(|open| open.next.clone()).or(known.filter(is_usable)),
                is_mid_initial: open.is_some_and(|open| open.is_full),
            }
        };
        let is_due = |(_, one): &(u32, &Container)| one.is_listable && !self.done.contains(&one.id);
        (0u32..).zip(&self.containers).filter(is_due).map(to_list).collect()
    }

    async fn take(&mut self, listing: Listing<S::Item>) -> Result<(), JobError> {
        match listing {
            Listing::Page { round, items, next, _share } => {
                for change in items {
                    match change {
                        ItemChange::Present(item) => self.consider(item, round).await?,
                        ItemChange::Removed { id } => self.note_removed(id, round.container).await?,
                    }
                }
                if let (Some(one), Some(next)) = (self.containers.get(round.container as usize), next) {
                    self.open.insert(one.id.clone(), OpenContainer { next, is_full: round.is_full });
                }
                self.merge_if_due().await?;
                self.checkpoint_if_due().await
            }
            Listing::Restarted { round } => {
                if let Some(container) = self.containers.get(round.container as usize) {
                    self.open.remove(&container.id);
                }
                Ok(())
            }
            Listing::Done { round, link } => self.container_done(round, Some(link)).await,
            Listing::Gone { round } => self.container_done(round, None).await,
            Listing::Failed { error } => Err(error.into()),
        }
    }

    async fn container_done(&mut self, round: Round, link: Option<String>) -> Result<(), JobError> {
        let Some(id) = self.containers.get(round.container as usize).map(|one| one.id.clone()) else {
            return Ok(());
        };
        if link.is_some() && round.is_full && (round.is_restart || self.known.contains_key(&id)) {
            self.reconcile(round).await?;
            self.forget_unreturned(round);
        }
        // Without a link the container is listed whole by the next run, or found to be gone.
        self.state.containers.insert(id.clone(), ContainerState { link: link.unwrap_or_default() });
        self.open.remove(&id);
        self.done.insert(id);
        Ok(())
    }

    pub(super) fn report(&self) {
        let mut account = self.ledger.account(self.state.items);
        account.requests = self.context.graph.requests();
        account.add(&self.split.cost_so_far());
        self.context.progress.set(account);
    }

    /// The workload.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The job's surroundings.
    pub fn context(&self) -> &Arc<BackupContext> {
        &self.context
    }

    /// The containers of this run.
    pub fn all_containers(&self) -> &[Container] {
        &self.containers
    }

    /// What the next run starts from.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// A stored item lacks nothing any more.
    pub fn note_whole(&mut self, id: &str) {
        if self.failed.get(id).is_some_and(|failed| failed.is_partial) {
            self.failed.remove(id);
        }
    }

    /// Something that is no item cannot be read: it is on the failed list until it is whole, and fails nothing.
    pub fn note_unreadable(&mut self, id: &str, path: &str, code: &str) {
        let failure = ItemFailure::partial(id, path, format!("NotReadable:{code}"), 1);
        self.failed.insert(id.to_owned(), failure);
    }

    /// Whether this run listed the item.
    pub fn is_listed(&self, id: &str) -> bool {
        self.ledger.get(&super::id_hash(id)).is_some()
    }
}

fn by_id(failed: Vec<ItemFailure>) -> BTreeMap<String, ItemFailure> {
    failed.into_iter().map(|failed| (failed.id.clone(), failed)).collect()
}
