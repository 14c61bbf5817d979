//! How Microsoft's JSON is kept: verbatim, with one more property, `_holdfast`, that says what Holdfast knows besides; and the
//! entries of containers, which are that JSON without content.

use bytes::Bytes;
use holdfast_model::Millis;
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
    /// What it is, where it is no container but something that a mailbox does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setting: Option<Setting>,
}

/// Something that a mailbox does by itself. It has no content and is stored as a container has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Setting {
    /// A rule of the Inbox.
    Rule,
    /// A category.
    Category,
    /// The settings themselves.
    Mailbox,
    /// What a later version stores.
    #[serde(other)]
    Unknown,
}

/// The id of the made container that all others are in, of workloads in which Microsoft has none.
pub const ROOT_ID: &str = "root";

/// Its properties: a name nobody sees.
pub const ROOT_RAW: &str = r#"{"displayName":""}"#;

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

impl<'a> FolderToPut<'a> {
    /// The made container at the top, with these properties.
    pub fn root(raw: &'a str) -> Self {
        Self { id: ROOT_ID, parent_id: None, raw, well_known: None }
    }

    /// Puts it where it is new or changed.
    pub async fn put(&self, manifest: &Manifest) -> Result<(), JobError> {
        let meta = with_holdfast(
            self.raw,
            &StoredFolder { well_known: self.well_known.map(str::to_owned), setting: None },
        )?;
        let change = short_hash(&meta);
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

/// The `change` of an item: the hash of its change key, or of everything where Microsoft did not say one.
pub fn change_of(change_key: &str, raw: &[u8]) -> [u8; 16] {
    short_hash(if change_key.is_empty() { raw } else { change_key.as_bytes() })
}

fn short_hash(bytes: &[u8]) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    hash
}

/// An object's JSON as text.
pub fn json_text(raw: &[u8]) -> &str {
    // JSON that was parsed is UTF-8.
    std::str::from_utf8(raw).unwrap_or("{}")
}

/// When an item was made, for its place among others: never 0, which is for containers.
pub fn created_ms(raw: &[u8]) -> Millis {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Created {
        created_date_time: Option<jiff::Timestamp>,
    }
    let created = serde_json::from_slice::<Created>(raw).ok().and_then(|created| created.created_date_time);
    created.and_then(|time| Millis::try_from(time.as_millisecond()).ok()).unwrap_or(0).max(1)
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

/// Microsoft's JSON as it was before [`with_holdfast`]; none where nothing was added.
pub fn without_holdfast(meta: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(meta).ok()?;
    // It was added last, and in a string its quotes would be escaped.
    let raw = &text[..text.rfind("\"_holdfast\":")?];
    Some(raw.strip_suffix(',').unwrap_or(raw).to_owned() + "}")
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_added_can_be_taken_away_and_the_rest_is_as_it_came() {
        for raw in [r#"{"id":"a","text":"\"_holdfast\":1"}"#, r#"{ "x": {"y": 1}}"#, "{}"] {
            let added = json!({"a": [1], "b": "}"});
            let meta = with_holdfast(raw, &added).unwrap();
            assert_eq!(holdfast_of::<serde_json::Value>(&meta).unwrap(), added);
            assert_eq!(without_holdfast(&meta).unwrap(), raw);
        }
        assert_eq!(without_holdfast(b"{}"), None);
    }

    #[test]
    fn an_item_without_a_change_key_changes_with_its_properties() {
        assert_eq!(change_of("k", b"1"), change_of("k", b"2"));
        assert_ne!(change_of("", b"1"), change_of("", b"2"));
    }

    #[test]
    fn items_sort_behind_containers_whenever_they_were_made() {
        assert_eq!(created_ms(br#"{"createdDateTime":"2024-01-08T08:00:00Z"}"#), 1_704_700_800_000);
        assert_eq!(created_ms(br#"{"createdDateTime":"0001-01-01T00:00:00Z"}"#), 1);
        assert_eq!(created_ms(b"{}"), 1);
    }
}
