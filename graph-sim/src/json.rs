//! JSON written straight into the answer's buffer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

/// UTC, whole seconds.
pub(crate) fn timestamp(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(0);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

pub(crate) fn parse_timestamp(text: &str) -> Option<u64> {
    let stamp: Timestamp = text.parse().ok()?;
    u64::try_from(stamp.as_second()).ok().map(|seconds| seconds * 1000)
}

/// The change key of the change with this number.
pub(crate) fn change_key(change: u64) -> String {
    let mut bytes = [0; 18];
    bytes[..10].copy_from_slice(b"\x09\0\0\0\x16\0\0\0\x0a\x07");
    bytes[10..].copy_from_slice(&change.to_be_bytes());
    STANDARD.encode(bytes)
}

/// Appends a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is always json");
}

/// Appends a property whose value is JSON already.
pub(crate) fn literal(out: &mut Vec<u8>, name: &str, raw: &str) {
    key(out, name);
    out.extend_from_slice(raw.as_bytes());
}

/// Appends a property's name.
pub(crate) fn key(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends a property whose value is a string.
pub(crate) fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    string(out, value);
}

/// Appends a property whose value is a boolean.
pub(crate) fn flag(out: &mut Vec<u8>, name: &str, value: bool) {
    literal(out, name, if value { "true" } else { "false" });
}

/// Appends a JSON array.
pub(crate) fn list_of<T>(out: &mut Vec<u8>, list: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, one) in list.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, one);
    }
    out.push(b']');
}
