//! `/items/{i}/versions`: what a file had before.
//!
//! Invariant: the current version is listed first, and its content is had from the item alone.

use serde_json::{Value, json};

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::json::timestamp;
use crate::workloads::drive::download;
use crate::workloads::drive::item::{By, Item};
use crate::workloads::drive::items::{self, not_found};
use crate::workloads::drive::show::{Audience, identity};
use crate::workloads::drive::store::DriveStore;
use crate::workloads::objects::page;

/// All versions, the current one first.
pub(crate) fn list(call: &Call) -> Answer {
    page::refuse_any(call, &["$filter", "$orderby", "$search", "$expand", "$skip"])?;
    let mut store = call.world.state::<DriveStore>(call.user);
    let item = file(call, &mut store)?;
    let versions: Vec<Value> = shown(call, item);
    let context = format!("{}/v1.0/$metadata#Collection(driveItemVersion)", call.base);
    page::one(200, &json!({"@odata.context": context, "value": versions}))
}

fn shown(call: &Call, item: &Item) -> Vec<Value> {
    let current = entry(call, item.version_number(), item.kind.size(), item.changed_ms, item.by);
    let before =
        item.versions().iter().rev().map(|version| {
            entry(call, version.number, version.content.len(), version.changed_ms, version.by)
        });
    std::iter::once(current).chain(before).collect()
}

fn entry(call: &Call, number: u32, size: u64, changed_ms: u64, by: By) -> Value {
    json!({"id": format!("{number}.0"), "size": size, "lastModifiedDateTime": timestamp(changed_ms),
        "lastModifiedBy": identity(&Audience::of(call), call.user, by)})
}

fn file<'a>(call: &Call, store: &'a mut DriveStore) -> Result<&'a Item, Refusal> {
    let key = items::read(call, store)?;
    let item = store.get(key).ok_or_else(not_found)?;
    if item.content().is_none() {
        return Err(refuse(400, "invalidRequest", "Only files have versions."));
    }
    Ok(item)
}

pub(crate) fn get(call: &Call) -> Answer {
    let mut store = call.world.state::<DriveStore>(call.user);
    let versions = shown(call, file(call, &mut store)?);
    let wanted = call.param("version").unwrap_or_default();
    let found = versions.into_iter().find(|version| version["id"] == wanted).ok_or_else(not_found)?;
    page::one(200, &found)
}

/// Where an earlier version's content is.
pub(crate) fn content(call: &Call) -> Answer {
    let mut store = call.world.state::<DriveStore>(call.user);
    let key = items::read(call, &mut store)?;
    let item = store.get(key).ok_or_else(not_found)?;
    download::refuse_unreadable(call, &store, item)?;
    let wanted = call.param("version").unwrap_or_default().strip_suffix(".0").and_then(|id| id.parse().ok());
    if wanted == Some(item.version_number()) {
        return Err(refuse(400, "invalidRequest", "You cannot get the content of the current version."));
    }
    let version =
        item.versions().iter().find(|version| Some(version.number) == wanted).ok_or_else(not_found)?;
    Ok(Reply::Redirect(download::url(&Audience::of(call), call.user, key, Some(version.number))))
}
