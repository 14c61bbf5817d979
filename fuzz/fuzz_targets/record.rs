//! No bytes make a reader of a stored structure panic, and what it reads is written so that it reads the same again.
//!
//! The first byte chooses the structure. A fuzzer guesses no checksum: magic, version and checksum are put around the rest here;
//! an odd second byte leaves the rest as it is.
#![no_main]

use std::fmt::Debug;

use bytes::Bytes;
use holdfast_record::{
    Error, FORMAT_VERSION, Footer, Pin, SUPERBLOCK_BYTES, SealedRecord, Superblock, TRAILER_BYTES, Trailer,
    check_header_at, header_len,
};
use libfuzzer_sys::fuzz_target;

/// In a record's header.
const HEADER_LEN_AT: usize = 12;
const REF_COUNT_AT: usize = 184;
/// A segment and a place in it.
const PLACE: ([u8; 16], u64) = ([7; 16], 4_096);

fuzz_target!(|input: &[u8]| {
    let [structure, framing, body @ ..] = input else { return };
    let is_framed = framing % 2 == 0;
    let framed = |magic: &[u8; 8], len: Option<usize>| {
        if is_framed { frame(magic, body, len) } else { body.to_vec() }
    };
    match structure % 6 {
        0 => reads_the_same(
            &framed(b"HFSEGMNT", Some(SUPERBLOCK_BYTES)),
            Superblock::decode,
            Superblock::encode,
        ),
        1 => reads_the_same(&framed(b"HFFOOTER", None), Footer::decode, Footer::encode),
        2 => reads_the_same(&framed(b"HFTRAILR", Some(TRAILER_BYTES)), Trailer::decode, Trailer::encode),
        3 => {
            let bytes = framed(b"HFPINPIN", None);
            reads_the_same(&bytes, Pin::decode, |pin| pin.encode().to_vec());
            let _ = Pin::decode_first(&bytes);
        }
        4 => record_reads_the_same(&record(body, is_framed, ([0; 16], 0)), ([0; 16], 0)),
        _ => record_reads_the_same(&record(body, is_framed, PLACE), PLACE),
    }
});

fn reads_the_same<T: PartialEq + Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, Error>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    if let Ok(found) = decode(bytes) {
        assert_eq!(decode(&encode(&found)).as_ref(), Ok(&found));
    }
}

fn record_reads_the_same(bytes: &[u8], (segment, offset): ([u8; 16], u64)) {
    let _ = check_header_at(bytes, segment, offset);
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = SealedRecord::decode(bytes.clone());
    let Ok(found) = SealedRecord::decode_at(bytes.clone(), segment, offset) else { return };
    let _ = found.verify();
    assert_eq!(found.encode_at(segment, offset), bytes[..found.encoded_len()]);
    let wire = found.encode();
    assert_eq!(SealedRecord::decode(wire.clone()).as_ref(), Ok(&found));
    assert_eq!(found.into_encoded(), wire);
}

/// Magic and version before, a checksum behind.
fn frame(magic: &[u8; 8], body: &[u8], len: Option<usize>) -> Vec<u8> {
    let mut bytes = [magic, &[FORMAT_VERSION][..], body].concat();
    if let Some(len) = len {
        bytes.resize(len - 4, 0);
    }
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// A record's header with its length and checksum put right, where there are bytes enough.
fn record(body: &[u8], is_framed: bool, (segment, offset): ([u8; 16], u64)) -> Vec<u8> {
    if !is_framed {
        return body.to_vec();
    }
    let mut bytes = [b"HFRECORD", &[FORMAT_VERSION][..], body].concat();
    let Some(count) = bytes.get(REF_COUNT_AT..REF_COUNT_AT + 2) else { return bytes };
    let len = header_len(usize::from(u16::from_le_bytes([count[0], count[1]])));
    let Some(header) = bytes.get_mut(..len) else { return bytes };
    header[HEADER_LEN_AT..HEADER_LEN_AT + 2].copy_from_slice(&len.to_le_bytes()[..2]);
    let (fields, crc) = header.split_at_mut(len - 4);
    let place = crc32c::crc32c_append(crc32c::crc32c(&segment), &offset.to_le_bytes());
    crc.copy_from_slice(&crc32c::crc32c_append(place, fields).to_le_bytes());
    bytes
}
