//! What came of a shard goes into the parent's snapshot and account, by the same steps as what was fetched here.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use holdfast_repository::{ContentSource, ItemKey, TreeRoots};

use super::{
    Collector, Source,
    consider::{Fresh, ToFetch},
    failed::{Refusal, RefusalKind},
    ledger::{Listed, id_hash},
    shard::ShardResult,
    split::{Unmerged, cost},
};
use crate::{JobError, backup::key};

impl<S: Source> Collector<S> {
    /// Takes over a shard's result. Items without an outcome in it are fetched here.
    pub(super) async fn merge_shard(&mut self, shard: Unmerged, sealed: &[u8]) -> Result<(), JobError> {
        match ShardResult::open(self.context.manifest.keys(), sealed) {
            Some((output, result)) => {
                self.ledger.bytes_read += result.bytes_read;
                self.charge(&cost(0, result.bytes_stored, result.requests));
                self.merge_stored(&shard, output, &result.incomplete).await?;
                self.merge_refused(&shard, result.refused).await?;
            }
            None => tracing::warn!(shard = %shard.id, "the result of a shard cannot be read"),
        }
        self.take_back(shard).await
    }

    async fn merge_stored(
        &mut self,
        shard: &Unmerged,
        output: TreeRoots,
        incomplete: &BTreeMap<String, String>,
    ) -> Result<(), JobError> {
        let mut items = self.context.manifest.items(output);
        while let Some(item) = items.next().await {
            let (ItemKey(id), entry) = item?;
            let Ok(id) = String::from_utf8(id) else { continue };
            if !self.waits_for(shard, &id, &entry.change) {
                continue;
            }
            let missing = match incomplete.get(&id) {
                None => None,
                Some(code) => Some((code.clone(), self.path_in(shard, &id).await?)),
            };
            let fresh = Fresh {
                fields: entry.fields(),
                meta: self.context.manifest.meta(&entry).await?,
                content: entry.content.map_or(ContentSource::None, ContentSource::Existing),
                missing,
            };
            self.split.forget(&id);
            self.store(&id, fresh).await?;
        }
        Ok(())
    }

    async fn merge_refused(
        &mut self,
        shard: &Unmerged,
        refused: BTreeMap<String, Refusal>,
    ) -> Result<(), JobError> {
        for (id, refusal) in refused {
            let listed = self.ledger.get(&id_hash(&id)).map(|listed| listed.change);
            if listed.is_some_and(|change| self.waits_for(shard, &id, &change)) {
                let path = self.path_in(shard, &id).await?;
                self.split.forget(&id);
                match refusal.kind {
                    RefusalKind::Changed => self.read_again(&id, &path).await?,
                    _ => self.settle_refusal(&id, &path, refusal).await?,
                }
            }
        }
        Ok(())
    }

    /// Fetches an item that has changed between the listing and its shard, which may be long. Once: what changes faster than that
    /// is left to the next run.
    async fn read_again(&mut self, id: &str, path: &str) -> Result<(), JobError> {
        let Some(listed) = self.ledger.get(&id_hash(id)).copied() else { return Ok(()) };
        match self.source.item(id).await {
            Ok(item) => {
                let change = self.source.change(&item)?;
                self.ledger.list(id, Listed { change, ..listed });
                let container = listed.container;
                self.fetch(ToFetch { item: Box::new(item), change, container }, None).await
            }
            Err(error) => self.settle_failure(id, path, error).await,
        }
    }

    /// The path of the place of an item that a shard was to fetch.
    async fn path_in(&self, shard: &Unmerged, id: &str) -> Result<String, JobError> {
        let container = self.ledger.get(&id_hash(id)).map_or(u32::MAX, |listed| listed.container);
        let reader = self.context.manifest.reader(shard.input);
        let Some(entry) = reader.item(&key(id)).await? else { return Ok(self.path(container).to_owned()) };
        let item = self.source.rebuild(&self.context.manifest.meta(&entry).await?)?;
        Ok(self.path_of(&item, container))
    }

    /// Fetches the items of a shard that have no outcome here.
    pub(super) async fn take_back(&mut self, shard: Unmerged) -> Result<(), JobError> {
        if !self.split.has_items_in(shard.id) {
            return Ok(());
        }
        let mut items = self.context.manifest.items(shard.input);
        while let Some(item) = items.next().await {
            let (ItemKey(id), entry) = item?;
            let Ok(id) = String::from_utf8(id) else { continue };
            if !self.waits_for(&shard, &id, &entry.change) {
                continue;
            }
            let item = self.source.rebuild(&self.context.manifest.meta(&entry).await?)?;
            let container = self.ledger.get(&id_hash(&id)).map_or(u32::MAX, |listed| listed.container);
            self.split.forget(&id);
            self.fetch(ToFetch { item: Box::new(item), change: entry.change, container }, None).await?;
        }
        self.split.forget_shard(shard.id);
        Ok(())
    }
}
