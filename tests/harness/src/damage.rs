//! Records in the segment files of a stopped storage node, and how to damage them.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use holdfast_model::ChunkId;
use holdfast_record::{RecordKind, SUPERBLOCK_BYTES, SealedRecord};

/// A record where it stands.
#[derive(Debug, Clone)]
pub struct FoundRecord {
    pub id: ChunkId,
    pub kind: RecordKind,
    pub path: PathBuf,
    pub offset: u64,
    /// Padding included.
    pub len: u64,
}

/// Every intact record in the data segments of a node's data folder, in the order of the files.
pub fn data_records(data: &Path) -> Vec<FoundRecord> {
    segments(data).iter().flat_map(|path| records_of(path)).collect()
}

/// The data segments of a node's data folder.
pub fn segments(data: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(data.join("segments")).expect("list the segments");
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("list the segments").path()).collect();
    paths.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("data-") && name.ends_with(".seg")
    });
    paths.sort();
    paths
}

fn records_of(path: &Path) -> Vec<FoundRecord> {
    let mut segment = [0; 16];
    let name = path.file_stem().and_then(|name| name.to_str()).expect("a segment's name is text");
    let id = name.strip_prefix("data-").expect("a data segment");
    hex::decode_to_slice(id, &mut segment).expect("a segment is named by its id");
    let bytes = Bytes::from(fs::read(path).expect("read the segment"));
    let (mut found, mut at) = (Vec::new(), SUPERBLOCK_BYTES);
    while at < bytes.len() {
        let Ok(record) = SealedRecord::decode_at(bytes.slice(at..), segment, at as u64) else { break };
        let len = record.encoded_len();
        found.push(FoundRecord {
            id: record.header.id,
            kind: record.header.kind,
            path: path.to_owned(),
            offset: at as u64,
            len: len as u64,
        });
        at += len;
    }
    found
}

/// Flips bytes in the middle of a record.
pub fn flip(record: &FoundRecord) {
    let file = writable(&record.path);
    let at = record.offset + record.len / 2;
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at).expect("read the segment");
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    file.write_all_at(&bytes, at).expect("write the segment");
    file.sync_all().expect("sync the segment");
}

/// Cuts a segment off at an offset.
pub fn truncate(path: &Path, len: u64) {
    let file = writable(path);
    file.set_len(len).expect("cut the segment");
    file.sync_all().expect("sync the segment");
}

/// A sealed segment is read-only.
fn writable(path: &Path) -> fs::File {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("make the segment writable");
    OpenOptions::new().read(true).write(true).open(path).expect("open the segment")
}

/// Says in a segment's superblock that it is of another format version, with the checksum that belongs to it.
pub fn set_version(path: &Path, version: u8) {
    const VERSION_AT: usize = 8;
    let file = writable(path);
    let mut block = vec![0; SUPERBLOCK_BYTES];
    file.read_exact_at(&mut block, 0).expect("read the segment");
    let body = SUPERBLOCK_BYTES - 4;
    assert_eq!(block[body..], crc32c(&block[..body]).to_le_bytes(), "the checksum is where FORMAT.md says");
    block[VERSION_AT] = version;
    let crc = crc32c(&block[..body]);
    block[body..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&block, 0).expect("write the segment");
    file.sync_all().expect("sync the segment");
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg()))
    })
}
