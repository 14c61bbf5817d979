//! `/contactFolders`: the tree below the default folder, which is never listed itself.

use serde_json::{Value, json};

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::ids::Missing;
use crate::workloads::contacts::book::{ContactBook, DEFAULT, Folder};
use crate::workloads::objects::Object;
use crate::workloads::objects::filter::Condition;
use crate::workloads::objects::page::{self, Round};
use crate::workloads::objects::schema::{Schema, Shape, object};
use crate::workloads::objects::view::View;

const SCHEMA: Schema = Schema {
    name: "contactFolder",
    properties: &[("id", Shape::Fixed), ("parentFolderId", Shape::Fixed), ("displayName", Shape::Text)],
};
const CONTEXT: &str = "contactFolders";

/// The folder a path names, the default one when it names none.
pub(crate) fn named(call: &Call, book: &ContactBook) -> Result<u64, Missing> {
    call.param("folder").map_or(Ok(DEFAULT), |name| book.find_folder(name))
}

pub(crate) fn list(call: &Call) -> Answer {
    let view = View::of(&SCHEMA, &call.query, &[])?;
    let condition = Condition::of(call, &["displayName"])?;
    let book = call.world.state::<ContactBook>(call.user);
    let parent = named(call, &book)?;
    let accepted = |folder: &&Object<Folder>| {
        Condition::accepts_text(condition.as_ref(), "displayName", &folder.value.name)
    };
    let folders: Vec<&Object<Folder>> = book.folders.at(parent).filter(accepted).collect();
    page::list(call, CONTEXT, &folders, |folder| shown(&book, folder.key, folder.place, &view))
}

fn shown(book: &ContactBook, key: u64, parent: u64, view: &View) -> Value {
    let folder = json!({
        "id": book.folder_id(key), "displayName": book.name(key), "parentFolderId": book.folder_id(parent),
    });
    view.show(folder)
}

fn one(book: &ContactBook, key: u64, status: u16) -> Answer {
    // The default folder's parent is outside the visible tree: an id nobody can use.
    let parent = book.folders.get(key).map_or(0, |folder| folder.place);
    page::one(status, &shown(book, key, parent, &View::default()))
}

pub(crate) fn get(call: &Call) -> Answer {
    let book = call.world.state::<ContactBook>(call.user);
    one(&book, named(call, &book)?, 200)
}

fn wanted_name(call: &Call) -> Result<String, Refusal> {
    let mut fields = SCHEMA.blank();
    SCHEMA.apply(&mut fields, object(&call.json()?)?)?;
    let name = fields["displayName"].as_str().map(str::trim).filter(|name| !name.is_empty());
    name.map(ToOwned::to_owned).ok_or_else(|| refuse(400, "ErrorInvalidArgument", "displayName is missing"))
}

fn refuse_twin(book: &ContactBook, parent: u64, name: &str) -> Result<(), Refusal> {
    if book.folders.at(parent).any(|folder| folder.value.name.to_lowercase() == name.to_lowercase()) {
        let text = "A folder with the specified name already exists.";
        return Err(refuse(409, "ErrorFolderExists", text));
    }
    Ok(())
}

pub(crate) fn create(call: &Call) -> Answer {
    let name = wanted_name(call)?;
    let mut book = call.world.state::<ContactBook>(call.user);
    let parent = named(call, &book)?;
    refuse_twin(&book, parent, &name)?;
    let ContactBook { numbers, folders, .. } = &mut *book;
    let key = folders.insert(numbers, parent, call.world.clock.now_ms(), Folder { name });
    one(&book, key, 201)
}

pub(crate) fn rename(call: &Call) -> Answer {
    let name = wanted_name(call)?;
    let mut book = call.world.state::<ContactBook>(call.user);
    let key = named(call, &book)?;
    let parent = own(&book, key)?;
    refuse_twin(&book, parent, &name)?;
    let ContactBook { numbers, folders, .. } = &mut *book;
    if let Some(folder) = folders.change(numbers, key, call.world.clock.now_ms()) {
        folder.name = name;
    }
    one(&book, key, 200)
}

/// The folder above; the default folder is nobody's to change.
fn own(book: &ContactBook, key: u64) -> Result<u64, Refusal> {
    let refused =
        || refuse(400, "ErrorDeleteDistinguishedFolder", "Distinguished folders cannot be changed.");
    book.folders.get(key).map(|folder| folder.place).ok_or_else(refused)
}

pub(crate) fn delete(call: &Call) -> Answer {
    let mut book = call.world.state::<ContactBook>(call.user);
    let key = named(call, &book)?;
    own(&book, key)?;
    book.remove_folder(key);
    Ok(Reply::Empty(204))
}

/// One page of changes of folders, wherever they are in the tree.
pub(crate) fn delta(call: &Call) -> Answer {
    let book = call.world.state::<ContactBook>(call.user);
    let round = Round {
        objects: &book.folders,
        stand: book.numbers.stand(),
        place: None,
        collection: "contact folders".into(),
        type_name: SCHEMA.name,
    };
    round.page(
        call,
        |folder, token| Ok(shown(&book, folder.key, folder.place, &View::of(&SCHEMA, &token.query(), &[])?)),
        |key, _| book.folder_id(key),
    )
}
