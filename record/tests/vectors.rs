//! The vectors of format 1 in `vectors/structures.json`: this crate makes them, and `tests/reader` checks them without it.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use bytes::Bytes;
use holdfast_model::{
    ChunkId, Epoch, Fence, Generation, PinHash, RecordKey, ResourceId, Sequence, SnapshotId, TenantId,
    Workload,
};
use holdfast_record::{
    Chunker, Codec, Error, Features, Footer, FooterEntry, Pin, Placement, RecordKind, SealedHeader,
    SealedRecord, SegmentClass, Superblock, Trailer, hash_refs,
};
use serde_json::{Value, json};

const SEGMENT: [u8; 16] = [0x5e; 16];

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/structures.json")
}

/// `BLAKE3("holdfast vectors " + name)`, as much of it as is wanted.
fn named<const N: usize>(name: &str) -> [u8; N] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"holdfast vectors ").update(name.as_bytes());
    let mut bytes = [0; N];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn record(kind: RecordKind, n_refs: usize, ciphertext: &[u8]) -> SealedRecord {
    let mut refs: Vec<[u8; 16]> = (0..n_refs).map(|n| named(&format!("reference {n}"))).collect();
    refs.sort_unstable();
    SealedRecord {
        header: SealedHeader {
            kind,
            codec: Codec::Zstd,
            chunker: Chunker::Fcdc1Large,
            key_epoch: 0x0102_0304,
            tenant: TenantId(named("tenant")),
            id: ChunkId(named("id")),
            pt_len: 1_234_567,
            refs_hash: hash_refs(&refs),
        },
        nonce: named("nonce"),
        ct: *blake3::hash(ciphertext).as_bytes(),
        refs,
        placement: Placement { writer: 11, session: 22, write_epoch: 33, lock_floor_ms: 1_790_000_000_000 },
        ciphertext: ciphertext.to_vec().into(),
    }
}

fn record_fields(record: &SealedRecord) -> Value {
    let SealedRecord { header, nonce, ct, refs, placement, ciphertext } = record;
    json!({
        "kind": header.kind.code(), "flags": 0, "codec": header.codec.code(), "chunker": header.chunker.code(),
        "key_epoch": header.key_epoch, "tenant": header.tenant.to_string(), "id": header.id.to_string(),
        "pt_len": header.pt_len, "refs_hash": hex::encode(header.refs_hash), "aad": hex::encode(header.aad()),
        "nonce": hex::encode(nonce), "ct": hex::encode(ct), "refs": refs.iter().map(hex::encode).collect::<Vec<_>>(),
        "writer": placement.writer, "session": placement.session, "write_epoch": placement.write_epoch,
        "lock_floor": placement.lock_floor_ms, "ciphertext": hex::encode(ciphertext), "len": record.encoded_len(),
    })
}

fn pin(previous: Option<PinHash>) -> Pin {
    Pin {
        tenant: TenantId(named("tenant")),
        resource: ResourceId(named("resource")),
        workload: Workload::Mail,
        sequence: Sequence(3),
        fence: Fence { generation: Generation(4), attempt: 5 },
        epoch: Epoch(6),
        snapshot: SnapshotId(named("snapshot")),
        root: ChunkId(named("root")),
        sealed_root: Bytes::copy_from_slice(&named::<48>("sealed root")),
        previous,
        created_ms: 1_790_000_000_000,
        retain_until_ms: 1_890_000_000_000,
        items: 13,
        items_missing: 14,
    }
}

fn pin_fields(pin: &Pin) -> Value {
    json!({
        "workload": pin.workload.code(), "flags": u16::from(pin.previous.is_some()), "tenant": pin.tenant.to_string(),
        "resource": pin.resource.to_string(), "sequence": pin.sequence.0,
        "fence": [pin.fence.generation.0, pin.fence.attempt], "epoch": pin.epoch.0,
        "snapshot": hex::encode(pin.snapshot.0), "root": pin.root.to_string(),
        "previous": pin.previous.map(|hash| hex::encode(hash.0)), "created_ms": pin.created_ms,
        "retain_until_ms": pin.retain_until_ms, "items": pin.items, "items_missing": pin.items_missing,
        "sealed_root": hex::encode(&pin.sealed_root), "hash": hex::encode(pin.hash().0),
    })
}

fn superblock(class: SegmentClass, features: Features) -> Superblock {
    Superblock {
        cluster: named("cluster"),
        node: 7,
        disk: named("disk"),
        segment: SEGMENT,
        generation: 8,
        class,
        features,
    }
}

fn superblock_fields(block: &Superblock) -> Value {
    let Features { read, write, gc, check } = block.features;
    json!({
        "class": block.class.code(), "cluster": hex::encode(block.cluster), "node": block.node,
        "disk": hex::encode(block.disk), "segment": hex::encode(block.segment), "generation": block.generation,
        "features": [read, write, gc, check],
    })
}

fn footer() -> Footer {
    let entry = |n: u8| FooterEntry {
        key: RecordKey { tenant: TenantId([n % 2; 16]), id: ChunkId([n / 2; 32]) },
        offset: 4096 + u64::from(n) * 8,
        len: 200 + u32::from(n) * 8,
        kind: RecordKind::Bundle,
        ct: [n; 32],
        write_epoch: 3,
        lock_floor_ms: 4,
    };
    Footer::new(SEGMENT, named("segment hash"), vec![entry(9), entry(1), entry(200), entry(8)])
}

fn footer_fields(footer: &Footer) -> Value {
    let entries = footer.entries.iter().map(|entry| {
        json!([
            entry.key.tenant.to_string(),
            entry.key.id.to_string(),
            entry.offset,
            entry.len,
            entry.kind.code(),
            hex::encode(entry.ct),
            entry.write_epoch,
            entry.lock_floor_ms,
        ])
    });
    json!({
        "segment": hex::encode(footer.segment), "segment_hash": hex::encode(footer.segment_hash),
        "entries": entries.collect::<Vec<_>>(),
    })
}

fn case(name: &str, structure: &str, bytes: &[u8], place: ([u8; 16], u64), fields: Value) -> Value {
    json!({
        "name": name, "structure": structure, "segment": hex::encode(place.0), "offset": place.1,
        "bytes": hex::encode(bytes), "fields": fields,
    })
}

const WIRE: ([u8; 16], u64) = ([0; 16], 0);
const PLACED: ([u8; 16], u64) = (SEGMENT, 4_104);

/// The good ones, and the bytes of those that the bad ones are made from.
fn good() -> Vec<Value> {
    let mut cases = Vec::new();
    for (name, kind, n_refs, len) in [
        ("without references or ciphertext", RecordKind::Data, 0, 0_usize),
        ("padded", RecordKind::Data, 0, 21),
        ("with references", RecordKind::ManifestInner, 5, 34),
        ("catalog export", RecordKind::CatalogExport, 1, 16),
    ] {
        let record = record(kind, n_refs, &named::<64>("ciphertext")[..len]);
        cases.push(case(name, "record", &record.encode(), WIRE, record_fields(&record)));
        let placed = record.encode_at(PLACED.0, PLACED.1);
        cases.push(case(&format!("{name}, in a segment"), "record", &placed, PLACED, record_fields(&record)));
    }
    for (name, pin) in [("first pin", pin(None)), ("later pin", pin(Some(PinHash(named("previous")))))] {
        cases.push(case(name, "pin", &pin.encode(), WIRE, pin_fields(&pin)));
    }
    let features = Features { read: 0, write: 1, gc: 1 << 40, check: 1 << 63 };
    for (name, class, features) in [
        ("data", SegmentClass::Data, Features::default()),
        ("tree", SegmentClass::Tree, Features::default()),
        ("pins", SegmentClass::Pin, Features::default()),
        ("features that do not matter to a reader", SegmentClass::Data, features),
    ] {
        let block = superblock(class, features);
        cases.push(case(name, "superblock", &block.encode(), WIRE, superblock_fields(&block)));
    }
    for (name, footer) in
        [("four records", footer()), ("none", Footer::new(SEGMENT, named("none"), Vec::new()))]
    {
        cases.push(case(name, "footer", &footer.encode(), WIRE, footer_fields(&footer)));
    }
    let trailer = Trailer { footer_offset: 123_456, footer_len: 520 };
    let fields = json!({ "footer_offset": trailer.footer_offset, "footer_len": trailer.footer_len });
    cases.push(case("trailer", "trailer", &trailer.encode(), WIRE, fields));
    cases
}

/// Changes bytes and makes the checksum right again: over a record's place too.
fn changed(structure: &str, bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    let end = if structure == "record" {
        usize::from(u16::from_le_bytes([bytes[12], bytes[13]]))
    } else {
        bytes.len()
    };
    let covered = if structure == "record" {
        [&[0; 24][..], &bytes[..end - 4]].concat()
    } else {
        bytes[..end - 4].to_vec()
    };
    bytes[end - 4..end].copy_from_slice(&crc32c::crc32c(&covered).to_le_bytes());
    bytes
}

fn preview(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/testdata/v0/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// What nobody may accept.
fn bad() -> Vec<Value> {
    let (record, pin) =
        (record(RecordKind::Bundle, 2, &named::<21>("ciphertext")).encode(), pin(None).encode());
    let block = superblock(SegmentClass::Data, Features::default()).encode();
    let (table, tail) = (footer().encode(), Trailer { footer_offset: 123_456, footer_len: 520 }.encode());
    let all: [(&str, &str, &[u8]); 5] = [
        ("record", "record-wire", &record),
        ("pin", "pin", &pin),
        ("superblock", "superblock", &block),
        ("footer", "footer", &table),
        ("trailer", "trailer", &tail),
    ];
    let mut cases: Vec<(String, &str, Vec<u8>)> = Vec::new();
    for (structure, old, bytes) in all {
        let mut add =
            |name: &str, bytes: Vec<u8>| cases.push((format!("{structure}: {name}"), structure, bytes));
        add("format 0", preview(old));
        add("a newer format", changed(structure, bytes, 8, &[2]));
        add("foreign bytes", changed(structure, bytes, 0, b"GIF89a"));
        add("a changed bit", [&bytes[..20], &[bytes[20] ^ 4], &bytes[21..]].concat());
        add("cut off", bytes[..bytes.len() - 9].to_vec());
    }
    let mut add = |name: &str, structure: &'static str, at: usize, with: &[u8]| {
        let (_, _, bytes) = all.iter().find(|(found, _, _)| *found == structure).unwrap();
        cases.push((name.to_owned(), structure, changed(structure, bytes, at, with)));
    };
    add("record: unknown kind", "record", 9, &[8]);
    add("record: unknown flags", "record", 10, &[1]);
    add("record: unknown codec", "record", 18, &[2]);
    add("record: unknown chunker", "record", 19, &[3]);
    add("record: plaintext too long", "record", 36, &(16_777_217_u32).to_le_bytes());
    add("record: another hash of the references", "record", 84, &[0; 8]);
    add("record: ciphertext too long", "record", 116, &u32::MAX.to_le_bytes());
    add("record: another ciphertext", "record", 120, &[0; 8]);
    add("record: references out of order", "record", 186, &[0xff; 16]);
    add("pin: unknown workload", "pin", 9, &[200]);
    add("pin: unknown flags", "pin", 10, &[2]);
    add("superblock: unknown class", "superblock", 9, &[9]);
    add("superblock: unknown read features", "superblock", 80, &[1]);
    add("footer: more entries than bytes", "footer", 12, &[200]);
    add("footer: out of order", "footer", 64 + 16, &[0xff; 32]);
    let mut padding = record.to_vec();
    *padding.last_mut().unwrap() = 1;
    cases.push(("record: padding that is not zero".to_owned(), "record", padding));
    let refused = |(name, structure, bytes): (String, &str, Vec<u8>)| {
        json!({
            "name": name, "structure": structure, "segment": hex::encode(WIRE.0), "offset": 0,
            "bytes": hex::encode(bytes), "refused": true,
        })
    };
    let mut cases: Vec<Value> = cases.into_iter().map(refused).collect();
    let mut moved = case("record: at another place", "record", &record, (SEGMENT, 8), json!(null));
    moved["refused"] = json!(true);
    cases.push(moved);
    cases
}

fn vector() -> Value {
    let cases = [good(), bad()].concat();
    json!({ "cases": cases })
}

fn read(case: &Value) -> Result<Value, Error> {
    let text = |name: &str| hex::decode(case[name].as_str().unwrap()).unwrap();
    let (bytes, segment): (Bytes, [u8; 16]) = (text("bytes").into(), text("segment").try_into().unwrap());
    Ok(match case["structure"].as_str().unwrap() {
        "record" => {
            let record = SealedRecord::decode_at(bytes, segment, case["offset"].as_u64().unwrap())?;
            record.verify()?;
            record_fields(&record)
        }
        "pin" => pin_fields(&Pin::decode(&bytes)?),
        "superblock" => superblock_fields(&Superblock::decode(&bytes)?),
        "footer" => footer_fields(&Footer::decode(&bytes)?),
        _ => {
            let trailer = Trailer::decode(&bytes)?;
            json!({ "footer_offset": trailer.footer_offset, "footer_len": trailer.footer_len })
        }
    })
}

#[test]
#[ignore = "writes vectors; what is there is frozen"]
fn write_the_structures_of_format_1() {
    fs::write(path(), serde_json::to_string_pretty(&vector()).unwrap() + "\n").unwrap();
}

#[test]
fn structures_are_those_of_the_vectors() {
    let stored: Value = serde_json::from_slice(&fs::read(path()).unwrap()).unwrap();
    assert_eq!(stored, vector());
    let cases = stored["cases"].as_array().unwrap();
    assert!(cases.len() >= 55);
    for case in cases {
        match case.get("refused") {
            Some(_) => assert!(read(case).is_err(), "{}", case["name"]),
            None => assert_eq!(read(case).unwrap(), case["fields"], "{}", case["name"]),
        }
    }
}
