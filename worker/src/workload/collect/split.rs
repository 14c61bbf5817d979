//! A backup that is split: items to fetch are gathered into shards, which any worker fetches, and their results are merged.
//!
//! What stands here is bookkeeping of the parent: the *open shard* that is being filled, the *unmerged* ones that others work
//! on, and which item is in which. The invariant: an item is in at most one shard, the one it was put into last; what any
//! other shard says of it is old, and does not count.
//!
//! Nobody waits for a free worker: a shard that is still queued when everything is listed is taken back, one after another,
//! and its items are fetched here. So a cluster whose every slot has a parent still ends. Nor is anybody waited for who cannot
//! be asked: a coordinator that stays away, or knows no shards, leaves everything to this run.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use holdfast_model::{Account, ChunkId, JobId, Random};
use holdfast_repository::TreeRoots;

use super::{
    Collector, Source,
    checkpoint::KeptShard,
    consider::ToFetch,
    ledger::{BEFORE_RESUME, IdHash, Listed, id_hash},
    reconcile::Round,
};
use crate::{
    CoordinatorError, JobError,
    backup::{ShardStanding, ShardState, WantedShard, key, seal_input},
};

/// Content of one shard: what one worker fetches in some minutes.
const SHARD_BYTES_MAX: u64 = 4 << 30;
/// Shards that are not merged yet. With so many waiting, all workers have enough to do, and this one fetches too.
const UNMERGED_MAX: usize = 64;
/// Shards that are merged and still wanted. More of them between two job checkpoints are let go, the oldest first: with
/// [`UNMERGED_MAX`] they stay below what the coordinator keeps of one job.
const MERGED_MAX: usize = 128;
/// How often the board is asked while listing.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Asked so often in a row without an answer, with [`crate::backup::BackupOptions::shard_wait`] between, a run that waits does
/// the shards itself.
const UNANSWERED_MAX: u32 = 30;

/// A shard that others work on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unmerged {
    pub id: JobId,
    pub input: TreeRoots,
}

/// What a split backup keeps account of.
pub(super) struct Split<S: Source> {
    /// The shard that is being filled, by item id, with the bytes of each.
    open: BTreeMap<String, (u64, ToFetch<S::Item>)>,
    open_bytes: u64,
    /// In the order in which they were made.
    unmerged: Vec<Unmerged>,
    /// Merged since the newest job checkpoint, which still names them: an attempt that starts there merges them again, so what
    /// they hand over must not be gone.
    merged: VecDeque<Unmerged>,
    /// Which shard an item is in.
    in_shard: HashMap<IdHash, JobId>,
    /// The board does not take shards: it is of an older version.
    is_alone: bool,
    /// Asked in a row without an answer.
    unanswered: u32,
    synced_at: Duration,
    /// What shards that are merged have cost.
    spent: Account,
    /// What the others have cost so far.
    under_way: Account,
}

impl<S: Source> Split<S> {
    /// With the shards that an earlier attempt left.
    pub fn new(unmerged: Vec<Unmerged>) -> Self {
        Self {
            open: BTreeMap::new(),
            open_bytes: 0,
            unmerged,
            merged: VecDeque::new(),
            in_shard: HashMap::new(),
            is_alone: false,
            unanswered: 0,
            synced_at: Duration::ZERO,
            spent: Account::default(),
            under_way: Account::default(),
        }
    }

    /// A newer version of the item was listed, or it has its outcome: what a shard says of it does not count any more.
    pub fn forget(&mut self, id: &str) {
        self.in_shard.remove(&id_hash(id));
        if let Some((bytes, _)) = self.open.remove(id) {
            self.open_bytes = self.open_bytes.saturating_sub(bytes);
        }
    }

    /// Whether the item is in a shard that others work on; not in one that was just taken back.
    pub fn is_in_shard(&self, id: &str) -> bool {
        let shard = self.in_shard.get(&id_hash(id));
        shard.is_some_and(|shard| self.unmerged.iter().any(|unmerged| unmerged.id == *shard))
    }

    fn is_in(&self, hash: &IdHash, shard: JobId) -> bool {
        self.in_shard.get(hash) == Some(&shard)
    }

    /// For a job checkpoint.
    pub fn kept(&self) -> Vec<KeptShard> {
        self.unmerged.iter().map(KeptShard::of).collect()
    }

    /// A job checkpoint was written. It names those that are not merged, and no attempt will ask for the others again.
    pub fn note_checkpoint(&mut self) {
        self.merged.clear();
    }

    fn note_merged(&mut self, shard: Unmerged) {
        if self.merged.len() >= MERGED_MAX {
            self.merged.pop_front();
        }
        self.merged.push_back(shard);
    }

    /// Requests and bytes of shards, for the account of the run: all of those that are merged.
    pub fn cost(&self) -> Account {
        self.spent
    }

    /// The same while it runs.
    pub fn cost_so_far(&self) -> Account {
        let mut cost = self.spent;
        cost.add(&self.under_way);
        cost
    }

    /// Whether items of the shard still wait for it.
    pub fn has_items_in(&self, shard: JobId) -> bool {
        self.in_shard.values().any(|id| *id == shard)
    }

    /// The shard is dealt with.
    pub fn forget_shard(&mut self, shard: JobId) {
        self.in_shard.retain(|_, id| *id != shard);
    }

    fn take(&mut self, shard: JobId) -> Option<Unmerged> {
        let index = self.unmerged.iter().position(|unmerged| unmerged.id == shard)?;
        Some(self.unmerged.remove(index))
    }

    /// The last of the unmerged that no worker has.
    fn last_queued(&self, states: &[ShardState]) -> Option<JobId> {
        let is_queued = |shard: &&Unmerged| {
            states.iter().any(|state| state.id == shard.id && state.standing == ShardStanding::Queued)
        };
        self.unmerged.iter().rfind(is_queued).map(|shard| shard.id)
    }

    /// Those that are done count when they are merged, which is next.
    fn note_progress(&mut self, states: &[ShardState]) {
        self.under_way = Account::default();
        for state in states {
            if !matches!(state.standing, ShardStanding::Done { .. }) {
                let Account { bytes_read, requests, .. } = state.progress;
                self.under_way.add(&cost(bytes_read, 0, requests));
            }
        }
    }
}

/// What a shard has cost, without what became of its items.
pub(super) fn cost(bytes_read: u64, bytes_stored: u64, requests: u64) -> Account {
    Account { bytes_read, bytes_stored, requests, ..Account::default() }
}

impl<S: Source> Collector<S> {
    /// Puts an item into the open shard. One that is not for shards comes back.
    pub(super) async fn gather(
        &mut self,
        what: ToFetch<S::Item>,
    ) -> Result<Option<ToFetch<S::Item>>, JobError> {
        let files = self.context.options.shard_files;
        let size = match self.source.shard_size(&what.item) {
            Some(size) if files > 0 && self.has_help() => size,
            _ => return Ok(Some(what)),
        };
        let id = self.source.id(&what.item).to_owned();
        self.split.open.insert(id, (size, what));
        self.split.open_bytes = self.split.open_bytes.saturating_add(size);
        if self.split.open.len() >= files || self.split.open_bytes >= SHARD_BYTES_MAX {
            self.close_shard().await?;
        }
        Ok(None)
    }

    fn has_help(&self) -> bool {
        self.context.shards.is_some() && !self.split.is_alone
    }

    /// The open shard is full: others get it.
    async fn close_shard(&mut self) -> Result<(), JobError> {
        if self.split.unmerged.len() >= UNMERGED_MAX {
            return self.fetch_open().await;
        }
        let items = self.take_open();
        let writer = self.context.manifest.side_writer(&self.context);
        for (id, what) in &items {
            let fields = self.source.fields(&what.item, what.change, 0);
            let meta = self.source.for_shard(&what.item);
            writer.put_item(key(id), fields, meta, holdfast_repository::ContentSource::None).await?;
        }
        let input = writer.merge().await?;
        let shard = Unmerged { id: JobId::random(self.context.shared.random.as_ref()), input };
        self.split.spent.bytes_stored += writer.stats().bytes_stored;
        self.split.unmerged.push(shard);
        self.split.in_shard.extend(items.keys().map(|id| (id_hash(id), shard.id)));
        // So that an attempt after this one finds them.
        self.since_checkpoint += items.len() as u64;
        tracing::info!(shard = %shard.id, items = items.len(), "a part of the backup is for any worker");
        self.merge_done().await
    }

    fn take_open(&mut self) -> BTreeMap<String, ToFetch<S::Item>> {
        self.split.open_bytes = 0;
        let items = std::mem::take(&mut self.split.open).into_iter().map(|(id, (_, what))| (id, what));
        // What was removed since has nothing to be fetched.
        items.filter(|(id, what)| self.ledger.lacks(&id_hash(id), &what.change)).collect()
    }

    /// Fetches what is in the open shard here.
    async fn fetch_open(&mut self) -> Result<(), JobError> {
        for (_, what) in self.take_open() {
            self.fetch(what, None).await?;
        }
        Ok(())
    }

    /// An earlier attempt's shards: their items are listed, and have no outcome yet. Those that its job checkpoint does not name
    /// are of no use, and end here.
    pub(super) async fn adopt_shards(&mut self) -> Result<(), JobError> {
        // The later shard has the newer version.
        for shard in self.split.unmerged.clone() {
            let mut items = self.context.manifest.items(shard.input);
            while let Some(item) = futures::StreamExt::next(&mut items).await {
                let (key, entry) = item?;
                let Ok(id) = String::from_utf8(key.0) else { continue };
                let hash = id_hash(&id);
                if self.ledger.get(&hash).is_some_and(|listed| listed.outcome.is_none()) {
                    self.ledger.list(&id, Listed::new(BEFORE_RESUME, 0, entry.change));
                    self.split.in_shard.insert(hash, shard.id);
                }
            }
        }
        if self.source.splits() { self.merge_done().await } else { Ok(()) }
    }

    /// A container was listed anew from the start: what that did not return is gone.
    pub(super) fn forget_unreturned(&mut self, round: Round) {
        let is_unreturned = |listed: &Listed| {
            listed.container == round.container && listed.round != round.number && listed.outcome.is_none()
        };
        let waiting = self.split.in_shard.keys().copied().chain(self.split.open.keys().map(|id| id_hash(id)));
        for hash in waiting.collect::<Vec<_>>() {
            if self.ledger.get(&hash).is_some_and(is_unreturned) {
                self.ledger.unlist(&hash);
            }
        }
    }

    /// Asks for news now and then.
    pub(super) async fn merge_if_due(&mut self) -> Result<(), JobError> {
        let elapsed = self.context.shared.clock.monotonic().saturating_sub(self.split.synced_at);
        if self.split.unmerged.is_empty() || elapsed < SYNC_EVERY {
            return Ok(());
        }
        self.merge_done().await
    }

    /// Asks for news, merges what is done, and takes back what was given up.
    async fn merge_done(&mut self) -> Result<(), JobError> {
        let states = self.sync().await?;
        self.take_all_news(states.unwrap_or_default()).await?;
        Ok(())
    }

    /// True when one of the shards is dealt with.
    async fn take_all_news(&mut self, states: Vec<ShardState>) -> Result<bool, JobError> {
        let mut is_news = false;
        for state in states {
            is_news |= self.take_news(state).await?;
        }
        Ok(is_news)
    }

    /// True when the shard is dealt with.
    async fn take_news(&mut self, state: ShardState) -> Result<bool, JobError> {
        let result = match state.standing {
            ShardStanding::Queued | ShardStanding::Running => return Ok(false),
            ShardStanding::Done { result } => Some(result),
            ShardStanding::Failed => None,
        };
        let Some(shard) = self.split.take(state.id) else { return Ok(false) };
        match result {
            Some(result) => {
                self.merge_shard(shard, &result).await?;
                self.split.note_merged(shard);
            }
            None => {
                tracing::warn!(shard = %shard.id, "a shard was given up, its items are fetched here");
                self.take_back(shard).await?;
            }
        }
        self.report();
        Ok(true)
    }

    /// Tells the board what is wanted. Without an answer there is no news: shards go on without it.
    async fn sync(&mut self) -> Result<Option<Vec<ShardState>>, JobError> {
        let Some(board) = self.context.shards.clone().filter(|_| self.has_help()) else { return Ok(None) };
        let wanted = self.wanted();
        let answer = board.sync(&wanted).await;
        self.split.synced_at = self.context.shared.clock.monotonic();
        match answer {
            Ok(states) => {
                self.split.unanswered = 0;
                self.split.note_progress(&states);
                return Ok(Some(states));
            }
            Err(JobError::Coordinator(error @ CoordinatorError::Unavailable { .. })) => {
                self.split.unanswered = self.split.unanswered.saturating_add(1);
                tracing::info!(%error, shards = wanted.len(), "no news of shards");
            }
            Err(JobError::Coordinator(error @ CoordinatorError::Refused { .. })) => {
                self.split.is_alone = true;
                tracing::warn!(%error, "no other worker can help with this backup");
            }
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    /// What is merged comes last: where an answer has no room for every result, it has for those that are waited for.
    fn wanted(&self) -> Vec<WantedShard> {
        let keys = self.context.manifest.keys();
        let random: &dyn Random = self.context.shared.random.as_ref();
        let wanted = self.split.unmerged.iter().chain(&self.split.merged);
        wanted.map(|one| WantedShard { id: one.id, input: seal_input(keys, random, &one.input) }).collect()
    }

    /// Everything is listed: waits for the shards, and does itself what nobody does.
    pub(super) async fn finish_split(&mut self) -> Result<(), JobError> {
        self.fetch_open().await?;
        while !self.split.unmerged.is_empty() {
            let states = self.sync().await?;
            let nobodys = self.nobodys(states.as_deref());
            let is_news = self.take_all_news(states.unwrap_or_default()).await?;
            self.checkpoint_if_due().await?;
            if is_news {
                continue;
            }
            match nobodys.and_then(|id| self.split.take(id)) {
                Some(shard) => {
                    // Told first, so that nobody begins with it.
                    self.sync().await?;
                    self.take_back(shard).await?;
                }
                None => {
                    self.drain().await?;
                    tokio::time::sleep(self.context.options.shard_wait).await;
                }
            }
            self.report();
        }
        Ok(())
    }

    /// The shard that this run takes back next, where there is one that nobody works on.
    fn nobodys(&self, states: Option<&[ShardState]>) -> Option<JobId> {
        match states {
            Some(states) => self.split.last_queued(states),
            None if self.has_help() && self.split.unanswered < UNANSWERED_MAX => None,
            None => self.split.unmerged.last().map(|shard| shard.id),
        }
    }

    /// Whether the item still waits for what this shard says of this version.
    pub(super) fn waits_for(&self, shard: &Unmerged, id: &str, change: &[u8; 16]) -> bool {
        let hash = id_hash(id);
        self.split.is_in(&hash, shard.id) && self.ledger.lacks(&hash, change)
    }

    /// Adds what a shard has cost.
    pub(super) fn charge(&mut self, spent: &Account) {
        self.split.spent.add(spent);
    }

    /// The storage ids that a job checkpoint reaches by its shards.
    pub(super) fn shard_root_ids(&self) -> Vec<ChunkId> {
        self.split.unmerged.iter().flat_map(|shard| self.context.manifest.root_ids(&shard.input)).collect()
    }
}
