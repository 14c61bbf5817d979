//! Delta rounds over numbered changes.
//!
//! Invariant: a token is a position plus the options of the first call; it holds nothing the server must remember,
//! so any number of clients replay any page at any time, until the mailbox's epoch is raised.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::mailbox::{Mailbox, ROOT};

/// What a `$skiptoken` or `$deltatoken` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// Folder of messages; none for the folders themselves.
    #[serde(rename = "f")]
    pub folder: Option<u32>,
    /// Everything numbered above it is still to come.
    #[serde(rename = "p")]
    pub position: u64,
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
}

/// One line of a message page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Present(u64),
    /// The message and the moves it had made.
    Removed(u64, u32),
}

/// One line of a folder page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FolderChange {
    Present(u32),
    Removed(u32),
}

/// Changes after the token's position and whether there are more; moves the token.
pub(crate) fn messages(
    mailbox: &Mailbox,
    folder: u32,
    token: &mut Token,
    size: usize,
) -> (Vec<Change>, bool) {
    let Some(folder) = mailbox.folders.get(&folder) else { return (Vec::new(), false) };
    let after = token.position + 1;
    let present = folder.order.range(after..).map(|(seq, key)| (*seq, Change::Present(*key)));
    let removed = folder
        .tombstones
        .range(after.max(token.start + 1)..)
        .map(|(seq, (key, moves))| (*seq, Change::Removed(*key, *moves)));
    page(present.peekable(), removed.peekable(), token, size)
}

/// The same for folders, the root and its like excepted.
pub(crate) fn folders(mailbox: &Mailbox, token: &mut Token, size: usize) -> (Vec<FolderChange>, bool) {
    let after = token.position + 1;
    let mut present: Vec<_> = mailbox
        .folders
        .values()
        .filter(|folder| folder.seq >= after && folder.key != ROOT)
        .map(|folder| (folder.seq, FolderChange::Present(folder.key)))
        .collect();
    present.sort_unstable_by_key(|(seq, _)| *seq);
    let removed = mailbox
        .folder_tombstones
        .range(after.max(token.start + 1)..)
        .map(|(seq, key)| (*seq, FolderChange::Removed(*key)));
    page(present.into_iter().peekable(), removed.peekable(), token, size)
}

fn page<T: Copy>(
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
