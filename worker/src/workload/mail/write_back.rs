//! Writes selected messages back into a mailbox.
//!
//! Two invariants: before anything is created in a folder, what this restore created there before is known by its restore key;
//! and a create whose outcome is unknown is looked up by that key before it is repeated.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use futures::{FutureExt as _, StreamExt as _, stream};
use holdfast_graph_client::{CreatedMessage, ErrorClass, GraphError, MarkedMessage};
use holdfast_model::{Account, ConflictPolicy};
use holdfast_repository::ItemEntry;
use serde_json::Value;

use super::{
    content::missing_attachment,
    existing::Existing,
    meta::stored_message,
    restore_attachments::{Attachment, SESSION_FROM_BYTES},
    restore_folders::TargetFolders,
    restore_message::{CreateAs, RESTORE_KEY_PROPERTY, create_body, loses_reply_to, restore_key},
};
use crate::{
    JobError,
    restore::{RestoreContext, Restored},
    workload::{
        collect::ItemFailure,
        snapshot_folders::{Selection, SnapshotFolders},
    },
};

/// A message goes out in one request up to this: Microsoft takes "less than 4 MB", and the rest is for our own properties.
const REQUEST_BYTES: u64 = 3_900_000;
/// What one restore of a message may hold in memory.
const RESTORE_BYTES: u64 = 16 << 20;
/// How often a create of unknown outcome is repeated.
const CREATE_ATTEMPTS: u32 = 4;
/// How often a message with large attachments is built.
const BUILD_ATTEMPTS: u32 = 3;
/// Pages of one folder's listing.
const MAX_PAGES: u32 = 100_000;

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Created,
    /// By an earlier attempt.
    Before,
    /// The same message is there, and the operator said to leave it.
    Skipped,
}

/// A folder of the target and what is known to be in it.
struct Target {
    id: String,
    /// Messages of this restore, by restore key.
    ours: HashMap<String, String>,
    /// All messages; filled only when conflicts matter.
    existing: Existing,
}

/// A restore in progress.
pub(super) struct WriteBack<'a> {
    context: &'a RestoreContext,
    folders: SnapshotFolders,
    selection: Selection,
    targets: TargetFolders<'a>,
    restored: Restored,
    /// Microsoft refuses attachments on what is no draft.
    is_draft_only: AtomicBool,
}

/// The message to be written, with what is needed for it.
struct Job<'a> {
    id: String,
    key: String,
    path: &'a str,
    stored: Value,
    target: &'a Target,
}

impl<'a> WriteBack<'a> {
    pub(super) async fn open(context: &'a RestoreContext) -> Result<Self, JobError> {
        let folders = SnapshotFolders::read(&context.reader).await?;
        let selection = folders.select(&context.reader, &context.paths).await?;
        let targets =
            TargetFolders::open(&context.graph, &context.user, (&context.into, &context.restore_key)).await?;
        Ok(Self {
            context,
            folders,
            selection,
            targets,
            restored: Restored::default(),
            is_draft_only: AtomicBool::new(false),
        })
    }

    pub(super) async fn run(mut self) -> Result<Restored, JobError> {
        if let Some(staging) = self.targets.old_staging() {
            self.clear_staging(&staging).await?;
        }
        for folder in std::mem::take(&mut self.selection.folders) {
            if !self.folders.all()[folder].is_search_folder {
                self.folder(folder, None).await?;
            }
        }
        let items = std::mem::take(&mut self.selection.items);
        let mut by_folder: HashMap<usize, Vec<(String, ItemEntry)>> = HashMap::new();
        for id in items {
            if let Some(entry) = self.context.reader.item(&crate::backup::key(&id)).await? {
                let folder = self.folders.by_key(entry.parent.0).unwrap_or(0);
                by_folder.entry(folder).or_default().push((id, entry));
            }
        }
        for (folder, items) in by_folder {
            self.folder(folder, Some(items)).await?;
        }
        self.remove_staging().await;
        let account = &mut self.restored.account;
        account.requests = self.context.graph.requests();
        if !account.adds_up() {
            return Err(JobError::DoesNotAddUp { listed: account.listed, accounted: account.accounted() });
        }
        self.context.progress.set(*account);
        Ok(self.restored)
    }

    /// Restores one folder: all its messages, or only these.
    async fn folder(&mut self, index: usize, only: Option<Vec<(String, ItemEntry)>>) -> Result<(), JobError> {
        let id = self.targets.resolve(&self.folders, index).await?;
        let target = self.look_into(id).await?;
        let path = self.folders.all()[index].path.clone();
        let mut restored = std::mem::take(&mut self.restored);
        let this = &*self;
        let messages = match only {
            Some(items) => stream::iter(items.into_iter().map(Ok)).boxed(),
            None => this.folders.items(&this.context.reader, index),
        };
        let mut written = messages
            .map(|message| {
                let (target, path) = (&target, path.as_str());
                async move {
                    let (id, entry) = message?;
                    let written = this.message(&id, &entry, (target, path)).await;
                    Ok::<_, JobError>((id, entry.size, written))
                }
                .boxed()
            })
            .buffer_unordered(this.context.writes.max(1));
        while let Some(result) = written.next().await {
            let (id, size, result) = result?;
            count(&mut restored, (&id, &path, size), result)?;
            let requests = this.context.graph.requests();
            this.context.progress.set(Account { requests, ..restored.account });
        }
        drop(written);
        self.restored = restored;
        Ok(())
    }

    /// Reads what is in a target folder, once.
    async fn look_into(&self, id: String) -> Result<Target, JobError> {
        let (mut ours, mut existing) = (HashMap::new(), Existing::default());
        for message in self.marked_in(&id).await? {
            if let Some(key) = &message.value {
                ours.insert(key.clone(), message.id.clone());
            }
            if self.context.conflict != ConflictPolicy::Rename {
                let is_in_snapshot =
                    self.context.reader.item(&crate::backup::key(&message.id)).await?.is_some();
                existing.add(message, is_in_snapshot);
            }
        }
        Ok(Target { id, ours, existing })
    }

    /// All messages of a folder with their restore keys.
    async fn marked_in(&self, folder: &str) -> Result<Vec<MarkedMessage>, JobError> {
        let (mut marked, mut link) = (Vec::new(), None::<String>);
        for _ in 0..MAX_PAGES {
            let graph = &self.context.graph;
            let page = graph
                .find_by_property(&self.context.user, folder, RESTORE_KEY_PROPERTY, link.as_deref())
                .await?;
            marked.extend(page.items);
            link = page.next;
            if link.is_none() {
                break;
            }
        }
        Ok(marked)
    }

    async fn ours_in(&self, folder: &str) -> Result<HashMap<String, String>, JobError> {
        let marked = self.marked_in(folder).await?;
        Ok(marked.into_iter().filter_map(|marked| Some((marked.value?, marked.id))).collect())
    }

    /// What an attempt that was killed left half-built.
    async fn clear_staging(&self, staging: &str) -> Result<(), JobError> {
        for id in self.ours_in(staging).await?.into_values() {
            self.context.graph.delete_message(&self.context.user, &id).await?;
        }
        Ok(())
    }

    /// The staging folder is only there while something is restored.
    async fn remove_staging(&self) {
        let Some(staging) = self.targets.any_staging() else { return };
        if let Err(error) = self.context.graph.delete_folder(&self.context.user, &staging).await {
            tracing::warn!(code = error.code(), "the hidden staging folder stays in the mailbox");
        }
    }

    async fn message(
        &self,
        id: &str,
        entry: &ItemEntry,
        (target, path): (&Target, &str),
    ) -> Result<(Written, Vec<ItemFailure>), JobError> {
        let key = restore_key(&self.context.restore_key, id);
        if target.ours.contains_key(&key) {
            return Ok((Written::Before, Vec::new()));
        }
        let _share = self.context.shared.memory.reserve(RESTORE_BYTES).await;
        let meta = self.context.reader.meta(entry).await?;
        let stored: Value =
            serde_json::from_slice(&meta).map_err(|source| JobError::Stored { what: "meta", source })?;
        let same = target.existing.take(id, &stored);
        if same.is_some() && self.context.conflict == ConflictPolicy::Skip {
            return Ok((Written::Skipped, Vec::new()));
        }
        let holdfast = stored_message(&meta)?;
        let parts = self.context.reader.content(entry).await?;
        let attachments = holdfast
            .attachments
            .iter()
            .map(|one| Attachment::new(one, &parts))
            .collect::<Result<Vec<_>, _>>()?;
        let job = Job { id: id.to_owned(), key, path, stored, target };
        let exceptions = self.create(&job, &attachments).await?;
        if let (Some(old), ConflictPolicy::Replace) = (same, self.context.conflict) {
            self.context.graph.delete_message(&self.context.user, &old).await?;
        }
        Ok((Written::Created, exceptions))
    }

    async fn create(
        &self,
        job: &Job<'_>,
        attachments: &[Attachment<'_>],
    ) -> Result<Vec<ItemFailure>, JobError> {
        let ours = |code: &str| ItemFailure::ours(&job.id, job.path, code, false);
        let mut exceptions: Vec<ItemFailure> = attachments
            .iter()
            .filter_map(|one| one.missing())
            .map(|code| ours(&missing_attachment(code)))
            .collect();
        if loses_reply_to(&job.stored) {
            exceptions.push(ours("ReplyToNotRestored"));
        }
        let body_len = job.stored.to_string().len() as u64;
        let total: u64 = attachments.iter().map(Attachment::request_len).sum();
        let fits =
            body_len + total <= REQUEST_BYTES && attachments.iter().all(|one| one.len() < SESSION_FROM_BYTES);
        if fits {
            let mut body = create_body(&job.stored, &job.key, CreateAs::Original);
            let mut all = Vec::with_capacity(attachments.len());
            for attachment in attachments.iter().filter(|one| one.missing().is_none()) {
                let (value, loss) = attachment.to_json(self.context).await?;
                all.extend(value);
                exceptions.extend(loss.map(ours));
            }
            if !all.is_empty() {
                body["attachments"] = all.into();
            }
            self.create_once(&job.target.id, &body, &job.key).await?;
            return Ok(exceptions);
        }
        let is_draft = job.stored.get("isDraft").and_then(Value::as_bool).unwrap_or_default();
        let mut create_as =
            if self.is_draft_only.load(Ordering::Relaxed) { CreateAs::Draft } else { CreateAs::Original };
        let mut builds = 1;
        loop {
            match self.build(job, attachments, create_as).await {
                Ok(losses) => {
                    exceptions.extend(losses.into_iter().map(ours));
                    break;
                }
                Err(JobError::Graph(error))
                    if error.status() == Some(403) && create_as == CreateAs::Original && !is_draft =>
                {
                    tracing::warn!(
                        code = error.code(),
                        "attachments are refused on what is no draft; restoring as drafts"
                    );
                    self.is_draft_only.store(true, Ordering::Relaxed);
                    create_as = CreateAs::Draft;
                }
                // The half-built message is gone: from the start once more.
                Err(JobError::Graph(error))
                    if matches!(error.class(), ErrorClass::Reread | ErrorClass::Retry)
                        && builds < BUILD_ATTEMPTS =>
                {
                    tracing::debug!(code = error.code(), builds, "message is built again");
                    builds += 1;
                }
                Err(error) => return Err(error),
            }
        }
        if create_as == CreateAs::Draft && !is_draft {
            exceptions.push(ours("RestoredAsDraft"));
        }
        Ok(exceptions)
    }

    /// Builds a message in the staging folder and moves it when it is complete.
    async fn build(
        &self,
        job: &Job<'_>,
        attachments: &[Attachment<'_>],
        create_as: CreateAs,
    ) -> Result<Vec<&'static str>, JobError> {
        let body = create_body(&job.stored, &job.key, create_as);
        let created = self.create_once(self.targets.staging().await?, &body, &job.key).await?;
        match self.attach(&created.id, attachments).await {
            Ok(losses) => {
                self.context.graph.move_message(&self.context.user, &created.id, &job.target.id).await?;
                Ok(losses)
            }
            Err(error) => {
                // Half-built messages never stay; if this fails as well, the next attempt clears the staging folder.
                if let Err(left) = self.context.graph.delete_message(&self.context.user, &created.id).await {
                    tracing::warn!(
                        code = left.code(),
                        "half-built message stays in the staging folder for now"
                    );
                }
                Err(error)
            }
        }
    }

    /// Adds the attachments; tells what of them is lost.
    async fn attach(
        &self,
        message: &str,
        attachments: &[Attachment<'_>],
    ) -> Result<Vec<&'static str>, JobError> {
        let mut losses = Vec::new();
        for attachment in attachments.iter().filter(|one| one.missing().is_none()) {
            if attachment.is_file() && attachment.len() >= SESSION_FROM_BYTES {
                attachment.upload(self.context, message).await?;
                continue;
            }
            let (value, loss) = attachment.to_json(self.context).await?;
            losses.extend(loss);
            if let Some(value) = value {
                self.context.graph.add_attachment(&self.context.user, message, &value).await?;
            }
        }
        Ok(losses)
    }

    /// Creates a message exactly once: an unknown outcome is looked up before it is repeated.
    async fn create_once(&self, folder: &str, body: &Value, key: &str) -> Result<CreatedMessage, JobError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.context.graph.create_message(&self.context.user, folder, body).await {
                Ok(created) => return Ok(created),
                Err(error @ GraphError::Ambiguous { .. }) => {
                    if let Some(id) = self.ours_in(folder).await?.remove(key) {
                        return Ok(CreatedMessage { id, is_draft: false });
                    }
                    if attempt >= CREATE_ATTEMPTS {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Adds one message to the account.
fn count(
    restored: &mut Restored,
    (id, path, size): (&str, &str, u64),
    result: Result<(Written, Vec<ItemFailure>), JobError>,
) -> Result<(), JobError> {
    let account = &mut restored.account;
    account.listed += 1;
    match result {
        Ok((written, exceptions)) => {
            match written {
                Written::Created => {
                    account.stored += 1;
                    account.incomplete += u64::from(!exceptions.is_empty());
                    account.bytes_read += size;
                }
                Written::Before => account.unchanged += 1,
                Written::Skipped => account.skipped += 1,
            }
            restored.failed.extend(exceptions);
        }
        Err(JobError::Graph(error))
            if !JobError::is_fatal_for_job(&error) && error.class() != ErrorClass::Retry =>
        {
            let failed = ItemFailure::of(id, path, &error, 1);
            if failed.retryable {
                account.failed_retryable += 1
            } else {
                account.failed_permanent += 1
            }
            restored.failed.push(failed);
        }
        // No copy of it is left. That must not keep the others from coming back.
        Err(JobError::Repository(error)) if !error.is_retryable() => {
            tracing::warn!(%error, "item cannot be read");
            account.failed_permanent += 1;
            restored.failed.push(ItemFailure::ours(id, path, "unreadable", false));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
