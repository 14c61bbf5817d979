//! The photo of a contact: no change key, no delta, 404 when there is none.

use http::header;
use serde_json::json;

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::workloads::contacts::book::{ContactBook, Photo};
use crate::workloads::contacts::items::find;
use crate::workloads::objects::page;
use crate::workloads::objects::read_fault;

/// What Graph shows of every picture here; none is ever decoded.
const SIDE: u32 = 96;

fn none() -> Refusal {
    refuse(
        404,
        "ErrorItemNotFound",
        "The specified object was not found in the store. The photo wasn't found.",
    )
}

fn photo(call: &Call) -> Result<Photo, Refusal> {
    read_fault(call)?;
    let book = call.world.state::<ContactBook>(call.user);
    find(call, &book)?.value.photo.clone().ok_or_else(none)
}

/// What is known about the photo.
pub(crate) fn get(call: &Call) -> Answer {
    photo(call)?;
    let context = format!("{}/v1.0/$metadata#profilePhoto", call.base);
    let about =
        json!({"@odata.context": context, "id": format!("{SIDE}X{SIDE}"), "height": SIDE, "width": SIDE});
    page::one(200, &about)
}

pub(crate) fn value(call: &Call) -> Answer {
    let photo = photo(call)?;
    Ok(Reply::Data(photo.data, photo.content_type))
}

pub(crate) fn put(call: &Call) -> Answer {
    let kind = call.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_picture = kind.starts_with("image/") || kind == "application/octet-stream";
    if !is_picture || call.body.is_empty() {
        return Err(refuse(400, "ErrorInvalidImage", "The body is not a picture."));
    }
    let content_type = if kind.starts_with("image/") { kind } else { "image/jpeg" };
    let data = call.world.blobs.keep(call.body.clone());
    let photo = Photo { content_type: content_type.to_owned(), data };
    set(call, Some(photo))?;
    Ok(Reply::Empty(200))
}

pub(crate) fn delete(call: &Call) -> Answer {
    if set(call, None)?.is_none() {
        return Err(none());
    }
    Ok(Reply::Empty(204))
}

/// Puts a photo in the place of the one there was.
fn set(call: &Call, photo: Option<Photo>) -> Result<Option<Photo>, Refusal> {
    let mut book = call.world.state::<ContactBook>(call.user);
    let key = find(call, &book)?.key;
    let before = book.contacts.quietly(key).map(|contact| std::mem::replace(&mut contact.photo, photo));
    Ok(before.flatten())
}
