//! What can go wrong with Microsoft, classified once.
//!
//! The one invariant to know: a class is a command to the caller, so two errors that need different handling never share
//! one. Bodies are read for their code only; message texts decide a class but are never kept, they may hold content.

mod classify;

use std::time::Duration;

pub(crate) use classify::{MALWARE, Operation, classify};

/// What the caller has to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The same request again, after a back-off; the client has already tried.
    Retry,
    /// Throttled: not before [`GraphError::retry_after`].
    Wait,
    /// The token was refused, and so was the one after it.
    ReAuth,
    /// The delta token is dead: enumerate and compare. With `ErrorSyncFolderNotFound` the folder itself is gone.
    Resync,
    /// Look first, then decide: a race of versions, or a create whose outcome is unknown.
    Reread,
    /// This item cannot be had: report it, go on.
    SkipItem,
    /// This item was deleted meanwhile: no alarm.
    Gone,
    /// This mailbox (drive, site, team) cannot be had; others go on.
    FailResource,
    /// Nothing of this tenant works.
    FailTenant,
    /// Our own mistake: stop and raise an alarm.
    Programming,
}

/// Microsoft's answer, when it was a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusError {
    /// The HTTP status.
    pub status: u16,
    /// The deepest code that is known, else the outermost; empty where the body had none.
    pub code: String,
    /// What to do.
    pub class: ErrorClass,
    /// Microsoft's name for the request.
    pub request_id: Option<String>,
    /// How long Microsoft asks to wait.
    pub retry_after: Option<Duration>,
    /// Whether the body was empty: for a slow query that means "ask for less".
    pub is_empty: bool,
    /// Where the enumeration from scratch begins, when a delta token has died and Microsoft said so.
    pub restart_link: Option<String>,
}

/// What can go wrong with Microsoft.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The token endpoint refuses the app registration.
    #[error("the token endpoint refused: status {status}, {error}, codes {codes:?}")]
    TokenRefused {
        /// The HTTP status.
        status: u16,
        /// The `error` field.
        error: String,
        /// The AADSTS numbers.
        codes: Vec<u64>,
    },
    /// A token that was made with the demanded claims is challenged again.
    #[error(
        "microsoft demands claims that the new token lacks too: a conditional access policy blocks the app, exclude its \
         service principal from the policy in microsoft entra and start the job again"
    )]
    ClaimsDemanded {
        /// Microsoft's name for the request.
        request_id: Option<String>,
    },
    /// No valid token came from the coordinator in time.
    #[error("no valid token within {} s", waited.as_secs())]
    NoToken {
        /// How long was waited.
        waited: Duration,
    },
    /// The quota is used up for longer than this client may wait.
    #[error("throttled for {} ms", retry_after.as_millis())]
    Throttled {
        /// Not before this.
        retry_after: Duration,
        /// Microsoft's code; none when our own ledger said so.
        code: Option<String>,
        /// Microsoft's name for the request.
        request_id: Option<String>,
    },
    /// Microsoft refused the request.
    #[error("microsoft answered {} {}", .0.status, .0.code)]
    Status(Box<StatusError>),
    /// The connection failed.
    #[error("the connection to microsoft failed")]
    Transport {
        /// The cause, without its address.
        source: reqwest::Error,
    },
    /// No byte came for too long.
    #[error("microsoft was silent for {} s", after.as_secs())]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// The body ended early.
    #[error("the body ended after {got} bytes")]
    Truncated {
        /// The announced length.
        expected: Option<u64>,
        /// What came.
        got: u64,
    },
    /// The body is not what was announced.
    #[error("{what} cannot be read")]
    Malformed {
        /// Which answer.
        what: &'static str,
        /// The cause.
        source: serde_json::Error,
    },
    /// An answer without something it must have.
    #[error("{what} lacks {field}")]
    Incomplete {
        /// Which answer.
        what: &'static str,
        /// The missing field.
        field: &'static str,
    },
    /// The body is larger than anything we accept.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// A listing does not end.
    #[error("{what} has more than {limit} pages or entries")]
    TooMany {
        /// Which listing.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A link leads away from the configured Graph host; the token was not sent.
    #[error("a link leads to the foreign host '{host}'")]
    ForeignHost {
        /// Where it leads.
        host: String,
    },
    /// A create may or may not have been carried out: look for the restore key before it is repeated.
    #[error("the outcome of the request is unknown")]
    Ambiguous {
        /// What happened.
        source: Box<GraphError>,
    },
    /// What is read was changed meanwhile: what came so far belongs to nothing that is still there.
    #[error("the content changed while it was read")]
    Changed,
    /// A setting or a credential cannot be used.
    #[error("{setting} cannot be used: {reason}")]
    Config {
        /// Which one.
        setting: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The credential's key cannot sign.
    #[error("the certificate cannot sign the assertion")]
    Signing {
        /// The cause.
        source: jsonwebtoken::errors::Error,
    },
}

impl GraphError {
    /// What the caller has to do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Status(status) => status.class,
            Self::TokenRefused { .. } | Self::ClaimsDemanded { .. } | Self::Signing { .. } => {
                ErrorClass::FailTenant
            }
            Self::NoToken { .. } | Self::Throttled { .. } => ErrorClass::Wait,
            Self::Transport { .. } | Self::Timeout { .. } | Self::Truncated { .. } => ErrorClass::Retry,
            Self::Malformed { .. } | Self::Incomplete { .. } => ErrorClass::Retry,
            Self::Ambiguous { .. } | Self::Changed => ErrorClass::Reread,
            Self::TooLarge { .. } => ErrorClass::SkipItem,
            Self::TooMany { .. } => ErrorClass::FailResource,
            Self::ForeignHost { .. } | Self::Config { .. } => ErrorClass::Programming,
        }
    }

    /// A short word for reports and metrics: Microsoft's code where there is one.
    pub fn code(&self) -> &str {
        match self {
            Self::Status(status) if !status.code.is_empty() => &status.code,
            Self::Status(_) => "status",
            Self::TokenRefused { error, .. } => error,
            Self::Throttled { code: Some(code), .. } => code,
            Self::Throttled { .. } => "throttled",
            Self::ClaimsDemanded { .. } => "insufficient-claims",
            Self::NoToken { .. } => "no-token",
            Self::Transport { .. } => "transport",
            Self::Timeout { .. } => "timeout",
            Self::Truncated { .. } => "truncated",
            Self::Malformed { .. } => "malformed",
            Self::Incomplete { .. } => "incomplete",
            Self::TooLarge { .. } => "too-large",
            Self::TooMany { .. } => "too-many",
            Self::ForeignHost { .. } => "foreign-host",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Changed => "changed",
            Self::Config { .. } => "configuration",
            Self::Signing { .. } => "signing",
        }
    }

    /// The HTTP status, where Microsoft answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status.status),
            Self::TokenRefused { status, .. } => Some(*status),
            Self::ClaimsDemanded { .. } => Some(401),
            Self::Ambiguous { source } => source.status(),
            _ => None,
        }
    }

    /// Microsoft's name for the request, for their support.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Status(status) => status.request_id.as_deref(),
            Self::Throttled { request_id, .. } | Self::ClaimsDemanded { request_id } => request_id.as_deref(),
            Self::Ambiguous { source } => source.request_id(),
            _ => None,
        }
    }

    /// How long to wait at least, where Microsoft or the ledger said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(status) => status.retry_after,
            Self::Throttled { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self.class(), ErrorClass::Retry | ErrorClass::Wait | ErrorClass::Reread | ErrorClass::Resync)
    }

    /// Whether Microsoft's code is this one, without regard to case.
    pub fn has_code(&self, code: &str) -> bool {
        self.code().eq_ignore_ascii_case(code)
    }

    pub(crate) fn transport(source: reqwest::Error) -> Self {
        Self::Transport { source: source.without_url() }
    }
}

#[cfg(test)]
mod tests;
