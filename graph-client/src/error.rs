//! What can go wrong with Microsoft, classified once.
//!
//! The one invariant to know: a class is a command to the caller, so two errors that need different handling never share
//! one. Bodies are read for their code only; message texts decide a class but are never kept, they may hold content.

use std::time::Duration;

use serde_json::Value;

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
            Self::Ambiguous { .. } => ErrorClass::Reread,
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

/// What a request is for: the same status means different things on a list and on an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    List,
    Item,
    Write,
}

/// Codes with one meaning wherever they occur, in lower case.
const CODES: &[(&str, ErrorClass)] = &[
    ("generalexception", ErrorClass::Retry),
    ("servicenotavailable", ErrorClass::Retry),
    ("cannotsnapshottree", ErrorClass::Retry),
    ("resourcebeingprovisioned", ErrorClass::Retry),
    ("servicereadonly", ErrorClass::Retry),
    ("unknownerror", ErrorClass::Retry),
    ("errortoomanyobjectsopened", ErrorClass::Retry),
    ("activitylimitreached", ErrorClass::Wait),
    ("throttledrequest", ErrorClass::Wait),
    ("toomanyrequests", ErrorClass::Wait),
    ("applicationthrottled", ErrorClass::Wait),
    ("mailboxconcurrency", ErrorClass::Wait),
    ("invalidauthenticationtoken", ErrorClass::ReAuth),
    ("unauthenticated", ErrorClass::ReAuth),
    ("authenticationerror", ErrorClass::FailResource),
    ("resyncrequired", ErrorClass::Resync),
    ("resyncchangesapplydifferences", ErrorClass::Resync),
    ("resyncchangesuploaddifferences", ErrorClass::Resync),
    ("resyncapplydifferences", ErrorClass::Resync),
    ("resyncuploaddifferences", ErrorClass::Resync),
    ("syncstatenotfound", ErrorClass::Resync),
    ("syncstateinvalid", ErrorClass::Resync),
    ("errorsyncfoldernotfound", ErrorClass::Resync),
    ("resourcemodified", ErrorClass::Reread),
    ("entitytagdoesnotmatch", ErrorClass::Reread),
    ("fragmentoverlap", ErrorClass::Reread),
    ("fragmentoutoforder", ErrorClass::Reread),
    ("uploadsessionnotfound", ErrorClass::Reread),
    ("errorfolderexists", ErrorClass::Reread),
    ("itemnotfound", ErrorClass::Gone),
    ("erroritemnotfound", ErrorClass::Gone),
    ("malwaredetected", ErrorClass::SkipItem),
    ("virussuspicious", ErrorClass::SkipItem),
    ("errorcorruptdata", ErrorClass::SkipItem),
    ("errorinvalidrecipients", ErrorClass::SkipItem),
    ("errorcannotopenfileattachment", ErrorClass::SkipItem),
    ("mailboxnotenabledforrestapi", ErrorClass::FailResource),
    ("errorinvaliduser", ErrorClass::FailResource),
    ("request_resourcenotfound", ErrorClass::FailResource),
    ("resourcenotfound", ErrorClass::FailResource),
    ("accessdenied", ErrorClass::FailResource),
    ("erroraccessdenied", ErrorClass::FailResource),
    ("extensionerror", ErrorClass::FailResource),
    ("errorquotaexceeded", ErrorClass::FailResource),
    ("quotalimitreached", ErrorClass::FailResource),
    ("authorization_requestdenied", ErrorClass::FailTenant),
];

/// Codes that mean one thing on an item and another on a whole list, in lower case.
fn contextual(code: &str, operation: Operation) -> Option<ErrorClass> {
    match (code, operation) {
        ("badrequest" | "invalidrequest" | "invalidqueryoption", Operation::List) => {
            Some(ErrorClass::Programming)
        }
        ("badrequest" | "invalidrequest" | "invalidqueryoption", _) => Some(ErrorClass::SkipItem),
        ("resourcelocked" | "notallowed", Operation::List) => Some(ErrorClass::FailResource),
        ("resourcelocked" | "notallowed", _) => Some(ErrorClass::SkipItem),
        _ => None,
    }
}

fn by_code(code: &str, operation: Operation) -> Option<ErrorClass> {
    let lower = code.to_ascii_lowercase();
    let fixed = CODES.iter().find(|(known, _)| *known == lower).map(|(_, class)| *class);
    fixed.or_else(|| contextual(&lower, operation))
}

/// Message fragments that decide where the code does not, in lower case.
fn by_message(message: &str) -> Option<ErrorClass> {
    const MESSAGES: &[(&str, ErrorClass)] = &[
        ("io error during request payload read", ErrorClass::Retry),
        ("subscription within the tenant has lapsed", ErrorClass::FailTenant),
        ("does not have a spo license", ErrorClass::FailResource),
        ("mysite not found", ErrorClass::FailResource),
        ("requested site could not be found", ErrorClass::FailResource),
    ];
    let lower = message.to_ascii_lowercase();
    MESSAGES.iter().find(|(text, _)| lower.contains(text)).map(|(_, class)| *class)
}

fn by_status(status: u16, operation: Operation, has_wait: bool) -> ErrorClass {
    match status {
        401 => ErrorClass::ReAuth,
        402 => ErrorClass::FailTenant,
        403 | 507 => ErrorClass::FailResource,
        404 => ErrorClass::Gone,
        408 | 500 | 502 | 504 => ErrorClass::Retry,
        503 if !has_wait => ErrorClass::Retry,
        429 | 503 | 509 => ErrorClass::Wait,
        409 | 412 | 416 => ErrorClass::Reread,
        410 => ErrorClass::Resync,
        423 if operation == Operation::List => ErrorClass::FailResource,
        413 if operation == Operation::Write => ErrorClass::SkipItem,
        400 | 405 | 422 | 423 if operation != Operation::List => ErrorClass::SkipItem,
        505..=599 => ErrorClass::Retry,
        _ => ErrorClass::Programming,
    }
}

/// How deep nested inner errors are followed.
const MAX_INNER_ERRORS: usize = 16;

/// Reads the codes from the outermost to the deepest, and the message. An empty, HTML or text body has none.
fn codes_of(body: &[u8]) -> (Vec<String>, String) {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return (Vec::new(), String::from_utf8_lossy(&body[..body.len().min(1024)]).into_owned());
    };
    let mut codes = Vec::new();
    let mut message = String::new();
    let mut next = value.get("error");
    for _ in 0..MAX_INNER_ERRORS {
        let Some(error) = next else { break };
        if let Some(code) = error.get("code").and_then(Value::as_str).filter(|code| !code.is_empty()) {
            codes.push(code.to_owned());
        }
        if let Some(text) = error.get("message").and_then(Value::as_str) {
            message.push_str(text);
        }
        next = error.as_object().and_then(|fields| {
            fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("innererror")).map(|(_, inner)| inner)
        });
    }
    (codes, message)
}

/// Classifies a refusal by the deepest known code, then by its text, then by its status.
pub(crate) fn classify(
    status: u16,
    body: &[u8],
    operation: Operation,
    request_id: Option<String>,
    retry_after: Option<Duration>,
) -> StatusError {
    let (codes, message) = codes_of(body);
    let known =
        codes.iter().rev().find_map(|code| by_code(code, operation).map(|class| (code.clone(), class)));
    let by_status = by_status(status, operation, retry_after.is_some());
    let (code, class) = match known {
        // 401, 402 and 429 say what they mean, whatever the code; a spent token is renewed before anything else is believed.
        Some((code, _)) if matches!(status, 402 | 429) => (code, by_status),
        Some((code, class)) if status == 401 && class != ErrorClass::FailResource => (code, by_status),
        Some((code, ErrorClass::Retry)) if by_status == ErrorClass::Wait => (code, ErrorClass::Wait),
        Some((code, class)) => (code, class),
        None => {
            let code = codes.into_iter().next().unwrap_or_default();
            (code, by_message(&message).filter(|_| status != 401).unwrap_or(by_status))
        }
    };
    StatusError { status, code, class, request_id, retry_after, is_empty: body.is_empty() }
}

#[cfg(test)]
mod tests;
