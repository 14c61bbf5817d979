//! `/drives/{d}` and `/drives/{d}/items/{i}`: reading, making folders, renaming, moving, deleting.
//!
//! Invariant: an item is addressed by id, by path from the root, or by path from another item; all three lead to
//! [`find`].

use serde_json::{Value, json};

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::json::parse_timestamp;
use crate::query::Query;
use crate::workloads::drive::ids::item_key;
use crate::workloads::drive::item::{By, Fate, Holds, Item, Kind, Name, Times};
use crate::workloads::drive::names::{self, Conflict};
use crate::workloads::drive::show::{self, Audience, Place, RELATIONS, SCHEMA};
use crate::workloads::drive::store::{DriveStore, New, ROOT};
use crate::workloads::objects::page;
use crate::workloads::objects::view::View;

/// Items of a page when nothing is said.
const DEFAULT_PAGE: usize = 200;
const SKIP_TOKEN: &str = "$skiptoken";

pub(crate) fn not_found() -> Refusal {
    refuse(404, "itemNotFound", "The resource could not be found.")
}

/// What a call's address is made of: the item it starts at, and names below it.
pub(crate) struct Address {
    pub start: u32,
    pub names: Vec<String>,
}

impl Address {
    pub(crate) fn of(call: &Call) -> Result<Self, Refusal> {
        let text = call.param("item").unwrap_or("root");
        let (id, path) = text.split_once(":/").map_or((text, ""), |(id, path)| (id, path));
        let start = if id.eq_ignore_ascii_case("root") {
            ROOT
        } else {
            item_key(call.user, id).ok_or_else(not_found)?
        };
        let names = path.split('/').filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect();
        Ok(Self { start, names })
    }

    /// The item, when there is one.
    pub(crate) fn item(&self, store: &mut DriveStore) -> Option<u32> {
        let start = store.get(self.start)?.key;
        self.names.iter().try_fold(start, |folder, name| store.child(folder, name))
    }

    /// The folder and the name of what may not be there yet; none when the address names no name.
    pub(crate) fn target(&self, store: &mut DriveStore) -> Result<Option<(u32, String)>, Refusal> {
        let Some((name, folders)) = self.names.split_last() else { return Ok(None) };
        let start = store.get(self.start).ok_or_else(not_found)?.key;
        let folder = folders.iter().try_fold(start, |folder, name| store.child(folder, name));
        Ok(Some((folder.ok_or_else(not_found)?, name.clone())))
    }
}

/// The item a call names.
pub(crate) fn find(call: &Call, store: &mut DriveStore) -> Result<u32, Refusal> {
    Address::of(call)?.item(store).ok_or_else(not_found)
}

/// The same, or the refusal that the fault options want.
pub(crate) fn read(call: &Call, store: &mut DriveStore) -> Result<u32, Refusal> {
    if call.luck.strikes("404", call.options.faults.rate_404) {
        call.world.counters.fault("404");
        return Err(not_found());
    }
    find(call, store)
}

/// An item that may be changed: there, not locked, and still what `If-Match` says.
pub(crate) fn writable<'a>(call: &Call, store: &'a DriveStore, key: u32) -> Result<&'a Item, Refusal> {
    let item = store.get(key).ok_or_else(not_found)?;
    let header = |name| call.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let etag = show::etag(store.user, item);
    let matches = |wanted: &str| wanted == "*" || wanted.trim() == etag;
    let changed = || refuse(412, "resourceModified", "ETag does not match current item's value.");
    if header("if-match").is_some_and(|wanted| !matches(wanted))
        || header("if-none-match").is_some_and(matches)
    {
        return Err(changed());
    }
    if item.fate() == Some(Fate::Locked) {
        return Err(locked());
    }
    Ok(item)
}

pub(crate) fn locked() -> Refusal {
    refuse(423, "resourceLocked", "The resource you are attempting to access is locked.")
}

fn view(call: &Call) -> Result<View, Refusal> {
    View::of(&SCHEMA, &call.query, &RELATIONS)
}

/// Answers with an item.
pub(crate) fn answer(call: &Call, store: &DriveStore, status: u16, key: u32) -> Answer {
    let view = if call.method == http::Method::GET { view(call)? } else { View::default() };
    let item = store.get(key).ok_or_else(not_found)?;
    page::one(status, &show::item(&Audience::of(call), store, item, &view, Place::Alone))
}

pub(crate) fn drive(call: &Call) -> Answer {
    let mut shown = show::drive(&Audience::of(call), &call.world.state::<DriveStore>(call.user));
    shown["@odata.context"] = format!("{}/v1.0/$metadata#drives/$entity", call.base).into();
    page::one(200, &shown)
}

pub(crate) fn drives(call: &Call) -> Answer {
    let drive = show::drive(&Audience::of(call), &call.world.state::<DriveStore>(call.user));
    let context = format!("{}/v1.0/$metadata#drives", call.base);
    page::one(200, &json!({"@odata.context": context, "value": [drive]}))
}

pub(crate) fn get(call: &Call) -> Answer {
    let mut store = call.world.state::<DriveStore>(call.user);
    let key = read(call, &mut store)?;
    answer(call, &store, 200, key)
}

/// How many items a page has.
pub(crate) fn page_size(call: &Call) -> Result<usize, Refusal> {
    let top = call.query.number("$top").map_err(|text| refuse(400, "invalidRequest", text))?;
    let wanted = top.or(call.page_size).unwrap_or(DEFAULT_PAGE);
    Ok(wanted.clamp(1, call.options.page_size_max.max(1) as usize))
}

/// What is in a folder; what comes or goes meanwhile may be missed.
pub(crate) fn children(call: &Call) -> Answer {
    page::refuse_any(call, &["$filter", "$orderby", "$search", "$skip"])?;
    let (size, view) = (page_size(call)?, view(call)?);
    let mut store = call.world.state::<DriveStore>(call.user);
    let folder = read(call, &mut store)?;
    let skip = match call.query.get(SKIP_TOKEN) {
        None => 0,
        Some(token) => {
            token.parse().map_err(|_| refuse(400, "invalidRequest", "The skip token is invalid."))?
        }
    };
    let to = Audience::of(call);
    let children = store.children(folder).skip(skip).take(size);
    let shown: Vec<Value> = children.map(|item| show::item(&to, &store, item, &view, Place::List)).collect();
    let next = skip + shown.len();
    let count =
        store.get(folder).and_then(|item| item.kind.holds()).map_or(0, |holds| holds.children as usize);
    let mut page = json!({"@odata.context": format!("{}/v1.0/$metadata#drives/items/children", call.base), "value": shown});
    if next < count {
        let mut query = Query(call.query.without(&[SKIP_TOKEN]).0);
        query.0.push((SKIP_TOKEN.into(), next.to_string()));
        page["@odata.nextLink"] = call.link(&query).into();
    }
    page::one(200, &page)
}

/// Makes a folder in the folder that a call names.
pub(crate) fn create_folder(call: &Call) -> Answer {
    let body = call.json()?;
    let name = body["name"].as_str().unwrap_or_default();
    if !body["folder"].is_object() {
        return Err(refuse(
            400,
            "invalidRequest",
            "Only folders are made this way: the body needs a folder.",
        ));
    }
    let conflict = Conflict::of(call, &body, Conflict::Fail)?;
    let now = call.world.clock.now_ms();
    let times = times(&body, Times { created_ms: now, modified_ms: now })?;
    let mut store = call.world.state::<DriveStore>(call.user);
    let parent = find(call, &mut store)?;
    if !store.get(parent).is_some_and(Item::is_folder) {
        return Err(refuse(400, "invalidRequest", "The item is not a folder."));
    }
    names::check(&store, parent, name)?;
    let name = match (store.child(parent, name), conflict) {
        (None, _) => name.to_owned(),
        (Some(_), Conflict::Rename) => names::free(&mut store, parent, name),
        // Replacing a folder means to take the one that is there; a file is never replaced by one.
        (Some(found), Conflict::Replace) if store.get(found).is_some_and(Item::is_folder) => {
            return answer(call, &store, 200, found);
        }
        (Some(_), Conflict::Fail | Conflict::Replace) => return Err(names::taken()),
    };
    let kind = Kind::Folder(Holds::default());
    let key = store.insert(parent, New { name: Name::own(&name), kind, by: By::App, made_ms: now, times });
    answer(call, &store, 201, key)
}

/// What `fileSystemInfo` gives; the rest stays.
pub(crate) fn times(body: &Value, otherwise: Times) -> Result<Times, Refusal> {
    let given = |name: &str, otherwise: u64| match &body["fileSystemInfo"][name] {
        Value::Null => Ok(otherwise),
        given => given
            .as_str()
            .and_then(parse_timestamp)
            .ok_or_else(|| refuse(400, "invalidRequest", format!("{name} is not a time."))),
    };
    Ok(Times {
        created_ms: given("createdDateTime", otherwise.created_ms)?,
        modified_ms: given("lastModifiedDateTime", otherwise.modified_ms)?,
    })
}

/// Renames, moves, sets times.
pub(crate) fn patch(call: &Call) -> Answer {
    let body = call.json()?;
    let now = call.world.clock.now_ms();
    let mut store = call.world.state::<DriveStore>(call.user);
    let key = find(call, &mut store)?;
    let item = writable(call, &store, key)?;
    let (times, parent) = (times(&body, item.times)?, item.parent);
    let old_name = store.name_of(item);
    let folder = match body["parentReference"]["id"].as_str() {
        None => parent,
        Some("root") => ROOT,
        Some(id) => item_key(call.user, id).ok_or_else(not_found)?,
    };
    let name = body["name"].as_str().unwrap_or(&old_name);
    if folder != parent || name != old_name {
        move_to(call, &mut store, key, (folder, name), &body)?;
    }
    if let Some(item) = store.change(key, now) {
        item.times = times;
        item.by = By::App;
    }
    answer(call, &store, 200, key)
}

fn move_to(
    call: &Call,
    store: &mut DriveStore,
    key: u32,
    (folder, name): (u32, &str),
    body: &Value,
) -> Result<(), Refusal> {
    let is_folder = store.get(folder).ok_or_else(not_found)?.is_folder();
    let is_below = folder == key || store.above(folder).any(|above| above.key == key);
    if key == ROOT || is_below || !is_folder {
        return Err(refuse(400, "invalidRequest", "The item cannot be there."));
    }
    names::check(store, folder, name)?;
    let taken = store.child(folder, name).filter(|found| *found != key);
    let name = match (taken, Conflict::of(call, body, Conflict::Fail)?) {
        (None, _) => name.to_owned(),
        (Some(_), Conflict::Rename) => names::free(store, folder, name),
        (Some(other), Conflict::Replace) if !store.get(other).is_some_and(Item::is_folder) => {
            store.delete(other);
            name.to_owned()
        }
        (Some(_), Conflict::Fail | Conflict::Replace) => return Err(names::taken()),
    };
    store.move_to(key, folder, Some(Name::own(&name)), call.world.clock.now_ms());
    Ok(())
}

/// Into the recycle bin.
pub(crate) fn delete(call: &Call) -> Answer {
    let mut store = call.world.state::<DriveStore>(call.user);
    let key = find(call, &mut store)?;
    writable(call, &store, key)?;
    if key == ROOT {
        return Err(refuse(400, "invalidRequest", "The root cannot be deleted."));
    }
    store.delete(key);
    Ok(Reply::Empty(204))
}
