//! Decides where an attachment's bytes come from: a part of the MIME that matches by name and length, else a call of its own;
//! and whether the attachments of a message that was moved or marked are still those that are stored.
//!
//! The invariant: a part is used for one attachment only, and only where no other part could be meant.

use holdfast_graph_client::{AttachmentInfo, AttachmentKind, GraphError, MailMessage};

use super::{meta::StoredMessage, mime_parts::MimePart};
use crate::{JobError, backup::BackupContext, workload::attachments};

/// Where the bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The part of the MIME with this position.
    Mime(usize),
    /// A call of its own.
    Call,
}

/// `size` is the stored size: the content and up to this much of overhead …
const OVERHEAD_BYTES: u64 = 16 << 10;
/// … or this part of it.
const OVERHEAD_FRACTION: u64 = 16;

/// Finds the place of one attachment.
pub fn place(info: &AttachmentInfo, parts: &[MimePart], used: &[bool]) -> Place {
    let found = (info.kind == AttachmentKind::File).then(|| find(info, parts, used)).flatten();
    found.map_or(Place::Call, Place::Mime)
}

fn find(info: &AttachmentInfo, parts: &[MimePart], used: &[bool]) -> Option<usize> {
    let free = || parts.iter().enumerate().filter(|(index, part)| !used[*index] && fits(info, part));
    if let Some(id) = &info.content_id {
        let id = id.trim_matches(['<', '>']);
        let mut same = free().filter(|(_, part)| part.content_id.as_deref() == Some(id));
        if let (Some((index, _)), None) = (same.next(), same.next()) {
            return Some(index);
        }
    }
    let mut same: Vec<usize> = free()
        .filter(|(_, part)| part.name.as_deref().is_some_and(|name| name.trim() == info.name.trim()))
        .map(|(index, _)| index)
        .collect();
    if same.len() > 1 {
        // Attachments of one name: the length decides, if it is the exact one of a single part.
        same.retain(|index| parts[*index].decoded_len == info.size);
    }
    match same.as_slice() {
        [index] => Some(*index),
        _ => None,
    }
}

/// Whether the attachments of a message may have changed although none of its properties says so.
///
/// All a delta entry tells of them is `hasAttachments`, and a change of that is a change of content anyway: the change key and
/// the time of modification differ after a flag too. So they are listed wherever there are some or were some, or the body
/// shows some, because `hasAttachments` leaves out inline ones. What stays unseen is the first inline attachment that no
/// `cid:` shows, added together with a flag.
pub fn may_differ(message: &MailMessage, before: &StoredMessage) -> bool {
    message.has_attachments || message.body_has_cid() || !before.attachments.is_empty()
}

/// Whether a message has the attachments it had: one list without content tells. Where it cannot be had the answer is no;
/// fetching the message then says why.
pub async fn are_same(
    context: &BackupContext,
    message: &MailMessage,
    before: &StoredMessage,
) -> Result<bool, GraphError> {
    match context.graph.attachments(&context.user, &message.id).await {
        Ok(now) => Ok(attachments::are_same(&before.attachments, &now)),
        Err(error) if JobError::is_fatal_for_job(&error) => Err(error),
        Err(_) => Ok(false),
    }
}

fn fits(info: &AttachmentInfo, part: &MimePart) -> bool {
    let overhead = OVERHEAD_BYTES.max(part.decoded_len / OVERHEAD_FRACTION);
    part.decoded_len <= info.size && info.size - part.decoded_len <= overhead
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workload::mail::mime_parts::Encoding;

    fn info(name: &str, size: u64) -> AttachmentInfo {
        AttachmentInfo {
            id: "i".into(),
            kind: AttachmentKind::File,
            name: name.into(),
            content_type: None,
            size,
            is_inline: false,
            content_id: None,
            raw: json!({}),
        }
    }

    fn part(name: &str, decoded_len: u64) -> MimePart {
        MimePart {
            name: Some(name.into()),
            content_id: None,
            content_type: "a/b".into(),
            encoding: Encoding::Base64,
            start: 0,
            len: 0,
            decoded_len,
        }
    }

    #[test]
    fn name_and_length_must_both_match() {
        let parts = [part("a.pdf", 100), part("b.pdf", 100_000)];
        let free = [false, false];
        assert_eq!(place(&info("a.pdf", 150), &parts, &free), Place::Mime(0));
        assert_eq!(place(&info("a.pdf", 90), &parts, &free), Place::Call);
        assert_eq!(place(&info("a.pdf", 90_000), &parts, &free), Place::Call);
        assert_eq!(place(&info("c.pdf", 150), &parts, &free), Place::Call);
        assert_eq!(place(&info("a.pdf", 150), &parts, &[true, false]), Place::Call);
    }

    #[test]
    fn two_parts_of_one_name_are_told_apart_by_exact_length_or_fetched() {
        let parts = [part("a", 100), part("a", 101)];
        assert_eq!(place(&info("a", 101), &parts, &[false; 2]), Place::Mime(1));
        assert_eq!(place(&info("a", 140), &parts, &[false; 2]), Place::Call);
    }
}
