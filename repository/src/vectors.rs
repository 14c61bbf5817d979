//! The vectors of format 1 in `vectors/`: this crate makes them, and `tests/reader` checks them without it.
//!
//! They are frozen: the writers here are for a new file or a new case, and a change of an old one is a change of the format.
#![allow(clippy::unwrap_used)]

mod recipes;

use std::{fs, path::PathBuf, sync::Arc};

use bytes::Bytes;
use holdfast_model::{Random, ResourceId, TenantId};
use holdfast_record::{Chunker, Codec, RecordKind, SealedRecord, short_ref};
use serde_json::{Value, json};

use crate::{
    error::SealError,
    fetch::Fetcher,
    item::{BlobRef, EntryFlags, EntryKind, FolderKey, ItemEntry, ItemFields},
    key_file::{KeyError, KeyFile, KeyFileProvider, KeyProvider as _},
    keys::{JobKeys, ResourceKey, TenantKeys},
    memory_store::MemoryStore,
    seal::{SealOptions, Sealer},
    secret::{ContentHash, Key},
    snapshot::TreeRoots,
    snapshot_writer::WriterOptions,
    tree::{Edit, Merge, NodeStore, TreeKind},
    upload::Uploader,
};

/// `BLAKE3("holdfast vectors " + name)` as an endless stream.
pub(crate) struct Named(std::sync::Mutex<blake3::OutputReader>);

impl Named {
    pub(crate) fn new(name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"holdfast vectors ").update(name.as_bytes());
        Self(std::sync::Mutex::new(hasher.finalize_xof()))
    }

    pub(crate) fn bytes(name: &str, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Self::new(name).fill(&mut bytes);
        bytes
    }
}

impl Random for Named {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().unwrap().fill(buffer);
    }
}

/// The keys of every vector.
pub(crate) fn keys() -> JobKeys {
    let mut tenant_keys = TenantKeys::generate(&Named::new("tenant keys"));
    tenant_keys.enc.insert(7, Key::generate(&Named::new("epoch 7")));
    JobKeys {
        tenant: TenantId([0xa1; 16]),
        resource: ResourceId([0xb2; 16]),
        tenant_keys,
        resource_key: ResourceKey::generate(&Named::new("resource key")),
    }
}

pub(crate) fn with_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name)
}

pub(crate) fn stored(name: &str) -> Value {
    serde_json::from_slice(&fs::read(path(name)).unwrap()).unwrap()
}

fn write(name: &str, value: &Value) {
    fs::write(path(name), serde_json::to_string_pretty(value).unwrap() + "\n").unwrap();
}

fn key_hex(key: &Key) -> String {
    hex::encode(key.0)
}

pub(crate) fn bytes_of(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn kinds() -> impl Iterator<Item = RecordKind> {
    RecordKind::ALL.iter().copied().take(5)
}

/// Names, keys, and everything that is derived from them.
fn keys_vector() -> Value {
    let keys = keys();
    let (sealer, tenant) = (Sealer::new(&keys), &keys.tenant_keys);
    let plaintexts = [Vec::new(), b"holdfast".to_vec(), Named::bytes("plaintext", 1_025)];
    let hashes = kinds().flat_map(|kind| plaintexts.iter().map(move |plain| (kind, plain))).map(|(kind, plain)| {
        let h = sealer.hash(kind, plain);
        let id = sealer.id(h);
        json!({
            "kind": kind.code(), "plaintext": hex::encode(plain), "h": hex::encode(h.0), "id": hex::encode(id.0),
            "reference": hex::encode(short_ref(&id)),
        })
    });
    let h = sealer.hash(RecordKind::Data, b"holdfast");
    let masters = [(1, &tenant.enc[&1]), (7, &tenant.enc[&7]), (0, &keys.resource_key.0)];
    let chunk_keys = masters.map(|(epoch, master)| {
        let key = master.derive(&[b"hf-chunk-1", &h.0]);
        json!({ "epoch": epoch, "h": hex::encode(h.0), "key": key_hex(&key) })
    });
    let boundaries =
        [(TreeKind::Items, 0_u8), (TreeKind::Items, 1), (TreeKind::Children, 0)].map(|(tree, level)| {
            let key = tenant.boundary.derive(&[b"hf-boundary-1", &[tree.code(), level]]);
            json!({ "tree": tree.code(), "level": level, "key": key_hex(&key) })
        });
    let root = sealer.hash(RecordKind::Snapshot, b"snapshot");
    let roots = TreeRoots { items: Some(root), children: None };
    json!({
        "tenant": keys.tenant.to_string(), "resource": keys.resource.to_string(),
        "job-keys": hex::encode(&*keys.to_bytes()), "tenant-keys": hex::encode(&*tenant.to_bytes()),
        "resource-key": key_hex(&keys.resource_key.0),
        "resource-hash-key": key_hex(&tenant.hash.derive(&[b"hf-resource-hash-1", &keys.resource_key.0.0])),
        "gear-seed": format!("{:016x}", sealer.gear_seed()),
        "hashes": hashes.collect::<Vec<_>>(), "chunk-keys": chunk_keys, "boundary-keys": boundaries,
        "sealed-root": {
            "h": hex::encode(root.0), "root": hex::encode(sealer.id(root).0), "sealed": hex::encode(sealer.seal_root(root)),
        },
        "job-blob": {
            "context": "checkpoint", "plaintext": hex::encode(b"state"),
            "sealed": hex::encode(keys.seal_blob("checkpoint", &Named::new("nonce"), b"state")),
        },
        "tree-roots": hex::encode(roots.to_bytes()),
        "kit": with_runtime(kit(&keys)),
    })
}

/// The keys wrapped by a key file, as a key kit has them.
async fn kit(keys: &JobKeys) -> Value {
    let file = KeyFile::generate(&Named::new("key file"));
    let provider = KeyFileProvider::new(file.clone());
    let tenant_keys = provider.wrap_tenant_keys(keys.tenant, &keys.tenant_keys).await.unwrap();
    let resource = provider.wrap_resource_key(keys.tenant, keys.resource, &keys.resource_key).await.unwrap();
    json!({
        "version": 1, "key-file": file, "fingerprint": file.fingerprint(),
        "tenants": [{
            "tenant": keys.tenant.to_string(), "tenant-keys": hex::encode(tenant_keys),
            "resources": [{ "resource": keys.resource.to_string(), "resource-key": hex::encode(resource) }],
        }],
    })
}

/// Records, whole; and the same with something wrong.
fn sealed_vector() -> Value {
    let (keys, prose) = (keys(), b"the same words over and over again, ".repeat(40));
    let sealer = Sealer::new(&keys);
    let noise = Named::bytes("noise", 300);
    let cases: [(&str, RecordKind, Chunker, &[u8], usize); 6] = [
        ("empty", RecordKind::Data, Chunker::Whole, b"", 0),
        ("incompressible", RecordKind::Data, Chunker::Fcdc1, &noise, 0),
        ("compressed", RecordKind::Data, Chunker::Fcdc1, &prose, 0),
        ("bundle with references", RecordKind::Bundle, Chunker::Whole, &prose, 3),
        ("leaf", RecordKind::ManifestLeaf, Chunker::Whole, &noise, 1),
        ("snapshot", RecordKind::Snapshot, Chunker::Whole, &noise, 2),
    ];
    let mut records = Vec::new();
    for (name, kind, chunker, plain, n_refs) in cases {
        let refs =
            (0..n_refs).map(|n| Named::bytes(&format!("reference {n}"), 16).try_into().unwrap()).collect();
        let h = sealer.hash(kind, plain);
        let options = SealOptions { chunker, ..SealOptions::default() };
        let record = sealer.seal(kind, h, plain, refs, options).unwrap();
        records.push(json!({
            "name": name, "h": hex::encode(h.0), "plaintext": hex::encode(plain), "record": hex::encode(record.encode()),
        }));
    }
    let (h, good) = (sealer.hash(RecordKind::Data, &noise), records[1]["record"].clone());
    let good = SealedRecord::decode(bytes_of(&good).into()).unwrap();
    let mut wrong: Vec<(&str, ContentHash, SealedRecord)> = Vec::new();
    let mut add = |name, h, change: fn(&mut SealedRecord)| {
        let mut record = good.clone();
        change(&mut record);
        wrong.push((name, h, record));
    };
    add("another kind", h, |record| record.header.kind = RecordKind::Bundle);
    add("another codec", h, |record| record.header.codec = Codec::Zstd);
    add("another chunker", h, |record| record.header.chunker = Chunker::Whole);
    add("another key epoch", h, |record| record.header.key_epoch = 1);
    add("a key epoch nobody has", h, |record| record.header.key_epoch = 99);
    add("another length", h, |record| record.header.pt_len += 1);
    add("another nonce", h, |record| record.nonce[0] ^= 1);
    add("another h", sealer.hash(RecordKind::Data, b"other"), |_| {});
    add("another ciphertext", h, |record| {
        let mut bytes = record.ciphertext.to_vec();
        bytes[0] ^= 1;
        record.ct = *blake3::hash(&bytes).as_bytes();
        record.ciphertext = bytes.into();
    });
    let wrong = wrong.iter().map(|(name, h, record)| {
        json!({ "name": name, "h": hex::encode(h.0), "record": hex::encode(record.encode()) })
    });
    json!({ "keys": "keys.json", "records": records, "refused": wrong.collect::<Vec<_>>() })
}

/// Roots of trees: how many entries.
const TREE_SIZES: [u32; 6] = [0, 1, 2, 1_000, 5_000, 100_000];

/// Keys are `item-00000000` and so on. With H the BLAKE3 of the key, its value among the children is H; among the items it is a
/// message whose change is the first half of H, whose size and sort are the number, and whose properties are the first byte of h = H.
fn tree_entry(kind: TreeKind, n: u32) -> Edit {
    let key = format!("item-{n:08}").into_bytes();
    let hash = *blake3::hash(&key).as_bytes();
    let fields = ItemFields {
        kind: EntryKind::MailMessage,
        flags: EntryFlags::default(),
        change: *hash.first_chunk().unwrap(),
        size: n.into(),
        parent: FolderKey::default(),
        sort: n.into(),
    };
    let value = match kind {
        TreeKind::Items => {
            ItemEntry::new(fields, BlobRef { h: ContentHash(hash), offset: 0, len: 1 }, None).encode()
        }
        TreeKind::Children => Bytes::copy_from_slice(&hash),
    };
    (key.into(), Some(value))
}

/// The root of so many entries that come in batches of so many, in an order that has nothing to do with their keys.
async fn tree_root(kind: TreeKind, n: u32, batch: usize) -> Option<ContentHash> {
    let (store, sealer) = (Arc::new(MemoryStore::new()), Arc::new(Sealer::new(&keys())));
    let nodes = Arc::new(NodeStore::new(kind, Fetcher::new(store.clone(), sealer.clone())));
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
    let uploader = Uploader::start(store, sealer, pool, WriterOptions::default());
    let mut shuffled: Vec<u32> = (0..n).collect();
    shuffled.sort_by_key(|n| *blake3::hash(&n.to_le_bytes()).as_bytes());
    let mut root = None;
    for some in shuffled.chunks(batch.max(1)) {
        let mut edits: Vec<Edit> = some.iter().map(|n| tree_entry(kind, *n)).collect();
        edits.sort_unstable();
        let merge = Merge { nodes: &nodes, uploader: &uploader };
        root = merge.apply(root, edits, &mut |_, _, _| Ok(())).await.unwrap();
        uploader.flush().await.unwrap();
    }
    root
}

fn tree_vector() -> Value {
    let mut cases = Vec::new();
    for kind in [TreeKind::Items, TreeKind::Children] {
        for n in TREE_SIZES {
            let root = with_runtime(tree_root(kind, n, n as usize));
            cases.push(json!({ "tree": kind.code(), "n": n, "root": root.map(|root| hex::encode(root.0)) }));
        }
    }
    json!({ "keys": "keys.json", "cases": cases })
}

#[test]
#[ignore = "writes vectors; what is there is frozen"]
fn write_the_vectors_of_format_1() {
    write("keys.json", &keys_vector());
    write("sealed.json", &sealed_vector());
    write("tree.json", &tree_vector());
    write("recipe.json", &with_runtime(recipes::vector()));
}

#[test]
fn names_and_keys_are_those_of_the_vectors() {
    assert_eq!(keys_vector(), stored("keys.json"));
    let (vector, keys) = (stored("keys.json"), keys());
    assert_eq!(JobKeys::from_bytes(&bytes_of(&vector["job-keys"])).unwrap(), keys);
    let sealer = Sealer::new(&keys);
    let sealed = &vector["sealed-root"];
    let root = holdfast_model::ChunkId::from_slice(&bytes_of(&sealed["root"])).unwrap();
    assert_eq!(
        sealer.open_root(root, &bytes_of(&sealed["sealed"])).unwrap().0.to_vec(),
        bytes_of(&sealed["h"])
    );
    let blob = &vector["job-blob"];
    assert_eq!(keys.open_blob("checkpoint", &bytes_of(&blob["sealed"])).unwrap(), b"state");
}

#[test]
fn records_of_the_vectors_open_and_wrong_ones_do_not() {
    let (vector, keys) = (stored("sealed.json"), keys());
    let sealer = Sealer::new(&keys);
    let read = |case: &Value| {
        let record = SealedRecord::decode(bytes_of(&case["record"]).into()).unwrap();
        record.verify().unwrap();
        (record, ContentHash(bytes_of(&case["h"]).try_into().unwrap()))
    };
    let again = sealed_vector();
    for (n, case) in vector["records"].as_array().unwrap().iter().enumerate() {
        let (record, h) = read(case);
        let codec = record.header.codec;
        assert_eq!(sealer.open(record, h).unwrap(), bytes_of(&case["plaintext"]), "{}", case["name"]);
        // Another version of the compressor may make other bytes of the same.
        if codec == Codec::None {
            assert_eq!(&again["records"][n], case);
        }
    }
    for case in vector["refused"].as_array().unwrap() {
        let (record, h) = read(case);
        assert!(sealer.open(record, h).is_err(), "{}", case["name"]);
    }
    assert!(vector["refused"].as_array().unwrap().len() >= 9);
}

#[test]
fn trees_have_the_roots_of_the_vectors_whatever_the_order_of_their_entries() {
    let vector = stored("tree.json");
    let cases = vector["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2 * TREE_SIZES.len());
    for case in cases {
        let n = u32::try_from(case["n"].as_u64().unwrap()).unwrap();
        let kind = if case["tree"] == 0 { TreeKind::Items } else { TreeKind::Children };
        let batches = if n < 10_000 { vec![n as usize, 333] } else { vec![n as usize / 3 + 1] };
        for batch in batches {
            let root = with_runtime(tree_root(kind, n, batch));
            assert_eq!(
                json!(root.map(|root| hex::encode(root.0))),
                case["root"],
                "{case} in batches of {batch}"
            );
        }
    }
}

#[test]
fn what_is_of_format_0_is_refused_with_a_clear_line() {
    const REFUSAL: &str = "format 0 is a preview and is not read by this version";
    let keys = keys();
    let preview = |bytes: &[u8]| [&[0], &bytes[1..]].concat();
    let told = |error: KeyError| {
        assert!(error.to_string().contains(REFUSAL), "{error}");
    };
    told(JobKeys::from_bytes(&preview(&keys.to_bytes())).unwrap_err());
    told(TenantKeys::from_bytes(&preview(&keys.tenant_keys.to_bytes())).unwrap_err());
    let blob = keys.seal_blob("checkpoint", &Named::new("nonce"), b"state");
    told(keys.open_blob("checkpoint", &preview(&blob)).unwrap_err());
    let provider = KeyFileProvider::new(KeyFile::generate(&Named::new("key file")));
    let wrapped = with_runtime(provider.wrap_tenant_keys(keys.tenant, &keys.tenant_keys)).unwrap();
    told(with_runtime(provider.unwrap_tenant_keys(keys.tenant, &preview(&wrapped))).unwrap_err());
    // A preview build's own sealed blob of a job began with its nonce: it does not open either.
    assert!(keys.open_blob("checkpoint", &blob[1..]).is_err());

    let roots = TreeRoots::default().to_bytes();
    let told = |error: crate::Error| {
        assert!(error.to_string().contains(REFUSAL), "{error}");
    };
    told(TreeRoots::from_bytes(&preview(&roots)).unwrap_err());
    told(crate::snapshot::SnapshotHeader::decode(&[0; 200]).unwrap_err());
    told(crate::blob::decode(&vec![0; 3].into()).unwrap_err());
    told(crate::blob::decode_page(&[0; 5]).unwrap_err());
    told(crate::tree::Node::decode(&vec![0; 5].into(), TreeKind::Items).unwrap_err());
    let newer = TreeRoots::from_bytes(&[2, 0]).unwrap_err().to_string();
    assert_eq!(newer, "the tree roots: format 2 is newer than this holdfast reads (1): use a newer holdfast");
}

#[test]
fn a_key_file_of_another_version_is_refused_whatever_else_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    for (text, line) in [
        (r#"{"version": 0, "keys": []}"#, "format 0 is a preview and is not read by this version"),
        (
            r#"{"version": 2, "vault": {}}"#,
            "format 2 is newer than this holdfast reads (1): use a newer holdfast",
        ),
    ] {
        fs::write(&path, text).unwrap();
        let error = KeyFile::load(&path).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains("key file"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_later_key_of_a_resource_is_not_taken_for_the_first() {
    let keys = keys();
    let sealer = Sealer::new(&keys);
    let h = sealer.hash(RecordKind::ManifestLeaf, b"leaf");
    let mut record =
        sealer.seal(RecordKind::ManifestLeaf, h, b"leaf", Vec::new(), SealOptions::default()).unwrap();
    record.header.key_epoch = 1;
    assert!(matches!(sealer.open(record, h), Err(SealError::NoKey { epoch: 1, .. })));
}
