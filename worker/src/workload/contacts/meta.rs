//! The meta of a stored contact: Microsoft's JSON, kept verbatim, with `_holdfast` added.

use holdfast_repository::ContentPart;
use serde::{Deserialize, Serialize};

use crate::{JobError, workload::stored::holdfast_of};

/// What Holdfast adds to a contact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredContact {
    /// Its photo: the only part of the content. None where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub photo: Option<StoredPhoto>,
    /// Why Microsoft would not give the photo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub photo_missing: Option<String>,
}

/// A photo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredPhoto {
    /// Its length.
    pub len: u64,
    /// BLAKE3 of its bytes, in hexadecimal: by it a new one is told from the stored one.
    pub blake3: String,
}

impl StoredPhoto {
    /// Describes a photo.
    pub fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
    }
}

/// What Holdfast added to a stored contact.
pub fn stored_contact(meta: &[u8]) -> Result<StoredContact, JobError> {
    holdfast_of(meta)
}

/// Whether a stored contact and its content fit together; else what is wrong, as a code.
pub fn fit_together(stored: &StoredContact, parts: &[ContentPart]) -> Result<(), &'static str> {
    let is_there = match (&stored.photo, parts) {
        (None, []) => true,
        (Some(photo), [part]) => part.len == photo.len,
        _ => false,
    };
    if is_there { Ok(()) } else { Err("photo") }
}
