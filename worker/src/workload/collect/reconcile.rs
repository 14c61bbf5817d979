//! What is no longer there: reported removals, containers that vanished, and what a completed initial round did not return.
//!
//! The invariant: nothing is taken out before all containers are listed, because an item removed here may be present there:
//! then it was moved. An absent item counts as removed only after a completed initial round of its container.

use super::{
    Collector, Source,
    ledger::{BEFORE_RESUME, RETRIED, id_hash},
};
use crate::{JobError, backup::key, workload::container_key};

/// One round over a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// The container's position.
    pub container: u32,
    /// Counts the rounds of this container in this run.
    pub number: u32,
    /// It returns everything that is there.
    pub is_full: bool,
    /// It was started because a link died.
    pub is_restart: bool,
}

impl<S: Source> Collector<S> {
    /// The delta reports an item removed from a container.
    pub(super) async fn note_removed(&mut self, id: String, container: u32) -> Result<(), JobError> {
        let hash = id_hash(&id);
        let key = self.container_key(container);
        let is_listed_here = match self.ledger.get(&hash).map(|listed| listed.container) {
            None => true,
            Some(BEFORE_RESUME | RETRIED) => {
                let entry = self.context.manifest.entry(&id).await?;
                entry.is_none_or(|entry| self.source.is_in(&entry, key))
            }
            Some(other) => other == container,
        };
        if is_listed_here {
            self.ledger.unlist(&hash);
            self.removed.insert(id, key);
        }
        Ok(())
    }

    /// After a full round: what is known of the container and was not returned is removed.
    pub(super) async fn reconcile(&mut self, round: Round) -> Result<(), JobError> {
        let container = self.container_key(round.container);
        let roots = self.context.manifest.merge().await?;
        for id in self.source.items_in(&self.context.manifest, roots, container).await? {
            let hash = id_hash(&id);
            let is_returned = self
                .ledger
                .get(&hash)
                .is_some_and(|listed| listed.container != round.container || listed.round == round.number);
            if !is_returned {
                self.ledger.unlist(&hash);
                self.removed.insert(id, container);
            }
        }
        Ok(())
    }

    /// Containers of the base that are gone, with what was in them.
    pub(super) async fn note_vanished_containers(&mut self) -> Result<(), JobError> {
        let is_listed = |id: &String| self.containers.iter().any(|container| container.id == *id);
        let vanished: Vec<String> = self.known.keys().filter(|id| !is_listed(id)).cloned().collect();
        if vanished.is_empty() {
            return Ok(());
        }
        let roots = self.context.manifest.merge().await?;
        for id in vanished {
            let container = container_key(&id);
            for item in self.source.items_in(&self.context.manifest, roots, container).await? {
                self.removed.insert(item, container);
            }
            self.context.manifest.writer().remove_item(&key(&id)).await?;
            self.state.containers.remove(&id);
        }
        Ok(())
    }

    /// Takes out what was removed from a container and is in no other.
    pub(super) async fn apply_removals(&mut self) -> Result<(), JobError> {
        for (id, container) in std::mem::take(&mut self.removed) {
            if self.ledger.get(&id_hash(&id)).is_some() {
                continue;
            }
            let entry = self.context.manifest.entry(&id).await?;
            let is_there = |entry: &_| self.source.is_in(entry, container) && self.source.is_item(entry.kind);
            if entry.as_ref().is_some_and(is_there) {
                self.context.manifest.writer().remove_item(&key(&id)).await?;
                self.ledger.removed += 1;
                self.state.items = self.state.items.saturating_sub(1);
            }
            self.failed.remove(&id);
            self.state.gone.remove(&id);
        }
        Ok(())
    }
}
