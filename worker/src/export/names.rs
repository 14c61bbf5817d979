//! Names of exported files: what any file system takes, and no two the same.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use super::render::OutFile;
use crate::workload::snapshot_folders::SnapshotFolders;

/// The longest part of a file name made of a subject.
const MAX_SUBJECT_CHARS: usize = 60;
/// The longest name of a folder.
const MAX_FOLDER_CHARS: usize = 100;

/// The names in an export. Two that differ for Microsoft may be one for a file system, which keeps the last: each is
/// given once.
pub(super) struct Names {
    folders: Vec<PathBuf>,
    /// Hashes of what was given: 16 bytes for a file, however long its path is.
    taken: HashSet<[u8; 16]>,
}

impl Names {
    /// Names the folders.
    pub(super) fn new(folders: &SnapshotFolders) -> Self {
        let mut names = Self { folders: Vec::new(), taken: HashSet::new() };
        for folder in folders.all() {
            let path = match folder.parent {
                None => PathBuf::new(),
                Some(parent) => {
                    let name = file_name(&folder.name, MAX_FOLDER_CHARS);
                    names.unique(names.folder(parent).join(name), &hex::encode(&folder.key[..4]))
                }
            };
            names.folders.push(path);
        }
        names
    }

    /// The path of a folder in the export.
    pub(super) fn folder(&self, folder: usize) -> PathBuf {
        self.folders.get(folder).cloned().unwrap_or_default()
    }

    /// A file that says what a folder is, beside it.
    pub(super) fn beside(&mut self, folder: usize, extension: &str) -> PathBuf {
        let path = self.folder(folder);
        let name = format!("{}.{extension}", path.file_name().unwrap_or_default().to_string_lossy());
        let mark = format!("definition {folder}");
        self.unique(path.with_file_name(name), &mark)
    }

    /// Gives the files of an item in a folder their places in the export.
    pub(super) fn place(&mut self, folder: usize, id: &str, mut files: Vec<OutFile>) -> Vec<OutFile> {
        let directory = self.folder(folder);
        let hash = blake3::hash(id.as_bytes()).to_hex();
        for file in &mut files {
            file.name = self.unique(directory.join(&file.name), &hash[..12]);
        }
        files
    }

    /// A path that was not given yet: this one, or with what tells it from others.
    fn unique(&mut self, path: PathBuf, mark: &str) -> PathBuf {
        if self.take(&path) {
            return path;
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut name = format!("{stem} {mark}");
        if let Some(extension) = path.extension() {
            name = format!("{name}.{}", extension.to_string_lossy());
        }
        let path = path.with_file_name(name);
        self.take(&path);
        path
    }

    fn take(&mut self, path: &Path) -> bool {
        let hash = blake3::hash(path.to_string_lossy().to_lowercase().as_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        self.taken.insert(short)
    }
}

/// Text as (a part of) a file name: nothing that any file system refuses, never hidden, never empty.
pub(super) fn file_name(text: &str, max_chars: usize) -> String {
    let is_bad =
        |c: char| c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '\0');
    let clean: String = text.chars().map(|c| if is_bad(c) { '_' } else { c }).take(max_chars).collect();
    let clean = clean.trim_matches([' ', '.']);
    if clean.is_empty() { "_".to_owned() } else { clean.to_owned() }
}

/// The name of an item's own file, without its extension: time, title, and what tells it from others of the same title.
pub(super) fn item_name(time_ms: u64, subject: &str, id: &str) -> String {
    let time = i64::try_from(time_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).strftime("%Y-%m-%dT%H-%M-%SZ").to_string();
    let hash = blake3::hash(id.as_bytes()).to_hex();
    // A file name is at most 255 bytes; a character at most 4.
    let mut subject = file_name(subject, MAX_SUBJECT_CHARS);
    while subject.len() > 180 {
        subject.pop();
    }
    format!("{time} {subject} {}", &hash[..12])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::render::Body;

    #[test]
    fn no_path_is_given_twice() {
        let mut names = Names { folders: Vec::new(), taken: HashSet::new() };
        let file = |name: &str| OutFile { name: name.into(), modified_ms: 0, body: Body::Bytes(Vec::new()) };
        let mut given = HashSet::new();
        for (id, name) in [("1", "a_b.txt"), ("2", "A_B.txt"), ("3", "a_b"), ("4", "a_b"), ("5", "x/a_b")] {
            let placed = names.place(0, id, vec![file(name)]);
            assert!(given.insert(placed[0].name.clone()), "{name}");
            assert_eq!(placed[0].name.extension(), Path::new(name).extension());
        }
    }

    #[test]
    fn file_names_are_safe_and_unique() {
        let name = item_name(1_714_557_600_000, "../..\\a:b\u{0}?", "id");
        assert!(name.starts_with("2024-05-01T10-00-00Z _.._a_b__"), "{name}");
        assert!(!name.contains('/'));
        assert_ne!(item_name(0, "s", "a"), item_name(0, "s", "b"));
        assert!(item_name(0, &"\u{1F600}".repeat(500), "a").len() < 255);
    }
}
