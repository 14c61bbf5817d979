//! The meta of a stored task: Microsoft's JSON, kept verbatim, with `_holdfast` added.

use holdfast_repository::ContentPart;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    JobError,
    workload::{attachments::StoredAttachment, stored::holdfast_of},
};

/// What Holdfast adds to a task: what hangs on it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredTask {
    /// Steps to be ticked off, as Microsoft described each.
    #[serde(default)]
    pub checklist_items: Vec<Value>,
    /// Links to where the task comes from, as Microsoft described each.
    #[serde(default)]
    pub linked_resources: Vec<Value>,
    /// Files; each is a part of the content.
    #[serde(default)]
    pub attachments: Vec<StoredAttachment>,
}

/// What Holdfast added to a stored task.
pub fn stored_task(meta: &[u8]) -> Result<StoredTask, JobError> {
    holdfast_of(meta)
}

/// Whether a stored task and its content fit together; else what is wrong, as a code.
pub fn fit_together(stored: &StoredTask, parts: &[ContentPart]) -> Result<(), &'static str> {
    match stored.attachments.iter().all(|one| one.source.fits(parts)) {
        true => Ok(()),
        false => Err("attachment"),
    }
}

/// The key of a task.
pub fn task_key(list: &str, task: &str) -> String {
    format!("{list}:{task}")
}

/// List and task of a key.
pub fn list_and_task(key: &str) -> (&str, &str) {
    // Ids are base64: no colon is in them.
    key.split_once(':').unwrap_or_default()
}
