//! To Do: lists, tasks, and what hangs on a task.
//!
//! The one invariant to know: a task's checklist, links and attachments are in no delta; they are read when its etag changes.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    GraphClient, GraphError, Page,
    error::Operation,
    json::{FromObject, read_object},
    request::{Call, Repeat},
};

use super::outlook::{Change, Created, MarkedItem, etag_key, mailbox};

/// Tasks per page.
const DELTA_PAGE_SIZE: u32 = 100;

/// The name of the open extension that holds a restore key.
const RESTORE_EXTENSION: &str = "io.holdfast.restore";

/// The list that shows flagged mail: its tasks are messages.
const FLAGGED_MAIL: &str = "flaggedEmails";

/// A list of tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct TodoList {
    /// Its id.
    pub id: String,
    /// Its name.
    pub display_name: String,
    /// `defaultList` or `flaggedEmails`; none for a list of the user's own.
    pub well_known: Option<String>,
    /// Whether it is the user's; else somebody shares it with them.
    pub is_owner: bool,
    /// Everything Microsoft said.
    pub raw: Value,
}

impl TodoList {
    /// A view of flagged mail: its tasks come back with the messages, and must not be written.
    pub fn is_flagged_mail(&self) -> bool {
        self.well_known.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(FLAGGED_MAIL))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListFields {
    id: String,
    display_name: Option<String>,
    wellknown_list_name: Option<String>,
    is_owner: Option<bool>,
}

impl FromObject for TodoList {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: Value = serde_json::from_slice(raw)?;
        let fields = ListFields::deserialize(&raw)?;
        Ok(Self {
            id: fields.id,
            display_name: fields.display_name.unwrap_or_default(),
            well_known: fields.wellknown_list_name.filter(|name| !name.eq_ignore_ascii_case("none")),
            is_owner: fields.is_owner.unwrap_or(true),
            raw,
        })
    }
}

/// What a delta says about a list.
pub type TodoListChange = Change<TodoList>;

/// A task without its checklist, links and attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TodoTask {
    /// Its id.
    pub id: String,
    /// Says whether anything changed since it was read last, what hangs on it included.
    pub change_key: String,
    /// Its title.
    pub title: Option<String>,
    /// Whether it has attachments.
    pub has_attachments: bool,
    /// The whole object as it came, unknown properties included.
    pub raw: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TaskFields {
    id: String,
    #[serde(rename = "@odata.etag")]
    etag: Option<String>,
    title: Option<String>,
    has_attachments: Option<bool>,
}

impl FromObject for TodoTask {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: TaskFields = serde_json::from_slice(raw)?;
        Ok(Self {
            id: fields.id,
            change_key: fields.etag.as_deref().map(etag_key).unwrap_or_default(),
            title: fields.title,
            has_attachments: fields.has_attachments.unwrap_or_default(),
            raw: Bytes::copy_from_slice(raw),
        })
    }
}

/// What a delta says about a task.
pub type TodoTaskChange = Change<TodoTask>;

/// A collection that hangs on a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TodoTaskPart {
    /// Steps to be ticked off.
    ChecklistItems,
    /// Links to where the task comes from.
    LinkedResources,
}

impl TodoTaskPart {
    fn segment(self) -> &'static str {
        match self {
            Self::ChecklistItems => "checklistItems",
            Self::LinkedResources => "linkedResources",
        }
    }
}

/// By what a task is recognised.
const MARKED_PROPERTIES: &str = "id,title,createdDateTime,dueDateTime,status";

/// Marked tasks per page.
const MARKED_PAGE_SIZE: &str = "100";

/// A task with the restore key that an open extension of it holds: Exchange's extended properties are not for tasks.
struct MarkedTask(MarkedItem);

#[derive(Deserialize)]
struct MarkedFields {
    id: String,
    #[serde(default)]
    extensions: Option<Vec<RestoreExtension>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RestoreExtension {
    extension_name: Option<String>,
    restore_key: Option<String>,
}

impl FromObject for MarkedTask {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: MarkedFields = serde_json::from_slice(raw)?;
        let is_ours = |one: &RestoreExtension| one.extension_name.as_deref() == Some(RESTORE_EXTENSION);
        let ours = fields.extensions.unwrap_or_default().into_iter().find(is_ours);
        let value = ours.and_then(|extension| extension.restore_key);
        Ok(Self(MarkedItem { id: fields.id, value, raw: Bytes::copy_from_slice(raw) }))
    }
}

/// The open extension that marks a task with a restore key, as a create takes it.
pub fn restore_extension(restore_key: &str) -> Value {
    json!({
        "@odata.type": "microsoft.graph.openTypeExtension",
        "extensionName": RESTORE_EXTENSION,
        "restoreKey": restore_key,
    })
}

impl GraphClient {
    /// One page of the changes of a person's lists; `link` is the last page's, or none for the initial round.
    pub async fn todo_lists_delta(
        &self,
        user: &str,
        link: Option<&str>,
    ) -> Result<Page<TodoListChange>, GraphError> {
        let first = || self.url(&["users", user, "todo", "lists", "delta"], &[]);
        let call = Call::get(link.map_or_else(first, str::to_owned), Operation::List, mailbox(user));
        self.page(call.page_size(DELTA_PAGE_SIZE), "a page of task lists").await
    }

    /// One page of a list's changes; `link` is the last page's, or none for the initial round.
    pub async fn todo_tasks_delta(
        &self,
        user: &str,
        list: &str,
        link: Option<&str>,
    ) -> Result<Page<TodoTaskChange>, GraphError> {
        let first = || self.url(&["users", user, "todo", "lists", list, "tasks", "delta"], &[]);
        let call = Call::get(link.map_or_else(first, str::to_owned), Operation::List, mailbox(user));
        self.page(call.page_size(DELTA_PAGE_SIZE), "a page of tasks").await
    }

    /// One task.
    pub async fn todo_task(&self, user: &str, list: &str, task: &str) -> Result<TodoTask, GraphError> {
        let call = Call::get(self.task_url(user, list, task, &[]), Operation::Item, mailbox(user));
        self.object(call, "a task").await
    }

    /// One page of a list's tasks: id, title, times, status, and the restore key where [`restore_extension`] gave one.
    pub async fn todo_tasks_by_restore_key(
        &self,
        user: &str,
        list: &str,
        link: Option<&str>,
    ) -> Result<Page<MarkedItem>, GraphError> {
        let query = [("$select", MARKED_PROPERTIES), ("$expand", "extensions"), ("$top", MARKED_PAGE_SIZE)];
        let first = || self.url(&["users", user, "todo", "lists", list, "tasks"], &query);
        let call = Call::get(link.map_or_else(first, str::to_owned), Operation::List, mailbox(user));
        let page: Page<MarkedTask> = self.page(call, "a page of marked tasks").await?;
        Ok(page.map(|task| task.0))
    }

    /// A collection that hangs on a task, each object as it came.
    pub async fn todo_task_part(
        &self,
        user: &str,
        list: &str,
        task: &str,
        part: TodoTaskPart,
    ) -> Result<Vec<Value>, GraphError> {
        let first = self.task_url(user, list, task, &[part.segment()]);
        let call = |url| Call::get(url, Operation::Item, mailbox(user));
        self.whole(first, call, "the parts of a task").await
    }

    /// Creates a list; returns its id.
    pub async fn create_todo_list(&self, user: &str, body: &Value) -> Result<String, GraphError> {
        self.create_todo(self.url(&["users", user, "todo", "lists"], &[]), user, body).await
    }

    /// Creates a task in a list; returns its id.
    pub async fn create_todo_task(&self, user: &str, list: &str, body: &Value) -> Result<String, GraphError> {
        self.create_todo(self.url(&["users", user, "todo", "lists", list, "tasks"], &[]), user, body).await
    }

    /// Hangs an object on a task; returns its id.
    pub async fn create_todo_task_part(
        &self,
        user: &str,
        (list, task): (&str, &str),
        part: TodoTaskPart,
        body: &Value,
    ) -> Result<String, GraphError> {
        self.create_todo(self.task_url(user, list, task, &[part.segment()]), user, body).await
    }

    /// An unknown outcome is [`GraphError::Ambiguous`]: look before it is created again.
    async fn create_todo(&self, url: String, user: &str, body: &Value) -> Result<String, GraphError> {
        let call = Call::post(url, body, Repeat::Never, mailbox(user)).on_fresh();
        let created: Created = read_object(&self.send(call).await?.body, "a created object of a task list")
            .map_err(|error| GraphError::Ambiguous { source: Box::new(error) })?;
        Ok(created.id)
    }

    /// Deletes a list with its tasks. One that is gone already is deleted.
    pub async fn delete_todo_list(&self, user: &str, list: &str) -> Result<(), GraphError> {
        let url = self.url(&["users", user, "todo", "lists", list], &[]);
        self.delete_gone(Call::delete(url, mailbox(user))).await
    }

    /// Deletes a task. One that is gone already is deleted.
    pub async fn delete_todo_task(&self, user: &str, list: &str, task: &str) -> Result<(), GraphError> {
        self.delete_gone(Call::delete(self.task_url(user, list, task, &[]), mailbox(user))).await
    }

    fn task_url(&self, user: &str, list: &str, task: &str, below: &[&str]) -> String {
        self.url(&[&["users", user, "todo", "lists", list, "tasks", task], below].concat(), &[])
    }
}

#[cfg(test)]
mod tests;
