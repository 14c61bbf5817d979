//! The way back of To Do: lists, tasks, and what hangs on a task.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_graph_client::{GraphError, MarkedItem, Page, TodoTaskPart, restore_extension};
use serde_json::{Map, Value, json};

use super::{
    lists,
    meta::{StoredTask, list_and_task, stored_task, task_key},
};
use crate::{
    JobError,
    restore::RestoreContext,
    workload::{
        snapshot_folders::SnapshotFolders,
        stored::broken,
        write_back::{
            AttachTo, Created, FolderMaker, ItemToWrite, KnownFolder, Occupant, Place, Target, TargetLists,
            attach_all, copied, create_once,
        },
    },
};

/// Properties of a task that are created as they were.
const COPIED: &[&str] = &[
    "body",
    "categories",
    "completedDateTime",
    "dueDateTime",
    "importance",
    "isReminderOn",
    "recurrence",
    "reminderDateTime",
    "startDateTime",
    "status",
    "title",
];
/// Those of a link.
const COPIED_OF_LINK: &[&str] = &["applicationName", "displayName", "externalId", "webUrl"];
/// Those of a step.
const COPIED_OF_STEP: &[&str] = &["checkedDateTime", "displayName", "isChecked"];
/// The list that shows flagged mail.
const FLAGGED_MAIL: &str = "flaggedEmails";

/// The person whose To Do is restored to.
pub(super) struct TaskTarget<'a> {
    context: &'a RestoreContext,
    maker: Maker<'a>,
    lists: TargetLists,
}

/// A stored task.
pub(super) struct Stored {
    task: Map<String, Value>,
    holdfast: StoredTask,
}

struct Maker<'a>(&'a RestoreContext);

#[async_trait]
impl FolderMaker for Maker<'_> {
    async fn make(&self, _parent: &str, name: &str, _is_hidden: bool) -> Result<String, GraphError> {
        self.0.graph.create_todo_list(&self.0.user, &json!({ "displayName": name })).await
    }

    async fn find(&self, _parent: &str, name: &str) -> Result<Option<String>, GraphError> {
        let listed = lists::read(&self.0.graph, &self.0.user).await?;
        Ok(listed.into_values().find(|list| list.display_name == name).map(|list| list.id))
    }
}

impl<'a> TaskTarget<'a> {
    /// Reads the lists that are there.
    pub(super) async fn open(context: &'a RestoreContext) -> Result<Self, JobError> {
        let listed = lists::read(&context.graph, &context.user).await?;
        let own = listed.into_values().filter(|list| list.is_owner);
        let known = own.map(|list| KnownFolder {
            id: list.id,
            parent_id: String::new(),
            name: list.display_name,
            well_known: list.well_known,
        });
        Ok(Self { context, maker: Maker(context), lists: TargetLists::new(known, &context.into) })
    }

    /// Gives a task its steps, in order; those that it has are left.
    async fn give_steps(
        &self,
        (list, task): (&str, &str),
        steps: &[Value],
        is_new: bool,
    ) -> Result<(), JobError> {
        if steps.is_empty() {
            return Ok(());
        }
        let (graph, user) = (&self.context.graph, &self.context.user);
        let part = TodoTaskPart::ChecklistItems;
        let mut n_there = match is_new {
            true => 0,
            false => graph.todo_task_part(user, list, task, part).await?.len(),
        };
        // They are made in order, so that those that are there are the first.
        while let Some(step) = steps.get(n_there) {
            let step = Value::Object(copied(|name| step.get(name), COPIED_OF_STEP));
            match graph.create_todo_task_part(user, (list, task), part, &step).await {
                Ok(_) => n_there += 1,
                Err(GraphError::Ambiguous { .. }) => {
                    n_there = graph.todo_task_part(user, list, task, part).await?.len();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Target for TaskTarget<'_> {
    type Stored = Stored;

    const ITEM_BYTES: u64 = 16 << 20;

    async fn place(&mut self, folders: &SnapshotFolders, index: usize) -> Result<Place, JobError> {
        let list = &folders.all()[index];
        let is_flagged_mail =
            list.well_known.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(FLAGGED_MAIL));
        if list.parent.is_none() || is_flagged_mail {
            return Ok(Place::Nowhere);
        }
        Ok(Place::In(self.lists.resolve(list, &self.maker).await?))
    }

    async fn occupants(&self, list: &str, link: Option<&str>) -> Result<Page<Occupant>, GraphError> {
        let page = self.context.graph.todo_tasks_by_restore_key(&self.context.user, list, link).await?;
        Ok(page.map(|task| occupant(list, task)))
    }

    fn read(&self, meta: &Bytes) -> Result<Stored, JobError> {
        let task = serde_json::from_slice(meta).map_err(broken("meta"))?;
        Ok(Stored { task, holdfast: stored_task(meta)? })
    }

    fn look(&self, stored: &Stored) -> String {
        look(&stored.task)
    }

    async fn create(&self, item: &ItemToWrite<'_, Stored>) -> Result<Created, JobError> {
        let (graph, user, list) = (&self.context.graph, &self.context.user, item.container);
        let Stored { task, holdfast } = &item.stored;
        let mut body = copied(|name| task.get(name), COPIED);
        body.insert("extensions".to_owned(), vec![restore_extension(&item.key)].into());
        let links = holdfast.linked_resources.iter();
        let links = links.map(|link| copied(|name| link.get(name), COPIED_OF_LINK));
        body.insert("linkedResources".to_owned(), links.collect());
        let body = &Value::Object(body);
        let create = || async move { Ok(task_key(list, &graph.create_todo_task(user, list, body).await?)) };
        let id = create_once(self, (list, &item.key), create).await?;
        Ok(Created { id, losses: Vec::new() })
    }

    /// Steps and attachments, which go into no create.
    async fn complete(
        &self,
        item: &ItemToWrite<'_, Stored>,
        id: &str,
        is_new: bool,
    ) -> Result<Vec<String>, JobError> {
        let StoredTask { checklist_items, attachments, .. } = &item.stored.holdfast;
        let (list, task) = list_and_task(id);
        self.give_steps((list, task), checklist_items, is_new).await?;
        if attachments.is_empty() {
            return Ok(Vec::new());
        }
        let parts = self.context.reader.content(item.entry).await?;
        attach_all(self.context, AttachTo::TodoTask(list, task), (attachments, &parts), is_new).await
    }

    async fn delete(&self, _list: &str, id: &str) -> Result<(), GraphError> {
        let (list, task) = list_and_task(id);
        self.context.graph.delete_todo_task(&self.context.user, list, task).await
    }
}

fn occupant(list: &str, task: MarkedItem) -> Occupant {
    let fields = serde_json::from_slice(&task.raw).unwrap_or_default();
    Occupant { id: task_key(list, &task.id), restore_key: task.value, looks: vec![look(&fields)] }
}

/// Title, status and when it is due.
fn look(task: &Map<String, Value>) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let due = task.get("dueDateTime").and_then(|due| due.get("dateTime"));
    format!("{}\n{}\n{}", text(task.get("title")), text(task.get("status")), text(due))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_set_is_written_and_nothing_of_microsofts_own() {
        let stored = json!({
            "id": "t", "title": "buy", "status": "completed", "dueDateTime": null, "hasAttachments": true,
            "createdDateTime": "2026-01-01T00:00:00Z", "_holdfast": {},
        });
        let of = |object: &Value, names| Value::Object(copied(|name| object.get(name), names));
        assert_eq!(of(&stored, COPIED), json!({ "title": "buy", "status": "completed" }));
        let step = json!({ "id": "s", "displayName": "milk", "isChecked": false, "checkedDateTime": null });
        assert_eq!(of(&step, COPIED_OF_STEP), json!({ "displayName": "milk", "isChecked": false }));
    }

    #[test]
    fn tasks_are_the_same_by_title_status_and_due_date() {
        let task = |title: &str, due: Value| {
            json!({ "title": title, "status": "notStarted", "dueDateTime": due }).as_object().unwrap().clone()
        };
        let friday = json!({ "dateTime": "2026-05-01T00:00:00", "timeZone": "UTC" });
        assert_eq!(look(&task("a", friday.clone())), look(&task("a", friday.clone())));
        assert_ne!(look(&task("a", friday.clone())), look(&task("a", Value::Null)));
        assert_ne!(look(&task("a", friday.clone())), look(&task("b", friday)));
    }
}
