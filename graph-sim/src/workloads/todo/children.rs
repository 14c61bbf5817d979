//! What hangs on a task in numbers: lines of its checklist, links to other applications.

use serde_json::{Map, Value, json};

use crate::http::{Answer, Call, Refusal, Reply};
use crate::ids::{FIRST_TAG, Missing};
use crate::json::timestamp;
use crate::workloads::objects::schema::{Schema, Shape, object};
use crate::workloads::objects::view::View;
use crate::workloads::objects::{Named, page, read_fault};
use crate::workloads::todo::store::{Child, Task, TodoStore};
use crate::workloads::todo::tasks::{changing, find};

/// One kind of them.
pub(crate) trait ChildKind {
    const SCHEMA: Schema;
    const TAG: u8;
    /// The name of its id in paths.
    const PARAM: &'static str;

    fn of(task: &Task) -> &Vec<Child>;

    fn of_mut(task: &mut Task) -> &mut Vec<Child>;

    /// Fills what the service sets.
    fn derive(_fields: &mut Map<String, Value>, _now_ms: u64) {}

    /// Whether it shows when it was made.
    fn is_dated() -> bool {
        false
    }
}

/// Lines of a checklist.
pub(crate) struct Checklist;

impl ChildKind for Checklist {
    const SCHEMA: Schema = Schema {
        name: "checklistItem",
        properties: &[
            ("id", Shape::Fixed),
            ("createdDateTime", Shape::Fixed),
            ("displayName", Shape::Text),
            ("isChecked", Shape::Flag),
            ("checkedDateTime", Shape::Text),
        ],
    };
    const TAG: u8 = FIRST_TAG + 0x13;
    const PARAM: &'static str = "line";

    fn of(task: &Task) -> &Vec<Child> {
        &task.checklist
    }

    fn of_mut(task: &mut Task) -> &mut Vec<Child> {
        &mut task.checklist
    }

    fn derive(fields: &mut Map<String, Value>, now_ms: u64) {
        let is_checked = fields.get("isChecked").and_then(Value::as_bool).unwrap_or(false);
        let is_dated = fields.get("checkedDateTime").is_some_and(Value::is_string);
        if !is_checked {
            fields.insert("checkedDateTime".into(), Value::Null);
        } else if !is_dated {
            fields.insert("checkedDateTime".into(), timestamp(now_ms).into());
        }
    }

    fn is_dated() -> bool {
        true
    }
}

/// Links.
pub(crate) struct Links;

impl ChildKind for Links {
    const SCHEMA: Schema = Schema {
        name: "linkedResource",
        properties: &[
            ("id", Shape::Fixed),
            ("applicationName", Shape::Text),
            ("displayName", Shape::Text),
            ("externalId", Shape::Text),
            ("webUrl", Shape::Text),
        ],
    };
    const TAG: u8 = FIRST_TAG + 0x14;
    const PARAM: &'static str = "link";

    fn of(task: &Task) -> &Vec<Child> {
        &task.links
    }

    fn of_mut(task: &mut Task) -> &mut Vec<Child> {
        &mut task.links
    }
}

fn shown<K: ChildKind>(store: &TodoStore, child: &Child, view: &View) -> Value {
    let mut fields = child.fields.clone();
    fields.insert("id".into(), store.id(K::TAG, child.key).into());
    if K::is_dated() {
        fields.insert("createdDateTime".into(), timestamp(child.created_ms).into());
    }
    view.project(fields, &[])
}

/// All of a task.
pub(crate) fn all<K: ChildKind>(store: &TodoStore, children: &[Child]) -> Value {
    children.iter().map(|child| shown::<K>(store, child, &View::default())).collect()
}

/// A new one from what the API was given.
pub(crate) fn made<K: ChildKind>(store: &mut TodoStore, body: &Value, now_ms: u64) -> Result<Child, Refusal> {
    let mut fields = K::SCHEMA.blank();
    K::SCHEMA.apply(&mut fields, object(body)?)?;
    K::derive(&mut fields, now_ms);
    Ok(Child { key: store.numbers.next_key(), created_ms: now_ms, fields })
}

fn position<K: ChildKind>(call: &Call, store: &TodoStore, task: &Task) -> Result<usize, Refusal> {
    let wanted = Named::of(call.param(K::PARAM).unwrap_or_default(), K::TAG, store.user)?.key;
    let at = K::of(task).iter().position(|child| child.key == wanted);
    Ok(at.ok_or(Missing::Gone)?)
}

pub(crate) fn list<K: ChildKind>(call: &Call) -> Answer {
    page::refuse_any(call, &["$filter"])?;
    let view = View::of(&K::SCHEMA, &call.query, &[])?;
    let store = call.world.state::<TodoStore>(call.user);
    let task = find(call, &store)?;
    page::list(call, K::SCHEMA.name, K::of(&task.value), |child| shown::<K>(&store, child, &view))
}

pub(crate) fn get<K: ChildKind>(call: &Call) -> Answer {
    read_fault(call)?;
    let view = View::of(&K::SCHEMA, &call.query, &[])?;
    let store = call.world.state::<TodoStore>(call.user);
    let task = &find(call, &store)?.value;
    let at = position::<K>(call, &store, task)?;
    page::one(200, &shown::<K>(&store, &K::of(task)[at], &view))
}

pub(crate) fn create<K: ChildKind>(call: &Call) -> Answer {
    let body = call.json()?;
    let now = call.world.clock.now_ms();
    let mut store = call.world.state::<TodoStore>(call.user);
    let key = changing(call, &store)?;
    let child = made::<K>(&mut store, &body, now)?;
    let answer = shown::<K>(&store, &child, &View::default());
    let TodoStore { numbers, tasks, .. } = &mut *store;
    if let Some(task) = tasks.change(numbers, key, now) {
        K::of_mut(task).push(child);
    }
    page::one(201, &answer)
}

pub(crate) fn patch<K: ChildKind>(call: &Call) -> Answer {
    let body = call.json()?;
    let now = call.world.clock.now_ms();
    let mut store = call.world.state::<TodoStore>(call.user);
    let key = changing(call, &store)?;
    let task = &find(call, &store)?.value;
    let at = position::<K>(call, &store, task)?;
    let mut child = K::of(task)[at].clone();
    K::SCHEMA.apply(&mut child.fields, object(&body)?)?;
    K::derive(&mut child.fields, now);
    let answer = shown::<K>(&store, &child, &View::default());
    let TodoStore { numbers, tasks, .. } = &mut *store;
    if let Some(task) = tasks.change(numbers, key, now) {
        K::of_mut(task)[at] = child;
    }
    page::one(200, &answer)
}

pub(crate) fn delete<K: ChildKind>(call: &Call) -> Answer {
    let mut store = call.world.state::<TodoStore>(call.user);
    let key = changing(call, &store)?;
    let at = position::<K>(call, &store, &find(call, &store)?.value)?;
    let TodoStore { numbers, tasks, .. } = &mut *store;
    if let Some(task) = tasks.change(numbers, key, call.world.clock.now_ms()) {
        K::of_mut(task).remove(at);
    }
    Ok(Reply::Empty(204))
}

/// What truths compare: what was written, without what the service set.
pub(crate) fn described<K: ChildKind>(child: &Child) -> Value {
    let names = K::SCHEMA.writable().filter(|name| *name != "checkedDateTime");
    json!(names.map(|name| (name, child.fields.get(name))).collect::<std::collections::BTreeMap<_, _>>())
}
