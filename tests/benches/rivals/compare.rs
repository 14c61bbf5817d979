//! Whether what was restored is what was backed up.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Compares the names of all files, and the bytes of every n-th; how many.
pub fn some_files(source: &Path, restored: &Path, every: usize) -> usize {
    let (ours, theirs) = (files(source), files(restored));
    assert!(ours == theirs, "{} files in {}, {} came back", ours.len(), source.display(), theirs.len());
    let some: Vec<&PathBuf> = ours.iter().step_by(every).collect();
    for file in &some {
        let (before, after) = (fs::read(source.join(file)), fs::read(restored.join(file)));
        let same = before.expect("read the source") == after.expect("read what was restored");
        assert!(same, "{} came back different", file.display());
    }
    some.len()
}

/// Relative paths, sorted.
fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("list a folder") {
            let entry = entry.expect("list a folder");
            if entry.file_type().expect("a type").is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root).expect("below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}
