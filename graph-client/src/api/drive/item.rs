//! One item of a drive.

use std::fmt;

use bytes::Bytes;
use holdfast_model::Millis;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::json::{FromObject, without};

use super::super::outlook::millis;

/// Addresses that open the content to whoever has them.
const SECRET: &[&str] = &["@microsoft.graph.downloadUrl", "@content.downloadUrl"];

/// What stands in the place of a notebook.
const NOTEBOOK: &str = "oneNote";

/// The media type of a part of a notebook.
const NOTEBOOK_PART: &str = "application/msonenote";

/// An address that gives the content to whoever has it, for about an hour. It shows nowhere and cannot be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct DownloadUrl(Zeroizing<String>);

impl DownloadUrl {
    pub(super) fn new(url: &str) -> Self {
        Self(Zeroizing::new(url.to_owned()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DownloadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DownloadUrl(redacted)")
    }
}

/// What an item is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriveItemKind {
    /// A folder; the root is one too.
    Folder {
        /// How many items are in it, where Microsoft says so.
        child_count: Option<u64>,
    },
    /// A file.
    File {
        /// Its media type.
        mime_type: Option<String>,
        /// quickXorHash of its content. It can be missing or stale.
        hash: Option<String>,
    },
    /// Something that looks like a file and is a folder, such as a notebook.
    Package {
        /// Microsoft's word for what it is.
        kind: String,
    },
    /// A link to an item of another drive.
    Remote,
    /// Something newer than this program.
    Unknown,
}

/// An item of a drive. It has no path: a renamed folder does not return what is below it, so paths are made of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveItem {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The folder it is in; none for the root.
    pub parent_id: Option<String>,
    /// The drive it is in.
    pub drive_id: Option<String>,
    /// Whether it is the root of the drive.
    pub is_root: bool,
    /// What it is.
    pub kind: DriveItemKind,
    /// The length of its content; of a folder, of all that is in it.
    pub size: u64,
    /// Changes with everything.
    pub etag: Option<String>,
    /// Changes with the content; missing in the deltas of OneDrive for Business.
    pub ctag: Option<String>,
    /// When it was made, by the client's word where there is one.
    pub created_ms: Option<Millis>,
    /// When it was changed, by the client's word where there is one.
    pub modified_ms: Option<Millis>,
    /// Whether Microsoft found malware in it: it cannot be downloaded.
    pub has_malware: bool,
    /// Whether it has sharing of its own: its permissions are not all inherited.
    pub is_shared: bool,
    /// Whether only its sharing was reported as changed.
    pub sharing_changed: bool,
    /// Where its content is to be had right now.
    pub download_url: Option<DownloadUrl>,
    /// The whole object as it came, unknown properties included, but without addresses that open the content.
    pub raw: Bytes,
}

impl DriveItem {
    /// Reads one from JSON, [`Self::raw`] of an earlier one for example, which has no [`Self::download_url`].
    pub fn from_json(raw: &[u8]) -> Result<Self, serde_json::Error> {
        Self::from_object(raw)
    }

    /// Whether it is a notebook or a part of one: its content often cannot be had.
    pub fn is_notebook(&self) -> bool {
        match &self.kind {
            DriveItemKind::Package { kind } => kind.eq_ignore_ascii_case(NOTEBOOK),
            DriveItemKind::File { mime_type: Some(mime_type), .. } => {
                mime_type.eq_ignore_ascii_case(NOTEBOOK_PART)
            }
            _ => false,
        }
    }

    /// What Microsoft says its content hashes to.
    pub fn hash(&self) -> Option<&str> {
        match &self.kind {
            DriveItemKind::File { hash, .. } => hash.as_deref(),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    id: String,
    name: Option<String>,
    parent_reference: Option<ParentReference>,
    size: Option<u64>,
    e_tag: Option<String>,
    c_tag: Option<String>,
    created_date_time: Option<String>,
    last_modified_date_time: Option<String>,
    file_system_info: Option<FileSystemInfo>,
    root: Option<Value>,
    folder: Option<FolderFacet>,
    file: Option<FileFacet>,
    package: Option<PackageFacet>,
    bundle: Option<Value>,
    remote_item: Option<Value>,
    malware: Option<Value>,
    shared: Option<Value>,
    #[serde(rename = "@microsoft.graph.sharedChanged")]
    shared_changed: Option<Value>,
    #[serde(rename = "@microsoft.graph.downloadUrl")]
    download_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ParentReference {
    id: Option<String>,
    drive_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileSystemInfo {
    created_date_time: Option<String>,
    last_modified_date_time: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FolderFacet {
    child_count: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileFacet {
    mime_type: Option<String>,
    hashes: Option<Hashes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hashes {
    quick_xor_hash: Option<String>,
}

#[derive(Deserialize)]
struct PackageFacet {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Fields {
    fn kind(&mut self) -> DriveItemKind {
        // A link has a folder's or a file's facet too; a package that of a folder.
        if self.remote_item.is_some() {
            return DriveItemKind::Remote;
        }
        if let Some(package) = self.package.take() {
            return DriveItemKind::Package { kind: package.kind.unwrap_or_default() };
        }
        if self.bundle.is_some() {
            return DriveItemKind::Package { kind: "bundle".to_owned() };
        }
        if let Some(file) = self.file.take() {
            let hash = file.hashes.and_then(|hashes| hashes.quick_xor_hash).filter(|hash| !hash.is_empty());
            return DriveItemKind::File { mime_type: file.mime_type, hash };
        }
        match self.folder.take() {
            Some(folder) => DriveItemKind::Folder { child_count: folder.child_count },
            None if self.root.is_some() => DriveItemKind::Folder { child_count: None },
            None => DriveItemKind::Unknown,
        }
    }
}

impl FromObject for DriveItem {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let mut fields: Fields = serde_json::from_slice(raw)?;
        let kind = fields.kind();
        let (parent_id, drive_id) = match fields.parent_reference {
            Some(parent) => (parent.id, parent.drive_id),
            None => (None, None),
        };
        let (created, modified) = match fields.file_system_info {
            Some(info) => (info.created_date_time, info.last_modified_date_time),
            None => (None, None),
        };
        let created = created.or(fields.created_date_time);
        let modified = modified.or(fields.last_modified_date_time);
        let shared_changed = fields.shared_changed.as_ref();
        Ok(Self {
            id: fields.id,
            name: fields.name.unwrap_or_default(),
            parent_id: parent_id.filter(|_| fields.root.is_none()),
            drive_id,
            is_root: fields.root.is_some(),
            kind,
            size: fields.size.unwrap_or_default(),
            etag: fields.e_tag,
            ctag: fields.c_tag,
            created_ms: created.as_deref().and_then(millis),
            modified_ms: modified.as_deref().and_then(millis),
            has_malware: fields.malware.is_some(),
            is_shared: fields.shared.is_some(),
            // Microsoft writes it as a text.
            sharing_changed: shared_changed
                .is_some_and(|value| value == true || value.as_str().is_some_and(is_true)),
            download_url: fields.download_url.as_deref().map(DownloadUrl::new),
            raw: without(raw, SECRET)?,
        })
    }
}

fn is_true(text: &str) -> bool {
    text.eq_ignore_ascii_case("true")
}
