//! What the engine asks of To Do: lists, delta pages, and what hangs on the tasks that changed.

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_graph_client::{Change, GraphError, TodoTask};
use holdfast_repository::{EntryFlags, EntryKind, FolderKey, ItemEntry, ItemFields};

use super::{
    content, lists,
    meta::{StoredTask, list_and_task, stored_task, task_key},
};
use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        collect::{Container, FetchError, Found, Held, ItemChange, ItemPage, Judgement, Source, State},
        container_key,
        stored::{change_of, created_ms},
    },
};

/// The tasks of one person.
pub(super) struct TaskSource {
    pub(super) context: Arc<BackupContext>,
}

/// A task with its key.
pub(super) struct TaskItem {
    pub(super) key: String,
    pub(super) task: TodoTask,
}

#[async_trait]
impl Source for TaskSource {
    type Item = TaskItem;
    type Stored = StoredTask;

    async fn containers(&self, _state: &mut State) -> Result<Vec<Container>, JobError> {
        lists::sync(&self.context).await
    }

    /// Always by delta: the client has no other listing of tasks.
    async fn page(
        &self,
        list: &str,
        link: Option<&str>,
        _is_plain: bool,
    ) -> Result<ItemPage<TaskItem>, GraphError> {
        let page = self.context.graph.todo_tasks_delta(&self.context.user, list, link).await?;
        let items = page.items.into_iter().map(|change| match change {
            Change::Present(task) => {
                ItemChange::Present(Box::new(TaskItem { key: task_key(list, &task.id), task: *task }))
            }
            Change::Removed { id, .. } => ItemChange::Removed { id: task_key(list, &id) },
        });
        Ok(ItemPage { items: items.collect(), next: page.next, delta: page.delta })
    }

    async fn item(&self, key: &str) -> Result<TaskItem, GraphError> {
        let (list, task) = list_and_task(key);
        let task = self.context.graph.todo_task(&self.context.user, list, task).await?;
        Ok(TaskItem { key: key.to_owned(), task })
    }

    fn id<'a>(&self, item: &'a TaskItem) -> &'a str {
        &item.key
    }

    fn parent(&self, item: &TaskItem) -> [u8; 16] {
        container_key(list_and_task(&item.key).0)
    }

    fn weight(&self, item: &TaskItem) -> u64 {
        item.task.raw.len() as u64
    }

    fn change(&self, item: &TaskItem) -> Result<[u8; 16], JobError> {
        Ok(change_of(&item.task.change_key, &item.task.raw))
    }

    fn fields(&self, item: &TaskItem, change: [u8; 16], size: u64) -> ItemFields {
        let flags = match item.task.has_attachments {
            true => EntryFlags::HAS_ATTACHMENTS,
            false => EntryFlags::default(),
        };
        ItemFields {
            kind: EntryKind::Task,
            flags,
            change,
            size,
            parent: FolderKey(self.parent(item)),
            sort: created_ms(&item.task.raw),
        }
    }

    async fn judge(
        &self,
        _item: &TaskItem,
        entry: &ItemEntry,
        _change: [u8; 16],
        _is_moved: bool,
    ) -> Result<Judgement<StoredTask>, JobError> {
        Ok(Judgement::Compare(stored_task(&self.context.manifest.meta(entry).await?)?))
    }

    async fn fetch(&self, item: &TaskItem, held: Option<Held<StoredTask>>) -> Result<Found, FetchError> {
        content::fetch(&self.context, item, held).await
    }
}
