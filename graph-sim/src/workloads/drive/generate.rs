//! Drives from (seed, person, number): folders, files, what is shared, earlier versions, and what makes trouble.

use crate::blob::{Shape, Synthetic};
use crate::pieces::{Look, MARKS};
use crate::rng::{Rng, mix};
use crate::words;
use crate::workloads::drive::item::{
    By, Content, Fate, Grant, Holds, Kind, Link, More, Name, Times, To, Version,
};
use crate::workloads::drive::store::{DriveStore, New, ROOT};
use crate::world::World;

/// The oldest generated file was made then: 2024-01-08T07:00:00Z.
const FIRST_MS: u64 = 1_704_697_200_000;
/// Generated files were made within so many minutes from then: two years.
const SPAN_MINUTES: u64 = 2 * 365 * 24 * 60;
const FILES_PER_FOLDER: u32 = 12;
/// One chain of folders is so deep.
const DEEP: u32 = 25;
/// Generated folders' paths are no longer, so that a file's name fits behind them.
const MAX_FOLDER_PATH: usize = 200;
/// One file in so many is empty.
const EMPTY_EVERY: u32 = 29;
/// One file in so many has an odd name.
const ODD_EVERY: u32 = 23;
/// One folder in so many is reported after what is in it.
const LATE_FOLDER_EVERY: u32 = 10;
/// How uneven sizes are: most files are small, and the few large ones hold most of the bytes.
const SIZE_SIGMA: f64 = 1.3;

/// Extensions with what files of them hold.
const TYPES: [(&str, &str, Look); 11] = [
    ("pdf", "application/pdf", Look::Random(MARKS[0])),
    (
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        Look::Random(MARKS[1]),
    ),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", Look::Random(MARKS[1])),
    (
        "pptx",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        Look::Random(MARKS[1]),
    ),
    ("jpg", "image/jpeg", Look::Random(MARKS[2])),
    ("png", "image/png", Look::Random(MARKS[3])),
    ("mp4", "video/mp4", Look::Random(MARKS[4])),
    ("zip", "application/zip", Look::Random(MARKS[1])),
    ("txt", "text/plain", Look::Prose),
    ("csv", "text/csv", Look::Prose),
    ("md", "text/markdown", Look::Prose),
];
const NOTEBOOK_TYPE: (&str, &str) = ("one", "application/msonenote");

/// Names that break what is careless with names; `{}` is the file's number.
const ODD_NAMES: [&str; 12] = [
    "100 % #1 & more + {}",
    "Übergröße „Ä“ {}",
    "資料 第{}版",
    "e\u{301}te\u{301} {}",
    "party 🎉🧾 {}",
    "it's [draft]; v1,2 (final) {}",
    ".hidden {}",
    "dots...and...more {}",
    "%41%2F%20 {}",
    "שלום {}",
    "a very long name that goes on and on because somebody wrote the whole subject of a mail into it, with the date, the \
     customer and what was agreed {}",
    "UPPER lower {}",
];

/// The name of the file with this number.
pub(crate) fn file_name(seed: u64, index: u32) -> String {
    let number = mix(seed ^ 0x6e61_6d65 ^ u64::from(index));
    let (extension, _, _) = TYPES[(number % TYPES.len() as u64) as usize];
    if index % ODD_EVERY == 3 {
        let odd = ODD_NAMES[(index / ODD_EVERY) as usize % ODD_NAMES.len()];
        return format!("{}.{extension}", odd.replace("{}", &index.to_string()));
    }
    let stem = words::FILES[(number / 64 % words::FILES.len() as u64) as usize];
    format!("{stem} {index}.{extension}")
}

/// The name of the folder with this number.
pub(crate) fn folder_name(seed: u64, index: u32) -> String {
    if index < DEEP {
        return format!("level{index:02}");
    }
    let number = mix(seed ^ 0x666f_6c64 ^ u64::from(index));
    format!("{} {index}", words::FOLDERS[(number % words::FOLDERS.len() as u64) as usize])
}

/// What a name says its content is.
pub(crate) fn media_type(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if extension.eq_ignore_ascii_case(NOTEBOOK_TYPE.0) {
        return NOTEBOOK_TYPE.1;
    }
    let known = TYPES.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(extension));
    known.map_or("application/octet-stream", |(_, media_type, _)| media_type)
}

fn look_of(name: &str) -> Look {
    let media_type = media_type(name);
    TYPES.iter().find(|(_, known, _)| *known == media_type).map_or(Look::Prose, |(_, _, look)| *look)
}

/// Content that nobody else has.
pub(crate) fn content(name: &str, size: u64, rng: &mut Rng) -> Content {
    Content::Recipe(Synthetic { seed: rng.next(), size, shape: Shape::Pieces(look_of(name)) })
}

/// Fills the drive of a person as the options say.
pub(crate) fn populate(world: &World, store: &mut DriveStore) {
    let options = world.options();
    let population = &options.population;
    let mut rng = Rng::new(&[options.seed, 0x6472_6976, u64::from(store.user)]);
    let files = population.drive_files_per_user;
    let folders = match files {
        0 => 0,
        files => 1 + files / FILES_PER_FOLDER,
    };
    let places = add_folders(store, folders, &mut rng);
    for _ in 0..files {
        let parent = *rng.pick(&places);
        let key = add_file(world, store, parent, None);
        if rng.percent(population.drive_versioned_percent as usize) {
            add_versions(world, store, key, &mut rng);
        }
        if rng.percent(population.drive_shared_percent as usize) {
            share(world, store, key, &mut rng);
        }
    }
    for folder in places.iter().filter(|folder| **folder != ROOT) {
        if rng.percent(population.drive_shared_percent as usize) {
            share(world, store, *folder, &mut rng);
        }
    }
    add_special(world, store, &mut rng);
    for folder in places.iter().filter(|folder| **folder != ROOT && **folder % LATE_FOLDER_EVERY == 0) {
        store.report_again(*folder);
    }
}

/// The root and the new folders.
fn add_folders(store: &mut DriveStore, count: u32, rng: &mut Rng) -> Vec<u32> {
    let (mut places, mut lengths) = (vec![ROOT], vec![0_usize]);
    for index in 0..count {
        let length = 1 + folder_name(store.seed, index).chars().count();
        let chain = index > 0 && index < DEEP;
        let wanted = if chain { places.len() - 1 } else { rng.below(places.len()) };
        let at = if lengths[wanted] + length > MAX_FOLDER_PATH { 0 } else { wanted };
        let key = add_folder(store, places[at], made_ms(index));
        places.push(key);
        lengths.push(lengths[at] + length);
    }
    places
}

/// Adds the next generated folder.
pub(crate) fn add_folder(store: &mut DriveStore, parent: u32, made_ms: u64) -> u32 {
    let index = store.next_folder;
    store.next_folder += 1;
    let times = Times { created_ms: made_ms, modified_ms: made_ms };
    let kind = Kind::Folder(Holds::default());
    store.insert(parent, New { name: Name::Folder(index), kind, by: By::Owner, made_ms, times })
}

fn made_ms(index: u32) -> u64 {
    FIRST_MS + mix(u64::from(index)) % SPAN_MINUTES * 60_000
}

/// Adds the next generated file, of the time it always had or of now.
pub(crate) fn add_file(world: &World, store: &mut DriveStore, parent: u32, now_ms: Option<u64>) -> u32 {
    let index = store.next_file;
    store.next_file += 1;
    let mut rng = Rng::new(&[store.seed, 0x6669_6c65, u64::from(store.user), u64::from(index)]);
    let name = file_name(store.seed, index);
    let size = if index % EMPTY_EVERY == 7 { 0 } else { size(world, &mut rng) };
    let content = content(&name, size, &mut rng);
    let made_ms = now_ms.unwrap_or_else(|| made_ms(index));
    // Files are often older than their place in the drive.
    let modified_ms = made_ms - rng.below(200 * 24 * 60) as u64 * 60_000;
    let times = Times { created_ms: modified_ms - rng.below(1000) as u64 * 60_000, modified_ms };
    store.insert(
        parent,
        New { name: Name::File(index), kind: Kind::File(content), by: By::Owner, made_ms, times },
    )
}

fn size(world: &World, rng: &mut Rng) -> u64 {
    let options = world.options();
    let population = &options.population;
    let mean = population.drive_file_bytes.max(1) as f64;
    let size = mean * (SIZE_SIGMA * rng.normal() - SIZE_SIGMA * SIZE_SIGMA / 2.0).exp();
    (size as u64).clamp(1, population.drive_max_file_bytes.max(1))
}

fn add_versions(world: &World, store: &mut DriveStore, key: u32, rng: &mut Rng) {
    let Some(item) = store.get(key) else { return };
    let (name, made_ms) = (store.name_of(item), item.made_ms);
    let count = 1 + rng.below(3) as u32;
    let versions = (1..=count)
        .map(|number| Version {
            number,
            content: content(&name, size(world, rng), rng),
            changed_ms: made_ms - u64::from(count + 1 - number) * 86_400_000,
            by: By::Owner,
        })
        .collect();
    if let Some(item) = store.quietly(key) {
        item.more_mut().versions = versions;
    }
}

/// Gives an item permissions of its own.
pub(crate) fn share(world: &World, store: &mut DriveStore, key: u32, rng: &mut Rng) {
    let owner = store.user;
    let Some(item) = store.share(key) else { return };
    add_grant(world, item.more_mut(), owner, rng);
}

fn add_grant(world: &World, more: &mut More, owner: u32, rng: &mut Rng) {
    let others = world.people.len() as u32 - 1;
    let role = *rng.pick(&["read", "write"]);
    let to = match rng.below(4) {
        0 => To::Link(Link {
            kind: if role == "read" { "view" } else { "edit" }.into(),
            scope: (*rng.pick(&["organization", "anonymous"])).into(),
            has_password: false,
            people: Vec::new(),
        }),
        1 | 2 if others > 0 => To::Person((owner + 1 + rng.below(others as usize) as u32) % (others + 1)),
        _ => To::Guest(format!("guest{}@fabrikam.example", rng.below(400))),
    };
    let number = more.next_grant;
    more.next_grant += 1;
    more.grants.push(Grant { number, role, to, expires: None });
}

/// What the options ask for by number.
fn add_special(world: &World, store: &mut DriveStore, rng: &mut Rng) {
    let options = world.options();
    let population = &options.population;
    let mut add = |store: &mut DriveStore, parent: u32, name: &str, size: u64| {
        let times = Times { created_ms: FIRST_MS, modified_ms: FIRST_MS + 3_600_000 };
        let kind = Kind::File(content(name, size, rng));
        store.insert(parent, New { name: Name::own(name), kind, by: By::Owner, made_ms: FIRST_MS, times })
    };
    if population.drive_large_file_bytes > 0 {
        add(store, ROOT, "large.zip", population.drive_large_file_bytes);
    }
    let troubles = [
        ("infected", Fate::Malware, population.drive_malware_per_user),
        ("locked", Fate::Locked, population.drive_locked_per_user),
    ];
    for (stem, fate, count) in troubles {
        for number in 0..count {
            let key = add(store, ROOT, &format!("{stem} {number}.docx"), 40_000 + u64::from(number));
            if let Some(item) = store.quietly(key) {
                item.more_mut().fate = Some(fate);
            }
        }
    }
    let times = Times { created_ms: FIRST_MS, modified_ms: FIRST_MS };
    let new =
        |name: String, kind| New { name: Name::own(&name), kind, by: By::Owner, made_ms: FIRST_MS, times };
    for number in 0..population.drive_notebooks_per_user {
        let notebook =
            store.insert(ROOT, new(format!("Notebook {number}"), Kind::Notebook(Holds::default())));
        for (part, size) in
            [("Quick Notes.one", 24_000), ("Meetings.one", 90_000), ("Open Notebook.onetoc2", 4_000)]
        {
            add(store, notebook, part, size);
        }
    }
    let owner = (store.user + 1) % world.people.len() as u32;
    for number in 0..population.drive_shortcuts_per_user {
        store.insert(
            ROOT,
            new(
                format!("Shared by a colleague {number}"),
                Kind::Shortcut { owner, target: ROOT + 1 + number },
            ),
        );
    }
}
