//! New files, new versions, renames, moves, deletions, what comes back, permissions and times.
//!
//! Invariant: no item is chosen twice in one evolution, so the counts given back are exact; what a deleted folder held
//! goes uncounted.

use crate::rng::Rng;
use crate::workloads::Changes;
use crate::workloads::drive::generate::{self, add_file, add_folder, share};
use crate::workloads::drive::item::{By, Item, Kind, Name};
use crate::workloads::drive::store::{DriveStore, ROOT};
use crate::world::World;

/// A folder that is deleted holds no more.
const MAX_DELETED_WITH_FOLDER: usize = 40;
/// Every so many deletions are of a folder, every so many new files are in a new one.
const FOLDER_EVERY: u64 = 10;

/// What may still be chosen.
struct Free {
    files: Vec<u32>,
    folders: Vec<u32>,
}

impl Free {
    fn of(store: &DriveStore) -> Self {
        let in_notebook = |item: &Item| {
            store.get(item.parent).is_some_and(|folder| matches!(folder.kind, Kind::Notebook(_)))
        };
        let is_file = |item: &&Item| item.content().is_some() && item.fate().is_none() && !in_notebook(item);
        let is_folder = |item: &&Item| matches!(item.kind, Kind::Folder(_));
        Self {
            files: store.iter().filter(is_file).map(|item| item.key).collect(),
            folders: store.iter().filter(is_folder).map(|item| item.key).collect(),
        }
    }

    fn file(&mut self, rng: &mut Rng) -> Option<u32> {
        choose(&mut self.files, rng)
    }

    fn folder(&mut self, rng: &mut Rng) -> Option<u32> {
        choose(&mut self.folders, rng)
    }

    /// Forgets what went with a folder.
    fn forget(&mut self, gone: &[u32]) {
        let gone: std::collections::HashSet<u32> = gone.iter().copied().collect();
        self.files.retain(|key| !gone.contains(key));
        self.folders.retain(|key| !gone.contains(key));
    }
}

fn choose(from: &mut Vec<u32>, rng: &mut Rng) -> Option<u32> {
    (!from.is_empty()).then(|| from.swap_remove(rng.below(from.len())))
}

/// Lets it happen to one person's drive.
pub(crate) fn evolve(world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
    let now = world.clock.now_ms();
    let mut done = Changes::default();
    let mut store = world.state::<DriveStore>(user);
    done.restored = restore(&mut store, wanted.restored, rng);
    let mut free = Free::of(&store);
    done.deleted = delete(&mut store, &mut free, wanted.deleted, rng);
    let places = store.iter().filter(|item| matches!(item.kind, Kind::Folder(_))).map(|item| item.key);
    let places: Vec<u32> = std::iter::once(ROOT).chain(places).collect();
    for number in 0..wanted.moved {
        done.moved += u64::from(move_one(&mut store, &mut free, &places, number, now, rng));
    }
    for _ in 0..wanted.edited {
        let Some(key) = free.file(rng) else { break };
        edit(&mut store, key, now, rng);
        done.edited += 1;
    }
    for number in 0..wanted.flags {
        let Some(key) = free.file(rng) else { break };
        touch(world, &mut store, key, number, rng);
        done.flags += 1;
    }
    let mut places = places;
    for number in 0..wanted.new {
        if number % FOLDER_EVERY == FOLDER_EVERY - 1 {
            places.push(add_folder(&mut store, ROOT, now));
        }
        add_file(world, &mut store, *rng.pick(&places), Some(now));
        done.new += 1;
    }
    done
}

fn restore(store: &mut DriveStore, wanted: u64, rng: &mut Rng) -> u64 {
    let mut done = 0;
    let mut deleted = store.restorable();
    while done < wanted {
        let Some(key) = choose(&mut deleted, rng) else { break };
        done += u64::from(store.restore(key).is_some());
    }
    done
}

fn delete(store: &mut DriveStore, free: &mut Free, wanted: u64, rng: &mut Rng) -> u64 {
    for number in 0..wanted {
        let folder = if number % FOLDER_EVERY == FOLDER_EVERY - 1 { free.folder(rng) } else { None };
        let small = folder.filter(|folder| store.subtree(*folder).len() <= MAX_DELETED_WITH_FOLDER);
        let Some(key) = small.or_else(|| free.file(rng)) else { return number };
        free.forget(&store.subtree(key));
        store.delete(key);
    }
    wanted
}

/// Renames or moves a file or a folder, in turn.
fn move_one(
    store: &mut DriveStore,
    free: &mut Free,
    places: &[u32],
    number: u64,
    now_ms: u64,
    rng: &mut Rng,
) -> bool {
    let chosen = if number % 4 < 2 { free.file(rng) } else { free.folder(rng).or_else(|| free.file(rng)) };
    let Some(item) = chosen.and_then(|key| store.get(key)) else { return false };
    let (key, parent, old) = (item.key, item.parent, store.name_of(item));
    // A folder goes up only: paths must not grow past what SharePoint takes.
    let target = if item.is_folder() { ROOT } else { *rng.pick(places) };
    let is_rename = number.is_multiple_of(2) || target == parent;
    let renamed = renamed(&old, rng);
    let taken = !is_rename && store.child(target, &old).is_some();
    let name = (is_rename || taken).then(|| Name::own(&renamed));
    store.move_to(key, if is_rename { parent } else { target }, name, now_ms);
    true
}

fn renamed(name: &str, rng: &mut Rng) -> String {
    let extension = name.rfind('.').filter(|at| *at > 0).map_or("", |at| &name[at..]);
    let extension = if extension.contains(' ') { "" } else { extension };
    format!("renamed {:08x}{extension}", rng.next() as u32)
}

/// New content, and the time of its change.
fn edit(store: &mut DriveStore, key: u32, now_ms: u64, rng: &mut Rng) {
    let Some(item) = store.get(key) else { return };
    let size = item.kind.size() * (90 + rng.below(21) as u64) / 100 + rng.below(100) as u64;
    let content = generate::content(&store.name_of(item), size, rng);
    store.set_content(key, content, By::Owner, now_ms);
    if let Some(item) = store.quietly(key) {
        item.times.modified_ms = now_ms / 1000 * 1000;
    }
}

/// A permission more, a permission less, or another time, in turn.
fn touch(world: &World, store: &mut DriveStore, key: u32, number: u64, rng: &mut Rng) {
    let has_grants = store.get(key).is_some_and(|item| !item.grants().is_empty());
    match number % 3 {
        0 => share(world, store, key, rng),
        1 if has_grants => {
            if let Some(item) = store.share(key) {
                item.more_mut().grants.clear();
            }
        }
        _ => {
            if let Some(item) = store.change(key, world.clock.now_ms()) {
                item.times.modified_ms += 60_000;
            }
        }
    }
}
