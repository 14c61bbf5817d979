//! What a person's drive really holds, in a form tests compare.
//!
//! A restored item must equal the original by path, kind, content, times of its file system, permissions of its own and
//! earlier versions. Its id, its tags, who wrote it, when the service saw it and the addresses of its links differ.

use serde_json::{Value, json};

use crate::blob::Data;
use crate::json::timestamp;
use crate::workloads::Slice;
use crate::workloads::drive::ids::item_id;
use crate::workloads::drive::item::{Grant, Item, Kind, To};
use crate::workloads::drive::store::DriveStore;
use crate::world::World;

/// A slice, in the order of the items' making; the root is not in it.
pub(crate) fn list(world: &World, user: u32, slice: &Slice) -> Vec<Value> {
    let described: Vec<Described> = {
        let store = world.state::<DriveStore>(user);
        store.iter().skip(slice.skip).take(slice.top).map(|item| describe(world, &store, item)).collect()
    };
    // Content is read without holding the drive.
    described.into_iter().map(|described| described.finish(world)).collect()
}

/// A record whose contents are still to be hashed.
struct Described {
    record: Value,
    content: Option<Data>,
    versions: Vec<Data>,
}

impl Described {
    fn finish(mut self, world: &World) -> Value {
        let hash = |data: &Data| hex::encode(world.blobs.hash_of(data));
        if let Some(content) = &self.content {
            self.record["size"] = content.len().into();
            self.record["blake3"] = hash(content).into();
            let versions = self.versions.iter().map(|data| json!({"size": data.len(), "blake3": hash(data)}));
            self.record["versions"] = versions.collect();
        }
        self.record
    }
}

fn describe(world: &World, store: &DriveStore, item: &Item) -> Described {
    let kind = match item.kind {
        Kind::Folder(_) => "folder",
        Kind::Notebook(_) => "notebook",
        Kind::File(_) => "file",
        Kind::Shortcut { .. } => "shortcut",
    };
    let mut permissions: Vec<Value> = item.grants().iter().map(|grant| permission(world, grant)).collect();
    permissions.sort_by_cached_key(Value::to_string);
    let record = json!({
        "id": item_id(store.user, item.key),
        "identity": store.path(item.key),
        "kind": kind,
        "isReadable": item.fate().is_none(),
        "createdDateTime": timestamp(item.times.created_ms),
        "lastModifiedDateTime": timestamp(item.times.modified_ms),
        "permissions": permissions,
    });
    let versions = item.versions().iter().map(|version| version.content.data()).collect();
    Described { record, content: item.content().map(|content| content.data()), versions }
}

fn permission(world: &World, grant: &Grant) -> Value {
    let whom = |to: &To| match to {
        To::Person(user) => world.people.user(*user).user_principal_name.clone(),
        To::Guest(address) => address.clone(),
        To::Link(_) => String::new(),
    };
    let mut permission = json!({"role": grant.role, "expires": grant.expires});
    match &grant.to {
        To::Link(link) => {
            permission["link"] = json!({"type": link.kind, "scope": link.scope, "hasPassword": link.has_password,
                "people": link.people.iter().map(whom).collect::<Vec<_>>()});
        }
        to => permission["to"] = whom(to).into(),
    }
    permission
}
