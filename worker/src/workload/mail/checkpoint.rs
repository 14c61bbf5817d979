//! What a job checkpoint of a mail backup holds besides the partial trees.
//!
//! The invariant: it is written only when nothing is in flight, so everything its links lead past is in the trees or on its
//! failed list.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{failed::FailedMessage, ledger::Ledger, state::MailState};

/// Job checkpoints above this are not written: the pin owners take no larger ones.
pub const MAX_BYTES: usize = 12 << 20;

/// A folder whose round was interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenFolder {
    /// The next page.
    pub next: String,
    /// It is a page of an initial round.
    pub is_full: bool,
}

/// How far an attempt got.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailCheckpoint {
    pub state: MailState,
    /// Folders that are done in this run.
    pub done: BTreeSet<String>,
    /// By folder id.
    pub open: BTreeMap<String, OpenFolder>,
    pub failed: BTreeMap<String, FailedMessage>,
    /// Ids that were reported removed, with the key of the folder, in hexadecimal.
    pub removed: BTreeMap<String, String>,
    pub removed_count: u64,
    pub bytes_read: u64,
    /// Items that were listed, packed; see [`Self::with_ledger`].
    pub listed: String,
}

impl MailCheckpoint {
    /// Adds the ledger.
    pub fn with_ledger(mut self, ledger: &Ledger) -> Self {
        self.listed = STANDARD.encode(ledger.pack());
        self.removed_count = ledger.removed;
        self.bytes_read = ledger.bytes_read;
        self
    }

    /// The ledger; none when it is damaged.
    pub fn ledger(&self) -> Option<Ledger> {
        let mut ledger = Ledger::unpack(&STANDARD.decode(&self.listed).ok()?)?;
        ledger.removed = self.removed_count;
        ledger.bytes_read = self.bytes_read;
        Some(ledger)
    }

    /// The removed ids with the key of the folder they were removed from.
    pub fn removed_keys(&self) -> HashMap<String, [u8; 16]> {
        let read = |(id, text): (&String, &String)| {
            let mut key = [0; 16];
            hex::decode_to_slice(text, &mut key).ok()?;
            Some((id.clone(), key))
        };
        self.removed.iter().filter_map(read).collect()
    }
}
