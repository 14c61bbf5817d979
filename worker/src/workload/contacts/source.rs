//! What the engine asks of contacts: folders, delta pages, and the photo of what changed.

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_graph_client::{Change, Contact, GraphError};
use holdfast_repository::{EntryFlags, EntryKind, FolderKey, ItemEntry, ItemFields};

use super::{
    folders,
    meta::{StoredContact, stored_contact},
    photos::{self, Photo},
};
use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        collect::{
            Collector, Container, FetchError, Found, Held, ItemChange, ItemPage, Judgement, Source, State,
        },
        container_key,
        parts::FETCH_BYTES,
        stored::{change_of, created_ms, json_text, with_holdfast},
    },
};

/// The contacts of one mailbox.
pub(super) struct ContactSource {
    pub(super) context: Arc<BackupContext>,
}

#[async_trait]
impl Source for ContactSource {
    type Item = Contact;
    type Stored = StoredContact;

    async fn containers(&self, state: &mut State) -> Result<Vec<Container>, JobError> {
        folders::sync(&self.context, state).await
    }

    /// Always by delta: the client has no other listing of contacts.
    async fn page(
        &self,
        folder: &str,
        link: Option<&str>,
        _is_plain: bool,
    ) -> Result<ItemPage<Contact>, GraphError> {
        let page = self.context.graph.contacts_delta(&self.context.user, folder, link).await?;
        let items = page.items.into_iter().map(|change| match change {
            Change::Present(contact) => ItemChange::Present(contact),
            Change::Removed { id, .. } => ItemChange::Removed { id },
        });
        Ok(ItemPage { items: items.collect(), next: page.next, delta: page.delta })
    }

    async fn item(&self, id: &str) -> Result<Contact, GraphError> {
        self.context.graph.contact(&self.context.user, id).await
    }

    fn id<'a>(&self, contact: &'a Contact) -> &'a str {
        &contact.id
    }

    fn parent(&self, contact: &Contact) -> [u8; 16] {
        container_key(&contact.parent_folder_id)
    }

    fn is_partial(&self, contact: &Contact) -> bool {
        contact.is_partial
    }

    fn weight(&self, contact: &Contact) -> u64 {
        contact.raw.len() as u64
    }

    fn change(&self, contact: &Contact) -> Result<[u8; 16], JobError> {
        Ok(change_of(&contact.change_key, &contact.raw))
    }

    fn fields(&self, contact: &Contact, change: [u8; 16], size: u64) -> ItemFields {
        ItemFields {
            kind: EntryKind::Contact,
            flags: EntryFlags::default(),
            change,
            size,
            parent: FolderKey(self.parent(contact)),
            sort: created_ms(&contact.raw),
        }
    }

    async fn judge(
        &self,
        contact: &Contact,
        entry: &ItemEntry,
        change: [u8; 16],
        _is_moved: bool,
    ) -> Result<Judgement<StoredContact>, JobError> {
        let stored = stored_contact(&self.context.manifest.meta(entry).await?)?;
        if entry.change == change {
            return Ok(Judgement::Keep { meta: with_holdfast(json_text(&contact.raw), &stored)? });
        }
        Ok(Judgement::Compare(stored))
    }

    async fn fetch(&self, contact: &Contact, held: Option<Held<StoredContact>>) -> Result<Found, FetchError> {
        let _share = self.context.shared.memory.reserve(FETCH_BYTES).await;
        let before = held.as_ref().map(|held| &held.stored);
        let photo = Photo::read(&self.context, &contact.id, before).await?;
        let raw = json_text(&contact.raw);
        match held {
            Some(Held { entry, stored }) if photo.stored() == stored => {
                Ok(Found::Same { entry: Box::new(entry), meta: with_holdfast(raw, &stored)? })
            }
            _ => Ok(Found::Content(photo.into_content(&self.context, raw).await?)),
        }
    }

    async fn correct(run: &mut Collector<Self>) -> Result<(), JobError> {
        photos::correct_if_due(run).await
    }
}
