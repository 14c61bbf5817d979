//! A person's drive: its tree, and the log of what changed.
//!
//! Invariant: the log has one entry per change, and an entry counts only while it is its item's latest of that kind; so
//! a delta from position p is a walk over the log from p on. A folder's sums are those of what is in it.

mod bin;
mod log;

use std::collections::{BTreeSet, HashMap};

use crate::delta::Stand;
use crate::workloads::drive::item::{By, Content, Holds, Item, Kind, Name, Times, Version};
use crate::workloads::states::UserState;
use crate::world::World;

pub(crate) use log::Change;

/// The root's number.
pub(crate) const ROOT: u32 = 1;
const NOWHERE: u32 = 0;
/// Versions that are kept of a file at most, as libraries are set up by default.
const MAX_VERSIONS: usize = 500;
/// Every drive was made then: 2023-01-09T08:00:00Z.
pub(crate) const OLDEST_MS: u64 = 1_673_251_200_000;

/// What is where an item's number points.
enum Slot {
    Present(Item),
    /// In the recycle bin; `top` is the item that was deleted, itself or a folder above.
    Deleted {
        item: Box<Item>,
        top: u32,
    },
    /// For good.
    Gone {
        parent: u32,
        seq: u64,
    },
}

/// What happened to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Changed,
    Shared,
    Removed,
}

/// An item before it is somewhere.
pub(crate) struct New {
    pub name: Name,
    pub kind: Kind,
    pub by: By,
    pub made_ms: u64,
    pub times: Times,
}

pub(crate) struct DriveStore {
    pub user: u32,
    /// That of the tenant's population.
    pub seed: u64,
    pub epoch: u64,
    /// By key.
    slots: Vec<Slot>,
    /// The number of a change is its place here, from 1 on.
    log: Vec<(u32, Event)>,
    children: BTreeSet<(u32, u32)>,
    /// Lower-case names in folders that were asked for names.
    names: HashMap<u32, HashMap<Box<str>, u32>>,
    /// Number of the next generated file.
    pub next_file: u32,
    pub next_folder: u32,
}

impl UserState for DriveStore {
    fn populate(world: &World, user: u32) -> Self {
        let mut store = Self::empty(world.options().seed, user);
        super::generate::populate(world, &mut store);
        store
    }
}

impl DriveStore {
    fn empty(seed: u64, user: u32) -> Self {
        let mut store = Self {
            user,
            seed,
            epoch: 0,
            slots: vec![Slot::Gone { parent: NOWHERE, seq: 0 }],
            log: Vec::new(),
            children: BTreeSet::new(),
            names: HashMap::new(),
            next_file: 0,
            next_folder: 0,
        };
        let times = Times { created_ms: OLDEST_MS, modified_ms: OLDEST_MS };
        let kind = Kind::Folder(Holds::default());
        store
            .insert(NOWHERE, New { name: Name::own("root"), kind, by: By::Owner, made_ms: OLDEST_MS, times });
        store
    }

    pub(crate) fn stand(&self) -> Stand {
        Stand { seq: self.log.len() as u64, epoch: self.epoch }
    }

    pub(crate) fn get(&self, key: u32) -> Option<&Item> {
        match self.slots.get(key as usize)? {
            Slot::Present(item) => Some(item),
            Slot::Deleted { .. } | Slot::Gone { .. } => None,
        }
    }

    fn get_mut(&mut self, key: u32) -> Option<&mut Item> {
        match self.slots.get_mut(key as usize)? {
            Slot::Present(item) => Some(item),
            Slot::Deleted { .. } | Slot::Gone { .. } => None,
        }
    }

    /// Everything but the root, in the order of its making.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Present(item) if item.key != ROOT => Some(item),
            _ => None,
        })
    }

    pub(crate) fn children(&self, folder: u32) -> impl Iterator<Item = &Item> {
        let range = (folder, 0)..=(folder, u32::MAX);
        self.children.range(range).filter_map(|(_, key)| self.get(*key))
    }

    /// The folders above an item, the nearest first.
    pub(crate) fn above(&self, key: u32) -> impl Iterator<Item = &Item> {
        let parent = |item: &Item| self.get(item.parent);
        std::iter::successors(self.get(key).and_then(parent), move |item| parent(item))
    }

    pub(crate) fn name_of(&self, item: &Item) -> String {
        item.name.text(self.seed)
    }

    /// From the root, such as `/a/b`; the root's is empty.
    pub(crate) fn path(&self, key: u32) -> String {
        let mut names = Vec::new();
        let below_root = self.get(key).into_iter().chain(self.above(key)).filter(|item| item.key != ROOT);
        names.extend(below_root.map(|item| self.name_of(item)));
        names.iter().rev().fold(String::new(), |path, name| format!("{path}/{name}"))
    }

    /// What has a name in a folder; case does not matter.
    pub(crate) fn child(&mut self, folder: u32, name: &str) -> Option<u32> {
        if !self.names.contains_key(&folder) {
            let names = self.children(folder).map(|item| (fold(&self.name_of(item)), item.key)).collect();
            self.names.insert(folder, names);
        }
        self.names[&folder].get(&fold(name)).copied()
    }

    /// Puts a new item into a folder.
    pub(crate) fn insert(&mut self, parent: u32, new: New) -> u32 {
        let key = u32::try_from(self.slots.len()).expect("a drive has fewer than 4 billion items");
        let New { name, kind, by, made_ms, times } = new;
        let size = kind.size();
        let item = Item {
            key,
            parent,
            seq: 0,
            etag: 0,
            ctag: 1,
            made_by: by,
            by,
            made_ms,
            changed_ms: made_ms,
            times,
            name,
            kind,
            more: None,
        };
        self.slots.push(Slot::Present(item));
        self.attach(parent, key, size);
        self.changed(key);
        key
    }

    /// Numbers a change of an item.
    fn changed(&mut self, key: u32) {
        let seq = self.append(key, Event::Changed);
        if let Some(item) = self.get_mut(key) {
            item.seq = seq;
            item.etag += 1;
        }
    }

    fn append(&mut self, key: u32, event: Event) -> u64 {
        self.log.push((key, event));
        self.log.len() as u64
    }

    /// Reports an item once more although nothing has changed, as the service does at times.
    pub(crate) fn report_again(&mut self, key: u32) {
        let seq = self.append(key, Event::Changed);
        if let Some(item) = self.get_mut(key) {
            item.seq = seq;
        }
    }

    /// Changes an item.
    pub(crate) fn change(&mut self, key: u32, now_ms: u64) -> Option<&mut Item> {
        self.changed(key);
        let item = self.get_mut(key)?;
        item.changed_ms = now_ms;
        Some(item)
    }

    /// Changes what no delta reports.
    pub(crate) fn quietly(&mut self, key: u32) -> Option<&mut Item> {
        self.get_mut(key)
    }

    /// Changes an item's permissions.
    pub(crate) fn share(&mut self, key: u32) -> Option<&mut Item> {
        let seq = self.append(key, Event::Shared);
        let item = self.get_mut(key)?;
        let more = item.more_mut();
        (more.sharing_seq, more.is_unique) = (seq, true);
        Some(item)
    }

    /// Gives an item another name, another folder, or both.
    pub(crate) fn move_to(&mut self, key: u32, parent: u32, name: Option<Name>, now_ms: u64) {
        let Some(item) = self.get(key) else { return };
        let (from, size) = (item.parent, item.kind.size());
        self.detach(from, key, size);
        if let Some(item) = self.change(key, now_ms) {
            item.parent = parent;
            item.name = name.unwrap_or_else(|| item.name.clone());
        }
        self.attach(parent, key, size);
    }

    /// Gives a file other content; what it had becomes an earlier version.
    pub(crate) fn set_content(&mut self, key: u32, content: Content, by: By, now_ms: u64) {
        let Some(item) = self.get(key) else { return };
        let (parent, number, before_by, before_ms) =
            (item.parent, item.version_number(), item.by, item.changed_ms);
        let (size, before) = (content.len(), item.kind.size());
        let Some(item) = self.change(key, now_ms) else { return };
        item.ctag += 1;
        item.by = by;
        if let Kind::File(old) = std::mem::replace(&mut item.kind, Kind::File(content)) {
            let versions = &mut item.more_mut().versions;
            versions.push(Version { number, content: old, changed_ms: before_ms, by: before_by });
            let surplus = versions.len().saturating_sub(MAX_VERSIONS);
            versions.drain(..surplus);
        }
        self.add_bytes(parent, before, size);
    }

    /// An item and everything below it, folders before what is in them.
    pub(crate) fn subtree(&self, top: u32) -> Vec<u32> {
        let mut found = vec![top];
        let mut at = 0;
        while at < found.len() {
            let folder = found[at];
            found.extend(self.children.range((folder, 0)..=(folder, u32::MAX)).map(|(_, key)| *key));
            at += 1;
        }
        found
    }

    /// An item's name as its folder's names have it, where they are known.
    fn indexed_name(&self, folder: u32, key: u32) -> Option<Box<str>> {
        let item = self.get(key).filter(|_| self.names.contains_key(&folder))?;
        Some(fold(&self.name_of(item)))
    }

    fn attach(&mut self, parent: u32, key: u32, size: u64) {
        self.children.insert((parent, key));
        if let Some(name) = self.indexed_name(parent, key)
            && let Some(names) = self.names.get_mut(&parent)
        {
            names.insert(name, key);
        }
        if let Some(holds) = self.get_mut(parent).and_then(|item| item.kind.holds_mut()) {
            holds.children += 1;
        }
        self.add_bytes(parent, 0, size);
    }

    fn detach(&mut self, parent: u32, key: u32, size: u64) {
        self.children.remove(&(parent, key));
        if let Some(name) = self.indexed_name(parent, key)
            && let Some(names) = self.names.get_mut(&parent)
        {
            names.remove(&name);
        }
        if let Some(holds) = self.get_mut(parent).and_then(|item| item.kind.holds_mut()) {
            holds.children -= 1;
        }
        self.add_bytes(parent, size, 0);
    }

    /// Corrects the sums of a folder and of all above it.
    fn add_bytes(&mut self, folder: u32, before: u64, after: u64) {
        let mut at = folder;
        while let Some(item) = self.get_mut(at) {
            at = item.parent;
            if let Some(holds) = item.kind.holds_mut() {
                holds.bytes = holds.bytes + after - before;
            }
        }
    }
}

/// Names are compared without case.
fn fold(name: &str) -> Box<str> {
    name.to_lowercase().into()
}
