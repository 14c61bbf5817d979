//! The failed list: what a snapshot lacks, kept in its header and retried first by the next run.

use holdfast_graph_client::{ErrorClass, GraphError};
use holdfast_proto::coordinator::FailedItem;
use serde::{Deserialize, Serialize};

/// Failed items kept, at most; more of them fail the job loudly instead.
pub const MAX_FAILED: usize = 20_000;

/// Runs that ask for a failed item by its id. After them it is parked: it stays on the list, and is asked for again when Microsoft
/// reports it changed, or lists everything.
pub const PARKED_AFTER: u32 = 10;

/// Why Microsoft did not give an item, as far as its account needs to know; a shard hands it to its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Microsoft's code, or ours.
    pub code: String,
    /// What follows from it.
    pub kind: RefusalKind,
    /// Microsoft's name for the last request.
    #[serde(default)]
    pub request_id: String,
}

/// What follows from a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RefusalKind {
    /// The item is not there any more.
    Gone,
    /// It may work next time.
    Retryable,
    /// It is not what was listed any more: there is another version to be had.
    Changed,
    /// It will not.
    Permanent,
}

impl Refusal {
    /// Of an error that does not end the whole job.
    pub fn of(error: &GraphError) -> Self {
        let kind = match (error.class(), error.is_retryable()) {
            (ErrorClass::Gone, _) => RefusalKind::Gone,
            (ErrorClass::Reread, _) => RefusalKind::Changed,
            (_, true) => RefusalKind::Retryable,
            (_, false) => RefusalKind::Permanent,
        };
        let request_id = error.request_id().unwrap_or_default().to_owned();
        Self { code: error.code().to_owned(), kind, request_id }
    }
}

/// One item that could not be backed up or restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemFailure {
    /// Microsoft's id.
    pub id: String,
    /// The path of the place where it is, for people. Never a subject.
    pub path: String,
    /// Microsoft's code, or ours.
    pub code: String,
    /// Whether it may work next time.
    pub retryable: bool,
    /// How many runs have tried.
    pub attempts: u32,
    /// Microsoft's name for the last request.
    #[serde(default)]
    pub request_id: String,
    /// An older version is in the snapshot.
    #[serde(default)]
    pub stale: bool,
    /// The newest version is in the snapshot, but something of it is missing for good.
    #[serde(default)]
    pub is_partial: bool,
}

impl ItemFailure {
    /// Whether it was asked for so often that runs do not ask for it any more.
    pub fn is_parked(&self) -> bool {
        !self.is_partial && self.attempts >= PARKED_AFTER
    }

    /// Describes a failure of Microsoft's.
    pub fn of(id: &str, path: &str, error: &GraphError, attempts: u32) -> Self {
        Self::refused(id, path, Refusal::of(error), attempts)
    }

    /// The same, from what a shard says.
    pub(super) fn refused(id: &str, path: &str, refusal: Refusal, attempts: u32) -> Self {
        Self {
            id: id.to_owned(),
            path: path.to_owned(),
            code: refusal.code,
            retryable: matches!(refusal.kind, RefusalKind::Retryable | RefusalKind::Changed),
            attempts,
            request_id: refusal.request_id,
            stale: false,
            is_partial: false,
        }
    }

    /// Describes an item that is stored without something that Microsoft would not give.
    pub fn partial(id: &str, path: &str, code: String, attempts: u32) -> Self {
        Self { attempts, is_partial: true, code, ..Self::ours(id, path, "", false) }
    }

    /// Describes a failure of our own.
    pub fn ours(id: &str, path: &str, code: &str, retryable: bool) -> Self {
        Self {
            id: id.to_owned(),
            path: path.to_owned(),
            code: code.to_owned(),
            retryable,
            attempts: 1,
            request_id: String::new(),
            stale: false,
            is_partial: false,
        }
    }
}

impl From<&ItemFailure> for FailedItem {
    fn from(failed: &ItemFailure) -> Self {
        Self {
            id: failed.id.clone(),
            path: failed.path.clone(),
            code: failed.code.clone(),
            retryable: failed.retryable,
            attempts: failed.attempts,
            request_id: failed.request_id.clone(),
            stale: failed.stale,
            partial: failed.is_partial,
            parked: failed.is_parked(),
        }
    }
}
