//! What the engine asks of mail: folders, delta pages, and whether a stored message still holds.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use holdfast_graph_client::{ErrorClass, GraphError, MailMessage, MessageChange, StatusError};
use holdfast_repository::{EntryFlags, EntryKind, FolderKey, ItemEntry, ItemFields};

use super::{
    apart, attachments, content, flags, folders,
    meta::{StoredMessage, change_of, marks, raw_text, stored_message},
    settings::{self, Unreadable, is_refusal},
};
use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        collect::{
            Collector, Container, FetchError, Found, Held, ItemChange, ItemPage, Judgement, Source, State,
        },
        container_key,
        stored::with_holdfast,
    },
};

/// The messages of one mailbox.
pub(super) struct MailSource {
    pub(super) context: Arc<BackupContext>,
    /// The folder of what can be recovered.
    recoverable: OnceLock<String>,
    /// What Microsoft does not show of the mailbox.
    unreadable: Mutex<Vec<Unreadable>>,
}

impl MailSource {
    pub(super) fn new(context: Arc<BackupContext>) -> Self {
        Self { context, recoverable: OnceLock::new(), unreadable: Mutex::default() }
    }

    /// Whether an error says only that what can be recovered is not shown to this app: then the folder is left alone.
    pub(super) fn is_left_alone(&self, folder: &str, error: &GraphError) -> bool {
        self.recoverable.get().is_some_and(|id| id == folder) && is_refusal(error)
    }

    fn unreadable(&self) -> MutexGuard<'_, Vec<Unreadable>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A refusal as the end of the folder's listing: nothing of it counts as removed.
    fn end_of_listing(&self, folder: &str, error: GraphError) -> GraphError {
        match error {
            GraphError::Status(status) if status.class != ErrorClass::Gone => {
                let error = GraphError::Status(status);
                if !self.is_left_alone(folder, &error) {
                    return error;
                }
                self.unreadable().push(apart::not_recoverable(error.code()));
                let GraphError::Status(status) = error else { return error };
                GraphError::Status(Box::new(StatusError { class: ErrorClass::Gone, ..*status }))
            }
            error => error,
        }
    }
}

/// Says once what cannot be read, and takes back what was said of what can.
fn tell_unreadable(run: &mut Collector<MailSource>) {
    let unreadable = run.source().unreadable().clone();
    for id in settings::READ_AT_ONCE.into_iter().chain(apart::READ_AT_ONCE) {
        match unreadable.iter().find(|one| one.id == id) {
            Some(one) => run.note_unreadable(id, &one.path, &one.code),
            None => run.note_whole(id),
        }
    }
}

#[async_trait]
impl Source for MailSource {
    type Item = MailMessage;
    type Stored = StoredMessage;

    async fn containers(&self, state: &mut State) -> Result<Vec<Container>, JobError> {
        let tree = folders::sync(&self.context, state).await?;
        if let Some(id) = tree.recoverable {
            self.recoverable.get_or_init(|| id);
        }
        *self.unreadable() = tree.unreadable;
        Ok(tree.containers)
    }

    async fn page(
        &self,
        folder: &str,
        link: Option<&str>,
        is_plain: bool,
    ) -> Result<ItemPage<MailMessage>, GraphError> {
        let (graph, user) = (&self.context.graph, &self.context.user);
        let page = match is_plain {
            true => graph.messages_listed(user, folder, link).await,
            false => graph.messages_delta(user, folder, link).await,
        };
        let page = page.map_err(|error| self.end_of_listing(folder, error))?;
        let change = |change| match change {
            MessageChange::Present(message) => ItemChange::Present(message),
            MessageChange::Removed { id, .. } => ItemChange::Removed { id },
        };
        let items = page.items.into_iter().map(change).collect();
        Ok(ItemPage { items, next: page.next, delta: page.delta })
    }

    async fn item(&self, id: &str) -> Result<MailMessage, GraphError> {
        self.context.graph.message(&self.context.user, id).await
    }

    fn id<'a>(&self, message: &'a MailMessage) -> &'a str {
        &message.id
    }

    fn parent(&self, message: &MailMessage) -> [u8; 16] {
        container_key(&message.parent_folder_id)
    }

    fn is_partial(&self, message: &MailMessage) -> bool {
        message.is_partial
    }

    fn weight(&self, message: &MailMessage) -> u64 {
        message.raw.len() as u64
    }

    fn change(&self, message: &MailMessage) -> Result<[u8; 16], JobError> {
        Ok(change_of(message)?.0)
    }

    fn fields(&self, message: &MailMessage, change: [u8; 16], size: u64) -> ItemFields {
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
            parent: FolderKey(self.parent(message)),
            sort: message.received_ms.or(message.sent_ms).unwrap_or(0),
        }
    }

    async fn judge(
        &self,
        message: &MailMessage,
        entry: &ItemEntry,
        change: [u8; 16],
        is_moved: bool,
    ) -> Result<Judgement<StoredMessage>, JobError> {
        if entry.change[8..] != change[8..] {
            return Ok(Judgement::Fetch);
        }
        let old = self.context.manifest.meta(entry).await?;
        let old_marks = std::str::from_utf8(&old).ok().and_then(|text| marks(text).ok());
        if !is_moved && old_marks == Some(marks(raw_text(message))?) {
            // Something changed that is not among the properties: an attachment, perhaps.
            return Ok(Judgement::Fetch);
        }
        let stored = stored_message(&old)?;
        if attachments::may_differ(message, &stored) {
            return Ok(Judgement::Compare(stored));
        }
        Ok(Judgement::Keep { meta: with_holdfast(raw_text(message), &stored)? })
    }

    /// The stored content, where its attachments are still the same, or a new one.
    async fn fetch(
        &self,
        message: &MailMessage,
        held: Option<Held<StoredMessage>>,
    ) -> Result<Found, FetchError> {
        if let Some(Held { entry, stored }) = held
            && attachments::are_same(&self.context, message, &stored).await?
        {
            let meta = with_holdfast(raw_text(message), &stored)?;
            return Ok(Found::Same { entry: Box::new(entry), meta });
        }
        content::fetch(&self.context, message).await.map(Found::Content)
    }

    /// A mailbox without room has no place for the state of a delta; it can be read all the same.
    fn wants_plain_listing(&self, error: &GraphError) -> bool {
        error.has_code("ErrorQuotaExceeded")
    }

    async fn correct(run: &mut Collector<Self>) -> Result<(), JobError> {
        tell_unreadable(run);
        flags::correct_if_due(run).await
    }
}
