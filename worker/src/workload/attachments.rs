//! Attachments as they are stored, of whatever item: what Microsoft said of each, and where its bytes are.

use std::collections::BTreeSet;

use holdfast_graph_client::{AttachmentInfo, AttachmentKind, ExpandItem};
use holdfast_repository::ContentPart;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{mail::mime_parts::Encoding, stored::broken};
use crate::JobError;

/// An attachment and where its bytes are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredAttachment {
    /// Microsoft's description, without content.
    pub info: Box<RawValue>,
    /// What the body's `cid:` names, found in the MIME where Microsoft's list lacks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    /// Its bytes.
    pub source: AttachmentSource,
}

/// What a list of attachments says about one of them that a change of it changes too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedAttachment {
    /// Its id.
    pub id: String,
    /// Its file name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its stored size.
    #[serde(default)]
    pub size: Option<u64>,
    /// When it was changed last, as Microsoft writes it.
    #[serde(rename = "lastModifiedDateTime", default)]
    pub modified: Option<String>,
}

impl StoredAttachment {
    /// From Microsoft's description.
    pub fn new(
        info: &AttachmentInfo,
        content_id: Option<String>,
        source: AttachmentSource,
    ) -> Result<Self, JobError> {
        let text = serde_json::to_string(&info.raw).and_then(RawValue::from_string);
        Ok(Self { info: text.map_err(broken("attachment"))?, content_id, source })
    }

    /// How Microsoft listed it; none where that cannot be read.
    pub fn listed(&self) -> Option<ListedAttachment> {
        serde_json::from_str(self.info.get()).ok()
    }
}

/// Where an attachment's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "in", rename_all = "kebab-case")]
pub enum AttachmentSource {
    /// A range of a message's MIME.
    Mime {
        /// First byte in the MIME.
        start: u64,
        /// Bytes in the MIME.
        len: u64,
        /// How they are written there.
        encoding: Encoding,
        /// Bytes once decoded.
        decoded: u64,
    },
    /// A part of the content of its own: raw bytes.
    Part {
        /// Which part; of a message, 0 is the MIME.
        part: u32,
        /// Its length.
        len: u64,
    },
    /// A part of the content of its own: Microsoft's JSON of an item, a reference, or a kind unknown to us.
    Json {
        /// Which part; of a message, 0 is the MIME.
        part: u32,
        /// Its length.
        len: u64,
    },
    /// Microsoft would not give it.
    Missing {
        /// Why.
        code: String,
    },
}

impl AttachmentSource {
    /// Whether the bytes are where it says, in the parts of the item's content.
    pub fn fits(&self, parts: &[ContentPart]) -> bool {
        let len_of = |part: usize| parts.get(part).map(|part| part.len);
        match self {
            Self::Mime { start, len, .. } => {
                start.checked_add(*len).zip(len_of(0)).is_some_and(|(end, mime)| end <= mime)
            }
            Self::Part { part, len } | Self::Json { part, len } => len_of(*part as usize) == Some(*len),
            Self::Missing { .. } => true,
        }
    }
}

/// The call that gives an attachment's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentCall {
    /// Its `$value`.
    Value,
    /// Its JSON.
    Json(ExpandItem),
}

/// An inline file below this may be read as JSON, with its content in it.
const INLINE_JSON_BYTES: u64 = 3 << 20;

impl AttachmentCall {
    /// The one for this attachment.
    pub fn of(info: &AttachmentInfo) -> Self {
        match &info.kind {
            // Only its JSON says what the body calls it.
            AttachmentKind::File
                if info.is_inline && info.content_id.is_none() && info.size < INLINE_JSON_BYTES =>
            {
                Self::Json(ExpandItem::No)
            }
            AttachmentKind::File => Self::Value,
            AttachmentKind::Item => Self::Json(ExpandItem::Yes),
            AttachmentKind::Reference | AttachmentKind::Unknown(_) => Self::Json(ExpandItem::No),
        }
    }
}

/// The code under which a missing attachment is reported.
pub fn missing_attachment(code: &str) -> String {
    format!("AttachmentMissing:{code}")
}

/// Whether these attachments are those that are stored.
pub fn are_same(before: &[StoredAttachment], now: &[AttachmentInfo]) -> bool {
    let before = before.iter().map(StoredAttachment::listed);
    let now = now.iter().map(|info| ListedAttachment::deserialize(&info.raw).ok());
    let lists = before.collect::<Option<Vec<_>>>().zip(now.collect::<Option<Vec<_>>>());
    lists.is_some_and(|(before, now)| is_same_list(&before, &now))
}

/// An attachment keeps its id, and changes its size with its content. Where ids do not last, name, size and time tell.
fn is_same_list(before: &[ListedAttachment], now: &[ListedAttachment]) -> bool {
    let by_id = |all: &[ListedAttachment]| -> BTreeSet<(String, Option<u64>)> {
        all.iter().map(|one| (one.id.clone(), one.size)).collect()
    };
    let described = |all: &[ListedAttachment]| -> Option<Vec<(String, u64, String)>> {
        let describe = |one: &ListedAttachment| Some((one.name.clone()?, one.size?, one.modified.clone()?));
        let mut all: Vec<_> = all.iter().map(describe).collect::<Option<_>>()?;
        all.sort();
        Some(all)
    };
    let is_described_alike = || described(before).is_some_and(|before| Some(before) == described(now));
    before.len() == now.len() && (by_id(before) == by_id(now) || is_described_alike())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_the_same_by_id_and_size_or_else_by_name_size_and_time() {
        let one = |id: &str, size, modified: Option<&str>| ListedAttachment {
            id: id.into(),
            name: Some("a.pdf".into()),
            size: Some(size),
            modified: modified.map(str::to_owned),
        };
        let before = [one("1", 10, Some("t1")), one("2", 20, Some("t1"))];
        assert!(is_same_list(&before, &[one("2", 20, Some("t2")), one("1", 10, None)]));
        assert!(is_same_list(&before, &[one("8", 20, Some("t1")), one("9", 10, Some("t1"))]));
        assert!(!is_same_list(&before, &[one("1", 10, Some("t1")), one("2", 21, Some("t1"))]));
        assert!(!is_same_list(&before, &[one("8", 20, Some("t2")), one("9", 10, Some("t1"))]));
        assert!(!is_same_list(&before, &[one("8", 20, None), one("9", 10, None)]));
        assert!(!is_same_list(&before, &before[..1]));
        assert!(!is_same_list(&[], &before[..1]));
    }
}
