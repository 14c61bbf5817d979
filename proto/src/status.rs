//! The closed set of error codes at every gRPC edge: each service maps its errors to one of these, and nothing else builds
//! a [`tonic::Status`]. Texts say what to do and hold no secrets and no content.

use tonic::{Code, Status, metadata::MetadataValue};

/// Marks [`ErrorCode::not_yet`] and [`ErrorCode::outdated`].
const NOT_YET_METADATA: &str = "holdfast-not-yet";
/// Marks [`ErrorCode::outdated`].
const OUTDATED_METADATA: &str = "holdfast-outdated";

/// What a caller can do about an error. Nine codes, no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The request itself is wrong: repeat it never.
    BadRequest,
    /// What was named does not exist.
    NotFound,
    /// It exists already, or in another form.
    Conflict,
    /// A higher fence, term, epoch or layout has been seen: drop the work.
    Fenced,
    /// The certificate's role or the token does not allow it.
    Forbidden,
    /// The token or session has ended: get a new one.
    SessionLost,
    /// A limit is reached: disk, rate, size.
    Exhausted,
    /// Not now: try again with back-off.
    Unavailable,
    /// A defect or damaged data: a human must look.
    Internal,
}

impl ErrorCode {
    /// Makes the status. The code round-trips through [`ErrorCode::of`].
    pub fn status(self, message: impl Into<String>) -> Status {
        Status::new(self.grpc(), message)
    }

    /// Makes the status of a server that is well and waits for something that comes by itself, such as the newest layout:
    /// [`ErrorCode::Unavailable`], but who calls must not take the server for one that is away.
    pub fn not_yet(message: impl Into<String>) -> Status {
        let mut status = Self::Unavailable.status(message);
        status.metadata_mut().insert(NOT_YET_METADATA, MetadataValue::from_static("1"));
        status
    }

    /// Whether [`ErrorCode::not_yet`] made it.
    pub fn is_not_yet(status: &Status) -> bool {
        status.metadata().contains_key(NOT_YET_METADATA)
    }

    /// [`ErrorCode::not_yet`] where what the caller works by is over: the same call will never succeed, a new start will.
    pub fn outdated(message: impl Into<String>) -> Status {
        let mut status = Self::not_yet(message);
        status.metadata_mut().insert(OUTDATED_METADATA, MetadataValue::from_static("1"));
        status
    }

    /// Whether [`ErrorCode::outdated`] made it.
    pub fn is_outdated(status: &Status) -> bool {
        status.metadata().contains_key(OUTDATED_METADATA)
    }

    /// Reads the code of a status, also of those the transport makes.
    pub fn of(status: &Status) -> Self {
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Self::BadRequest,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::Conflict,
            Code::Aborted => Self::Fenced,
            Code::PermissionDenied => Self::Forbidden,
            Code::Unauthenticated => Self::SessionLost,
            Code::ResourceExhausted => Self::Exhausted,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Ok => {
                Self::Unavailable
            }
            Code::Internal | Code::DataLoss | Code::FailedPrecondition => Self::Internal,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Exhausted)
    }

    fn grpc(self) -> Code {
        match self {
            Self::BadRequest => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Conflict => Code::AlreadyExists,
            Self::Fenced => Code::Aborted,
            Self::Forbidden => Code::PermissionDenied,
            Self::SessionLost => Code::Unauthenticated,
            Self::Exhausted => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        use ErrorCode::*;
        for code in
            [BadRequest, NotFound, Conflict, Fenced, Forbidden, SessionLost, Exhausted, Unavailable, Internal]
        {
            assert_eq!(ErrorCode::of(&code.status("x")), code);
            assert!(!ErrorCode::is_not_yet(&code.status("x")));
        }
    }

    #[test]
    fn a_server_that_waits_is_unavailable_but_not_away() {
        let status =
            Status::from_header_map(&ErrorCode::not_yet("x").into_http::<()>().into_parts().0.headers);
        let status = status.expect("a status in headers");
        assert_eq!((ErrorCode::of(&status), ErrorCode::is_not_yet(&status)), (ErrorCode::Unavailable, true));
        assert!(!ErrorCode::is_outdated(&status));
        let outdated = ErrorCode::outdated("x");
        assert!(ErrorCode::is_not_yet(&outdated) && ErrorCode::is_outdated(&outdated));
    }
}
