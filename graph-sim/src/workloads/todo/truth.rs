//! What a person's tasks really are, in a form tests compare.

use serde_json::{Value, json};

use crate::workloads::Slice;
use crate::workloads::objects::Object;
use crate::workloads::todo::children::{self, Checklist, Links};
use crate::workloads::todo::store::{SCHEMA, Task, TodoStore};
use crate::world::World;

/// A slice, in the order of the tasks' making; flagged mail is not in it.
pub(crate) fn list(world: &World, user: u32, slice: &Slice) -> Vec<Value> {
    let store = world.state::<TodoStore>(user);
    store.tasks.iter().skip(slice.skip).take(slice.top).map(|task| describe(world, &store, task)).collect()
}

fn describe(world: &World, store: &TodoStore, task: &Object<Task>) -> Value {
    let Task { fields, checklist, links, files, .. } = &task.value;
    let list = store.lists.get(task.place).map_or("", |list| list.value.name.as_str());
    let title = fields.get("title").and_then(Value::as_str).unwrap_or_default();
    let mut attachments: Vec<Value> = files
        .iter()
        .map(|file| {
            json!({"name": file.name, "contentType": file.content_type, "size": file.data.len(),
                "blake3": hex::encode(world.blobs.hash_of(&file.data))})
        })
        .collect();
    attachments.sort_by_cached_key(Value::to_string);
    let mut record = json!({
        "id": store.task_id(task.key),
        "identity": format!("{list} / {title}"),
        "list": list,
        "checklistItems": checklist.iter().map(children::described::<Checklist>).collect::<Vec<_>>(),
        "linkedResources": links.iter().map(children::described::<Links>).collect::<Vec<_>>(),
        "attachments": attachments,
    });
    for name in SCHEMA.writable() {
        record[name] = fields.get(name).cloned().unwrap_or(Value::Null);
    }
    record
}
