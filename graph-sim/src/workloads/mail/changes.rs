//! Changes of messages and folders since a position.

use crate::delta::{Token, page};
use crate::workloads::mail::mailbox::{Mailbox, SEARCH_ROOT};

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

/// The same for the folders in the visible tree, but for its root.
pub(crate) fn folders(mailbox: &Mailbox, token: &mut Token, size: usize) -> (Vec<FolderChange>, bool) {
    let after = token.position + 1;
    let mut present: Vec<_> = mailbox
        .folders
        .values()
        .filter(|folder| folder.seq >= after && folder.parent.is_some_and(|parent| parent != SEARCH_ROOT))
        .map(|folder| (folder.seq, FolderChange::Present(folder.key)))
        .collect();
    present.sort_unstable_by_key(|(seq, _)| *seq);
    let removed = mailbox
        .folder_tombstones
        .range(after.max(token.start + 1)..)
        .map(|(seq, key)| (*seq, FolderChange::Removed(*key)));
    page(present.into_iter().peekable(), removed.peekable(), token, size)
}
