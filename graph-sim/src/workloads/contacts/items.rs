//! `/contacts`: lists, delta, create, read, change, delete.

use serde_json::{Map, Value, json};

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::ids::Missing;
use crate::json::{change_key, timestamp};
use crate::workloads::contacts::book::{Contact, ContactBook, SCHEMA, empty_addresses};
use crate::workloads::contacts::folders::named;
use crate::workloads::mail::create::{field, merge_extended};
use crate::workloads::objects::filter::Condition;
use crate::workloads::objects::page::{self, Round};
use crate::workloads::objects::schema::object;
use crate::workloads::objects::view::View;
use crate::workloads::objects::{Object, read_fault};

const CONTEXT: &str = "contacts";
const FILTERED_BY: [&str; 5] = ["displayName", "givenName", "surname", "fileAs", "companyName"];
/// The derived names of the first addresses.
const NAMED_ADDRESSES: [&str; 3] = ["primaryEmailAddress", "secondaryEmailAddress", "tertiaryEmailAddress"];

/// The contact a path names; one of another folder is not there.
pub(crate) fn find<'a>(call: &Call, book: &'a ContactBook) -> Result<&'a Object<Contact>, Refusal> {
    let contact = book.find(call.param("contact").unwrap_or_default())?;
    if call.param("folder").is_some() && named(call, book)? != contact.place {
        return Err(Missing::Gone.into());
    }
    Ok(contact)
}

fn shown(call: &Call, book: &ContactBook, contact: &Object<Contact>, view: &View) -> Value {
    let key = change_key(contact.seq);
    let mut fields = contact.value.fields.clone();
    let addresses = contact.value.fields.get("emailAddresses").and_then(Value::as_array);
    for (at, name) in NAMED_ADDRESSES.iter().enumerate() {
        let address = addresses.and_then(|list| list.get(at)).cloned().unwrap_or(Value::Null);
        fields.insert((*name).into(), address);
    }
    fields.extend([
        ("@odata.etag".to_owned(), json!(format!("W/\"{key}\""))),
        ("id".to_owned(), json!(book.contact_id(contact.key, contact.moves, call.form))),
        ("changeKey".to_owned(), key.into()),
        ("createdDateTime".to_owned(), timestamp(contact.created_ms).into()),
        ("lastModifiedDateTime".to_owned(), timestamp(contact.modified_ms).into()),
        ("parentFolderId".to_owned(), book.folder_id(contact.place).into()),
    ]);
    view.project(fields, &contact.value.extended)
}

fn view(call: &Call) -> Result<View, Refusal> {
    View::of(&SCHEMA, &call.query, &[])
}

pub(crate) fn list(call: &Call) -> Answer {
    let view = view(call)?;
    let condition = Condition::of(call, &FILTERED_BY)?;
    let book = call.world.state::<ContactBook>(call.user);
    let folder = named(call, &book)?;
    let accepted = |contact: &&Object<Contact>| {
        let Contact { fields, extended, .. } = &contact.value;
        condition.as_ref().is_none_or(|condition| condition.accepts(fields, extended))
    };
    let contacts: Vec<&Object<Contact>> = book.contacts.at(folder).filter(accepted).collect();
    page::list(call, CONTEXT, &contacts, |contact| shown(call, &book, contact, &view))
}

/// One page of changes of a folder.
pub(crate) fn delta(call: &Call) -> Answer {
    let book = call.world.state::<ContactBook>(call.user);
    let folder = named(call, &book)?;
    let round = Round {
        objects: &book.contacts,
        stand: book.numbers.stand(),
        place: Some(folder),
        collection: format!("contacts {folder}"),
        type_name: SCHEMA.name,
    };
    round.page(
        call,
        |contact, token| Ok(shown(call, &book, contact, &View::of(&SCHEMA, &token.query(), &[])?)),
        |key, moves| book.contact_id(key, moves, call.form),
    )
}

pub(crate) fn get(call: &Call) -> Answer {
    read_fault(call)?;
    let view = view(call)?;
    let book = call.world.state::<ContactBook>(call.user);
    page::one(200, &shown(call, &book, find(call, &book)?, &view))
}

/// Writes what the body gives into a contact.
fn apply(contact: &mut Contact, body: &Value) -> Result<(), Refusal> {
    SCHEMA.apply(&mut contact.fields, object(body)?)?;
    empty_addresses(&mut contact.fields);
    merge_extended(&mut contact.extended, field(body, "singleValueExtendedProperties"))?;
    Ok(())
}

/// Fills what Exchange derives from the names when nobody gave it.
fn derive_names(fields: &mut Map<String, Value>) {
    let text = |fields: &Map<String, Value>, name: &str| {
        fields.get(name).and_then(Value::as_str).unwrap_or_default().trim().to_owned()
    };
    let (given, surname) = (text(fields, "givenName"), text(fields, "surname"));
    if text(fields, "displayName").is_empty() {
        fields.insert("displayName".into(), format!("{given} {surname}").trim().into());
    }
    if text(fields, "fileAs").is_empty() {
        let parts: Vec<&str> =
            [surname.as_str(), &given].into_iter().filter(|part| !part.is_empty()).collect();
        let file_as = if parts.is_empty() { text(fields, "displayName") } else { parts.join(", ") };
        fields.insert("fileAs".into(), file_as.into());
    }
}

pub(crate) fn create(call: &Call) -> Answer {
    let mut contact = Contact { fields: SCHEMA.blank(), ..Contact::default() };
    apply(&mut contact, &call.json()?)?;
    derive_names(&mut contact.fields);
    let mut book = call.world.state::<ContactBook>(call.user);
    let folder = named(call, &book)?;
    let ContactBook { numbers, contacts, .. } = &mut *book;
    let key = contacts.insert(numbers, folder, call.world.clock.now_ms(), contact);
    let made = book.contacts.get(key).ok_or(Missing::Gone)?;
    page::one(201, &shown(call, &book, made, &View::default()))
}

pub(crate) fn patch(call: &Call) -> Answer {
    let body = call.json()?;
    let mut book = call.world.state::<ContactBook>(call.user);
    let found = find(call, &book)?;
    let (key, mut changed) = (found.key, found.value.clone());
    apply(&mut changed, &body)?;
    let ContactBook { numbers, contacts, .. } = &mut *book;
    if let Some(contact) = contacts.change(numbers, key, call.world.clock.now_ms()) {
        *contact = changed;
    }
    let contact = book.contacts.get(key).ok_or(Missing::Gone)?;
    page::one(200, &shown(call, &book, contact, &View::default()))
}

pub(crate) fn delete(call: &Call) -> Answer {
    let mut book = call.world.state::<ContactBook>(call.user);
    let key = find(call, &book)?.key;
    let ContactBook { numbers, contacts, .. } = &mut *book;
    contacts.remove(numbers, key).map(drop).ok_or_else(|| refuse(404, "ErrorItemNotFound", "Gone."))?;
    Ok(Reply::Empty(204))
}
