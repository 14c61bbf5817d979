//! What of a mailbox was deleted already and could still be recovered when it was backed up.

/// Where people find it in a snapshot.
pub const RECOVERABLE_PATH: &str = "/Recoverable Items";

/// Whether a restore of these paths and ids brings it back: only where one of them names it, not with everything.
pub fn asks_for_recoverable(paths: &[String]) -> bool {
    let wanted = RECOVERABLE_PATH.to_lowercase();
    paths.iter().any(|path| !path.starts_with('/') || path.to_lowercase().starts_with(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deleted_comes_back_only_where_it_is_named() {
        let asks = |paths: &[&str]| {
            asks_for_recoverable(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>())
        };
        assert!(!asks(&[]) && !asks(&["/"]) && !asks(&["/Inbox"]));
        assert!(asks(&["/recoverable items"]) && asks(&["/Inbox", "/Recoverable Items/Deletions"]));
        assert!(asks(&["AAkALg=="]), "an id names one item");
    }
}
