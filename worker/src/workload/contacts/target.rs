//! The way back of contacts: folders, contacts, photos.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_graph_client::{ContactFolder, ErrorClass, GraphError, MarkedItem, Page};
use serde_json::{Map, Value};

use super::{
    folders::DEFAULT_FOLDER,
    meta::{StoredContact, stored_contact},
};
use crate::{
    JobError,
    restore::RestoreContext,
    workload::{
        snapshot_folders::SnapshotFolders,
        stored::broken,
        write_back::{
            Created, FolderMaker, ItemToWrite, KnownFolder, Occupant, Place, RESTORE_KEY_PROPERTY, Target,
            TargetFolders, copied, create_once, restore_key_property,
        },
    },
};

/// Properties that are created as they were. All others are Exchange's own.
const COPIED: &[&str] = &[
    "assistantName",
    "birthday",
    "businessAddress",
    "businessHomePage",
    "businessPhones",
    "categories",
    "children",
    "companyName",
    "department",
    "displayName",
    "emailAddresses",
    "fileAs",
    "generation",
    "givenName",
    "homeAddress",
    "homePhones",
    "imAddresses",
    "initials",
    "jobTitle",
    "manager",
    "middleName",
    "mobilePhone",
    "nickName",
    "officeLocation",
    "otherAddress",
    "personalNotes",
    "profession",
    "spouseName",
    "surname",
    "title",
    "yomiCompanyName",
    "yomiGivenName",
    "yomiSurname",
];

/// The mailbox that is restored to.
pub(super) struct ContactTarget<'a> {
    context: &'a RestoreContext,
    maker: Maker<'a>,
    folders: TargetFolders,
}

/// A stored contact.
pub(super) struct Stored {
    contact: Map<String, Value>,
    holdfast: StoredContact,
}

struct Maker<'a>(&'a RestoreContext);

#[async_trait]
impl FolderMaker for Maker<'_> {
    async fn make(&self, parent: &str, name: &str, _is_hidden: bool) -> Result<String, GraphError> {
        Ok(self.0.graph.create_contact_folder(&self.0.user, parent, name).await?.id)
    }

    async fn find(&self, parent: &str, name: &str) -> Result<Option<String>, GraphError> {
        let listed = self.0.graph.contact_folders(&self.0.user).await?;
        let is_it = |folder: &&ContactFolder| {
            folder.parent_id.as_deref() == Some(parent) && folder.display_name == name
        };
        Ok(listed.iter().find(is_it).map(|folder| folder.id.clone()))
    }
}

impl<'a> ContactTarget<'a> {
    /// Reads the mailbox's folders and makes the one to restore into. New folders are made in the default one: Microsoft has
    /// no call for any other place.
    pub(super) async fn open(context: &'a RestoreContext) -> Result<Self, JobError> {
        let listed = context.graph.contact_folders(&context.user).await?;
        let default = listed.iter().find(|folder| folder.is_default);
        let root = default.map(|folder| folder.id.clone()).unwrap_or_default();
        let maker = Maker(context);
        let known = listed.into_iter().map(|folder| known(folder, &root));
        let folders = TargetFolders::open(root.clone(), known, &context.into, &maker).await?;
        Ok(Self { context, maker, folders })
    }
}

/// A folder beside the default one counts as in it, so that it is found there.
fn known(folder: ContactFolder, default: &str) -> KnownFolder {
    let well_known = folder.is_default.then(|| DEFAULT_FOLDER.to_owned());
    let parent_id = folder.parent_id.filter(|_| !folder.is_default).unwrap_or_else(|| default.to_owned());
    KnownFolder { id: folder.id, parent_id, name: folder.display_name, well_known }
}

#[async_trait]
impl Target for ContactTarget<'_> {
    type Stored = Stored;

    const ITEM_BYTES: u64 = 8 << 20;

    async fn place(&mut self, folders: &SnapshotFolders, index: usize) -> Result<Place, JobError> {
        match folders.all()[index].parent {
            None => Ok(Place::Nowhere),
            Some(_) => Ok(Place::In(self.folders.resolve(folders, index, &self.maker).await?)),
        }
    }

    async fn occupants(&self, folder: &str, link: Option<&str>) -> Result<Page<Occupant>, GraphError> {
        let (graph, user) = (&self.context.graph, &self.context.user);
        Ok(graph.contacts_by_property(user, folder, RESTORE_KEY_PROPERTY, link).await?.map(occupant))
    }

    fn read(&self, meta: &Bytes) -> Result<Stored, JobError> {
        let contact = serde_json::from_slice(meta).map_err(broken("meta"))?;
        Ok(Stored { contact, holdfast: stored_contact(meta)? })
    }

    fn look(&self, stored: &Stored) -> String {
        look(&stored.contact)
    }

    async fn create(&self, item: &ItemToWrite<'_, Stored>) -> Result<Created, JobError> {
        let (graph, user) = (&self.context.graph, &self.context.user);
        let body = body(&item.stored.contact, &item.key);
        let create = || graph.create_contact(user, item.container, &body);
        let id = create_once(self, (item.container, &item.key), create).await?;
        let losses = item.stored.holdfast.photo_missing.as_deref().map(missing_photo);
        Ok(Created { id, losses: losses.into_iter().collect() })
    }

    /// The photo, which goes into no create. Set twice it is the same.
    async fn complete(
        &self,
        item: &ItemToWrite<'_, Stored>,
        id: &str,
        _is_new: bool,
    ) -> Result<Vec<String>, JobError> {
        if item.stored.holdfast.photo.is_none() {
            return Ok(Vec::new());
        }
        let parts = self.context.reader.content(item.entry).await?;
        let Some(part) = parts.first() else { return Ok(vec![missing_photo("unreadable")]) };
        let photo = self.context.reader.read_range(part, 0, part.len).await?;
        let kind = media_type(&photo);
        match self.context.graph.set_contact_photo(&self.context.user, id, photo, kind).await {
            Ok(()) => Ok(Vec::new()),
            Err(error) if error.class() == ErrorClass::SkipItem => Ok(vec![missing_photo(error.code())]),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, _folder: &str, id: &str) -> Result<(), GraphError> {
        self.context.graph.delete_contact(&self.context.user, id).await
    }
}

fn missing_photo(code: &str) -> String {
    format!("PhotoMissing:{code}")
}

fn body(stored: &Map<String, Value>, key: &str) -> Value {
    let mut body = copied(|name| stored.get(name), COPIED);
    body.insert("singleValueExtendedProperties".to_owned(), vec![restore_key_property(key)].into());
    Value::Object(body)
}

fn occupant(contact: MarkedItem) -> Occupant {
    let fields = serde_json::from_slice(&contact.raw).unwrap_or_default();
    Occupant { id: contact.id, restore_key: contact.value, looks: vec![look(&fields)] }
}

/// Name, company and addresses.
fn look(contact: &Map<String, Value>) -> String {
    let text = |name: &str| contact.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut look = format!("{}\n{}", text("displayName"), text("companyName"));
    for address in contact.get("emailAddresses").and_then(Value::as_array).into_iter().flatten() {
        let address = address.get("address").and_then(Value::as_str).unwrap_or_default();
        look.push('\n');
        look.push_str(&address.to_lowercase());
    }
    look
}

/// Microsoft keeps JPEG, PNG, GIF and BMP as they are; what it is shows in the first bytes.
fn media_type(photo: &[u8]) -> &'static str {
    match photo {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'B', b'M', ..] => "image/bmp",
        _ => "image/jpeg",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_is_exchanges_own_is_not_written() {
        let stored = fields(json!({
            "id": "x", "changeKey": "k", "parentFolderId": "f", "displayName": "Ann", "title": null,
            "emailAddresses": [{ "address": "a@b" }], "_holdfast": {}, "primaryEmailAddress": {},
        }));
        let expected = json!({
            "displayName": "Ann", "emailAddresses": [{ "address": "a@b" }],
            "singleValueExtendedProperties": [restore_key_property("key")],
        });
        assert_eq!(body(&stored, "key"), expected);
    }

    #[test]
    fn contacts_are_the_same_by_name_company_and_addresses() {
        let one = |name: &str, address: &str| {
            fields(json!({ "displayName": name, "emailAddresses": [{ "address": address, "name": "n" }] }))
        };
        assert_eq!(look(&one("Ann", "A@b")), look(&one("Ann", "a@B")));
        assert_ne!(look(&one("Ann", "a@b")), look(&one("Ann", "c@b")));
        assert_ne!(look(&one("Ann", "a@b")), look(&one("Bob", "a@b")));
    }

    #[test]
    fn the_kind_of_a_photo_shows_in_its_first_bytes() {
        assert_eq!(media_type(b"\x89PNG\r\n"), "image/png");
        assert_eq!(media_type(b"\xff\xd8\xff"), "image/jpeg");
        assert_eq!(media_type(b""), "image/jpeg");
    }
}
