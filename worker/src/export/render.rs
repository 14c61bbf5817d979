//! What an item is made into, by workload and format.

use std::path::PathBuf;

use holdfast_model::ExportFormat;
use holdfast_repository::{ContentPart, ItemEntry, SnapshotReader};
use serde_json::Value;

use super::{
    Envelope, ics, json,
    names::{file_name, item_name},
    vcf,
};
use crate::{JobError, workload::stored::broken};

/// The longest name of a drive's file that is kept; Microsoft allows 400 characters, file systems 255 bytes.
const MAX_FILE_CHARS: usize = 120;

/// One file.
pub(super) struct OutFile {
    /// Its name in the folder of the item, where it may have a folder of its own; then in the export.
    pub(super) name: PathBuf,
    /// When it was changed; 0: unknown.
    pub(super) modified_ms: u64,
    pub(super) body: Body,
}

/// What is in a file.
pub(super) enum Body {
    Bytes(Vec<u8>),
    /// A part of the item's content.
    Part(ContentPart),
}

impl Body {
    /// How long the file becomes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(body) => body.len() as u64,
            Self::Part(part) => part.len,
        }
    }
}

/// An item with all that is stored of it.
pub(super) struct Item<'a> {
    pub(super) reader: &'a SnapshotReader,
    pub(super) id: &'a str,
    pub(super) sort: u64,
    pub(super) meta: Value,
    pub(super) parts: Vec<ContentPart>,
}

impl Item<'_> {
    /// A text property, empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.meta.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A file of this item's, named by its time and title.
    fn titled(&self, title: &str, extension: &str, body: Body) -> OutFile {
        let name = format!("{}.{extension}", item_name(self.sort, title, self.id));
        OutFile { name: name.into(), modified_ms: self.sort, body }
    }
}

/// Reads an item and makes its files.
pub(super) async fn item(
    reader: &SnapshotReader,
    format: ExportFormat,
    (id, entry): (&str, &ItemEntry),
) -> Result<Vec<OutFile>, JobError> {
    let meta = reader.meta(entry).await?;
    let parts = reader.content(entry).await?;
    if matches!(format, ExportFormat::Eml | ExportFormat::Mbox) {
        // A message is its MIME: properties that cannot be read cost no more than its name.
        let envelope: Envelope = serde_json::from_slice(&meta).unwrap_or_default();
        let item = Item { reader, id, sort: entry.sort, meta: Value::Null, parts };
        let body = item.parts.first().cloned().map_or(Body::Bytes(Vec::new()), Body::Part);
        let file = item.titled(envelope.subject.as_deref().unwrap_or_default(), "eml", body);
        return Ok(vec![file]);
    }
    let meta = serde_json::from_slice(&meta).map_err(broken("meta"))?;
    let item = Item { reader, id, sort: entry.sort, meta, parts };
    Ok(match format {
        ExportFormat::Ics => {
            vec![item.titled(item.text("subject"), "ics", Body::Bytes(ics::write(&item).await?))]
        }
        ExportFormat::Vcf => {
            vec![item.titled(item.text("displayName"), "vcf", Body::Bytes(vcf::write(&item).await?))]
        }
        ExportFormat::Files => file(&item),
        // Messages are done above, and an archive has the files of another format.
        ExportFormat::Json | ExportFormat::Eml | ExportFormat::Mbox | ExportFormat::Zip => {
            json::files(&item)?
        }
    })
}

/// A file of a drive under its own name. What has no content, such as a link to another drive, has no file.
fn file(item: &Item<'_>) -> Vec<OutFile> {
    let Some(part) = item.parts.first() else { return Vec::new() };
    let name = short(item.text("name"));
    vec![OutFile { name: name.into(), modified_ms: item.sort, body: Body::Part(part.clone()) }]
}

/// A name that file systems take, with its extension.
pub(super) fn short(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && extension.chars().count() <= 16 => {
            let mut stem = file_name(stem, MAX_FILE_CHARS);
            while stem.len() > 200 {
                stem.pop();
            }
            format!("{stem}.{}", file_name(extension, 16))
        }
        _ => file_name(name, MAX_FILE_CHARS / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drives_file_keeps_its_name_where_it_can() {
        assert_eq!(short("Quarterly report 20.docx"), "Quarterly report 20.docx");
        assert_eq!(short("a/b\\c.tar.gz"), "a_b_c.tar.gz");
        assert!(short(&format!("{}.pdf", "\u{1F600}".repeat(300))).len() < 255);
        assert_eq!(short(".profile"), "profile");
    }
}
