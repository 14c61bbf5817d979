//! What a person has: lists, tasks in lists, and on each task lines, links, files, extensions.

use serde_json::{Map, Value};

use crate::blob::Data;
use crate::ids::{FIRST_TAG, Id, Missing};
use crate::workloads::objects::schema::{Schema, Shape};
use crate::workloads::objects::{Named, Numbers, Object, Objects};
use crate::workloads::states::UserState;
use crate::world::World;

const LIST_TAG: u8 = FIRST_TAG + 0x10;
const TASK_TAG: u8 = FIRST_TAG + 0x11;
/// A flagged message shown as a task; its key is the message's.
pub(crate) const FLAGGED_TAG: u8 = FIRST_TAG + 0x12;
const FIRST_KEY: u64 = 1;
/// Lists hang on nothing.
const NOWHERE: u64 = 0;
/// Lists that every mailbox has were made then: 2023-01-09T08:00:00Z.
const OLDEST_MS: u64 = 1_673_251_200_000;

/// What a task has.
pub(crate) const SCHEMA: Schema = Schema {
    name: "todoTask",
    properties: &[
        ("id", Shape::Fixed),
        ("createdDateTime", Shape::Fixed),
        ("lastModifiedDateTime", Shape::Fixed),
        ("bodyLastModifiedDateTime", Shape::Fixed),
        ("hasAttachments", Shape::Fixed),
        ("attachments", Shape::Apart),
        ("attachmentSessions", Shape::Apart),
        ("checklistItems", Shape::Apart),
        ("extensions", Shape::Apart),
        ("linkedResources", Shape::Apart),
        ("title", Shape::Text),
        ("body", Shape::Object),
        ("importance", Shape::Choice(&["normal", "low", "high"])),
        ("status", Shape::Choice(&["notStarted", "inProgress", "completed", "waitingOnOthers", "deferred"])),
        ("categories", Shape::Texts),
        ("isReminderOn", Shape::Flag),
        ("reminderDateTime", Shape::Object),
        ("startDateTime", Shape::Object),
        ("dueDateTime", Shape::Object),
        ("completedDateTime", Shape::Object),
        ("recurrence", Shape::Object),
    ],
};

/// What kind of list it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    Own,
    Default,
    /// A view of flagged mail.
    Flagged,
}

impl ListKind {
    pub(crate) fn well_known_name(self) -> &'static str {
        match self {
            Self::Own => "none",
            Self::Default => "defaultList",
            Self::Flagged => "flaggedEmails",
        }
    }
}

pub(crate) struct List {
    pub name: String,
    pub kind: ListKind,
}

/// A line of a checklist, or a link.
#[derive(Clone)]
pub(crate) struct Child {
    pub key: u64,
    pub created_ms: u64,
    pub fields: Map<String, Value>,
}

/// An attachment.
#[derive(Clone)]
pub(crate) struct File {
    pub key: u64,
    pub name: String,
    pub content_type: String,
    pub added_ms: u64,
    pub data: Data,
}

#[derive(Clone, Default)]
pub(crate) struct Task {
    pub fields: Map<String, Value>,
    pub checklist: Vec<Child>,
    pub links: Vec<Child>,
    pub files: Vec<File>,
    /// Open extensions as given.
    pub extensions: Vec<Map<String, Value>>,
    pub body_modified_ms: u64,
}

pub(crate) struct TodoStore {
    pub user: u32,
    pub numbers: Numbers,
    pub lists: Objects<List>,
    /// A task's place is its list.
    pub tasks: Objects<Task>,
    /// Number of the next generated task.
    next_index: u32,
}

impl UserState for TodoStore {
    fn populate(world: &World, user: u32) -> Self {
        let mut store = Self {
            user,
            numbers: Numbers::new(FIRST_KEY),
            lists: Objects::new(),
            tasks: Objects::new(),
            next_index: 0,
        };
        store.add_list("Tasks", ListKind::Default, OLDEST_MS);
        store.add_list("Flagged Emails", ListKind::Flagged, OLDEST_MS);
        super::generate::populate(world, &mut store);
        store
    }
}

impl TodoStore {
    pub(crate) fn add_list(&mut self, name: &str, kind: ListKind, now_ms: u64) -> u64 {
        self.lists.insert(&mut self.numbers, NOWHERE, now_ms, List { name: name.into(), kind })
    }

    /// Lists that hold tasks of their own.
    pub(crate) fn places(&self) -> Vec<u64> {
        self.lists.iter().filter(|list| list.value.kind != ListKind::Flagged).map(|list| list.key).collect()
    }

    pub(crate) fn next_index(&mut self) -> u32 {
        self.next_index += 1;
        self.next_index - 1
    }

    pub(crate) fn find_list(&self, id: &str) -> Result<&Object<List>, Missing> {
        Named::of(id, LIST_TAG, self.user)?.among(&self.lists)
    }

    /// A task of a list.
    pub(crate) fn find_task(&self, list: u64, id: &str) -> Result<&Object<Task>, Missing> {
        let task = Named::of(id, TASK_TAG, self.user)?.among(&self.tasks)?;
        if task.place == list { Ok(task) } else { Err(Missing::Gone) }
    }

    pub(crate) fn list_id(&self, key: u64) -> String {
        self.id(LIST_TAG, key)
    }

    pub(crate) fn task_id(&self, key: u64) -> String {
        self.id(TASK_TAG, key)
    }

    pub(crate) fn id(&self, tag: u8, key: u64) -> String {
        Id::Object { tag, user: self.user, key, extra: 0, moves: None }.encode()
    }

    pub(crate) fn remove_list(&mut self, key: u64) {
        let tasks: Vec<u64> = self.tasks.at(key).map(|task| task.key).collect();
        for task in tasks {
            self.tasks.remove(&mut self.numbers, task);
        }
        self.lists.remove(&mut self.numbers, key);
    }

    /// Removes all tasks and the lists somebody made, and says how many tasks went.
    pub(crate) fn wipe(&mut self) -> u64 {
        let count = self.tasks.iter().count() as u64;
        let tasks: Vec<u64> = self.tasks.iter().map(|task| task.key).collect();
        for task in tasks {
            self.tasks.remove(&mut self.numbers, task);
        }
        let own = self.lists.iter().filter(|list| list.value.kind == ListKind::Own);
        let own: Vec<u64> = own.map(|list| list.key).collect();
        for list in own {
            self.remove_list(list);
        }
        count
    }
}
