//! A contact as a vCard 3.0 (RFC 2426), which every address book reads.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{content_line::Lines, render::Item};
use crate::JobError;

/// A larger photo is left out: address books refuse the file with it. Microsoft takes none above 4 MB.
const MAX_PHOTO_BYTES: u64 = 4 << 20;

/// Numbers by the property that holds them.
const NUMBERS: &[(&str, &str)] = &[
    ("mobilePhone", "TEL;TYPE=CELL"),
    ("homePhones", "TEL;TYPE=HOME,VOICE"),
    ("businessPhones", "TEL;TYPE=WORK,VOICE"),
];
/// Addresses by the property that holds them.
const ADDRESSES: &[(&str, &str)] = &[
    ("homeAddress", "ADR;TYPE=HOME"),
    ("businessAddress", "ADR;TYPE=WORK"),
    ("otherAddress", "ADR;TYPE=POSTAL"),
];

/// The vCard of a contact.
pub(super) async fn write(item: &Item<'_>) -> Result<Vec<u8>, JobError> {
    let mut photo = None;
    if let Some(part) = item.parts.first().filter(|part| part.len <= MAX_PHOTO_BYTES) {
        photo = Some(item.reader.read_range(part, 0, part.len).await?);
    }
    Ok(card(&item.meta, item.id, photo.as_deref()))
}

fn card(contact: &Value, id: &str, photo: Option<&[u8]>) -> Vec<u8> {
    let text = |name: &str| contact.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut lines = Lines::default();
    lines.raw("BEGIN", "VCARD");
    lines.raw("VERSION", "3.0");
    lines.text("UID", id);
    let n = [text("surname"), text("givenName"), text("middleName"), text("title"), text("generation")];
    // Both must be there, whatever is known.
    let shown = ["displayName", "fileAs", "companyName"].map(text).into_iter().find(|name| !name.is_empty());
    let shown = shown.unwrap_or("?");
    match n.iter().all(|part| part.is_empty()) {
        true => lines.texts("N", &[shown, "", "", "", ""], ';'),
        false => lines.texts("N", &n, ';'),
    }
    lines.text("FN", shown);
    lines.text("NICKNAME", text("nickName"));
    lines.texts("ORG", &[text("companyName"), text("department")], ';');
    lines.text("TITLE", text("jobTitle"));
    lines.text("ROLE", text("profession"));
    for address in all(contact, "emailAddresses") {
        let address = address.get("address").and_then(Value::as_str).unwrap_or_default();
        lines.text("EMAIL;TYPE=INTERNET", address);
    }
    for (property, name) in NUMBERS {
        for number in all(contact, property) {
            lines.text(name, number.as_str().unwrap_or_default());
        }
    }
    for (property, name) in ADDRESSES {
        let part = |part: &str| contact.get(*property).and_then(|of| of.get(part)).and_then(Value::as_str);
        let part = |name: &str| part(name).unwrap_or_default();
        let parts = ["street", "city", "state", "postalCode", "countryOrRegion"].map(part);
        lines.texts(name, &[&["", ""], &parts[..]].concat(), ';');
    }
    for address in all(contact, "imAddresses") {
        lines.text("IMPP", address.as_str().unwrap_or_default());
    }
    lines.text("URL", text("businessHomePage"));
    if let Some(day) = text("birthday").get(..10) {
        lines.raw("BDAY", day);
    }
    let categories: Vec<&str> = all(contact, "categories").filter_map(Value::as_str).collect();
    lines.texts("CATEGORIES", &categories, ',');
    lines.text("NOTE", text("personalNotes"));
    if let Some(photo) = photo {
        let kind = if photo.starts_with(b"\x89PNG") { "PNG" } else { "JPEG" };
        lines.raw(&format!("PHOTO;ENCODING=b;TYPE={kind}"), &STANDARD.encode(photo));
    }
    lines.text("REV", text("lastModifiedDateTime"));
    lines.raw("END", "VCARD");
    lines.into_bytes()
}

/// The values of a property, whether it is a list or one.
fn all<'a>(object: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    match object.get(name) {
        Some(Value::Array(list)) => list.iter(),
        Some(one) => std::slice::from_ref(one).iter(),
        None => [].iter(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_contact_becomes_a_card_with_what_is_known() {
        let contact = json!({
            "displayName": "Ann Lee", "givenName": "Ann", "surname": "Lee", "companyName": "X; Y",
            "emailAddresses": [{ "address": "a@x" }], "mobilePhone": "+41 1", "businessPhones": ["2", "3"],
            "homeAddress": { "city": "Bern" }, "birthday": "1980-05-01T00:00:00Z", "categories": ["a", "b,c"],
        });
        let card = String::from_utf8(card(&contact, "id", Some(b"\x89PNG"))).unwrap();
        for line in [
            "N:Lee;Ann;;;",
            "FN:Ann Lee",
            "ORG:X\\; Y;",
            "EMAIL;TYPE=INTERNET:a@x",
            "TEL;TYPE=CELL:+41 1",
            "TEL;TYPE=WORK,VOICE:3",
            "ADR;TYPE=HOME:;;;Bern;;;",
            "BDAY:1980-05-01",
            "CATEGORIES:a,b\\,c",
            "PHOTO;ENCODING=b;TYPE=PNG:iVBORw==",
        ] {
            assert!(card.contains(&format!("{line}\r\n")), "{line} in {card}");
        }
    }

    #[test]
    fn a_card_always_has_a_name() {
        let card = String::from_utf8(card(&json!({ "companyName": "X" }), "id", None)).unwrap();
        assert!(card.contains("FN:X\r\n") && card.contains("N:X;;;;\r\n"), "{card}");
    }
}
