//! Names of exported files: what any file system takes, and no two the same.

use std::{collections::HashMap, path::PathBuf};

use crate::workload::snapshot_folders::SnapshotFolders;

/// The longest part of a file name made of a subject.
const MAX_SUBJECT_CHARS: usize = 60;
/// The longest name of a folder.
const MAX_FOLDER_CHARS: usize = 100;

/// Per folder its path.
pub(super) fn folder_names(folders: &SnapshotFolders) -> HashMap<usize, PathBuf> {
    let mut names: HashMap<usize, PathBuf> = HashMap::new();
    let mut taken = std::collections::HashSet::new();
    for (index, folder) in folders.all().iter().enumerate() {
        let Some(parent) = folder.parent else {
            names.insert(index, PathBuf::new());
            continue;
        };
        let base = names.get(&parent).cloned().unwrap_or_default();
        let mut path = base.join(file_name(&folder.name, MAX_FOLDER_CHARS));
        if !taken.insert(path.to_string_lossy().to_lowercase()) {
            path = base.join(format!(
                "{}-{}",
                file_name(&folder.name, MAX_FOLDER_CHARS),
                hex::encode(&folder.key[..4])
            ));
            taken.insert(path.to_string_lossy().to_lowercase());
        }
        names.insert(index, path);
    }
    names
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

    #[test]
    fn file_names_are_safe_and_unique() {
        let name = item_name(1_714_557_600_000, "../..\\a:b\u{0}?", "id");
        assert!(name.starts_with("2024-05-01T10-00-00Z _.._a_b__"), "{name}");
        assert!(!name.contains('/'));
        assert_ne!(item_name(0, "s", "a"), item_name(0, "s", "b"));
        assert!(item_name(0, &"\u{1F600}".repeat(500), "a").len() < 255);
    }
}
