//! What is of another format, or needs features that are not known, is refused in one line, and nothing is changed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use holdfast_record::Features;
use holdfast_runtime::Step;

use crate::{
    Error, Node, Pace,
    segment::SegmentId,
    testing::{Rig, SESSION, caller, put_pin, record},
};

const PREVIEW: &str = "format 0 is a preview and is not read by this version";
const NEWER: &str = "format 2 is newer than this holdfast reads (1): use a newer holdfast";

/// Where the superblock says what.
const VERSION_AT: usize = 8;
const SEGMENT_AT: usize = 56;
const READ_AT: usize = 80;
const WRITE_AT: usize = 88;
const GC_AT: usize = 96;
const CHECK_AT: usize = 104;

/// A node with a record and a pin, stopped.
async fn stopped() -> Rig {
    let rig = Rig::new();
    let node = rig.open();
    node.replicate(&caller(1), SESSION, vec![record(1, 5_000).encode()]).await.unwrap();
    assert!(put_pin(&node, 1, 1).is_ok());
    node.close().await.unwrap();
    rig
}

/// Every file of the folder.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            files.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    files
}

fn refusal(rig: &Rig) -> String {
    let before = content(&rig.options.data);
    let error = rig.try_open().map(drop).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error}");
    assert_eq!(content(&rig.options.data), before, "a refusal changed something");
    error.to_string()
}

/// Changes the superblock of a segment; its checksum is right again.
fn patch(path: &Path, at: usize, bytes: &[u8]) -> SegmentId {
    let mut file = fs::read(path).unwrap();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&file[..4092]);
    file[4092..4096].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, &file).unwrap();
    file[SEGMENT_AT..SEGMENT_AT + 16].try_into().unwrap()
}

fn edit_marker(rig: &Rig, from: &str, to: &str) {
    let path = rig.options.data.join("holdfast-storage-node.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

#[tokio::test]
async fn a_folder_of_another_format_is_refused_and_stays_as_it_is() {
    for (version, line) in [("0", PREVIEW), ("2", NEWER)] {
        let rig = stopped().await;
        edit_marker(&rig, "\"version\": 1", &format!("\"version\": {version}"));
        assert!(refusal(&rig).contains(line));
    }
    // As format 0 wrote it, and as a later one may: other fields do not matter then.
    let rig = stopped().await;
    let marker = rig.options.data.join("holdfast-storage-node.json");
    fs::write(&marker, r#"{"version": 0, "cluster": "test", "node-id": 1, "disk-id": "00"}"#).unwrap();
    assert!(refusal(&rig).contains(PREVIEW));
    fs::write(&marker, r#"{"version": 2, "who": []}"#).unwrap();
    assert!(refusal(&rig).contains(NEWER));
}

#[tokio::test]
async fn a_segment_of_another_format_is_refused_and_stays_as_it_is() {
    for class in ["data", "pin"] {
        for (version, line) in [(0, PREVIEW), (2, NEWER)] {
            let rig = stopped().await;
            patch(&rig.segment(class), VERSION_AT, &[version]);
            let told = refusal(&rig);
            assert!(told.contains(line) && told.contains(".seg"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_damaged_version_is_damage_and_no_other_format() {
    let rig = stopped().await;
    let path = rig.segment("data");
    let mut bytes = fs::read(&path).unwrap();
    bytes[VERSION_AT] = 2;
    fs::write(&path, bytes).unwrap();
    let node = rig.open();
    assert_eq!(node.status().unwrap().quarantined_records, 1);
    assert!(path.exists());
}

#[tokio::test]
async fn a_database_of_another_format_is_not_taken_for_an_empty_one() {
    let rig = stopped().await;
    let state = rig.options.data.join("state.redb");
    fs::remove_file(&state).unwrap();
    let database = redb::Database::create(&state).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(redb::TableDefinition::<&str, &[u8]>::new("pins-0")).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = rig.try_open().map(drop).unwrap_err().to_string();
    assert!(error.contains(PREVIEW) && error.contains("state.redb"), "{error}");
}

#[tokio::test]
async fn unknown_read_and_write_features_keep_a_node_from_touching_a_segment() {
    let cases = [("data", READ_AT, "read"), ("data", WRITE_AT, "write"), ("pin", WRITE_AT, "write")];
    for (class, at, verb) in cases {
        let rig = stopped().await;
        patch(&rig.segment(class), at, &4_u64.to_le_bytes());
        let told = refusal(&rig);
        assert!(told.contains(&format!("needs the {verb} features 0x4")), "{told}");
    }
    let rig = stopped().await;
    edit_marker(&rig, "\"write\": 0", "\"write\": 8");
    let told = refusal(&rig);
    assert!(told.contains("data folder needs the write features 0x8"), "{told}");
}

#[tokio::test]
async fn what_a_sealed_segment_needs_to_be_appended_to_does_not_matter() {
    let rig = stopped().await;
    let path = rig.segment("data");
    patch(&path, WRITE_AT, &4_u64.to_le_bytes());
    fs::remove_file(path.with_file_name(format!("{}.mark", segment_name(&path)))).unwrap();
    let node = rig.open();
    assert_eq!(
        node.get(&caller(1), &[record(1, 5_000).header.id], 1 << 20).await.unwrap().iter().flatten().count(),
        1
    );
    // It has no footer any more. Another build may know how to make it; this one leaves it.
    let before = fs::read(&path).unwrap();
    while node.scrub_step(2_000_000, Pace::AtOnce).await.unwrap() != Step::Idle {}
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn unknown_check_and_gc_features_are_passed_over_and_kept() {
    let rig = stopped().await;
    let segment = patch(&rig.segment("data"), CHECK_AT, &1_u64.to_le_bytes());
    let node = rig.open();
    assert!(node.store().may_condemn(&segment));
    assert_eq!(scrubbed(&node), 0);

    let rig = stopped().await;
    let segment = patch(&rig.segment("data"), GC_AT, &1_u64.to_le_bytes());
    let node = rig.open();
    assert!(!node.store().may_condemn(&segment));
    assert_eq!(scrubbed(&node), 1);
    assert!(node.store().may_condemn(&[9; 16]), "another segment");

    let rig = stopped().await;
    edit_marker(&rig, "\"gc\": 0", "\"gc\": 1");
    let segment = patch(&rig.segment("data"), 0, b"H");
    assert!(!rig.open().store().may_condemn(&segment));
}

/// Ruins the first block of a sealed segment, and lets the scrub find it; says what the block is then.
async fn ruined_and_scrubbed(used: &str) -> (Rig, Option<holdfast_record::Superblock>) {
    let rig = stopped().await;
    edit_marker(&rig, "\"features\":", &format!("\"features-used\": {used}, \"features\":"));
    let path = rig.segment("data");
    fs::remove_file(path.with_file_name(format!("{}.mark", segment_name(&path)))).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[GC_AT + 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let node = rig.open();
    while node.scrub_step(2_000_000, Pace::AtOnce).await.unwrap() != Step::Idle {}
    assert!(node.status().unwrap().quarantined_records > 0, "not reported");
    drop(node);
    let block = holdfast_record::Superblock::decode(&fs::read(&path).unwrap()).ok();
    (rig, block)
}

#[tokio::test]
async fn a_superblock_made_anew_needs_all_that_any_segment_of_the_folder_may_need() {
    let (_rig, block) = ruined_and_scrubbed("{\"gc\": 4, \"check\": 0}").await;
    assert_eq!(block.unwrap().features, Features { gc: 4, ..Features::default() });
    let (_rig, block) = ruined_and_scrubbed("{}").await;
    assert_eq!(block.unwrap().features, Features::default());
    // Another build may know how to make it; this one leaves it.
    let (_rig, block) = ruined_and_scrubbed("{\"write\": 4}").await;
    assert!(block.is_none());
}

#[tokio::test]
async fn a_segment_whose_superblock_cannot_be_read_counts_to_have_all_features() {
    let rig = stopped().await;
    edit_marker(&rig, "\"features\":", "\"features-used\": {\"gc\": 4}, \"features\":");
    let path = rig.segment("data");
    let segment = patch(&path, 0, b"H");
    assert!(rig.open().store().may_condemn(&segment), "its superblock says that it needs nothing");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(!rig.open().store().may_condemn(&segment));

    // It is open, and this build may not know how to write to it, or how to read it.
    for verb in ["write", "read"] {
        let rig = stopped().await;
        let used = format!("\"features-used\": {{\"{verb}\": 4}}, \"features\":");
        edit_marker(&rig, "\"features\":", &used);
        let path = rig.segment("data");
        let mut bytes = fs::read(&path).unwrap();
        bytes[4_000] ^= 1;
        fs::write(&path, bytes).unwrap();
        let told = refusal(&rig);
        assert!(told.contains(&format!("needs the {verb} features 0x4")), "{told}");
    }
}

#[tokio::test]
async fn what_this_build_writes_needs_no_features() {
    let rig = stopped().await;
    for class in ["data", "pin"] {
        let bytes = fs::read(rig.segment(class)).unwrap();
        let superblock = holdfast_record::Superblock::decode(&bytes).unwrap();
        assert_eq!((bytes[VERSION_AT], superblock.features), (1, Features::default()));
    }
}

/// How many segments the scrub looks at.
fn scrubbed(node: &Node) -> usize {
    node.store().segments().unwrap().len()
}

fn segment_name(path: &Path) -> String {
    let name = path.file_stem().unwrap().to_str().unwrap();
    name.split_once('-').unwrap().1.to_owned()
}
