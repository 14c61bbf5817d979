//! Drives and items as answers show them.

use serde_json::{Map, Value, json};

use crate::blob::{Data, Shape, Synthetic};
use crate::faults::Luck;
use crate::http::Call;
use crate::json::timestamp;
use crate::options::SimOptions;
use crate::pieces::Look;
use crate::quick_xor;
use crate::rng::mix;
use crate::workloads::drive::download;
use crate::workloads::drive::generate::media_type;
use crate::workloads::drive::ids::{drive_id, guid, item_id};
use crate::workloads::drive::item::{By, Content, Fate, Item, Kind, To};
use crate::workloads::drive::permissions;
use crate::workloads::drive::store::{DriveStore, OLDEST_MS, ROOT};
use crate::workloads::objects::schema::{Schema, Shape as Of};
use crate::workloads::objects::view::View;
use crate::world::World;

pub(crate) const DOWNLOAD_URL: &str = "@microsoft.graph.downloadUrl";
/// Another spelling of it in `$select`.
const CONTENT_DOWNLOAD_URL: &str = "content.downloadUrl";
pub(crate) const DRIVE_TYPE: &str = "business";

/// What an item has.
pub(crate) const SCHEMA: Schema = Schema {
    name: "driveItem",
    properties: &[
        (DOWNLOAD_URL, Of::Fixed),
        (CONTENT_DOWNLOAD_URL, Of::Fixed),
        ("id", Of::Fixed),
        ("name", Of::Fixed),
        ("eTag", Of::Fixed),
        ("cTag", Of::Fixed),
        ("size", Of::Fixed),
        ("webUrl", Of::Fixed),
        ("createdBy", Of::Fixed),
        ("createdDateTime", Of::Fixed),
        ("lastModifiedBy", Of::Fixed),
        ("lastModifiedDateTime", Of::Fixed),
        ("parentReference", Of::Fixed),
        ("fileSystemInfo", Of::Fixed),
        ("root", Of::Fixed),
        ("folder", Of::Fixed),
        ("file", Of::Fixed),
        ("package", Of::Fixed),
        ("remoteItem", Of::Fixed),
        ("deleted", Of::Fixed),
        ("malware", Of::Fixed),
        ("shared", Of::Fixed),
        ("permissions", Of::Apart),
    ],
};

/// What may be expanded.
pub(crate) const RELATIONS: [&str; 1] = ["permissions"];

/// Where an item is shown: not everywhere is everything said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Alone,
    List,
    /// `only_roots`: `shared` is said where permissions begin, not below.
    Delta {
        only_roots: bool,
    },
}

/// Whom something is shown to, and where.
#[derive(Clone, Copy)]
pub(crate) struct Audience<'a> {
    pub world: &'a World,
    pub options: &'a SimOptions,
    /// As the client writes the host.
    pub base: &'a str,
    pub app: &'a str,
}

impl<'a> Audience<'a> {
    pub(crate) fn of(call: &'a Call) -> Self {
        Self { world: &call.world, options: &call.options, base: &call.base, app: &call.claims.appid }
    }

    /// Where content comes from and goes to.
    pub(crate) fn content_host(&self) -> String {
        match &self.options.content_host {
            None => self.base.to_owned(),
            Some(host) => {
                let scheme = self.base.split_once("://").map_or("http", |(scheme, _)| scheme);
                format!("{scheme}://{host}")
            }
        }
    }
}

/// The drive of a person.
pub(crate) fn drive(to: &Audience<'_>, store: &DriveStore) -> Value {
    let user = to.world.people.user(store.user);
    let used = store.get(ROOT).map_or(0, |root| root.kind.size());
    let total = to.options.drive_quota_bytes;
    let owner =
        json!({"user": {"id": user.id, "displayName": user.display_name, "email": user.user_principal_name}});
    json!({
        "id": drive_id(store.user), "driveType": DRIVE_TYPE, "name": "OneDrive",
        "createdDateTime": timestamp(OLDEST_MS), "lastModifiedDateTime": timestamp(OLDEST_MS),
        "webUrl": web_url(to, store, ROOT), "owner": owner,
        "quota": {"total": total, "used": used, "remaining": total.saturating_sub(used), "deleted": 0, "state": "normal"},
    })
}

/// Whoever wrote it.
pub(crate) fn identity(to: &Audience<'_>, user: u32, by: By) -> Value {
    match by {
        By::Owner => permissions::person(to, user),
        By::App => json!({"application": {"id": to.app, "displayName": "Application"}}),
    }
}

pub(crate) fn etag(user: u32, item: &Item) -> String {
    format!("\"{{{}}},{}\"", guid(user, item.key), item.etag)
}

fn ctag(user: u32, item: &Item) -> String {
    format!("\"c:{{{}}},{}\"", guid(user, item.key), item.ctag)
}

/// What goes wrong with an item does so whatever call it shows in.
pub(crate) fn luck_of(options: &SimOptions, user: u32, key: u32) -> Luck {
    let path = mix(u64::from(user) << 32 | u64::from(key));
    Luck { seed: options.faults.seed, path, call: 0 }
}

/// An item as asked for.
pub(crate) fn item(to: &Audience<'_>, store: &DriveStore, item: &Item, view: &View, place: Place) -> Value {
    let user = store.user;
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    let selects_url = view.selects(DOWNLOAD_URL) || view.selects(CONTENT_DOWNLOAD_URL);
    if item.content().is_some() && item.fate().is_none() && (selects_url || !view.has_select()) {
        put(DOWNLOAD_URL, download::url(to, user, item.key, None).into());
    }
    put("id", item_id(user, item.key).into());
    put("name", store.name_of(item).into());
    put("eTag", etag(user, item).into());
    if !matches!(place, Place::Delta { .. }) {
        put("cTag", ctag(user, item).into());
    }
    put("size", item.kind.size().into());
    put("webUrl", web_url(to, store, item.key).into());
    put("createdBy", identity(to, user, item.made_by));
    put("createdDateTime", timestamp(item.made_ms).into());
    put("lastModifiedBy", identity(to, user, item.by));
    put("lastModifiedDateTime", timestamp(item.changed_ms).into());
    put("parentReference", parent_reference(store, item, place));
    let times = json!({"createdDateTime": timestamp(item.times.created_ms),
        "lastModifiedDateTime": timestamp(item.times.modified_ms)});
    put("fileSystemInfo", times);
    if item.key == ROOT {
        put("root", json!({}));
    }
    match &item.kind {
        Kind::Folder(holds) => put("folder", json!({"childCount": holds.children})),
        Kind::Notebook(_) => put("package", json!({"type": "oneNote"})),
        Kind::File(content) => put("file", file(to, store, item, content, place)),
        Kind::Shortcut { owner, target } => put("remoteItem", remote(*owner, *target)),
    };
    if item.fate() == Some(Fate::Malware) {
        put("malware", json!({"description": "Trojan:Win32/Example"}));
    }
    if let Some(shared) = shared(store, item, place) {
        put("shared", shared);
    }
    if view.expands("permissions") {
        put("permissions", permissions::of(to, store, item.key).into());
    }
    let mut shown = view.project(shown, &[]);
    if place == Place::Alone {
        shown["@odata.context"] = format!("{}/v1.0/$metadata#drives/items/$entity", to.base).into();
    }
    shown
}

fn parent_reference(store: &DriveStore, item: &Item, place: Place) -> Value {
    let mut parent = json!({"driveId": drive_id(store.user), "driveType": DRIVE_TYPE});
    let Some(folder) = store.get(item.parent) else { return parent };
    parent["id"] = item_id(store.user, folder.key).into();
    // A delta has no path: what is below a renamed folder would say a wrong one.
    if !matches!(place, Place::Delta { .. }) {
        parent["name"] = store.name_of(folder).into();
        parent["path"] = format!("/drives/{}/root:{}", drive_id(store.user), store.path(folder.key)).into();
    }
    parent
}

fn file(to: &Audience<'_>, store: &DriveStore, item: &Item, content: &Content, place: Place) -> Value {
    let mut file = json!({"mimeType": media_type(&store.name_of(item))});
    let luck = luck_of(to.options, store.user, item.key);
    let faults = &to.options.faults;
    if luck.dooms("missing hash", faults.rate_missing_hash) {
        return file;
    }
    let stale = place != Place::Alone && luck.dooms("stale hash", faults.rate_stale_hash);
    let data = match stale {
        true => {
            let other = Synthetic {
                seed: u64::from(item.key),
                size: content.len(),
                shape: Shape::Pieces(Look::Prose),
            };
            Data::Generated(other)
        }
        false => content.data(),
    };
    file["hashes"] = json!({"quickXorHash": quick_xor::of(&data)});
    file
}

fn remote(owner: u32, target: u32) -> Value {
    json!({"id": item_id(owner, target), "folder": {"childCount": 0},
        "parentReference": {"driveId": drive_id(owner), "driveType": DRIVE_TYPE}})
}

/// The facet of what is shared, by itself or through a folder above.
fn shared(store: &DriveStore, item: &Item, place: Place) -> Option<Value> {
    let is_unique = |item: &Item| item.more.as_ref().is_some_and(|more| more.is_unique);
    let from = if is_unique(item) {
        item
    } else if place == (Place::Delta { only_roots: true }) {
        return None;
    } else {
        store.above(item.key).find(|folder| is_unique(folder))?
    };
    // Unique permissions of which none is left are said by an empty facet.
    let widest = from.grants().iter().map(|grant| match &grant.to {
        To::Link(link) if link.scope == "anonymous" => (2, "anonymous"),
        To::Link(link) if link.scope == "organization" => (1, "organization"),
        _ => (0, "users"),
    });
    Some(widest.max().map_or_else(|| json!({}), |(_, scope)| json!({"scope": scope})))
}

/// The line of what is gone; its name and its cTag are gone with it.
pub(crate) fn removed(store: &DriveStore, key: u32, parent: u32) -> Value {
    let mut reference = json!({"driveId": drive_id(store.user), "driveType": DRIVE_TYPE});
    if parent > 0 {
        reference["id"] = item_id(store.user, parent).into();
    }
    json!({"@odata.type": "#microsoft.graph.driveItem", "id": item_id(store.user, key),
        "deleted": {"state": "deleted"}, "parentReference": reference})
}

fn web_url(to: &Audience<'_>, store: &DriveStore, key: u32) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');
    let owner = to.world.people.user(store.user).user_principal_name.replace(['.', '@'], "_");
    let path = store.path(key);
    let path = percent_encoding::utf8_percent_encode(&path, KEPT);
    format!("https://contoso-my.sharepoint.example/personal/{owner}/Documents{path}")
}
