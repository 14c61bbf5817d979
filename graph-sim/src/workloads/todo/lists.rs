//! `/todo/lists`.

use serde_json::{Value, json};

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::json::change_key;
use crate::workloads::objects::Object;
use crate::workloads::objects::filter::Condition;
use crate::workloads::objects::page::{self, Round};
use crate::workloads::objects::schema::{Schema, Shape, object};
use crate::workloads::objects::view::View;
use crate::workloads::todo::store::{List, ListKind, TodoStore};

const SCHEMA: Schema = Schema {
    name: "todoTaskList",
    properties: &[
        ("id", Shape::Fixed),
        ("isOwner", Shape::Fixed),
        ("isShared", Shape::Fixed),
        ("wellknownListName", Shape::Fixed),
        ("displayName", Shape::Text),
    ],
};
const CONTEXT: &str = "lists";

/// The list a path names.
pub(crate) fn named<'a>(call: &Call, store: &'a TodoStore) -> Result<&'a Object<List>, Refusal> {
    Ok(store.find_list(call.param("list").unwrap_or_default())?)
}

/// The key of the list a path names, if tasks can be written into it.
pub(crate) fn writable(call: &Call, store: &TodoStore) -> Result<u64, Refusal> {
    let list = named(call, store)?;
    match list.value.kind {
        ListKind::Own | ListKind::Default => Ok(list.key),
        ListKind::Flagged => Err(refuse(
            400,
            "ErrorInvalidRequest",
            "The list of flagged mail is a view: nothing can be written.",
        )),
    }
}

fn shown(store: &TodoStore, list: &Object<List>, view: &View) -> Value {
    let List { name, kind } = &list.value;
    let fields = json!({
        "@odata.etag": format!("W/\"{}\"", change_key(list.seq)), "id": store.list_id(list.key), "displayName": name,
        "isOwner": true, "isShared": false, "wellknownListName": kind.well_known_name(),
    });
    view.show(fields)
}

pub(crate) fn list(call: &Call) -> Answer {
    let view = View::of(&SCHEMA, &call.query, &[])?;
    let condition = Condition::of(call, &["displayName"])?;
    let store = call.world.state::<TodoStore>(call.user);
    let accepted =
        |list: &&Object<List>| Condition::accepts_text(condition.as_ref(), "displayName", &list.value.name);
    let lists: Vec<&Object<List>> = store.lists.iter().filter(accepted).collect();
    page::list(call, CONTEXT, &lists, |list| shown(&store, list, &view))
}

pub(crate) fn delta(call: &Call) -> Answer {
    let store = call.world.state::<TodoStore>(call.user);
    let round = Round {
        objects: &store.lists,
        stand: store.numbers.stand(),
        place: None,
        collection: "todo lists".into(),
        type_name: SCHEMA.name,
    };
    round.page(
        call,
        |list, token| Ok(shown(&store, list, &View::of(&SCHEMA, &token.query(), &[])?)),
        |key, _| store.list_id(key),
    )
}

pub(crate) fn get(call: &Call) -> Answer {
    let store = call.world.state::<TodoStore>(call.user);
    page::one(200, &shown(&store, named(call, &store)?, &View::default()))
}

fn wanted_name(call: &Call) -> Result<String, Refusal> {
    let mut fields = SCHEMA.blank();
    SCHEMA.apply(&mut fields, object(&call.json()?)?)?;
    let name = fields["displayName"].as_str().map(str::trim).filter(|name| !name.is_empty());
    name.map(ToOwned::to_owned).ok_or_else(|| refuse(400, "ErrorInvalidArgument", "displayName is missing"))
}

fn one(store: &TodoStore, key: u64, status: u16) -> Answer {
    let list = store.lists.get(key).ok_or(crate::ids::Missing::Gone)?;
    page::one(status, &shown(store, list, &View::default()))
}

/// Two lists may have one name.
pub(crate) fn create(call: &Call) -> Answer {
    let name = wanted_name(call)?;
    let mut store = call.world.state::<TodoStore>(call.user);
    let key = store.add_list(&name, ListKind::Own, call.world.clock.now_ms());
    one(&store, key, 201)
}

/// The key of a list that is the person's to change.
fn own(call: &Call, store: &TodoStore) -> Result<u64, Refusal> {
    let list = named(call, store)?;
    match list.value.kind {
        ListKind::Own => Ok(list.key),
        ListKind::Default | ListKind::Flagged => {
            Err(refuse(400, "ErrorInvalidRequest", "A well-known list cannot be changed."))
        }
    }
}

pub(crate) fn rename(call: &Call) -> Answer {
    let name = wanted_name(call)?;
    let mut store = call.world.state::<TodoStore>(call.user);
    let key = own(call, &store)?;
    let TodoStore { numbers, lists, .. } = &mut *store;
    if let Some(list) = lists.change(numbers, key, call.world.clock.now_ms()) {
        list.name = name;
    }
    one(&store, key, 200)
}

pub(crate) fn delete(call: &Call) -> Answer {
    let mut store = call.world.state::<TodoStore>(call.user);
    let key = own(call, &store)?;
    store.remove_list(key);
    Ok(Reply::Empty(204))
}
