//! How the worker names a mail folder in the manifest: the first half of a hash of Microsoft's id.

/// The parent of the root folder.
pub const ROOT_PARENT: [u8; 16] = [0; 16];

/// The key under which a mail folder's children stand.
pub fn folder_key(id: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"holdfast mail folder 1");
    hasher.update(id.as_bytes());
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_folder_never_changes() {
        let hash = blake3::hash(b"holdfast mail folder 1AAA");
        assert_eq!(folder_key("AAA"), hash.as_bytes()[..16]);
        assert_ne!(folder_key("AAA"), folder_key("AAB"));
    }
}
