//! Attachments of tasks: small ones in one call, any in an upload session.
//!
//! Unlike a mail's, a task's session is a resource of Graph: its URL takes the bearer token, and pieces go to the
//! `content` below it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::blob::Data;
use crate::http::upload::Progress;
use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::ids::{FIRST_TAG, Missing};
use crate::json::timestamp;
use crate::workloads::mail::create::field;
use crate::workloads::objects::schema::{Schema, Shape, object};
use crate::workloads::objects::view::View;
use crate::workloads::objects::{Named, page, read_fault};
use crate::workloads::todo::store::{File, Task, TodoStore};
use crate::workloads::todo::tasks::{changing, find};
use crate::world::World;

const TAG: u8 = FIRST_TAG + 0x15;
/// Larger ones need an upload session.
const MAX_DIRECT: u64 = 3 * 1024 * 1024;
/// All files of a task together.
const MAX_OF_TASK: u64 = 25 * 1024 * 1024;
const TYPE: &str = "#microsoft.graph.taskFileAttachment";
const OCTETS: &str = "application/octet-stream";

const SCHEMA: Schema = Schema {
    name: "taskFileAttachment",
    properties: &[
        ("id", Shape::Fixed),
        ("lastModifiedDateTime", Shape::Fixed),
        ("size", Shape::Fixed),
        ("name", Shape::Text),
        ("contentType", Shape::Text),
        ("contentBytes", Shape::Text),
    ],
};

/// A file without its bytes.
pub(crate) fn shown(store: &TodoStore, file: &File) -> Value {
    json!({
        "@odata.type": TYPE, "id": store.id(TAG, file.key), "name": file.name, "contentType": file.content_type,
        "size": file.data.len(), "lastModifiedDateTime": timestamp(file.added_ms),
    })
}

pub(crate) fn list(call: &Call) -> Answer {
    page::refuse_any(call, &["$filter"])?;
    let view = View::of(&SCHEMA, &call.query, &[])?;
    let store = call.world.state::<TodoStore>(call.user);
    page::list(call, "attachments", &find(call, &store)?.value.files, |file| view.show(shown(&store, file)))
}

fn file(call: &Call, store: &TodoStore) -> Result<File, Refusal> {
    let wanted = Named::of(call.param("attachment").unwrap_or_default(), TAG, store.user)?.key;
    let files = &find(call, store)?.value.files;
    Ok(files.iter().find(|file| file.key == wanted).cloned().ok_or(Missing::Gone)?)
}

pub(crate) fn get(call: &Call) -> Answer {
    read_fault(call)?;
    let view = View::of(&SCHEMA, &call.query, &[])?;
    let store = call.world.state::<TodoStore>(call.user);
    let file = file(call, &store)?;
    let mut answer = shown(&store, &file);
    answer["contentBytes"] = STANDARD.encode(file.data.to_vec()).into();
    page::one(200, &view.show(answer))
}

pub(crate) fn value(call: &Call) -> Answer {
    read_fault(call)?;
    let file = file(call, &call.world.state::<TodoStore>(call.user))?;
    Ok(Reply::Data(file.data, file.content_type))
}

fn refuse_too_much(task: &Task, more: u64) -> Result<(), Refusal> {
    let have: u64 = task.files.iter().map(|file| file.data.len()).sum();
    if have + more > MAX_OF_TASK {
        return Err(refuse(413, "ErrorAttachmentSizeLimitExceeded", "The task's attachments are too large."));
    }
    Ok(())
}

pub(crate) fn create(call: &Call) -> Answer {
    let body = call.json()?;
    let is_file = field(&body, "@odata.type")
        .as_str()
        .is_some_and(|kind| kind.trim_start_matches('#').eq_ignore_ascii_case(TYPE.trim_start_matches('#')));
    let mut fields = SCHEMA.blank();
    SCHEMA.apply(&mut fields, object(&body)?)?;
    let text = |name: &str| fields[name].as_str().filter(|text| !text.is_empty());
    let bytes = text("contentBytes").and_then(|encoded| STANDARD.decode(encoded).ok());
    let (Some(name), Some(bytes), true) = (text("name"), bytes, is_file) else {
        let text = "A taskFileAttachment needs @odata.type, name and contentBytes.";
        return Err(refuse(400, "ErrorInvalidArgument", text));
    };
    if bytes.len() as u64 > MAX_DIRECT {
        return Err(refuse(413, "ErrorMessageSizeExceeded", "The attachment needs an upload session."));
    }
    let content_type = text("contentType").unwrap_or(OCTETS).to_owned();
    let mut store = call.world.state::<TodoStore>(call.user);
    let key = changing(call, &store)?;
    refuse_too_much(&find(call, &store)?.value, bytes.len() as u64)?;
    let data = call.world.blobs.keep(Bytes::from(bytes));
    let new = New { name: name.to_owned(), content_type, data };
    let file = add(&call.world, &mut store, key, new)?;
    page::one(201, &shown(&store, &file))
}

/// A file before it hangs on a task.
struct New {
    name: String,
    content_type: String,
    data: Data,
}

/// Hangs a file on a task.
fn add(world: &World, store: &mut TodoStore, task: u64, new: New) -> Result<File, Refusal> {
    let now = world.clock.now_ms();
    let New { name, content_type, data } = new;
    let file = File { key: store.numbers.next_key(), name, content_type, added_ms: now, data };
    let TodoStore { numbers, tasks, .. } = store;
    tasks.change(numbers, task, now).ok_or(Missing::Gone)?.files.push(file.clone());
    Ok(file)
}

pub(crate) fn delete(call: &Call) -> Answer {
    let mut store = call.world.state::<TodoStore>(call.user);
    let task = changing(call, &store)?;
    let doomed = file(call, &store)?.key;
    let TodoStore { numbers, tasks, .. } = &mut *store;
    if let Some(task) = tasks.change(numbers, task, call.world.clock.now_ms()) {
        task.files.retain(|file| file.key != doomed);
    }
    Ok(Reply::Empty(204))
}

/// Opens an upload session.
pub(crate) fn open_session(call: &Call) -> Answer {
    let body = call.json()?;
    let info = field(&body, "attachmentInfo");
    let size = field(info, "size").as_u64().unwrap_or(0);
    let name = field(info, "name").as_str().unwrap_or_default().to_owned();
    let is_file =
        field(info, "attachmentType").as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("file"));
    if size == 0 || name.is_empty() || !is_file {
        let text = "attachmentInfo needs attachmentType file, name and size.";
        return Err(refuse(400, "ErrorInvalidArgument", text));
    }
    let content_type = field(info, "contentType").as_str().unwrap_or(OCTETS).to_owned();
    let (task, path) = {
        let store = call.world.state::<TodoStore>(call.user);
        let task = changing(call, &store)?;
        refuse_too_much(&find(call, &store)?.value, size)?;
        (task, task_path(call, &store)?)
    };
    let (user, at) = (call.user, path.clone());
    let finish = move |world: &World, bytes: Bytes, base: &str| {
        let data = world.blobs.keep(bytes);
        let mut store = world.state::<TodoStore>(user);
        let file = add(world, &mut store, task, New { name, content_type, data })?;
        Ok(format!("{base}{at}/attachments/{}", store.id(TAG, file.key)))
    };
    let opened = call.world.uploads.open(call, size, Box::new(finish))?;
    opened.answer(call, &format!("{}{path}/attachmentSessions/{}", call.base, opened.id))
}

/// The path of the task a call names, by ids alone.
fn task_path(call: &Call, store: &TodoStore) -> Result<String, Refusal> {
    let task = find(call, store)?;
    let (list, id) = (store.list_id(task.place), store.task_id(task.key));
    let user = &call.world.people.user(call.user).id;
    Ok(format!("/v1.0/users/{user}/todo/lists/{list}/tasks/{id}"))
}

fn session(call: &Call) -> &str {
    call.param("session").unwrap_or_default()
}

pub(crate) fn session_status(call: &Call) -> Answer {
    Ok(Reply::Json(200, call.world.uploads.status(session(call), call.world.clock.now_ms())?))
}

pub(crate) fn cancel_session(call: &Call) -> Answer {
    call.world.uploads.cancel(session(call))?;
    Ok(Reply::Empty(204))
}

pub(crate) fn put_piece(call: &Call) -> Answer {
    match call.world.uploads.put(&call.world, session(call), &call.headers, &call.body, &call.base)? {
        Progress::More(status) => Ok(Reply::Json(200, status)),
        Progress::Done(location) => Ok(Reply::Located(location)),
    }
}
