//! Open extensions of a task: named bags of an application's own data.

use serde_json::{Map, Value};

use crate::http::{Answer, Call, Refusal, refuse};
use crate::workloads::objects::page;
use crate::workloads::objects::schema::object;
use crate::workloads::todo::store::TodoStore;
use crate::workloads::todo::tasks::{changing, find};

/// What the body of a create brings along.
pub(crate) fn given(body: &Map<String, Value>) -> Result<Vec<Map<String, Value>>, Refusal> {
    let list = body.get("extensions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().map(made).collect()
}

/// An extension is named by `extensionName`, which is its id too.
fn made(body: &Value) -> Result<Map<String, Value>, Refusal> {
    let mut extension = object(body)?.clone();
    let name = extension.get("extensionName").and_then(Value::as_str).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| refuse(400, "BadRequest", "extensionName is missing"))?.to_owned();
    extension.insert("@odata.type".into(), "#microsoft.graph.openTypeExtension".into());
    extension.insert("id".into(), name.into());
    Ok(extension)
}

pub(crate) fn list(call: &Call) -> Answer {
    page::refuse_any(call, &["$filter", "$select", "$expand"])?;
    let store = call.world.state::<TodoStore>(call.user);
    let extensions = &find(call, &store)?.value.extensions;
    page::list(call, "extensions", extensions, |extension| Value::Object(extension.clone()))
}

pub(crate) fn create(call: &Call) -> Answer {
    let extension = made(&call.json()?)?;
    let mut store = call.world.state::<TodoStore>(call.user);
    let key = changing(call, &store)?;
    if find(call, &store)?.value.extensions.iter().any(|known| known["id"] == extension["id"]) {
        return Err(refuse(409, "ErrorItemExists", "An extension of this name exists."));
    }
    let TodoStore { numbers, tasks, .. } = &mut *store;
    if let Some(task) = tasks.change(numbers, key, call.world.clock.now_ms()) {
        task.extensions.push(extension.clone());
    }
    page::one(201, &Value::Object(extension))
}
