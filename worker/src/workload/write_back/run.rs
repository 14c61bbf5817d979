//! The run of a restore.

use std::collections::HashMap;

use futures::{FutureExt as _, StreamExt as _, stream};
use holdfast_graph_client::{ErrorClass, GraphError};
use holdfast_model::{Account, ConflictPolicy};
use holdfast_repository::ItemEntry;

use super::{
    CREATE_ATTEMPTS, ContainerLoss, Created, ItemToWrite, Occupant, Place, Target, existing::Existing,
    restore_key::restore_prefix,
};
use crate::{
    JobError,
    restore::{RestoreContext, Restored},
    workload::{
        collect::ItemFailure,
        snapshot_folders::{Selection, SnapshotFolders},
    },
};

/// Pages of one container's listing.
const MAX_PAGES: usize = 100_000;

/// What became of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::workload) enum Written {
    /// By this attempt.
    Created,
    /// By an earlier attempt.
    Before,
    /// The same item is there, and the operator said to leave it.
    Skipped,
}

/// A container of the target and what is known to be in it.
struct Container {
    id: String,
    /// What this restore created in it, by restore key.
    ours: HashMap<String, String>,
    /// Everything else; filled only when conflicts matter.
    existing: Existing,
}

/// A restore in progress.
pub struct WriteBack<'a, T> {
    context: &'a RestoreContext,
    target: T,
    folders: SnapshotFolders,
    selection: Selection,
    restored: Restored,
}

impl<'a, T: Target> WriteBack<'a, T> {
    /// Finds out what is selected; nothing is written yet.
    pub async fn open(context: &'a RestoreContext, target: T) -> Result<Self, JobError> {
        let folders = SnapshotFolders::read(&context.reader).await?;
        let selection = folders.select(&context.reader, &context.paths).await?;
        Ok(Self { context, target, folders, selection, restored: Restored::default() })
    }

    /// Runs to the end.
    pub async fn run(mut self) -> Result<Restored, JobError> {
        self.target.clean_up().await?;
        for folder in std::mem::take(&mut self.selection.folders) {
            self.folder(folder, None).await?;
        }
        for (folder, items) in self.single_items().await? {
            self.folder(folder, Some(items)).await?;
        }
        self.target.finish().await;
        let account = &mut self.restored.account;
        account.requests = self.context.graph.requests();
        if !account.adds_up() {
            return Err(JobError::DoesNotAddUp { listed: account.listed, accounted: account.accounted() });
        }
        self.context.progress.set(*account);
        Ok(self.restored)
    }

    /// The items that were named one by one, by folder.
    async fn single_items(&mut self) -> Result<HashMap<usize, Vec<(String, ItemEntry)>>, JobError> {
        let mut by_folder: HashMap<usize, Vec<(String, ItemEntry)>> = HashMap::new();
        for id in std::mem::take(&mut self.selection.items) {
            if let Some(entry) = self.context.reader.item(&crate::backup::key(&id)).await? {
                let folder = self.folders.by_key(entry.parent.0).unwrap_or(0);
                by_folder.entry(folder).or_default().push((id, entry));
            }
        }
        Ok(by_folder)
    }

    /// Restores one folder: all its items, or only these.
    async fn folder(&mut self, index: usize, only: Option<Vec<(String, ItemEntry)>>) -> Result<(), JobError> {
        let place = self.target.place(&self.folders, index).await?;
        self.count_container_losses();
        let id = match place {
            Place::In(id) => id,
            Place::Nowhere => return Ok(()),
        };
        let container = self.look_into(id).await?;
        let path = self.folders.all()[index].path.clone();
        let mut restored = std::mem::take(&mut self.restored);
        let this = &*self;
        let items = match only {
            Some(items) => stream::iter(items.into_iter().map(Ok)).boxed(),
            None => this.folders.items(&this.context.reader, index),
        };
        let mut written = items
            .map(|item| {
                let container = &container;
                async move {
                    let (id, entry) = item?;
                    let written = this.item(&id, &entry, container).await;
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

    /// A container that lacks something stands in the account as an item of its own: nothing else says what of it is missing.
    fn count_container_losses(&mut self) {
        let mut counted = None;
        for ContainerLoss { index, code } in self.target.take_container_losses() {
            if counted.replace(index) != Some(index) {
                let account = &mut self.restored.account;
                account.listed += 1;
                account.stored += 1;
                account.incomplete += 1;
            }
            let folder = &self.folders.all()[index];
            self.restored.failed.push(ItemFailure::ours(&folder.id, &folder.path, &code, false));
        }
    }

    /// Reads what is in a container, once.
    async fn look_into(&self, id: String) -> Result<Container, JobError> {
        let (mut ours, mut existing) = (HashMap::new(), Existing::default());
        let prefix = restore_prefix(&self.context.restore_key);
        for occupant in occupants(&self.target, &id).await? {
            let key = occupant.restore_key.filter(|key| key.starts_with(&prefix));
            let is_made_by_us = key.is_some() && !T::KEY_IS_CONTENT;
            if let Some(key) = key {
                ours.insert(key, occupant.id.clone());
            }
            if !is_made_by_us && self.context.conflict != ConflictPolicy::Rename {
                let key = crate::backup::key(&occupant.id);
                let is_in_snapshot = self.context.reader.item(&key).await?.is_some();
                existing.add(occupant.id, occupant.looks, is_in_snapshot);
            }
        }
        Ok(Container { id, ours, existing })
    }

    async fn item(
        &self,
        id: &str,
        entry: &ItemEntry,
        container: &Container,
    ) -> Result<(Written, Vec<String>), JobError> {
        let _share = self.context.shared.memory.reserve(T::ITEM_BYTES).await;
        let stored = self.target.read(&self.context.reader.meta(entry).await?)?;
        let key = self.target.key(&self.context.restore_key, id, &stored);
        let before = container.ours.get(&key).cloned();
        let same = container.existing.take(id, &self.target.look(&stored));
        let same = same.filter(|same| before.as_ref() != Some(same));
        if before.is_none() && same.is_some() && self.context.conflict == ConflictPolicy::Skip {
            return Ok((Written::Skipped, Vec::new()));
        }
        let replaces = same.filter(|_| self.context.conflict == ConflictPolicy::Replace);
        let item = ItemToWrite { id, key, entry, stored, container: &container.id, replaces };
        let (written, losses) = self.write(&item, before).await?;
        let is_removed = T::CREATE_REMOVES_REPLACED && written == Written::Created;
        if let Some(old) = item.replaces.as_ref().filter(|_| !is_removed) {
            self.target.delete(&container.id, old).await?;
        }
        Ok((written, losses))
    }

    /// Creates an item, unless an earlier attempt did, and completes it.
    async fn write(
        &self,
        item: &ItemToWrite<'_, T::Stored>,
        before: Option<String>,
    ) -> Result<(Written, Vec<String>), JobError> {
        let (written, Created { id, mut losses }) = match before {
            Some(id) => (Written::Before, Created { id, losses: Vec::new() }),
            None => (Written::Created, self.target.create(item).await?),
        };
        losses.extend(self.target.complete(item, &id, written == Written::Created).await?);
        Ok((written, losses))
    }
}

/// Everything in a container.
pub(in crate::workload) async fn occupants<T: Target>(
    target: &T,
    container: &str,
) -> Result<Vec<Occupant>, GraphError> {
    let (mut all, mut link) = (Vec::new(), None::<String>);
    for _ in 0..MAX_PAGES {
        let page = target.occupants(container, link.as_deref()).await?;
        all.extend(page.items);
        link = page.next;
        if link.is_none() {
            return Ok(all);
        }
    }
    // What is not known to be there would be written again.
    Err(GraphError::TooMany { what: "what is in a folder of the target", limit: MAX_PAGES })
}

/// Creates something exactly once: an unknown outcome is looked up in its container before it is repeated. Returns its id.
pub(in crate::workload) async fn create_once<T, F>(
    target: &T,
    (container, key): (&str, &str),
    create: impl Fn() -> F + Send + Sync,
) -> Result<String, JobError>
where
    T: Target,
    F: Future<Output = Result<String, GraphError>> + Send,
{
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match create().await {
            Ok(id) => return Ok(id),
            Err(error @ GraphError::Ambiguous { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        let found = occupants(target, container).await?;
        let is_ours = |occupant: &Occupant| occupant.restore_key.as_deref() == Some(key);
        if let Some(occupant) = found.into_iter().find(is_ours) {
            return Ok(occupant.id);
        }
        if attempt >= CREATE_ATTEMPTS {
            return Err(error.into());
        }
    }
}

/// Adds one item to the account.
pub(in crate::workload) fn count(
    restored: &mut Restored,
    (id, path, size): (&str, &str, u64),
    result: Result<(Written, Vec<String>), JobError>,
) -> Result<(), JobError> {
    let account = &mut restored.account;
    account.listed += 1;
    match result {
        Ok((written, losses)) => {
            match written {
                Written::Created => {
                    account.stored += 1;
                    account.incomplete += u64::from(!losses.is_empty());
                    account.bytes_read += size;
                }
                Written::Before => account.unchanged += 1,
                Written::Skipped => account.skipped += 1,
            }
            let losses = losses.iter().map(|code| ItemFailure::ours(id, path, code, false));
            restored.failed.extend(losses);
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
        Err(JobError::Repository(error)) if !error.is_retryable() => {
            restored.count_unreadable(id, path, &error);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;
    use holdfast_graph_client::Page;

    use super::*;

    /// Every page of its only container names another.
    struct Endless;

    #[async_trait]
    impl Target for Endless {
        type Stored = ();

        const ITEM_BYTES: u64 = 0;

        async fn place(&mut self, _folders: &SnapshotFolders, _index: usize) -> Result<Place, JobError> {
            Ok(Place::Nowhere)
        }

        async fn occupants(
            &self,
            _container: &str,
            _link: Option<&str>,
        ) -> Result<Page<Occupant>, GraphError> {
            Ok(Page { items: Vec::new(), next: Some("next".to_owned()), delta: None })
        }

        fn read(&self, _meta: &Bytes) -> Result<(), JobError> {
            Ok(())
        }

        fn look(&self, (): &()) -> String {
            String::new()
        }

        async fn create(&self, _item: &ItemToWrite<'_, ()>) -> Result<Created, JobError> {
            unreachable!("what is in the container is not known")
        }

        async fn delete(&self, _container: &str, _id: &str) -> Result<(), GraphError> {
            unreachable!("what is in the container is not known")
        }
    }

    #[tokio::test]
    async fn a_listing_that_does_not_end_is_an_error_because_what_it_lacks_would_be_written_twice() {
        let error = occupants(&Endless, "c").await.unwrap_err();
        assert!(matches!(error, GraphError::TooMany { limit: MAX_PAGES, .. }), "{error}");
        let create = || async { Err(GraphError::Ambiguous { source: Box::new(GraphError::Changed) }) };
        let error = create_once(&Endless, ("c", "key"), create).await.unwrap_err();
        assert!(matches!(error, JobError::Graph(GraphError::TooMany { .. })), "{error}");
    }
}
