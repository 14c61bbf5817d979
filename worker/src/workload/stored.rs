//! How Microsoft's JSON is kept: verbatim, with one more property, `_holdfast`, that says what Holdfast knows besides; and the
//! entries of containers, which are that JSON without content.

use bytes::Bytes;
use holdfast_repository::{ContentSource, EntryFlags, EntryKind, FolderKey, ItemFields};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{ROOT_PARENT, container_key};
use crate::{
    JobError,
    backup::{Manifest, key},
};

/// What Holdfast adds to a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredFolder {
    /// Its well-known name.
    #[serde(default)]
    pub well_known: Option<String>,
}

/// A container to be put into the manifest.
pub struct FolderToPut<'a> {
    /// Microsoft's id.
    pub id: &'a str,
    /// The id of what it is in; none at the top.
    pub parent_id: Option<&'a str>,
    /// Microsoft's JSON.
    pub raw: &'a str,
    /// Its well-known name.
    pub well_known: Option<&'a str>,
}

impl FolderToPut<'_> {
    /// Puts it where it is new or changed.
    pub async fn put(&self, manifest: &Manifest) -> Result<(), JobError> {
        let meta = with_holdfast(self.raw, &StoredFolder { well_known: self.well_known.map(str::to_owned) })?;
        let mut change = [0; 16];
        change.copy_from_slice(&blake3::hash(&meta).as_bytes()[..16]);
        let parent = FolderKey(self.parent_id.map_or(ROOT_PARENT, container_key));
        let entry = manifest.entry(self.id).await?;
        if entry.is_some_and(|entry| entry.change == change && entry.parent == parent) {
            return Ok(());
        }
        let fields = ItemFields {
            kind: EntryKind::Folder,
            flags: EntryFlags::default(),
            change,
            size: 0,
            parent,
            sort: 0,
        };
        Ok(manifest.writer().put_item(key(self.id), fields, meta, ContentSource::None).await?)
    }
}

/// Microsoft's JSON with one more property.
pub fn with_holdfast<T: Serialize>(raw: &str, holdfast: &T) -> Result<Bytes, JobError> {
    let added = serde_json::to_vec(holdfast).map_err(broken("meta"))?;
    let body = raw.trim_end().strip_suffix('}').unwrap_or(raw).trim_end();
    let mut out = Vec::with_capacity(body.len() + added.len() + 16);
    out.extend_from_slice(body.as_bytes());
    if !body.ends_with('{') {
        out.push(b',');
    }
    out.extend_from_slice(b"\"_holdfast\":");
    out.extend_from_slice(&added);
    out.push(b'}');
    Ok(out.into())
}

/// What Holdfast added.
pub fn holdfast_of<T: DeserializeOwned>(meta: &[u8]) -> Result<T, JobError> {
    #[derive(Deserialize)]
    struct Meta<T> {
        #[serde(rename = "_holdfast")]
        holdfast: T,
    }
    serde_json::from_slice::<Meta<T>>(meta).map(|meta| meta.holdfast).map_err(broken("meta"))
}

/// Something stored is not the JSON that it should be.
pub fn broken(what: &'static str) -> impl FnOnce(serde_json::Error) -> JobError {
    move |source| JobError::Stored { what, source }
}
