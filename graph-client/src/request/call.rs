//! A request as data: what is sent, what it costs, and what its refusals mean.

use std::borrow::Cow;

use bytes::Bytes;
use reqwest::{
    Method,
    header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderName, HeaderValue, IF_MATCH, RANGE},
};

use crate::{Cost, ErrorClass, GraphError, Scope, Weight, error::Operation};

/// The smallest page that a slow query is shrunk to.
const MIN_PAGE_SIZE: u32 = 10;

/// A GET that answers 404 with an empty body is believed at this attempt.
const SPURIOUS_404_ATTEMPTS: u32 = 2;

/// A 404 on something created a moment ago is believed at this attempt.
const FRESH_404_ATTEMPTS: u32 = 4;

/// A GET of one item that answers 400 is believed at this attempt.
const BAD_ITEM_ATTEMPTS: u32 = 2;

/// Whether a call may be repeated when its outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    Safe,
    Never,
}

/// A request, as often as it takes.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub method: Method,
    pub url: String,
    pub operation: Operation,
    pub scope: Scope,
    repeat: Repeat,
    weight: Weight,
    /// How long the answer's content will be, where that is known.
    download_bytes: u64,
    prefer: Vec<Cow<'static, str>>,
    page_size: Option<u32>,
    pub(super) body: Option<Body>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) bearer: Bearer,
    /// The answer is an address, in a redirect that is not followed.
    pub(super) expects_redirect: bool,
    /// It concerns something created a moment ago, which Microsoft may not find yet.
    is_fresh: bool,
    /// A 400 is an answer to what was asked: it is not repeated.
    is_probe: bool,
}

/// What is sent, and as what.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub bytes: Bytes,
    pub content_type: HeaderValue,
}

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearer {
    Send,
    Withhold,
}

impl Call {
    fn new(method: Method, url: String, operation: Operation, scope: Scope) -> Self {
        Self {
            method,
            url,
            operation,
            scope,
            repeat: Repeat::Safe,
            weight: Weight::Plain(1),
            download_bytes: 0,
            prefer: Vec::new(),
            page_size: None,
            body: None,
            headers: Vec::new(),
            bearer: Bearer::Send,
            expects_redirect: false,
            is_fresh: false,
            is_probe: false,
        }
    }

    pub fn get(url: String, operation: Operation, scope: Scope) -> Self {
        Self::new(Method::GET, url, operation, scope)
    }

    pub fn delete(url: String, scope: Scope) -> Self {
        Self::new(Method::DELETE, url, Operation::Item, scope)
    }

    pub fn post(url: String, body: &serde_json::Value, repeat: Repeat, scope: Scope) -> Self {
        Self { repeat, ..Self::new(Method::POST, url, Operation::Write, scope).json(body) }
    }

    /// A change of what is there. Twice the same change is one.
    pub fn patch(url: String, body: &serde_json::Value, scope: Scope) -> Self {
        Self::new(Method::PATCH, url, Operation::Write, scope).json(body)
    }

    /// Puts bytes where there is nothing, or something else.
    pub fn put(url: String, body: Body, repeat: Repeat, scope: Scope) -> Self {
        Self { body: Some(body), repeat, ..Self::new(Method::PUT, url, Operation::Write, scope) }
    }

    /// A call to an upload address that authorises itself: our token would only leak.
    pub fn upload(method: Method, url: String, body: Option<Bytes>, scope: Scope) -> Self {
        Self { bearer: Bearer::Withhold, ..Self::upload_with_token(method, url, body, scope) }
    }

    /// A call to an upload address of Graph itself, which wants our token.
    pub fn upload_with_token(method: Method, url: String, body: Option<Bytes>, scope: Scope) -> Self {
        let body = body.map(|bytes| Body { bytes, content_type: OCTETS });
        Self { body, ..Self::new(method, url, Operation::Write, scope) }
    }

    /// A call to a download address on another host: it authorises itself too. Its bytes are counted as they are stored,
    /// so they must not be compressed on their way.
    pub fn download(url: String, scope: Scope, length: u64) -> Self {
        let identity = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Self {
            bearer: Bearer::Withhold,
            headers: vec![identity],
            download_bytes: length,
            ..Self::new(Method::GET, url, Operation::Content, scope)
        }
    }

    fn json(self, body: &serde_json::Value) -> Self {
        Self { body: Some(Body { bytes: body.to_string().into(), content_type: JSON }), ..self }
    }

    pub fn costs(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }

    pub fn page_size(self, size: u32) -> Self {
        Self { page_size: Some(size), ..self }
    }

    /// Believes a 404 only at [`FRESH_404_ATTEMPTS`].
    pub fn on_fresh(self) -> Self {
        Self { is_fresh: true, ..self }
    }

    /// Believes a 400 at once.
    pub fn probing(self) -> Self {
        Self { is_probe: true, ..self }
    }

    /// Takes a redirect as the answer.
    pub fn expecting_redirect(self) -> Self {
        Self { expects_redirect: true, ..self }
    }

    /// Ids that survive moves. Must go with every page of a round.
    pub fn immutable_ids(self) -> Self {
        self.prefer(r#"IdType="ImmutableId""#)
    }

    pub fn prefer(mut self, preference: impl Into<Cow<'static, str>>) -> Self {
        self.prefer.push(preference.into());
        self
    }

    /// Only while the object is the version with this etag.
    pub fn if_match(self, etag: &str) -> Self {
        match HeaderValue::from_str(etag) {
            Ok(etag) => self.header(IF_MATCH, etag),
            // No object has an etag that no header can hold, so none may be changed.
            Err(_) => self.header(IF_MATCH, HeaderValue::from_static("\"\"")),
        }
    }

    /// The part of a whole that an upload sends.
    pub fn content_range(self, start: u64, end: u64, size: u64) -> Self {
        let range = format!("bytes {start}-{}/{size}", end.saturating_sub(1));
        self.header(CONTENT_RANGE, ascii(&range))
    }

    /// The part of a whole that a download wants.
    pub fn range(self, start: u64, end: u64) -> Self {
        let range = format!("bytes={start}-{}", end.saturating_sub(1));
        self.header(RANGE, ascii(&range))
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn cost(&self) -> Cost {
        let upload_bytes = self.body.as_ref().map_or(0, |body| body.bytes.len() as u64);
        Cost { weight: self.weight, upload_bytes, download_bytes: self.download_bytes }
    }

    pub(super) fn prefer_header(&self) -> Option<String> {
        let size = self.page_size.map(|size| Cow::Owned(format!("odata.maxpagesize={size}")));
        let all: Vec<_> = size.into_iter().chain(self.prefer.iter().cloned()).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// A slow query is asked for less.
    pub(super) fn shrink_page(&mut self) {
        self.page_size = self.page_size.map(|size| (size / 4).max(MIN_PAGE_SIZE));
    }

    /// Refusals that Microsoft is known to take back: each of them is a refusal for sure, so repeating does no harm.
    pub(super) fn is_doubtful(&self, error: &GraphError, made: u32) -> bool {
        let GraphError::Status(status) = error else { return false };
        // A download address that has expired is not asked again.
        let is_get = self.method == Method::GET && self.operation != Operation::Content;
        match (status.class, status.status) {
            (ErrorClass::Gone, 404) if self.is_fresh => made < FRESH_404_ATTEMPTS,
            (ErrorClass::Gone, 404) if is_get && status.is_empty => made < SPURIOUS_404_ATTEMPTS,
            (ErrorClass::SkipItem, 400) if is_get && !self.is_probe => made < BAD_ITEM_ATTEMPTS,
            // Drives refuse good listings now and then.
            (ErrorClass::Programming, 400) if is_get && self.scope == Scope::SharePoint => {
                made < BAD_ITEM_ATTEMPTS
            }
            _ => false,
        }
    }

    pub(super) fn unless_repeatable(&self, error: GraphError) -> GraphError {
        match self.repeat {
            Repeat::Safe => error,
            Repeat::Never => GraphError::Ambiguous { source: Box::new(error) },
        }
    }
}

/// Digits and a few signs always make a header.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits, blanks and signs are a header value")
}
