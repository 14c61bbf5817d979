//! The way back of mail: folders, and one message at a time.
//!
//! A message that fits into one request is created complete where it belongs. A larger one is built in a hidden staging
//! folder and moved when it is complete, so that nobody ever sees half a message.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_graph_client::{ErrorClass, GraphError, MarkedMessage, Page, RECOVERABLE_ITEMS};
use holdfast_model::asks_for_recoverable;
use serde_json::Value;

use super::{
    meta::{StoredMessage, stored_message},
    restore_message::{CreateAs, create_body, loses_reply_to},
    settings::is_made,
    staging::Staging,
    target_folders::{self, Folders},
};
use crate::{
    JobError,
    restore::RestoreContext,
    workload::{
        attachments::missing_attachment,
        snapshot_folders::{SnapshotFolder, SnapshotFolders},
        stored::broken,
        write_back::{
            AttachTo, Attachment, Created, ItemToWrite, Occupant, Place, RESTORE_KEY_PROPERTY,
            SESSION_FROM_BYTES, Target, create_once, occupants,
        },
    },
};

/// A message goes out in one request up to this: Microsoft takes "less than 4 MB", and the rest is for our own properties.
const REQUEST_BYTES: u64 = 3_900_000;
/// How often a message with large attachments is built.
const BUILD_ATTEMPTS: u32 = 3;

/// The mailbox that is restored to.
pub(super) struct MailTarget<'a> {
    context: &'a RestoreContext,
    folders: Folders<'a>,
    staging: Staging<'a>,
    /// Microsoft refuses attachments on what is no draft.
    is_draft_only: AtomicBool,
}

/// A stored message.
pub(super) struct Stored {
    message: Value,
    holdfast: StoredMessage,
}

impl<'a> MailTarget<'a> {
    /// Reads the mailbox's folders and makes the one to restore into.
    pub(super) async fn open(context: &'a RestoreContext) -> Result<Self, JobError> {
        let folders = target_folders::open(context).await?;
        let staging = Staging::new(context, &folders);
        Ok(Self { context, folders, staging, is_draft_only: AtomicBool::new(false) })
    }

    /// Builds a message that does not fit into one request, as what it was if Microsoft allows that.
    async fn build(
        &self,
        item: &ItemToWrite<'_, Stored>,
        attachments: &[Attachment<'_>],
    ) -> Result<Created, JobError> {
        let is_draft = item.stored.message.get("isDraft").and_then(Value::as_bool).unwrap_or_default();
        let mut create_as =
            if self.is_draft_only.load(Ordering::Relaxed) { CreateAs::Draft } else { CreateAs::Original };
        let mut builds = 1;
        let mut created = loop {
            match self.build_once(item, attachments, create_as).await {
                Ok(created) => break created,
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
        };
        if create_as == CreateAs::Draft && !is_draft {
            created.losses.push("RestoredAsDraft".to_owned());
        }
        Ok(created)
    }

    /// Builds a message in the staging folder and moves it when it is complete.
    async fn build_once(
        &self,
        item: &ItemToWrite<'_, Stored>,
        attachments: &[Attachment<'_>],
        create_as: CreateAs,
    ) -> Result<Created, JobError> {
        let (graph, user) = (&self.context.graph, &self.context.user);
        let body = create_body(&item.stored.message, &item.key, create_as);
        let id = self.create_message(self.staging.folder().await?, &item.key, &body).await?;
        match self.attach(&id, attachments).await {
            Ok(losses) => {
                graph.move_message(user, &id, item.container).await?;
                Ok(Created { id, losses })
            }
            Err(error) => {
                // Half-built messages never stay; if this fails as well, the next attempt clears the staging folder.
                if let Err(left) = graph.delete_message(user, &id).await {
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
    async fn attach(&self, message: &str, attachments: &[Attachment<'_>]) -> Result<Vec<String>, JobError> {
        let mut losses = Vec::new();
        for attachment in attachments.iter().filter(|one| one.missing().is_none()) {
            let loss = attachment.give(self.context, AttachTo::Message(message)).await?;
            losses.extend(loss.map(str::to_owned));
        }
        Ok(losses)
    }

    /// Creates a message with everything in one request.
    async fn create_whole(
        &self,
        item: &ItemToWrite<'_, Stored>,
        attachments: &[Attachment<'_>],
    ) -> Result<Created, JobError> {
        let mut body = create_body(&item.stored.message, &item.key, CreateAs::Original);
        let (mut all, mut losses) = (Vec::with_capacity(attachments.len()), Vec::new());
        for attachment in attachments.iter().filter(|one| one.missing().is_none()) {
            let (value, loss) = attachment.in_message(self.context).await?;
            all.extend(value);
            losses.extend(loss.map(str::to_owned));
        }
        if !all.is_empty() {
            body["attachments"] = all.into();
        }
        let id = self.create_message(item.container, &item.key, &body).await?;
        Ok(Created { id, losses })
    }

    async fn create_message(&self, folder: &str, key: &str, body: &Value) -> Result<String, JobError> {
        let create = || async move {
            let created = self.context.graph.create_message(&self.context.user, folder, body).await?;
            Ok(created.id)
        };
        create_once(self, (folder, key), create).await
    }
}

#[async_trait]
impl Target for MailTarget<'_> {
    type Stored = Stored;

    const ITEM_BYTES: u64 = 16 << 20;

    /// What an attempt that was killed left half-built.
    async fn clean_up(&self) -> Result<(), JobError> {
        let Some(staging) = self.staging.old() else { return Ok(()) };
        for message in occupants(self, staging).await? {
            if message.restore_key.is_some() {
                self.context.graph.delete_message(&self.context.user, &message.id).await?;
            }
        }
        Ok(())
    }

    async fn finish(&self) {
        self.staging.remove().await;
    }

    async fn place(&mut self, folders: &SnapshotFolders, index: usize) -> Result<Place, JobError> {
        let folder = &folders.all()[index];
        let has_no_messages = folder.is_definition() || is_made(&folder.id);
        let is_asked_for = !is_recoverable(folder) || asks_for_recoverable(&self.context.paths);
        match has_no_messages || !is_asked_for {
            true => Ok(Place::Nowhere),
            false => Ok(Place::In(self.folders.resolve(folders, index).await?)),
        }
    }

    async fn occupants(&self, folder: &str, link: Option<&str>) -> Result<Page<Occupant>, GraphError> {
        let (graph, user) = (&self.context.graph, &self.context.user);
        let page = graph.find_by_property(user, folder, RESTORE_KEY_PROPERTY, link).await?;
        Ok(page.map(occupant))
    }

    fn read(&self, meta: &Bytes) -> Result<Stored, JobError> {
        Ok(Stored {
            message: serde_json::from_slice(meta).map_err(broken("meta"))?,
            holdfast: stored_message(meta)?,
        })
    }

    fn look(&self, stored: &Stored) -> String {
        let text = |name: &str| stored.message.get(name).and_then(Value::as_str).unwrap_or_default();
        match text("internetMessageId") {
            "" => subject_and_time(text("subject"), text("receivedDateTime")),
            name => internet_name(name),
        }
    }

    async fn create(&self, item: &ItemToWrite<'_, Stored>) -> Result<Created, JobError> {
        let parts = self.context.reader.content(item.entry).await?;
        let attachments = item.stored.holdfast.attachments.iter();
        let attachments =
            attachments.map(|one| Attachment::new(one, &parts)).collect::<Result<Vec<_>, _>>()?;
        let missing = attachments.iter().filter_map(|one| one.missing());
        let mut losses: Vec<String> = missing.map(missing_attachment).collect();
        if loses_reply_to(&item.stored.message) {
            losses.push("ReplyToNotRestored".to_owned());
        }
        let body_len = item.stored.message.to_string().len() as u64;
        let total: u64 = attachments.iter().map(Attachment::request_len).sum();
        let fits = body_len + total <= REQUEST_BYTES
            && attachments.iter().all(|one| one.n_bytes() < SESSION_FROM_BYTES);
        let created = match fits {
            true => self.create_whole(item, &attachments).await?,
            false => self.build(item, &attachments).await?,
        };
        losses.extend(created.losses);
        Ok(Created { id: created.id, losses })
    }

    async fn delete(&self, _folder: &str, id: &str) -> Result<(), GraphError> {
        self.context.graph.delete_message(&self.context.user, id).await
    }
}

/// Whether a folder holds what was deleted and could still be recovered.
fn is_recoverable(folder: &SnapshotFolder) -> bool {
    folder.well_known.as_deref() == Some(RECOVERABLE_ITEMS)
}

fn occupant(message: MarkedMessage) -> Occupant {
    let name = message.internet_message_id.filter(|name| !name.is_empty());
    let look = subject_and_time(
        message.subject.as_deref().unwrap_or_default(),
        message.received.as_deref().unwrap_or_default(),
    );
    let looks = name.as_deref().map(internet_name).into_iter().chain([look]).collect();
    Occupant { id: message.id, restore_key: message.value, looks }
}

fn internet_name(name: &str) -> String {
    format!("name {name}")
}

/// For a message that has no name of its own.
fn subject_and_time(subject: &str, received: &str) -> String {
    format!("look {received} {subject}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_recognised_by_its_name_and_by_subject_and_time_where_it_has_none() {
        let there = |name: Option<&str>| MarkedMessage {
            id: "x".into(),
            value: Some("key".into()),
            internet_message_id: name.map(str::to_owned),
            subject: Some("s".into()),
            received: Some("t".into()),
        };
        let look = subject_and_time("s", "t");
        assert_eq!(occupant(there(Some("<n>"))).looks, [internet_name("<n>"), look.clone()]);
        assert_eq!(occupant(there(Some(""))).looks, std::slice::from_ref(&look));
        assert_eq!(occupant(there(None)).restore_key.as_deref(), Some("key"));
        assert_ne!(look, subject_and_time("s", "later"));
    }
}
