//! `/todo/lists/{list}/tasks`.

use serde_json::{Map, Value, json};

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::ids::Missing;
use crate::json::{change_key, timestamp};
use crate::workloads::objects::filter::Condition;
use crate::workloads::objects::page::{self, Round};
use crate::workloads::objects::schema::object;
use crate::workloads::objects::view::View;
use crate::workloads::objects::{Object, read_fault};
use crate::workloads::todo::children::{self, Checklist, Links};
use crate::workloads::todo::generate::date_time;
use crate::workloads::todo::lists::{named, writable};
use crate::workloads::todo::store::{ListKind, SCHEMA, Task, TodoStore};
use crate::workloads::todo::{extensions, files, flagged};

const CONTEXT: &str = "tasks";
const FILTERED_BY: [&str; 2] = ["title", "status"];
const RELATIONS: [&str; 4] = ["attachments", "checklistItems", "extensions", "linkedResources"];
const DATES: [&str; 4] = ["reminderDateTime", "startDateTime", "dueDateTime", "completedDateTime"];
/// Digits of a second's fraction as Graph writes them.
const FRACTION_DIGITS: usize = 7;

/// The task a path names.
pub(crate) fn find<'a>(call: &Call, store: &'a TodoStore) -> Result<&'a Object<Task>, Refusal> {
    let list = named(call, store)?.key;
    Ok(store.find_task(list, call.param("task").unwrap_or_default())?)
}

/// The key of a task that is about to be changed.
pub(crate) fn changing(call: &Call, store: &TodoStore) -> Result<u64, Refusal> {
    writable(call, store)?;
    Ok(find(call, store)?.key)
}

fn shown(store: &TodoStore, task: &Object<Task>, view: &View) -> Value {
    let Task { fields, checklist, links, files, extensions, body_modified_ms } = &task.value;
    let mut fields = fields.clone();
    fields.extend([
        ("@odata.etag".to_owned(), json!(format!("W/\"{}\"", change_key(task.seq)))),
        ("id".to_owned(), json!(store.task_id(task.key))),
        ("createdDateTime".to_owned(), timestamp(task.created_ms).into()),
        ("lastModifiedDateTime".to_owned(), timestamp(task.modified_ms).into()),
        ("bodyLastModifiedDateTime".to_owned(), timestamp(*body_modified_ms).into()),
        ("hasAttachments".to_owned(), (!files.is_empty()).into()),
    ]);
    if view.expands("checklistItems") {
        fields.insert("checklistItems".into(), children::all::<Checklist>(store, checklist));
    }
    if view.expands("linkedResources") {
        fields.insert("linkedResources".into(), children::all::<Links>(store, links));
    }
    if view.expands("attachments") {
        fields.insert("attachments".into(), files.iter().map(|file| files::shown(store, file)).collect());
    }
    if view.expands("extensions") {
        fields.insert("extensions".into(), extensions.iter().cloned().map(Value::Object).collect());
    }
    view.project(fields, &[])
}

fn is_flagged(call: &Call) -> Result<bool, Refusal> {
    let store = call.world.state::<TodoStore>(call.user);
    Ok(named(call, &store)?.value.kind == ListKind::Flagged)
}

pub(crate) fn list(call: &Call) -> Answer {
    if is_flagged(call)? {
        return flagged::list(call);
    }
    let view = View::of(&SCHEMA, &call.query, &RELATIONS)?;
    let condition = Condition::of(call, &FILTERED_BY)?;
    let store = call.world.state::<TodoStore>(call.user);
    let list = named(call, &store)?.key;
    let accepted = |task: &&Object<Task>| {
        condition.as_ref().is_none_or(|condition| condition.accepts(&task.value.fields, &[]))
    };
    let tasks: Vec<&Object<Task>> = store.tasks.at(list).filter(accepted).collect();
    page::list(call, CONTEXT, &tasks, |task| shown(&store, task, &view))
}

/// One page of changes of a list; what hangs on tasks is not in it.
pub(crate) fn delta(call: &Call) -> Answer {
    if is_flagged(call)? {
        return flagged::delta(call);
    }
    let store = call.world.state::<TodoStore>(call.user);
    let list = named(call, &store)?.key;
    let round = Round {
        objects: &store.tasks,
        stand: store.numbers.stand(),
        place: Some(list),
        collection: format!("todo tasks {list}"),
        type_name: SCHEMA.name,
    };
    round.page(
        call,
        |task, token| Ok(shown(&store, task, &View::of(&SCHEMA, &token.query(), &[])?)),
        |key, _| store.task_id(key),
    )
}

pub(crate) fn get(call: &Call) -> Answer {
    read_fault(call)?;
    if is_flagged(call)? {
        return flagged::get(call);
    }
    let view = View::of(&SCHEMA, &call.query, &RELATIONS)?;
    let store = call.world.state::<TodoStore>(call.user);
    page::one(200, &shown(&store, find(call, &store)?, &view))
}

/// Writes what the body gives into a task, by To Do's rules.
fn apply(task: &mut Task, body: &Map<String, Value>, now_ms: u64) -> Result<(), Refusal> {
    let before = task.fields.get("body").cloned();
    SCHEMA.apply(&mut task.fields, body)?;
    let fields = &mut task.fields;
    if fields.get("title").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(refuse(400, "ErrorInvalidArgument", "title is missing"));
    }
    if fields.get("body").is_none_or(Value::is_null) {
        fields.insert("body".into(), json!({"content": "", "contentType": "text"}));
    }
    for name in DATES {
        if let Some(date) = fields.get_mut(name).filter(|date| date.is_object()) {
            full_fraction(date)?;
        }
    }
    let is_completed = fields.get("status").is_some_and(|status| status == "completed");
    if !is_completed {
        fields.insert("completedDateTime".into(), Value::Null);
    } else if fields.get("completedDateTime").is_none_or(Value::is_null) {
        fields.insert("completedDateTime".into(), date_time(now_ms / 86_400_000 * 86_400_000));
    }
    if task.fields.get("body").cloned() != before {
        task.body_modified_ms = now_ms;
    }
    Ok(())
}

/// Writes a time with the digits Graph gives back.
fn full_fraction(date: &mut Value) -> Result<(), Refusal> {
    let wrong = || refuse(400, "ErrorInvalidArgument", "The value is not a time with its zone.");
    let text = date.get("dateTime").and_then(Value::as_str).ok_or_else(wrong)?;
    if date.get("timeZone").and_then(Value::as_str).is_none() {
        return Err(wrong());
    }
    let (seconds, fraction) =
        text.trim_end_matches('Z').split_once('.').unwrap_or((text.trim_end_matches('Z'), ""));
    let full = format!("{seconds}.{fraction:0<FRACTION_DIGITS$}");
    date["dateTime"] = full.into();
    Ok(())
}

fn one(store: &TodoStore, key: u64, status: u16) -> Answer {
    let task = store.tasks.get(key).ok_or(Missing::Gone)?;
    page::one(status, &shown(store, task, &View::default()))
}

pub(crate) fn create(call: &Call) -> Answer {
    let body = call.json()?;
    let body = object(&body)?;
    for name in ["checklistItems", "attachments"] {
        if body.get(name).and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
            return Err(refuse(400, "BadRequest", format!("{name} are created one by one.")));
        }
    }
    let now = call.world.clock.now_ms();
    let mut task = Task { fields: SCHEMA.blank(), body_modified_ms: now, ..Task::default() };
    apply(&mut task, body, now)?;
    task.extensions = extensions::given(body)?;
    let mut store = call.world.state::<TodoStore>(call.user);
    let list = writable(call, &store)?;
    for link in body.get("linkedResources").and_then(Value::as_array).into_iter().flatten() {
        task.links.push(children::made::<Links>(&mut store, link, now)?);
    }
    let TodoStore { numbers, tasks, .. } = &mut *store;
    let key = tasks.insert(numbers, list, now, task);
    one(&store, key, 201)
}

pub(crate) fn patch(call: &Call) -> Answer {
    let body = call.json()?;
    let now = call.world.clock.now_ms();
    let mut store = call.world.state::<TodoStore>(call.user);
    let key = changing(call, &store)?;
    let mut changed = find(call, &store)?.value.clone();
    apply(&mut changed, object(&body)?, now)?;
    let TodoStore { numbers, tasks, .. } = &mut *store;
    if let Some(task) = tasks.change(numbers, key, now) {
        *task = changed;
    }
    one(&store, key, 200)
}

pub(crate) fn delete(call: &Call) -> Answer {
    let mut store = call.world.state::<TodoStore>(call.user);
    let key = changing(call, &store)?;
    let TodoStore { numbers, tasks, .. } = &mut *store;
    tasks.remove(numbers, key);
    Ok(Reply::Empty(204))
}
