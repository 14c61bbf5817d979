//! `/outlook/masterCategories`.

use serde_json::Value;

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::workloads::mailbox_settings::store::{CATEGORY, Category, SettingsStore};
use crate::workloads::objects::page;
use crate::workloads::objects::schema::object;

fn shown(store: &SettingsStore, category: &Category) -> Value {
    let mut fields = category.fields.clone();
    fields.insert("id".into(), store.category_id(category.key).into());
    Value::Object(fields)
}

fn place(call: &Call, store: &SettingsStore) -> Result<usize, Refusal> {
    Ok(store.find_category(call.param("category").unwrap_or_default())?)
}

pub(super) fn list(call: &Call) -> Answer {
    let store = call.world.state::<SettingsStore>(call.user);
    let all: Vec<&Category> = store.categories.iter().collect();
    page::list(call, "outlookCategories", &all, |category| shown(&store, category))
}

pub(super) fn get(call: &Call) -> Answer {
    let store = call.world.state::<SettingsStore>(call.user);
    page::one(200, &shown(&store, &store.categories[place(call, &store)?]))
}

pub(super) fn create(call: &Call) -> Answer {
    let mut fields = CATEGORY.blank();
    fields.insert("color".into(), "none".into());
    CATEGORY.apply(&mut fields, object(&call.json()?)?)?;
    let name = fields["displayName"].as_str().unwrap_or_default().to_lowercase();
    if name.is_empty() {
        return Err(refuse(400, "ErrorInvalidArgument", "displayName is missing"));
    }
    let mut store = call.world.state::<SettingsStore>(call.user);
    let is_it =
        |one: &Category| one.fields["displayName"].as_str().unwrap_or_default().to_lowercase() == name;
    if store.categories.iter().any(is_it) {
        return Err(refuse(409, "ErrorDuplicateCategory", "A category of this name exists already."));
    }
    let category = Category { key: store.next_key(), fields };
    store.categories.push(category.clone());
    page::one(201, &shown(&store, &category))
}

/// The name of a category cannot be changed.
pub(super) fn patch(call: &Call) -> Answer {
    let body = call.json()?;
    let body = object(&body)?;
    if body.contains_key("displayName") {
        return Err(refuse(400, "ErrorInvalidArgument", "displayName cannot be changed"));
    }
    let mut store = call.world.state::<SettingsStore>(call.user);
    let place = place(call, &store)?;
    CATEGORY.apply(&mut store.categories[place].fields, body)?;
    page::one(200, &shown(&store, &store.categories[place]))
}

pub(super) fn delete(call: &Call) -> Answer {
    let mut store = call.world.state::<SettingsStore>(call.user);
    let place = place(call, &store)?;
    store.categories.remove(place);
    Ok(Reply::Empty(204))
}
