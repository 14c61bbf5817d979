//! What was stored once stays readable: the golden repository of format 1 is read by this build, and by a reader that shares no
//! code with it. What is older than format 1, or newer, is refused.
//!
//! `tests/testdata/golden-1`: a node's folder with its segments, the key kit, and `expected.json`.
#![allow(clippy::unwrap_used)]

mod golden;
mod node;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use futures::TryStreamExt as _;
use golden::{Content, Expected, ExpectedItem, ExpectedSnapshot};
use holdfast_model::{ResourceId, TenantId};
use holdfast_record::{Footer, Pin, Superblock, Trailer};
use holdfast_repository::{EntryKind, JobKeys, KeyFile, KeyFileProvider, KeyProvider as _, SnapshotReader};
use holdfast_runtime::Step;
use holdfast_storage_node::{Node, Pace};
use node::{NOW_MS, NodeStore};
use serde_json::Value;

fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden-1")
}

fn expected() -> Expected {
    serde_json::from_slice(&fs::read(golden_folder().join("expected.json")).unwrap()).unwrap()
}

/// A copy that may be changed. Sealed segments are read-only as a node leaves them.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn golden_copy() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("node-1");
    copy_dir(&golden_folder().join("node-1"), &data);
    // It is frozen without its state, which has to be meant.
    fs::write(data.join("rebuild-state"), []).unwrap();
    (folder, data)
}

/// Every file and what is in it.
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes tests/testdata/golden-1, which is frozen: only for a repository of a later format, under another name"]
async fn write_the_golden_repository() {
    assert!(
        !golden_folder().join("node-1").exists(),
        "the golden repository is there: it is never made again"
    );
    golden::write(&golden_folder()).await.unwrap();
}

/// The keys of a job, from the kit alone.
async fn keys_of(tenant: TenantId, resource: ResourceId) -> JobKeys {
    let kit: Value = serde_json::from_slice(&fs::read(golden_folder().join("kit.json")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, kit["key-file"].to_string()).unwrap();
    let provider = KeyFileProvider::new(KeyFile::load(&path).unwrap());
    let find = |list: &Value, name: &str, id: String| {
        list.as_array().unwrap().iter().find(|one| one[name] == Value::String(id.clone())).unwrap().clone()
    };
    let wrapped = |one: &Value, name: &str| hex::decode(one[name].as_str().unwrap()).unwrap();
    let of_tenant = find(&kit["tenants"], "tenant", tenant.to_string());
    let of_resource = find(&of_tenant["resources"], "resource", resource.to_string());
    let tenant_keys = provider.unwrap_tenant_keys(tenant, &wrapped(&of_tenant, "tenant-keys")).await.unwrap();
    let resource_key =
        provider.unwrap_resource_key(tenant, resource, &wrapped(&of_resource, "resource-key")).await.unwrap();
    JobKeys { tenant, resource, tenant_keys, resource_key }
}

/// What this build reads of a snapshot.
async fn read_items(node: &Arc<Node>, keys: JobKeys, pin: &Pin) -> BTreeMap<String, ExpectedItem> {
    let caller = node::caller(keys.tenant, keys.resource);
    let store = Arc::new(NodeStore { node: node.clone(), caller });
    let reader = SnapshotReader::open(store, Arc::new(keys), pin).await.unwrap();
    assert_eq!((reader.header().format, reader.header().worker.as_str()), (1, "worker-1"));
    let mut items = BTreeMap::new();
    let mut entries = reader.items();
    while let Some((key, entry)) = entries.try_next().await.unwrap() {
        let mut parts = Vec::new();
        for part in reader.content(&entry).await.unwrap() {
            let bytes: Vec<_> = reader.read(&part).try_collect().await.unwrap();
            parts.push(Content::of(&bytes.concat()));
        }
        let item = ExpectedItem {
            kind: entry.kind.code(),
            flags: entry.flags.0,
            change: hex::encode(entry.change),
            size: entry.size,
            parent: hex::encode(entry.parent.0),
            sort: entry.sort,
            meta: Content::of(&reader.meta(&entry).await.unwrap()),
            parts,
        };
        items.insert(hex::encode(&key.0), item);
        if entry.kind == EntryKind::Folder {
            let id = String::from_utf8(key.0).unwrap();
            let children = reader.children(holdfast_repository::FolderKey(golden::folder_key(&id)));
            let _: Vec<_> = children.try_collect().await.unwrap();
        }
    }
    items
}

fn ids_of(snapshot: &ExpectedSnapshot) -> (TenantId, ResourceId) {
    let bytes = |text: &str| hex::decode(text).unwrap();
    (
        TenantId::from_slice(&bytes(&snapshot.tenant)).unwrap(),
        ResourceId::from_slice(&bytes(&snapshot.resource)).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_golden_repository_of_format_1_reads_back_and_verifies() {
    let (_folder, data) = golden_copy();
    // Index and state are made from the segments.
    let node = node::open(&data).unwrap();
    while node.scrub_step(NOW_MS, Pace::AtOnce).await.unwrap() != Step::Idle {}
    let status = node.status().unwrap();
    assert_eq!((status.pins, status.quarantined_records), (4, 0));
    assert!(status.records > 20);
    for snapshot in expected().snapshots {
        let (tenant, resource) = ids_of(&snapshot);
        let pins = node.read_pins(&node::caller(tenant, resource), 0).unwrap().pins;
        let pin =
            pins.iter().map(|pin| Pin::decode(pin).unwrap()).find(|pin| pin.sequence.0 == snapshot.sequence);
        let pin = pin.unwrap();
        assert_eq!(hex::encode(pin.hash().0), snapshot.pin);
        let items = read_items(&node, keys_of(tenant, resource).await, &pin).await;
        assert_eq!(items, snapshot.items);
    }
    node.close().await.unwrap();
}

#[test]
fn the_golden_repository_has_what_a_reader_must_know() {
    let files = content(&golden_folder());
    let total: usize = files.values().map(Vec::len).sum();
    assert!(total < 1 << 20, "{total} bytes");
    let segments =
        files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "seg"));
    let (mut classes, mut sealed, mut open) = (BTreeSet::new(), 0, 0);
    for (path, bytes) in segments {
        let superblock = Superblock::decode(bytes).unwrap();
        classes.insert(superblock.class);
        match Trailer::decode(&bytes[bytes.len() - 32..]) {
            Ok(trailer) => {
                let at = usize::try_from(trailer.footer_offset).unwrap();
                Footer::decode(&bytes[at..bytes.len() - 32]).unwrap();
                sealed += 1;
            }
            Err(_) => {
                let mark = path.with_file_name(format!("{}.mark", hex::encode(superblock.segment)));
                open += usize::from(files.contains_key(&mark));
            }
        }
    }
    assert_eq!(classes.len(), 3, "data, tree, pin");
    assert!(sealed >= 1 && open >= 1, "{sealed} sealed, {open} open");
}

// === The independent reader ===

fn run_reader(arguments: &[&str]) -> Output {
    let python = repository_root().join("target/test-tools/reader-venv/bin/python");
    assert!(python.exists(), "the independent reader's tools are missing: run tests/reader/install.sh");
    let script = repository_root().join("tests/reader").join(arguments[0]);
    let mut command = Command::new(python);
    command.arg("-B").arg(script).args(&arguments[1..]).output().unwrap()
}

fn restore(segments: &[&Path], out: &Path) -> (bool, Value) {
    let kit = golden_folder().join("kit.json");
    let mut arguments = vec!["holdfast_reader.py", "restore", "--kit", kit.to_str().unwrap()];
    arguments.extend(["--out", out.to_str().unwrap(), "--segments"]);
    arguments.extend(segments.iter().map(|path| path.to_str().unwrap()));
    let output = run_reader(&arguments);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), report)
}

/// Compares what the reader wrote of a snapshot with what is expected of it.
fn compare(folder: &Path, snapshot: &ExpectedSnapshot) {
    let index: Vec<Value> = serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let mut items = BTreeMap::new();
    for entry in index {
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        let number = |name: &str| entry[name].as_u64().unwrap();
        let files = entry["files"].as_array().unwrap().iter();
        let mut contents =
            files.map(|file| Content::of(&fs::read(folder.join(file.as_str().unwrap())).unwrap()));
        let item = ExpectedItem {
            kind: u8::try_from(number("kind")).unwrap(),
            flags: u16::try_from(number("flags")).unwrap(),
            change: text("change"),
            size: number("size"),
            parent: text("parent"),
            sort: number("sort"),
            meta: contents.next().unwrap(),
            parts: contents.collect(),
        };
        items.insert(text("key"), item);
    }
    assert_eq!(items, snapshot.items);
}

#[test]
fn a_reader_without_our_code_restores_the_golden_repository_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let (ok, report) = restore(&[&golden_folder().join("node-1")], &out);
    assert!(ok, "{report:#}");
    assert_eq!(report["problems"], serde_json::json!([]));
    let expected = expected();
    assert_eq!(report["snapshots"].as_array().unwrap().len(), expected.snapshots.len());
    for snapshot in &expected.snapshots {
        let place = format!("{}/{}/{}", snapshot.tenant, snapshot.resource, snapshot.sequence);
        compare(&out.join(place), snapshot);
    }
}

/// One bit in the middle of every data segment: of the record bodies mostly.
fn damage(data: &Path) {
    let mut n = 0;
    for (path, mut bytes) in content(&data.join("segments")) {
        if path.file_name().unwrap().to_str().unwrap().starts_with("data-") {
            let at = 4096 + (bytes.len() - 4096) / 2;
            bytes[at] ^= 0x10;
            fs::write(path, bytes).unwrap();
            n += 1;
        }
    }
    assert!(n > 0);
}

#[test]
fn a_reader_without_our_code_notices_damage_and_reads_another_copy() {
    let (folder, damaged) = golden_copy();
    damage(&damaged);
    let (ok, report) = restore(&[&damaged], &folder.path().join("one"));
    assert!(!ok && !report["problems"].as_array().unwrap().is_empty(), "{report:#}");

    let out = folder.path().join("two");
    let (ok, report) = restore(&[&damaged, &golden_folder().join("node-1")], &out);
    assert!(!ok, "the damage is still told");
    let expected = expected();
    for (snapshot, told) in expected.snapshots.iter().zip(report["snapshots"].as_array().unwrap()) {
        assert_eq!(told["restored"], serde_json::json!(snapshot.items.len()), "{report:#}");
        compare(&out.join(told["folder"].as_str().unwrap()), snapshot);
    }
}

#[test]
fn the_vectors_hold_for_a_reader_without_our_code() {
    let root = repository_root();
    let folders = ["record/vectors", "repository/vectors"].map(|folder| root.join(folder));
    let output =
        run_reader(&["check_vectors.py", folders[0].to_str().unwrap(), folders[1].to_str().unwrap()]);
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{errors}");
    assert!(
        told.contains("chunker.json") && told.contains("tree.json") && told.contains("recipe.json"),
        "{told}"
    );
}

// === Format 0, which was a preview ===

/// The bytes that the last build of format 0 wrote.
fn preview(name: &str) -> Vec<u8> {
    let path = repository_root().join("record/tests/testdata/v0").join(name).with_extension("hex");
    let text = fs::read_to_string(path).unwrap();
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

#[test]
fn data_of_format_0_is_refused_by_both_readers_and_stays_as_it_is() {
    const REFUSAL: &str = "format 0 is a preview and is not read by this version";
    let (_folder, data) = golden_copy();
    let segment = data.join("segments/tree-04040404040404040404040404040404.seg");
    let block = preview("superblock");
    fs::write(&segment, [&block[..], &preview("record-at")].concat()).unwrap();
    let before = content(&data);
    let told = node::try_open(&data).map(drop).unwrap_err().to_string();
    assert!(told.contains(REFUSAL) && told.contains("tree-0404"), "{told}");
    assert_eq!(content(&data), before);

    let output = run_reader(&["holdfast_reader.py", "list", "--segments", data.to_str().unwrap()]);
    assert!(!output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["problems"][0].as_str().unwrap().contains(REFUSAL), "{report:#}");

    // The folder itself, as format 0 marked it.
    fs::remove_file(&segment).unwrap();
    let marker = data.join("holdfast-storage-node.json");
    fs::write(&marker, fs::read_to_string(&marker).unwrap().replace("\"version\": 1", "\"version\": 0"))
        .unwrap();
    let before = content(&data);
    let told = node::try_open(&data).map(drop).unwrap_err().to_string();
    assert!(told.contains(REFUSAL), "{told}");
    assert_eq!(content(&data), before);
}
