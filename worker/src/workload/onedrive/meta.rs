//! The meta of a stored drive item: Microsoft's JSON, kept verbatim, with `_holdfast` added.

use holdfast_repository::ContentPart;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{JobError, workload::stored::holdfast_of};

/// What Holdfast adds to an item of a drive.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredDriveItem {
    /// Its content; none of a folder, and of a file that Microsoft did not give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<StoredFile>,
    /// Earlier versions, the newest first: the parts of the content behind the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<StoredVersion>,
    /// The permissions that are its own, not a folder's above, as Microsoft gave them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Box<RawValue>>,
}

/// A file's content: the first part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredFile {
    /// Its length.
    pub len: u64,
    /// quickXorHash of the bytes that are stored, by which a restore proves itself.
    pub quick_xor_hash: String,
    /// Microsoft said something else about length or hash, every time it was asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differs: bool,
}

/// An earlier version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredVersion {
    /// Microsoft's description.
    pub info: Box<RawValue>,
    /// The length of its content.
    pub len: u64,
}

/// What Holdfast added to a stored item.
pub fn stored_drive_item(meta: &[u8]) -> Result<StoredDriveItem, JobError> {
    holdfast_of(meta)
}

/// Whether a stored item and its content fit together; else what is wrong, as a code.
pub fn fit_together(stored: &StoredDriveItem, parts: &[ContentPart]) -> Result<(), &'static str> {
    let file = stored.content.iter().map(|file| file.len);
    let expected = file.chain(stored.versions.iter().map(|version| version.len));
    let found = parts.iter().map(|part| part.len);
    if expected.eq(found) { Ok(()) } else { Err("content-length") }
}
