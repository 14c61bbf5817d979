//! What is no longer there: reported removals, folders that vanished, and what a completed initial round did not return.
//!
//! The invariant: nothing is taken out before all folders are listed, because a message removed here may be present there:
//! then it was moved. An absent message counts as removed only after a completed initial round of its folder.

use futures::StreamExt as _;
use holdfast_repository::{EntryKind, TreeRoots};

use super::{
    backup::MailBackup,
    folder_key,
    ledger::{BEFORE_RESUME, RETRIED, id_hash},
};
use crate::{JobError, backup::key};

/// One round over a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// The folder's position.
    pub folder: u32,
    /// Counts the rounds of this folder in this run.
    pub number: u32,
    /// It returns everything that is there.
    pub is_full: bool,
    /// It was started because a link died.
    pub is_restart: bool,
}

impl MailBackup<'_> {
    /// The delta reports a message removed from a folder.
    pub(super) async fn note_removed(&mut self, id: String, folder: u32) -> Result<(), JobError> {
        let hash = id_hash(&id);
        let folder_key = self.folder_key(folder);
        let is_listed_here = match self.ledger.get(&hash).map(|listed| listed.folder) {
            None => true,
            Some(BEFORE_RESUME | RETRIED) => {
                let entry = self.context.manifest.entry(&id).await?;
                entry.is_none_or(|entry| entry.parent.0 == folder_key)
            }
            Some(other) => other == folder,
        };
        if is_listed_here {
            self.ledger.unlist(&hash);
            self.removed.insert(id, folder_key);
        }
        Ok(())
    }

    /// After a full round: what is known of the folder and was not returned is removed.
    pub(super) async fn reconcile(&mut self, round: Round) -> Result<(), JobError> {
        let folder = self.folder_key(round.folder);
        let roots = self.context.manifest.merge().await?;
        for id in self.messages_in(roots, folder).await? {
            let hash = id_hash(&id);
            let is_returned = self
                .ledger
                .get(&hash)
                .is_some_and(|listed| listed.folder != round.folder || listed.round == round.number);
            if !is_returned {
                self.ledger.unlist(&hash);
                self.removed.insert(id, folder);
            }
        }
        Ok(())
    }

    /// Folders of the base that are gone, with what was in them.
    pub(super) async fn note_vanished_folders(&mut self) -> Result<(), JobError> {
        let is_listed = |id: &String| self.folders.iter().any(|folder| folder.id == *id);
        let vanished: Vec<String> = self.known.keys().filter(|id| !is_listed(id)).cloned().collect();
        if vanished.is_empty() {
            return Ok(());
        }
        let roots = self.context.manifest.merge().await?;
        for id in vanished {
            let folder = folder_key(&id);
            for message in self.messages_in(roots, folder).await? {
                self.removed.insert(message, folder);
            }
            self.context.manifest.writer().remove_item(&key(&id)).await?;
            self.state.folders.remove(&id);
        }
        Ok(())
    }

    /// Takes out what was removed from a folder and is in no other.
    pub(super) async fn apply_removals(&mut self) -> Result<(), JobError> {
        for (id, folder) in std::mem::take(&mut self.removed) {
            if self.ledger.get(&id_hash(&id)).is_some() {
                continue;
            }
            let entry = self.context.manifest.entry(&id).await?;
            if entry.is_some_and(|entry| entry.parent.0 == folder && entry.kind == EntryKind::MailMessage) {
                self.context.manifest.writer().remove_item(&key(&id)).await?;
                self.ledger.removed += 1;
                self.state.items = self.state.items.saturating_sub(1);
            }
            self.failed.remove(&id);
            self.state.gone.remove(&id);
        }
        Ok(())
    }

    async fn messages_in(&mut self, roots: TreeRoots, folder: [u8; 16]) -> Result<Vec<String>, JobError> {
        let mut children = self.context.manifest.children(roots, folder);
        let mut ids = Vec::new();
        while let Some(child) = children.next().await {
            let child = child?;
            if child.kind == EntryKind::MailMessage
                && let Ok(id) = String::from_utf8(child.key.0)
            {
                ids.push(id);
            }
        }
        Ok(ids)
    }
}
