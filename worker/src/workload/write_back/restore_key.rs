//! The restore key: how what a restore created is recognised by its later attempts.

use serde_json::{Value, json};

/// The extended property that holds it, on what Exchange keeps.
pub const RESTORE_KEY_PROPERTY: &str =
    "String {8ec1f2b0-5d0c-4c5e-9a36-0b0f6a1d7c11} Name HoldfastRestoreKey";

/// Characters of a key that say which restore it is of.
const RESTORE_CHARS: usize = 16;

/// What all keys of one restore begin with.
pub fn restore_prefix(restore: &str) -> String {
    blake3::hash(restore.as_bytes()).to_hex()[..RESTORE_CHARS].to_owned()
}

/// The restore key of one item: the same in every attempt of one restore, another in the next restore.
pub fn restore_key(restore: &str, item: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(restore.len() as u64).to_le_bytes());
    hasher.update(restore.as_bytes());
    hasher.update(item.as_bytes());
    restore_prefix(restore) + &hasher.finalize().to_hex()
}

/// The key as an extended property of what is created.
pub fn restore_key_property(key: &str) -> Value {
    json!({ "id": RESTORE_KEY_PROPERTY, "value": key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restore_keys_differ_by_restore_and_by_item() {
        assert_ne!(restore_key("a", "bc"), restore_key("ab", "c"));
        assert_eq!(restore_key("a", "b"), restore_key("a", "b"));
        assert!(restore_key("a", "b").starts_with(&restore_prefix("a")));
        assert!(!restore_key("a", "b").starts_with(&restore_prefix("b")));
    }
}
