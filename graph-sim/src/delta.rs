//! Delta rounds over numbered changes.
//!
//! Invariant: a token is a position plus the options of the first call; it holds nothing the server must remember,
//! so any number of clients replay any page at any time, until the state's epoch is raised.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::http::{Call, Refusal, refuse};
use crate::json::text;
use crate::query::Query;

/// What a `$skiptoken` or `$deltatoken` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// What the round is about, such as one folder's messages.
    #[serde(rename = "c")]
    pub collection: String,
    /// Everything numbered above it is still to come.
    #[serde(rename = "p")]
    pub position: u64,
    /// The number of a change with many lines, and how many of them were given already.
    #[serde(rename = "w", default)]
    pub within: Option<(u64, usize)>,
    /// Removals up to this number are none of the client's business.
    #[serde(rename = "s")]
    pub start: u64,
    #[serde(rename = "e")]
    pub epoch: u64,
    #[serde(rename = "n")]
    pub nonce: u64,
    /// The options baked in: `$select` and `$expand`.
    #[serde(rename = "q")]
    pub options: Vec<(String, String)>,
}

impl Token {
    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a token is json"))
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    pub(crate) fn query(&self) -> Query {
        Query(self.options.clone())
    }
}

/// Where a state's numbering stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stand {
    /// Number of the latest change of anything.
    pub seq: u64,
    /// Raised to kill all tokens.
    pub epoch: u64,
}

/// The token of a link, checked; a new one on the first call of a round.
pub(crate) fn resume(call: &Call, stand: Stand, collection: &str) -> Result<Token, Refusal> {
    let Some(text) = call.query.get("$skiptoken").or_else(|| call.query.get("$deltatoken")) else {
        return Ok(Token {
            collection: collection.into(),
            position: 0,
            within: None,
            start: stand.seq,
            epoch: stand.epoch,
            nonce: call.world.nonce,
            options: call.query.without(&["$top"]).0,
        });
    };
    let gone = || refuse(410, "SyncStateNotFound", "The sync state generation is not found.");
    if call.luck.strikes("410", call.options.faults.rate_expired_delta) {
        call.world.counters.fault("410");
        return Err(gone());
    }
    let token =
        Token::decode(text).ok_or_else(|| refuse(400, "SyncStateInvalid", "The sync state is invalid."))?;
    if token.nonce != call.world.nonce || token.epoch != stand.epoch || token.collection != collection {
        return Err(gone());
    }
    Ok(token)
}

/// Appends the next or delta link of a page.
pub(crate) fn link(call: &Call, out: &mut Vec<u8>, token: &Token, more: bool) {
    let (name, link) = link_of(call, token, more);
    text(out, name, &link);
}

/// The next or delta link of a page, with its name.
pub(crate) fn link_of(call: &Call, token: &Token, more: bool) -> (&'static str, String) {
    let (link, name) = match more {
        true => ("@odata.nextLink", "$skiptoken"),
        false => ("@odata.deltaLink", "$deltatoken"),
    };
    (link, call.link(&Query(vec![(name.into(), token.encode())])))
}

/// The first changes of both, in order, and whether there are more; moves the token.
pub(crate) fn page<T>(
    mut left: std::iter::Peekable<impl Iterator<Item = (u64, T)>>,
    mut right: std::iter::Peekable<impl Iterator<Item = (u64, T)>>,
    token: &mut Token,
    size: usize,
) -> (Vec<T>, bool) {
    let mut changes = Vec::new();
    while changes.len() < size {
        let next = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if a.0 < b.0 => left.next(),
            (_, Some(_)) => right.next(),
            (Some(_), None) => left.next(),
            (None, None) => None,
        };
        let Some((seq, change)) = next else { break };
        token.position = seq;
        changes.push(change);
    }
    (changes, left.peek().is_some() || right.peek().is_some())
}

/// A page as the fault options want it: empty, with one item twice, with a removal of what the client never saw.
pub(crate) fn disturbed<T: Clone>(
    call: &Call,
    page: impl FnOnce() -> (Vec<T>, bool),
    is_present: impl Fn(&T) -> bool,
    phantom: impl FnOnce(u64) -> T,
) -> (Vec<T>, bool) {
    let faults = &call.options.faults;
    let (mut changes, mut more) = (Vec::new(), true);
    if call.luck.strikes("empty page", faults.rate_empty_page) {
        call.world.counters.fault("empty_page");
    } else {
        (changes, more) = page();
    }
    if !changes.is_empty() && call.luck.strikes("duplicate", faults.rate_duplicate_in_page) {
        call.world.counters.fault("duplicate_in_page");
        // An older state of something that is gone since is never shown after its removal.
        if let Some(first) = changes.iter().find(|change| is_present(change)).cloned() {
            changes.push(first);
        }
    }
    if call.luck.strikes("phantom removed", faults.rate_phantom_removed) {
        call.world.counters.fault("phantom_removed");
        changes.push(phantom(u64::MAX - u64::from(call.luck.call)));
    }
    (changes, more)
}
