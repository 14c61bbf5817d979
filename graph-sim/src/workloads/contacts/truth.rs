//! What a person's contacts really are, in a form tests compare.

use serde_json::{Value, json};

use crate::ids::Form;
use crate::workloads::Slice;
use crate::workloads::contacts::book::{Contact, ContactBook, SCHEMA};
use crate::workloads::objects::Object;
use crate::world::World;

/// A slice, in the order of the contacts' making.
pub(crate) fn list(world: &World, user: u32, slice: &Slice) -> Vec<Value> {
    let book = world.state::<ContactBook>(user);
    let contacts = book.contacts.iter().skip(slice.skip).take(slice.top);
    contacts.map(|contact| describe(world, &book, contact)).collect()
}

fn describe(world: &World, book: &ContactBook, contact: &Object<Contact>) -> Value {
    let Contact { fields, photo, .. } = &contact.value;
    let path = book.path(contact.place);
    let name = fields.get("displayName").and_then(Value::as_str).unwrap_or_default();
    let address = fields.get("emailAddresses").and_then(|list| list.get(0)?.get("address")?.as_str());
    let mut record = json!({
        "id": book.contact_id(contact.key, contact.moves, Form::Immutable),
        "identity": format!("{path} {name} {}", address.unwrap_or_default()),
        "folderPath": path,
        "photoBlake3": photo.as_ref().map(|photo| hex::encode(world.blobs.hash_of(&photo.data))),
        "photoType": photo.as_ref().map(|photo| &photo.content_type),
    });
    for name in SCHEMA.writable() {
        record[name] = fields.get(name).cloned().unwrap_or(Value::Null);
    }
    record
}
