//! One mailbox: its folders, its messages, and the number of the latest change of each.
//!
//! Invariant: every folder orders its messages by the number of their last change and keeps a tombstone for whatever
//! left it, so a delta from position p is exactly "everything numbered above p" and needs no log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ids::{Form, Id, Missing};
use crate::rng::Rng;
use crate::words;
use crate::workloads::mail::content::{Content, Generator, Place};

pub(crate) const ROOT: u32 = 1;
pub(crate) const INBOX: u32 = 2;
pub(crate) const DRAFTS: u32 = 3;
pub(crate) const SENT: u32 = 4;
pub(crate) const DELETED: u32 = 5;
const ARCHIVE: u32 = 6;
const JUNK: u32 = 7;
const QUICK_STEPS: u32 = 10;
const FIRST_OWN: u32 = 11;
/// Keys from here on are of folders outside the visible tree, which nobody made.
const FIRST_APART: u32 = u32::MAX - 1;
/// Where Outlook keeps search folders.
pub(crate) const SEARCH_ROOT: u32 = FIRST_APART;
/// What was deleted from Deleted Items too.
pub(crate) const RECOVERABLE: u32 = FIRST_APART + 1;
const MAX_PATH_DEPTH: usize = 300;

/// Folders outside the visible tree: no listing has them, their names lead to them.
const APART: [(u32, &str, &str); 2] =
    [(SEARCH_ROOT, "Finder", "searchfolders"), (RECOVERABLE, "Deletions", "recoverableitemsdeletions")];

const STANDARD: [(u32, &str, Option<&str>); 10] = [
    (ROOT, "Top of Information Store", Some("msgfolderroot")),
    (INBOX, "Inbox", Some("inbox")),
    (DRAFTS, "Drafts", Some("drafts")),
    (SENT, "Sent Items", Some("sentitems")),
    (DELETED, "Deleted Items", Some("deleteditems")),
    (ARCHIVE, "Archive", Some("archive")),
    (JUNK, "Junk Email", Some("junkemail")),
    (8, "Outbox", Some("outbox")),
    (9, "Conversation History", Some("conversationhistory")),
    (QUICK_STEPS, "Quick Step Settings", None),
];

/// Names that stand for a folder whether or not this mailbox has it.
const WELL_KNOWN: [&str; 17] = [
    "inbox",
    "drafts",
    "sentitems",
    "deleteditems",
    "archive",
    "junkemail",
    "outbox",
    "clutter",
    "conflicts",
    "conversationhistory",
    "localfailures",
    "msgfolderroot",
    "recoverableitemsdeletions",
    "scheduled",
    "searchfolders",
    "serverfailures",
    "syncissues",
];

/// Where a message's content comes from.
#[derive(Clone)]
pub(crate) enum Source {
    Generated { index: u32, place: Place },
    Owned(Arc<Content>),
}

pub(crate) struct Message {
    pub key: u64,
    pub moves: u32,
    pub folder: u32,
    pub seq: u64,
    pub change: u64,
    pub modified_ms: u64,
    pub source: Source,
}

pub(crate) struct Folder {
    pub key: u32,
    pub parent: Option<u32>,
    pub name: String,
    pub hidden: bool,
    pub well_known: Option<&'static str>,
    pub seq: u64,
    /// What it searches for, when it is a search folder.
    pub search: Option<Search>,
    /// Extended properties by id as given.
    pub extended: Vec<(String, String)>,
    /// Last change → message.
    pub order: BTreeMap<u64, u64>,
    /// Number of the departure → (message, the moves it had made).
    pub tombstones: BTreeMap<u64, (u64, u32)>,
}

/// What a search folder shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Search {
    pub includes_nested: bool,
    /// Ids of the folders that are searched.
    pub sources: Vec<String>,
    pub filter: String,
}

pub(crate) struct Mailbox {
    pub user: u32,
    pub folders: BTreeMap<u32, Folder>,
    pub messages: HashMap<u64, Message>,
    pub folder_tombstones: BTreeMap<u64, u32>,
    /// Number of the latest change of anything.
    pub seq: u64,
    /// Raised to kill all delta tokens.
    pub epoch: u64,
    next_message: u64,
    next_folder: u32,
    next_index: u32,
    next_attachment: u32,
}

impl Mailbox {
    pub(crate) fn generate(seed: u64, user: u32, generator: &Generator) -> Self {
        let mut mailbox = Self {
            user,
            folders: BTreeMap::new(),
            messages: HashMap::new(),
            folder_tombstones: BTreeMap::new(),
            seq: 0,
            epoch: 0,
            next_message: 1,
            next_folder: FIRST_OWN,
            next_index: 0,
            next_attachment: 1000,
        };
        for (key, name, well_known) in STANDARD {
            mailbox.add_folder(key, (key != ROOT).then_some(ROOT), name, key == QUICK_STEPS, well_known);
        }
        for (key, name, well_known) in APART {
            mailbox.add_folder(key, None, name, true, Some(well_known));
        }
        let mut rng = Rng::new(&[seed, 0x666f_6c64, u64::from(user)]);
        for number in 0..4 + rng.below(6) {
            let own: Vec<u32> = mailbox.own_folders();
            let parent = match number {
                0 => INBOX,
                1 => ROOT,
                2 => own[0],
                _ if rng.percent(50) && !own.is_empty() => *rng.pick(&own),
                _ => ROOT,
            };
            let name = words::FOLDERS[(number * 5 + user as usize) % words::FOLDERS.len()];
            mailbox.create_folder(parent, name, false);
        }
        for _ in 0..generator.count(user) {
            let folder = mailbox.pick_folder(seed);
            mailbox.receive(folder, 0);
        }
        mailbox
    }

    fn pick_folder(&self, seed: u64) -> u32 {
        let mut rng = Rng::new(&[seed, 0x706c_6163, u64::from(self.user), u64::from(self.next_index)]);
        match rng.below(100) {
            0..40 => INBOX,
            40..58 => SENT,
            58..64 => ARCHIVE,
            64..68 => DELETED,
            68..71 => DRAFTS,
            71..73 => JUNK,
            73 => QUICK_STEPS,
            _ => FIRST_OWN + rng.below((self.next_folder - FIRST_OWN) as usize) as u32,
        }
    }

    /// Adds the next generated message.
    pub(crate) fn receive(&mut self, folder: u32, now_ms: u64) -> u64 {
        let place = match folder {
            SENT => Place::Sent,
            DRAFTS => Place::Draft,
            _ => Place::Received,
        };
        let index = self.next_index;
        self.next_index += 1;
        self.insert(folder, Source::Generated { index, place }, now_ms)
    }

    pub(crate) fn insert(&mut self, folder: u32, source: Source, now_ms: u64) -> u64 {
        let key = self.next_message;
        self.next_message += 1;
        self.seq += 1;
        let seq = self.seq;
        self.messages
            .insert(key, Message { key, moves: 0, folder, seq, change: seq, modified_ms: now_ms, source });
        self.folder_mut(folder).order.insert(seq, key);
        key
    }

    /// Gives the message a new change key and moves it to the end of its folder's order.
    pub(crate) fn touch(&mut self, key: u64, now_ms: u64) {
        self.seq += 1;
        let seq = self.seq;
        let Some(message) = self.messages.get_mut(&key) else { return };
        let (old, folder) = (message.seq, message.folder);
        (message.seq, message.change, message.modified_ms) = (seq, seq, now_ms);
        let folder = self.folder_mut(folder);
        folder.order.remove(&old);
        folder.order.insert(seq, key);
    }

    /// Replaces the content.
    pub(crate) fn rewrite(&mut self, key: u64, content: Content, now_ms: u64) {
        if let Some(message) = self.messages.get_mut(&key) {
            message.source = Source::Owned(Arc::new(content));
            self.touch(key, now_ms);
        }
    }

    pub(crate) fn move_message(&mut self, key: u64, target: u32, now_ms: u64) {
        let Some(message) = self.messages.get_mut(&key) else { return };
        let (folder, seq, moves) = (message.folder, message.seq, message.moves);
        if folder == target {
            return;
        }
        self.seq += 2;
        let (left, arrived) = (self.seq - 1, self.seq);
        message.moves += 1;
        message.folder = target;
        (message.seq, message.change, message.modified_ms) = (arrived, arrived, now_ms);
        let old = self.folder_mut(folder);
        old.order.remove(&seq);
        old.tombstones.insert(left, (key, moves));
        self.folder_mut(target).order.insert(arrived, key);
    }

    pub(crate) fn delete_message(&mut self, key: u64) {
        let Some(message) = self.messages.remove(&key) else { return };
        self.seq += 1;
        let seq = self.seq;
        let folder = self.folder_mut(message.folder);
        folder.order.remove(&message.seq);
        folder.tombstones.insert(seq, (key, message.moves));
    }

    pub(crate) fn create_folder(&mut self, parent: u32, name: &str, hidden: bool) -> u32 {
        let key = self.next_folder;
        self.next_folder += 1;
        self.add_folder(key, Some(parent), name, hidden, None);
        key
    }

    fn add_folder(
        &mut self,
        key: u32,
        parent: Option<u32>,
        name: &str,
        hidden: bool,
        well_known: Option<&'static str>,
    ) {
        self.seq += 1;
        let folder = Folder {
            key,
            parent,
            name: name.into(),
            hidden,
            well_known,
            seq: self.seq,
            search: None,
            extended: Vec::new(),
            order: BTreeMap::new(),
            tombstones: BTreeMap::new(),
        };
        self.folders.insert(key, folder);
    }

    /// Removes a folder with all that is below it.
    pub(crate) fn delete_folder(&mut self, key: u32) {
        let mut doomed = vec![key];
        let mut at = 0;
        while at < doomed.len() {
            let parent = doomed[at];
            doomed.extend(self.children(parent).map(|folder| folder.key));
            at += 1;
        }
        for key in doomed.into_iter().rev() {
            if let Some(folder) = self.folders.remove(&key) {
                for message in folder.order.values() {
                    self.messages.remove(message);
                }
                self.seq += 1;
                self.folder_tombstones.insert(self.seq, key);
            }
        }
    }

    pub(crate) fn touch_folder(&mut self, key: u32) {
        self.seq += 1;
        let seq = self.seq;
        self.folder_mut(key).seq = seq;
    }

    /// Empties the mailbox: messages and the folders that somebody made.
    pub(crate) fn wipe(&mut self) {
        let keys: Vec<u64> = self.messages.keys().copied().collect();
        for key in keys {
            self.delete_message(key);
        }
        for key in self.own_folders() {
            self.delete_folder(key);
        }
    }

    pub(crate) fn next_attachment(&mut self) -> u32 {
        self.next_attachment += 1;
        self.next_attachment
    }

    pub(crate) fn is_own(&self, folder: u32) -> bool {
        (FIRST_OWN..FIRST_APART).contains(&folder)
    }

    /// The folders that somebody made.
    pub(crate) fn own_folders(&self) -> Vec<u32> {
        self.folders.keys().copied().filter(|key| self.is_own(*key)).collect()
    }

    fn folder_mut(&mut self, key: u32) -> &mut Folder {
        self.folders.get_mut(&key).expect("a message's folder exists")
    }

    pub(crate) fn children(&self, parent: u32) -> impl Iterator<Item = &Folder> {
        self.folders.values().filter(move |folder| folder.parent == Some(parent))
    }

    pub(crate) fn folder_path(&self, key: u32) -> String {
        if key == RECOVERABLE {
            // The folder above it is one that no call shows.
            return "/Recoverable Items/Deletions".to_owned();
        }
        let mut names = Vec::new();
        let mut at = self.folders.get(&key);
        while let Some(folder) = at {
            if folder.key == ROOT || names.len() > MAX_PATH_DEPTH {
                break;
            }
            names.push(folder.name.as_str());
            at = folder.parent.and_then(|parent| self.folders.get(&parent));
        }
        names.iter().rev().fold(String::new(), |path, name| path + "/" + name)
    }

    pub(crate) fn message_id(&self, message: &Message, form: Form) -> String {
        let moves = (form == Form::Mutable).then_some(message.moves);
        Id::Message { user: self.user, key: message.key, moves }.encode()
    }

    pub(crate) fn folder_id(&self, key: u32) -> String {
        Id::Folder { user: self.user, key }.encode()
    }

    /// By id or well-known name.
    pub(crate) fn find_folder(&self, name: &str) -> Result<u32, Missing> {
        let known =
            self.folders.values().find(|one| one.well_known.is_some_and(|w| w.eq_ignore_ascii_case(name)));
        if let Some(folder) = known {
            return Ok(folder.key);
        }
        if WELL_KNOWN.iter().any(|one| one.eq_ignore_ascii_case(name)) {
            return Err(Missing::Gone);
        }
        match Id::decode(name) {
            Some(Id::Folder { user, key }) if user == self.user && self.folders.contains_key(&key) => Ok(key),
            Some(_) => Err(Missing::Gone),
            None => Err(Missing::Malformed),
        }
    }

    /// By id of either form; a mutable one only until the next move.
    pub(crate) fn find_message(&self, id: &str) -> Result<&Message, Missing> {
        match Id::decode(id) {
            Some(Id::Message { user, key, moves }) if user == self.user => self
                .messages
                .get(&key)
                .filter(|message| moves.is_none_or(|moves| moves == message.moves))
                .ok_or(Missing::Gone),
            Some(_) => Err(Missing::Gone),
            None => Err(Missing::Malformed),
        }
    }
}
