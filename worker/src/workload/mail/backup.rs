//! One run over a mailbox: folders, then the failed list, then the changes of every folder, then what is gone.
//!
//! Listing runs ahead ([`super::lister`]); contents are fetched by a bounded pool. Two invariants: an item that is being
//! fetched is settled before anything newer of it is looked at; and at a job checkpoint nothing is in flight.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use holdfast_graph_client::{ErrorClass, GraphError, MailMessage, MessageChange};
use holdfast_repository::{ContentSource, EntryFlags, EntryKind, FolderKey, ItemEntry, ItemFields};

use super::{
    attachments,
    checkpoint::{MailCheckpoint, OpenFolder},
    content::{self, FetchError, FetchedContent},
    failed::{FailedMessage, MAX_FAILED},
    fetches::Fetches,
    folder_key,
    folders::{self, Folder},
    ledger::{IdHash, Ledger, Listed, Outcome, id_hash},
    lister::{FolderToList, Lister, Listing},
    meta::{StoredMessage, change_of, marks, stored_message, with_holdfast},
    reconcile::Round,
    state::{FolderState, MailState},
};
use crate::{
    JobError,
    backup::{BackupContext, Collected, key},
};

/// A content that was fetched, or not.
pub(super) struct Fetched {
    message: Box<MailMessage>,
    change: [u8; 16],
    folder: u32,
    pub(super) result: Result<Found, FetchError>,
}

/// What came of asking Microsoft for a message's content.
pub(super) enum Found {
    /// A new one.
    Content(FetchedContent),
    /// The stored one is still the right one.
    Same(StoredContent),
}

/// The content of an older version.
pub(super) struct StoredContent {
    entry: ItemEntry,
    message: StoredMessage,
}

/// What has to be done for the content of a listed message.
enum Verdict {
    /// Nothing: it has its outcome.
    Settled,
    /// Its attachments have to be compared; if they are the same, this one stays.
    Compare(StoredContent),
    /// It has to be fetched.
    Fetch,
}

/// A run in progress.
pub(super) struct MailBackup<'a> {
    pub(super) context: &'a Arc<BackupContext>,
    pub(super) folders: Vec<Folder>,
    /// The folders of the base with their links.
    pub(super) known: BTreeMap<String, FolderState>,
    /// What the next run starts from.
    pub(super) state: MailState,
    pub(super) ledger: Ledger,
    pub(super) failed: BTreeMap<String, FailedMessage>,
    /// Ids reported removed, with the key of the folder.
    pub(super) removed: HashMap<String, [u8; 16]>,
    /// What is asked for by its id before anything is listed, with the folder's path.
    pub(super) pending: BTreeMap<String, String>,
    /// What the base's run listed and did not find.
    pub(super) gone_before: BTreeSet<String>,
    attempts: HashMap<String, u32>,
    pub(super) done: BTreeSet<String>,
    pub(super) open: BTreeMap<String, OpenFolder>,
    pub(super) in_flight: Fetches<Fetched>,
    fetching: HashSet<IdHash>,
    pub(super) since_checkpoint: u64,
    pub(super) checkpointed_at: Duration,
}

impl<'a> MailBackup<'a> {
    /// Starts from the base, or from where an earlier attempt got to.
    pub(super) async fn open(context: &'a Arc<BackupContext>) -> Result<Self, JobError> {
        let base = context.base.as_ref();
        let before = base.map(|header| MailState::read(&header.state)).unwrap_or_else(|| MailState::fresh(0));
        let to_retry: Vec<FailedMessage> =
            base.map(|header| serde_json::from_slice(&header.failed).unwrap_or_default()).unwrap_or_default();
        let (partial, to_retry): (Vec<_>, Vec<_>) =
            to_retry.into_iter().partition(|failed| failed.is_partial);
        let attempts = to_retry.iter().map(|failed| (failed.id.clone(), failed.attempts)).collect();
        let known = before.folders.clone();
        let resumed = context.resume.as_deref().and_then(MailCheckpoint::read);
        let is_resumed = resumed.is_some();
        let (checkpoint, ledger) = resumed.unwrap_or_default();
        let mut state = if is_resumed { checkpoint.state.clone() } else { before };
        let folders = folders::sync(context, &state.names).await?;
        state.names = folders::names(&folders);
        let (pending, gone_before) = if is_resumed {
            (checkpoint.pending.clone(), checkpoint.gone_before.clone())
        } else {
            let to_retry = to_retry.into_iter().map(|failed| (failed.id, failed.path));
            (to_retry.collect(), std::mem::take(&mut state.gone))
        };
        for folder in &folders {
            state.folders.entry(folder.id.clone()).or_default();
        }
        Ok(Self {
            context,
            folders,
            known,
            state,
            ledger,
            removed: checkpoint.removed_keys(),
            failed: if is_resumed { checkpoint.failed } else { by_id(partial) },
            pending,
            gone_before,
            attempts,
            done: checkpoint.done,
            open: checkpoint.open,
            in_flight: Fetches::new(),
            fetching: HashSet::new(),
            since_checkpoint: 0,
            checkpointed_at: context.shared.clock.monotonic(),
        })
    }

    /// Runs to the end.
    pub(super) async fn run(mut self) -> Result<Collected, JobError> {
        if let Err(error) = self.collect().await {
            return Err(self.leave(error).await);
        }
        if self.failed.len() > MAX_FAILED {
            tracing::error!(failed = self.failed.len(), "more items failed than a snapshot may list");
            return Err(JobError::TooManyFailed { failed: self.failed.len(), limit: MAX_FAILED });
        }
        let account = self.ledger.close(self.state.items)?;
        let failed = self.failed.into_values().collect();
        Ok(Collected { account, state: self.state.write(), failed, items: self.state.items })
    }

    async fn collect(&mut self) -> Result<(), JobError> {
        if self.context.base.is_none() {
            self.context.progress.expect_items(self.folders.iter().map(|folder| folder.total_items).sum());
        }
        self.note_vanished_folders().await?;
        self.ask_for_pending().await?;
        self.look_again().await?;
        let buffer = self.context.options.page_buffer_bytes;
        let mut lister = Lister::spawn(
            self.context.graph.clone(),
            self.context.user.clone(),
            self.folders_to_list(),
            buffer,
        );
        while let Some(listing) = lister.next().await {
            self.take(listing).await?;
            self.report();
        }
        self.drain().await?;
        self.apply_removals().await?;
        let every = self.context.options.flags_every;
        self.state.since_flags += 1;
        if every > 0 && self.context.base.is_some() && self.state.since_flags >= every {
            self.correct_flags().await?;
            self.state.since_flags = 0;
        }
        Ok(())
    }

    pub(super) fn folder_key(&self, folder: u32) -> [u8; 16] {
        self.folders.get(folder as usize).map_or([0xff; 16], |folder| folder.key)
    }

    pub(super) fn path(&self, folder: u32) -> &str {
        self.folders.get(folder as usize).map_or("", |folder| &folder.path)
    }

    fn folders_to_list(&self) -> Vec<FolderToList> {
        let to_list = |(index, folder): (u32, &Folder)| {
            let open = self.open.get(&folder.id);
            let known =
                self.known.get(&folder.id).map(|state| state.link.clone()).filter(|link| !link.is_empty());
            FolderToList {
                index,
                id: folder.id.clone(),
                link: open.map(|open| open.next.clone()).or(known),
                is_mid_initial: open.is_some_and(|open| open.is_full),
            }
        };
        let is_due = |(_, folder): &(u32, &Folder)| folder.is_listable() && !self.done.contains(&folder.id);
        (0u32..).zip(&self.folders).filter(is_due).map(to_list).collect()
    }

    async fn take(&mut self, listing: Listing) -> Result<(), JobError> {
        match listing {
            Listing::Page { round, items, next, _share } => {
                for change in items {
                    match change {
                        MessageChange::Present(message) => self.consider(message, round).await?,
                        MessageChange::Removed { id, .. } => self.note_removed(id, round.folder).await?,
                    }
                }
                if let (Some(folder), Some(next)) = (self.folders.get(round.folder as usize), next) {
                    self.open.insert(folder.id.clone(), OpenFolder { next, is_full: round.is_full });
                }
                self.checkpoint_if_due().await
            }
            Listing::Restarted { round } => {
                if let Some(folder) = self.folders.get(round.folder as usize) {
                    self.open.remove(&folder.id);
                }
                Ok(())
            }
            Listing::Done { round, link } => self.folder_done(round, Some(link)).await,
            Listing::Gone { round } => self.folder_done(round, None).await,
            Listing::Failed { error } => Err(error.into()),
        }
    }

    async fn folder_done(&mut self, round: Round, link: Option<String>) -> Result<(), JobError> {
        let Some(folder) = self.folders.get(round.folder as usize).map(|folder| folder.id.clone()) else {
            return Ok(());
        };
        if link.is_some() && round.is_full && (round.is_restart || self.known.contains_key(&folder)) {
            self.reconcile(round).await?;
        }
        // Without a link the folder is listed whole by the next run, or found to be gone.
        self.state.folders.insert(folder.clone(), FolderState { link: link.unwrap_or_default() });
        self.open.remove(&folder);
        self.done.insert(folder);
        Ok(())
    }

    /// A message is there: decides what has to be done for it.
    pub(super) async fn consider(&mut self, message: Box<MailMessage>, round: Round) -> Result<(), JobError> {
        let message = if message.is_partial {
            match self.context.graph.message(&self.context.user, &message.id).await {
                Ok(message) => Box::new(message),
                Err(error) => {
                    self.ledger.list(&message.id, Listed::new(round.folder, round.number, [0; 16]));
                    let path = self.path(round.folder).to_owned();
                    return self.settle_failure(&message.id, &path, error).await;
                }
            }
        } else {
            message
        };
        let hash = id_hash(&message.id);
        let (change, fingerprint) = change_of(&message)?;
        if self.removed.get(&message.id).is_some_and(|folder| *folder == self.folder_key(round.folder)) {
            self.removed.remove(&message.id);
        }
        if self.is_replay(&message, hash, change, round).await? {
            return Ok(());
        }
        let before = self.ledger.get(&hash).and_then(|listed| listed.outcome);
        self.ledger.list(&message.id, Listed::new(round.folder, round.number, change));
        let verdict = match self.context.manifest.entry(&message.id).await? {
            Some(entry)
                if entry.kind == EntryKind::MailMessage && !entry.flags.contains(EntryFlags::STALE) =>
            {
                self.judge(&message, entry, change, before).await?
            }
            _ => Verdict::Fetch,
        };
        let stored = match verdict {
            Verdict::Settled => return Ok(()),
            Verdict::Compare(stored) => Some(stored),
            Verdict::Fetch => None,
        };
        while self.in_flight.len() >= self.context.options.fetches {
            self.settle_next().await?;
        }
        let (context, folder) = (Arc::clone(self.context), round.folder);
        self.fetching.insert(hash);
        self.in_flight.start(async move {
            let result = find(&context, &message, fingerprint, stored).await;
            Fetched { message, change, folder, result }
        });
        Ok(())
    }

    /// Whether this very version was dealt with in this run. An older one that is still being fetched is settled first, and
    /// made readable.
    async fn is_replay(
        &mut self,
        message: &MailMessage,
        hash: IdHash,
        change: [u8; 16],
        round: Round,
    ) -> Result<bool, JobError> {
        let Some(before) = self.ledger.get(&hash).copied() else { return Ok(false) };
        if before.change == change && before.folder == round.folder {
            self.ledger.list(&message.id, Listed { round: round.number, ..before });
            return Ok(true);
        }
        if self.fetching.contains(&hash) {
            self.drain().await?;
        }
        if self.context.manifest.entry(&message.id).await?.is_some() {
            self.context.manifest.merge().await?;
        }
        Ok(false)
    }

    /// Whether the stored content is still the right one. `before` is the outcome that the message has in this run already.
    async fn judge(
        &mut self,
        message: &MailMessage,
        entry: ItemEntry,
        change: [u8; 16],
        before: Option<Outcome>,
    ) -> Result<Verdict, JobError> {
        let is_moved = entry.parent.0 != folder_key(&message.parent_folder_id);
        if entry.change == change && !is_moved {
            // A page that is listed again after a resume shows what this run stored itself.
            let outcome = before.filter(|outcome| outcome.is_stored()).unwrap_or(Outcome::Unchanged);
            self.ledger.settle(&id_hash(&message.id), outcome, true);
            self.forget_failure(&message.id);
            return Ok(Verdict::Settled);
        }
        if entry.change[8..] != change[8..] {
            return Ok(Verdict::Fetch);
        }
        let old = self.context.manifest.meta(&entry).await?;
        let old_marks = std::str::from_utf8(&old).ok().and_then(|text| marks(text).ok());
        if !is_moved && old_marks == Some(marks(raw_text(message)?)?) {
            // Something changed that is not among the properties: an attachment, perhaps.
            return Ok(Verdict::Fetch);
        }
        let stored = StoredContent { entry, message: stored_message(&old)? };
        if attachments::may_differ(message, &stored.message) {
            return Ok(Verdict::Compare(stored));
        }
        self.keep(message, change, stored).await?;
        Ok(Verdict::Settled)
    }

    /// Stores the message's new properties with the content it has.
    async fn keep(
        &mut self,
        message: &MailMessage,
        change: [u8; 16],
        stored: StoredContent,
    ) -> Result<(), JobError> {
        let is_partial = self.failed.get(&message.id).is_some_and(|failed| failed.is_partial);
        let outcome = if is_partial { Outcome::Incomplete } else { Outcome::Stored };
        if !self.ledger.settle(&id_hash(&message.id), outcome, true) {
            return Ok(());
        }
        let meta = with_holdfast(raw_text(message)?, &stored.message)?;
        let content = stored.entry.content.map_or(ContentSource::None, ContentSource::Existing);
        let fields = fields(message, change, stored.entry.size);
        self.context.manifest.writer().put_item(key(&message.id), fields, meta, content).await?;
        self.forget_failure(&message.id);
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

    pub(super) async fn settle(&mut self, fetched: Fetched) -> Result<(), JobError> {
        let Fetched { message, change, folder, result } = fetched;
        self.fetching.remove(&id_hash(&message.id));
        match result {
            Ok(Found::Content(content)) => self.store(&message, change, content).await,
            Ok(Found::Same(stored)) => self.keep(&message, change, stored).await,
            Err(FetchError::Job(error)) => Err(error),
            Err(FetchError::Graph(error)) => {
                let path = self.path(folder).to_owned();
                self.settle_failure(&message.id, &path, error).await
            }
        }
    }

    async fn store(
        &mut self,
        message: &MailMessage,
        change: [u8; 16],
        content: FetchedContent,
    ) -> Result<(), JobError> {
        self.ledger.bytes_read += content.size;
        let outcome = if content.missing.is_some() { Outcome::Incomplete } else { Outcome::Stored };
        if !self.ledger.settle(&id_hash(&message.id), outcome, true) {
            return Ok(());
        }
        let meta = with_holdfast(raw_text(message)?, &content.stored)?;
        if self.context.manifest.entry(&message.id).await?.is_none() {
            self.state.items += 1;
        }
        let fields = fields(message, change, content.size);
        let drafts = ContentSource::New(content.drafts);
        self.context.manifest.writer().put_item(key(&message.id), fields, meta, drafts).await?;
        self.note_missing(message, content.missing);
        self.since_checkpoint += 1;
        Ok(())
    }

    /// A message could not be had: gone, or on the failed list; or the whole job cannot go on.
    pub(super) async fn settle_failure(
        &mut self,
        id: &str,
        path: &str,
        error: GraphError,
    ) -> Result<(), JobError> {
        if JobError::is_fatal_for_job(&error) {
            return Err(error.into());
        }
        let hash = id_hash(id);
        let entry = self.context.manifest.entry(id).await?;
        if error.class() == ErrorClass::Gone {
            self.ledger.settle(&hash, Outcome::Gone, entry.is_some());
            self.forget_failure(id);
            if self.state.gone.len() < MAX_FAILED {
                self.state.gone.insert(id.to_owned());
            }
            return Ok(());
        }
        let outcome = if error.is_retryable() { Outcome::FailedRetryable } else { Outcome::FailedPermanent };
        if !self.ledger.settle(&hash, outcome, entry.is_some()) {
            return Ok(());
        }
        let attempts = self.attempts.get(id).copied().unwrap_or(0) + 1;
        let mut failed = FailedMessage::of(id, path, &error, attempts);
        if let Some(entry) = entry {
            failed.stale = true;
            self.mark_stale(id, &entry).await?;
        }
        tracing::debug!(code = %failed.code, retryable = failed.retryable, attempts, "item failed");
        self.failed.insert(id.to_owned(), failed);
        Ok(())
    }

    /// What is stored is whole, or a line on the failed list says what is missing.
    fn note_missing(&mut self, message: &MailMessage, missing: Option<String>) {
        let Some(code) = missing else {
            self.failed.remove(&message.id);
            return;
        };
        let folder = folder_key(&message.parent_folder_id);
        let path = self.folders.iter().find(|known| known.key == folder).map_or("", |known| &known.path);
        let attempts = self.attempts.get(&message.id).copied().unwrap_or(0) + 1;
        let failed = FailedMessage::partial(&message.id, path, code, attempts);
        self.failed.insert(message.id.clone(), failed);
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

    pub(super) fn report(&self) {
        let account = self.ledger.account(self.state.items);
        self.context
            .progress
            .set(holdfast_model::Account { requests: self.context.graph.requests(), ..account });
    }
}

fn by_id(failed: Vec<FailedMessage>) -> BTreeMap<String, FailedMessage> {
    failed.into_iter().map(|failed| (failed.id.clone(), failed)).collect()
}

/// The stored content, where its attachments are still the same, or a new one.
async fn find(
    context: &BackupContext,
    message: &MailMessage,
    fingerprint: blake3::Hash,
    stored: Option<StoredContent>,
) -> Result<Found, FetchError> {
    if let Some(stored) = stored
        && attachments::are_same(context, message, &stored.message).await?
    {
        return Ok(Found::Same(stored));
    }
    content::fetch(context, message, fingerprint).await.map(Found::Content)
}

fn raw_text(message: &MailMessage) -> Result<&str, JobError> {
    // JSON that was parsed is UTF-8.
    Ok(std::str::from_utf8(&message.raw).unwrap_or("{}"))
}

fn fields(message: &MailMessage, change: [u8; 16], size: u64) -> ItemFields {
    let marks = [
        (message.has_attachments, EntryFlags::HAS_ATTACHMENTS),
        (message.is_read, EntryFlags::IS_READ),
        (message.is_draft, EntryFlags::IS_DRAFT),
    ];
    let set = marks.into_iter().filter(|(is_set, _)| *is_set);
    let flags = set.fold(EntryFlags::default(), |flags, (_, flag)| flags.with(flag));
    ItemFields {
        kind: EntryKind::MailMessage,
        flags,
        change,
        size,
        parent: FolderKey(folder_key(&message.parent_folder_id)),
        sort: message.received_ms.or(message.sent_ms).unwrap_or(0),
    }
}
