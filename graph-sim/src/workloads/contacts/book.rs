//! What a person has: folders in a tree, contacts in folders.

use serde_json::{Map, Value, json};

use crate::blob::{Data, Shape as Look, Synthetic};
use crate::ids::{FIRST_TAG, Form, Id, Missing};
use crate::people::People;
use crate::rng::Rng;
use crate::words;
use crate::workloads::objects::schema::{Schema, Shape};
use crate::workloads::objects::{Named, Numbers, Object, Objects};
use crate::workloads::states::UserState;
use crate::world::World;

const FOLDER_TAG: u8 = FIRST_TAG;
const CONTACT_TAG: u8 = FIRST_TAG + 1;
/// Above the folders'.
const FIRST_KEY: u64 = 2;
/// The folder every mailbox has; it has no place.
pub(crate) const DEFAULT: u64 = 1;
const DEFAULT_NAME: &str = "Contacts";
const MAX_PATH_DEPTH: usize = 300;
/// The oldest generated contact was made then: 2024-01-08T08:00:00Z.
const OLDEST_MS: u64 = 1_704_700_800_000;
const SPACING_MS: u64 = 26 * 60 * 60 * 1000;

/// What a contact has, in the order of Microsoft's description.
pub(crate) const SCHEMA: Schema = Schema {
    name: "contact",
    properties: &[
        ("id", Shape::Fixed),
        ("changeKey", Shape::Fixed),
        ("createdDateTime", Shape::Fixed),
        ("lastModifiedDateTime", Shape::Fixed),
        ("parentFolderId", Shape::Fixed),
        ("primaryEmailAddress", Shape::Fixed),
        ("secondaryEmailAddress", Shape::Fixed),
        ("tertiaryEmailAddress", Shape::Fixed),
        ("photo", Shape::Apart),
        ("singleValueExtendedProperties", Shape::Apart),
        ("categories", Shape::Texts),
        ("assistantName", Shape::Text),
        ("birthday", Shape::Text),
        ("businessAddress", Shape::Object),
        ("businessHomePage", Shape::Text),
        ("businessPhones", Shape::Texts),
        ("children", Shape::Texts),
        ("companyName", Shape::Text),
        ("department", Shape::Text),
        ("displayName", Shape::Text),
        ("emailAddresses", Shape::Objects),
        ("fileAs", Shape::Text),
        ("generation", Shape::Text),
        ("givenName", Shape::Text),
        ("homeAddress", Shape::Object),
        ("homePhones", Shape::Texts),
        ("imAddresses", Shape::Texts),
        ("initials", Shape::Text),
        ("jobTitle", Shape::Text),
        ("manager", Shape::Text),
        ("middleName", Shape::Text),
        ("mobilePhone", Shape::Text),
        ("nickName", Shape::Text),
        ("officeLocation", Shape::Text),
        ("otherAddress", Shape::Object),
        ("personalNotes", Shape::Text),
        ("profession", Shape::Text),
        ("spouseName", Shape::Text),
        ("surname", Shape::Text),
        ("title", Shape::Text),
        ("yomiCompanyName", Shape::Text),
        ("yomiGivenName", Shape::Text),
        ("yomiSurname", Shape::Text),
    ],
};

/// A folder.
pub(crate) struct Folder {
    pub name: String,
}

/// A contact.
#[derive(Clone, Default)]
pub(crate) struct Contact {
    pub fields: Map<String, Value>,
    /// Extended properties by id as given.
    pub extended: Vec<(String, String)>,
    pub photo: Option<Photo>,
}

/// A picture; its changes are in no delta.
#[derive(Clone)]
pub(crate) struct Photo {
    pub content_type: String,
    pub data: Data,
}

pub(crate) struct ContactBook {
    pub user: u32,
    pub numbers: Numbers,
    /// A folder's place is the folder above it.
    pub folders: Objects<Folder>,
    /// A contact's place is its folder.
    pub contacts: Objects<Contact>,
    /// Number of the next generated contact.
    next_index: u32,
}

impl UserState for ContactBook {
    fn populate(world: &World, user: u32) -> Self {
        let mut book = Self {
            user,
            numbers: Numbers::new(FIRST_KEY),
            folders: Objects::new(),
            contacts: Objects::new(),
            next_index: 0,
        };
        let options = world.options();
        let count = options.population.contacts_per_user;
        if count == 0 {
            return book;
        }
        let mut rng = Rng::new(&[options.seed, 0x636f_6e66, u64::from(user)]);
        for number in 0..2 + rng.below(3) {
            let own: Vec<u64> = book.folders.iter().map(|folder| folder.key).collect();
            let parent = if number == 1 { own[0] } else { DEFAULT };
            let name = words::FOLDERS[(number * 7 + user as usize) % words::FOLDERS.len()].to_owned();
            book.folders.insert(&mut book.numbers, parent, OLDEST_MS, Folder { name });
        }
        for _ in 0..count {
            let places = book.places();
            let place = if rng.percent(60) { DEFAULT } else { *rng.pick(&places) };
            book.generate(world, place, None);
        }
        book
    }
}

impl ContactBook {
    /// Every folder, the default one first.
    pub(crate) fn places(&self) -> Vec<u64> {
        std::iter::once(DEFAULT).chain(self.folders.iter().map(|folder| folder.key)).collect()
    }

    /// Adds the next generated contact, of the time it always had or of now.
    pub(crate) fn generate(&mut self, world: &World, place: u64, now_ms: Option<u64>) -> u64 {
        let index = self.next_index;
        self.next_index += 1;
        let contact = contact(world.options().seed, &world.people, self.user, index);
        let made = now_ms.unwrap_or(OLDEST_MS + u64::from(index) * SPACING_MS);
        self.contacts.insert(&mut self.numbers, place, made, contact)
    }

    /// By id or well-known name.
    pub(crate) fn find_folder(&self, name: &str) -> Result<u64, Missing> {
        if name.eq_ignore_ascii_case("contacts") {
            return Ok(DEFAULT);
        }
        let named = Named::of(name, FOLDER_TAG, self.user)?;
        if named.key == DEFAULT { Ok(DEFAULT) } else { named.among(&self.folders).map(|folder| folder.key) }
    }

    /// By id of either form; a mutable one only until the next move.
    pub(crate) fn find(&self, id: &str) -> Result<&Object<Contact>, Missing> {
        Named::of(id, CONTACT_TAG, self.user)?.among(&self.contacts)
    }

    pub(crate) fn folder_id(&self, key: u64) -> String {
        Id::Object { tag: FOLDER_TAG, user: self.user, key, extra: 0, moves: None }.encode()
    }

    pub(crate) fn contact_id(&self, key: u64, moves: u32, form: Form) -> String {
        let moves = (form == Form::Mutable).then_some(moves);
        Id::Object { tag: CONTACT_TAG, user: self.user, key, extra: 0, moves }.encode()
    }

    pub(crate) fn path(&self, mut key: u64) -> String {
        let mut names = Vec::new();
        while let Some(folder) = self.folders.get(key).filter(|_| names.len() < MAX_PATH_DEPTH) {
            names.push(folder.value.name.as_str());
            key = folder.place;
        }
        names.push(DEFAULT_NAME);
        names.iter().rev().fold(String::new(), |path, name| path + "/" + name)
    }

    pub(crate) fn name(&self, key: u64) -> &str {
        self.folders.get(key).map_or(DEFAULT_NAME, |folder| folder.value.name.as_str())
    }

    /// Removes a folder with all that is below it.
    pub(crate) fn remove_folder(&mut self, key: u64) {
        let mut doomed = vec![key];
        let mut at = 0;
        while at < doomed.len() {
            doomed.extend(self.folders.at(doomed[at]).map(|folder| folder.key).collect::<Vec<_>>());
            at += 1;
        }
        for folder in doomed.into_iter().rev() {
            let contacts: Vec<u64> = self.contacts.at(folder).map(|contact| contact.key).collect();
            for contact in contacts {
                self.contacts.remove(&mut self.numbers, contact);
            }
            self.folders.remove(&mut self.numbers, folder);
        }
    }

    /// Removes everything but the default folder and says how many contacts went.
    pub(crate) fn wipe(&mut self) -> u64 {
        let keys: Vec<u64> = self.contacts.iter().map(|contact| contact.key).collect();
        for key in &keys {
            self.contacts.remove(&mut self.numbers, *key);
        }
        let folders: Vec<u64> = self.folders.iter().map(|folder| folder.key).collect();
        for folder in folders {
            self.folders.remove(&mut self.numbers, folder);
        }
        keys.len() as u64
    }
}

/// The whole of a generated contact; a pure function.
fn contact(seed: u64, people: &People, user: u32, index: u32) -> Contact {
    let mut rng = Rng::new(&[seed, 0x636f_6e74, u64::from(user), u64::from(index)]);
    let person = people.someone(&mut rng);
    let (given, surname) = person.name.split_once(' ').unwrap_or((&person.name, ""));
    let mut fields = SCHEMA.blank();
    empty_addresses(&mut fields);
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("displayName", person.name.clone().into());
    set("givenName", given.into());
    set("surname", surname.into());
    set("fileAs", format!("{surname}, {given}").into());
    // Numbered, so that no two contacts of a person are the same.
    let (local, domain) = person.address.split_once('@').unwrap_or((&person.address, "contoso.example"));
    let address = format!("{local}.{index}@{domain}");
    let mut addresses = vec![json!({"name": person.name, "address": address})];
    if rng.percent(25) {
        addresses.push(json!({"name": person.name, "address": format!("{index}@home.example")}));
    }
    set("emailAddresses", addresses.into());
    let phone = |rng: &mut Rng| {
        format!(
            "+41 {:02} {:03} {:02} {:02}",
            20 + rng.below(70),
            rng.below(1000),
            rng.below(100),
            rng.below(100)
        )
    };
    if rng.percent(70) {
        set("mobilePhone", phone(&mut rng).into());
    }
    if rng.percent(50) {
        set("businessPhones", json!([phone(&mut rng), phone(&mut rng)]));
    }
    if rng.percent(60) {
        set("companyName", format!("{surname} & Partners").into());
        set("jobTitle", (*rng.pick(&["Buyer", "Engineer", "Head of Sales", "Notary"])).into());
    }
    if rng.percent(40) {
        let address = json!({"street": format!("{} Station Road", 1 + rng.below(90)), "city": "Zürich",
            "postalCode": format!("{}", 8000 + rng.below(100)), "countryOrRegion": "Switzerland"});
        set("businessAddress", address);
    }
    if rng.percent(20) {
        let date =
            format!("19{}-{:02}-{:02}T11:59:00Z", 50 + rng.below(49), 1 + rng.below(12), 1 + rng.below(28));
        set("birthday", date.into());
    }
    if rng.percent(30) {
        let language = words::language(rng.next());
        set(
            "personalNotes",
            format!("{}\r\n{}", rng.phrase(language.sentences), rng.phrase(language.sentences)).into(),
        );
    }
    if rng.percent(15) {
        set("categories", json!([*rng.pick(&words::CATEGORIES)]));
    }
    if rng.percent(10) {
        set("children", json!(["Mia", "Leo"]));
        set("spouseName", "Kim".into());
    }
    let photo = rng.percent(30).then(|| photo(&mut rng));
    Contact { fields, extended: Vec::new(), photo }
}

/// Exchange keeps an address that is not there as one without lines.
pub(crate) fn empty_addresses(fields: &mut Map<String, Value>) {
    for name in ["businessAddress", "homeAddress", "otherAddress"] {
        let address = fields.entry(name).or_insert(Value::Null);
        if address.is_null() {
            *address = Value::Object(Map::new());
        }
    }
}

/// A picture that is JPEG by its first bytes.
pub(crate) fn photo(rng: &mut Rng) -> Photo {
    let size = 2000 + rng.below(38_000) as u64;
    let look = Look::Binary(b"\xff\xd8\xff\xe0\0\x10JFIF\0");
    Photo {
        content_type: "image/jpeg".into(),
        data: Data::Generated(Synthetic { seed: rng.next(), size, shape: look }),
    }
}
