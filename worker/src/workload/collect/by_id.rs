//! Items that are asked for by their id, before anything is listed: what the base lacks, what a job checkpoint left pending,
//! and what was listed and not found.
//!
//! The invariant: an id stays on its list until it was dealt with, so a job that stops in between forgets none.

use holdfast_graph_client::ErrorClass;

use super::{
    Collector, Source,
    ledger::{Listed, RETRIED},
    reconcile::Round,
};
use crate::JobError;

impl<S: Source> Collector<S> {
    /// First of all: what failed last time, or had no outcome when the job stopped.
    pub(super) async fn ask_for_pending(&mut self) -> Result<(), JobError> {
        while let Some((id, path)) = self.pending.first_key_value() {
            let (id, path) = (id.clone(), path.clone());
            match self.source.item(&id).await {
                Ok(item) => self.consider_single(item).await?,
                Err(error) => {
                    self.ledger.list(&id, Listed::new(RETRIED, 0, [0; 16]));
                    self.settle_failure(&id, &path, error).await?;
                }
            }
            self.pending.remove(&id);
        }
        Ok(())
    }

    /// What was listed and not found last time may just not have been there yet.
    pub(super) async fn look_again(&mut self) -> Result<(), JobError> {
        while let Some(id) = self.gone_before.first().cloned() {
            match self.source.item(&id).await {
                Ok(item) => self.consider_single(item).await?,
                Err(error) if error.class() == ErrorClass::Gone => {}
                Err(error) if JobError::is_fatal_for_job(&error) => return Err(error.into()),
                Err(_) => {
                    self.state.gone.insert(id.clone());
                }
            }
            self.gone_before.remove(&id);
        }
        Ok(())
    }

    async fn consider_single(&mut self, item: S::Item) -> Result<(), JobError> {
        let parent = self.source.parent(&item);
        let container = (0u32..).zip(&self.containers).find(|(_, container)| container.key == parent);
        let container = container.map_or(RETRIED, |(index, _)| index);
        let round = Round { container, number: 0, is_full: false, is_restart: false };
        self.consider(Box::new(item), round).await
    }
}
