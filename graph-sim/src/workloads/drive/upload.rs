//! Files that come: small ones in one call, any in a session.
//!
//! Invariant: a file is there only when all its bytes are, and then at once; what it had before becomes a version.

use serde_json::{Value, json};

use crate::blob::Data;
use crate::http::{Answer, Call, Refusal, refuse};
use crate::json::timestamp;
use crate::workloads::drive::item::{By, Content, Item, Kind, Name, Times};
use crate::workloads::drive::items::{self, Address, not_found};
use crate::workloads::drive::names::{self, Conflict};
use crate::workloads::drive::sessions::{Opened, Sessions};
use crate::workloads::drive::show::Audience;
use crate::workloads::drive::store::{DriveStore, New, ROOT};
use crate::workloads::objects::page;
use crate::world::World;

/// Where a file goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A file that is there.
    File(u32),
    /// A name in a folder.
    Named { folder: u32, name: String, conflict: Conflict },
}

/// A file on its way.
#[derive(Clone, Debug)]
pub(crate) struct Arriving {
    pub target: Target,
    /// As the client gave them, `fileSystemInfo` and all.
    pub item: Value,
}

/// Where the call's address leads, checked.
fn target(call: &Call, store: &mut DriveStore, item: &Value) -> Result<Target, Refusal> {
    let address = Address::of(call)?;
    let conflict = Conflict::of(call, item, Conflict::Replace)?;
    let Some((folder, name)) = address.target(store)? else {
        let key = address.item(store).ok_or_else(not_found)?;
        if items::writable(call, store, key)?.content().is_none() {
            return Err(refuse(400, "invalidRequest", "The item is not a file."));
        }
        return Ok(Target::File(key));
    };
    if !store.get(folder).is_some_and(Item::is_folder) {
        return Err(refuse(400, "invalidRequest", "The item is not a folder."));
    }
    names::check(store, folder, &name)?;
    if let Some(found) = store.child(folder, &name) {
        let is_file = items::writable(call, store, found)?.content().is_some();
        if conflict == Conflict::Fail || (conflict == Conflict::Replace && !is_file) {
            return Err(names::taken());
        }
    }
    Ok(Target::Named { folder, name, conflict })
}

fn refuse_too_much(call: &Call, store: &DriveStore, more: u64) -> Result<(), Refusal> {
    let used = store.get(ROOT).map_or(0, |root| root.kind.size());
    if used.saturating_add(more) > call.options.drive_quota_bytes {
        return Err(refuse(507, "quotaLimitReached", "The drive is full."));
    }
    Ok(())
}

/// `PUT …/content`.
pub(crate) fn put(call: &Call) -> Answer {
    // What comes is known by its bytes before anything is locked.
    let data = call.world.blobs.keep(call.body.clone());
    let mut store = call.world.state::<DriveStore>(call.user);
    refuse_too_much(call, &store, data.len())?;
    let target = target(call, &mut store, &Value::Null)?;
    let (key, status) = place(&call.world, &mut store, &Arriving { target, item: Value::Null }, data)?;
    items::answer(call, &store, status, key)
}

/// Puts a file where it belongs; says which it is and the status of the answer.
pub(crate) fn place(
    world: &World,
    store: &mut DriveStore,
    arriving: &Arriving,
    data: Data,
) -> Result<(u32, u16), Refusal> {
    let now = world.clock.now_ms();
    let content = Content::of(data);
    let times = items::times(&arriving.item, Times { created_ms: now, modified_ms: now })?;
    let (folder, name, existing) = match &arriving.target {
        Target::File(key) => (ROOT, String::new(), Some(*key)),
        Target::Named { folder, name, conflict } => {
            let found = store.child(*folder, name);
            store.get(*folder).ok_or_else(not_found)?;
            match (found, conflict) {
                (None, _) => (*folder, name.clone(), None),
                (Some(_), Conflict::Rename) => (*folder, names::free(store, *folder, name), None),
                (Some(_), Conflict::Fail) => return Err(names::taken()),
                (Some(key), Conflict::Replace) => (*folder, name.clone(), Some(key)),
            }
        }
    };
    let Some(key) = existing else {
        let new = New { name: Name::own(&name), kind: Kind::File(content), by: By::App, made_ms: now, times };
        return Ok((store.insert(folder, new), 201));
    };
    let before = store.get(key).ok_or_else(not_found)?;
    if before.content().is_none() {
        return Err(names::taken());
    }
    // Of a file that is there, what is not given stays, but for the time of the change.
    let times = items::times(&arriving.item, Times { modified_ms: now, ..before.times })?;
    store.set_content(key, content, By::App, now);
    if let Some(item) = store.quietly(key) {
        item.times = times;
    }
    Ok((key, 200))
}

/// `POST …/createUploadSession`.
pub(crate) fn open(call: &Call) -> Answer {
    let body = if call.body.is_empty() { json!({}) } else { call.json()? };
    let item = body["item"].clone();
    let size = item["fileSize"].as_u64();
    let target = {
        let mut store = call.world.state::<DriveStore>(call.user);
        items::times(&item, Times { created_ms: 0, modified_ms: 0 })?;
        refuse_too_much(call, &store, size.unwrap_or(0))?;
        target(call, &mut store, &item)?
    };
    let defer = body["deferCommit"].as_bool().unwrap_or(false);
    let arriving = Arriving { target, item };
    let Opened { id, expires_ms } = Sessions::open(call, arriving, size, defer)?;
    let url = format!("{}/_onedrive/upload/{id}", Audience::of(call).content_host());
    let context = format!("{}/v1.0/$metadata#microsoft.graph.uploadSession", call.base);
    page::one(
        200,
        &json!({"@odata.context": context, "uploadUrl": url, "expirationDateTime": timestamp(expires_ms),
            "nextExpectedRanges": ["0-"]}),
    )
}

/// `PUT …/root:/{folder}` with a session's address: makes the file of a session that is complete.
pub(crate) fn commit(call: &Call) -> Answer {
    let body = call.json()?;
    let url = body["@microsoft.graph.sourceUrl"].as_str().unwrap_or_default();
    let id = url.rsplit('/').next().unwrap_or_default();
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let conflict = Conflict::of(call, &body, Conflict::Fail)?;
    let folder = {
        let mut store = call.world.state::<DriveStore>(call.user);
        let folder = items::find(call, &mut store)?;
        names::check(&store, folder, &name)?;
        folder
    };
    let target = Target::Named { folder, name, conflict };
    let (key, status) = Sessions::commit(&call.world, call.user, id, Some(target))?;
    items::answer(call, &call.world.state::<DriveStore>(call.user), status, key)
}
