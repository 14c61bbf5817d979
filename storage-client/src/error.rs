//! What a node's answer means: from a gRPC status to a call error, and from there to the [`StoreError`] callers see.

use holdfast_model::NodeId;
use holdfast_proto::status::ErrorCode;
use holdfast_repository::StoreError;
use tonic::Status;

/// One call to one node failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{node}: {message}")]
pub(crate) struct CallError {
    /// Who was called.
    pub(crate) node: NodeId,
    /// What can be done about it.
    pub(crate) code: ErrorCode,
    /// Why, for people. Never holds secrets or content.
    pub(crate) message: String,
    /// The node is well and waits for something that comes by itself.
    is_not_yet: bool,
    /// The layout that the caller works by is over.
    is_outdated: bool,
}

impl CallError {
    pub(crate) fn new(node: NodeId, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { node, code, message: message.into(), is_not_yet: false, is_outdated: false }
    }

    pub(crate) fn of(node: NodeId, status: &Status) -> Self {
        let message = match status.message() {
            "" => format!("{:?}", status.code()),
            text => text.to_owned(),
        };
        let is_not_yet = ErrorCode::is_not_yet(status);
        let is_outdated = ErrorCode::is_outdated(status);
        Self { is_not_yet, is_outdated, ..Self::new(node, ErrorCode::of(status), message) }
    }

    pub(crate) fn timeout(node: NodeId) -> Self {
        Self::new(node, ErrorCode::Unavailable, "no answer in time")
    }

    /// Whether the same call, there or at another owner, may succeed later. A broken connection shows as an internal error
    /// of the transport, so that one is tried again too.
    pub(crate) fn is_retryable(&self) -> bool {
        !self.is_outdated && (self.code.is_retryable() || self.code == ErrorCode::Internal)
    }

    /// Whether the node itself seems to be away.
    pub(crate) fn is_unreachable(&self) -> bool {
        !self.is_not_yet && matches!(self.code, ErrorCode::Unavailable | ErrorCode::Internal)
    }

    /// How much this error says about the whole operation: of several, the highest is reported.
    fn weight(&self) -> u8 {
        match self.code {
            _ if self.is_outdated => 3,
            ErrorCode::Fenced => 5,
            ErrorCode::SessionLost => 4,
            ErrorCode::Forbidden | ErrorCode::BadRequest | ErrorCode::NotFound | ErrorCode::Conflict => 3,
            ErrorCode::Exhausted => 2,
            ErrorCode::Internal => 1,
            ErrorCode::Unavailable => 0,
        }
    }
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> Self {
        match error.code {
            _ if error.is_outdated => Self::LayoutChanged,
            ErrorCode::Fenced => Self::Fenced,
            ErrorCode::SessionLost => Self::SessionLost,
            ErrorCode::Exhausted => Self::Full,
            ErrorCode::Forbidden | ErrorCode::BadRequest | ErrorCode::NotFound | ErrorCode::Conflict => {
                Self::Refused { reason: error.to_string() }
            }
            ErrorCode::Unavailable | ErrorCode::Internal => Self::Unavailable { reason: error.to_string() },
        }
    }
}

/// The error that says more than that nodes are away, if there is one.
pub(crate) fn most_telling(errors: &[CallError]) -> Option<StoreError> {
    let worst = errors.iter().max_by_key(|error| error.weight())?;
    (worst.weight() >= 2).then(|| worst.clone().into())
}

/// One error for several: the most telling one, or all the reasons when nodes are merely away.
pub(crate) fn combine(what: &str, errors: &[CallError]) -> StoreError {
    most_telling(errors).unwrap_or_else(|| {
        let mut reasons: Vec<String> = errors.iter().map(ToString::to_string).collect();
        reasons.sort();
        reasons.dedup();
        let separator = if reasons.is_empty() { "" } else { ": " };
        StoreError::Unavailable { reason: format!("{what}{separator}{}", reasons.join("; ")) }
    })
}
