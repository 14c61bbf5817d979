//! From a refusal to its class: by the deepest code that is known, then by its text, then by its status.

use std::time::Duration;

use serde_json::Value;

use super::{ErrorClass, StatusError};

/// What a request is for: the same status means different things on a list and on an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    List,
    Item,
    /// The content of an item, by an address of its own.
    Content,
    Write,
}

/// Infected content, by whatever way Microsoft said so.
pub(crate) const MALWARE: &str = "malwareDetected";

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
    ("invalidrange", ErrorClass::Reread),
    ("errorfolderexists", ErrorClass::Reread),
    ("namealreadyexists", ErrorClass::Reread),
    ("itemnotfound", ErrorClass::Gone),
    ("erroritemnotfound", ErrorClass::Gone),
    ("malwaredetected", ErrorClass::SkipItem),
    ("virussuspicious", ErrorClass::SkipItem),
    ("errorcorruptdata", ErrorClass::SkipItem),
    ("errorinvalidrecipients", ErrorClass::SkipItem),
    ("errorcannotopenfileattachment", ErrorClass::SkipItem),
    ("pathistoolong", ErrorClass::SkipItem),
    ("noresolvedusers", ErrorClass::SkipItem),
    ("sharingdisabled", ErrorClass::SkipItem),
    ("mailboxnotenabledforrestapi", ErrorClass::FailResource),
    ("errorinvaliduser", ErrorClass::FailResource),
    ("request_resourcenotfound", ErrorClass::FailResource),
    ("resourcenotfound", ErrorClass::FailResource),
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
        // What may not be downloaded may be one protected file in a drive that is open otherwise.
        ("accessdenied" | "erroraccessdenied", Operation::Content) => Some(ErrorClass::SkipItem),
        ("accessdenied" | "erroraccessdenied", _) => Some(ErrorClass::FailResource),
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
        ("users could not be resolved", ErrorClass::SkipItem),
        ("mysite not found", ErrorClass::FailResource),
        ("unable to retrieve user's mysite url", ErrorClass::FailResource),
        ("requested site could not be found", ErrorClass::FailResource),
    ];
    let lower = message.to_ascii_lowercase();
    MESSAGES.iter().find(|(text, _)| lower.contains(text)).map(|(_, class)| *class)
}

fn by_status(status: u16, operation: Operation, has_wait: bool) -> ErrorClass {
    match status {
        401 => ErrorClass::ReAuth,
        402 => ErrorClass::FailTenant,
        403 if operation == Operation::Content => ErrorClass::SkipItem,
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
    StatusError {
        status,
        code,
        class,
        request_id,
        retry_after,
        is_empty: body.is_empty(),
        restart_link: None,
    }
}
