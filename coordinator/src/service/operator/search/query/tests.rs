use holdfast_repository::{BlobRef, ContentHash, EntryFlags, EntryKind, FolderKey};
use serde_json::{Value, json};

use super::*;

fn item(kind: EntryKind, size: u64) -> ItemEntry {
    ItemEntry {
        kind,
        flags: EntryFlags::default(),
        change: [0; 16],
        size,
        parent: FolderKey([1; 16]),
        sort: 1,
        meta: BlobRef { h: ContentHash::from_bytes([0; 32]), offset: 0, len: 1 },
        content: None,
    }
}

fn budget() -> Value {
    json!({
        "subject": "Budget 2026: first draft",
        "from": { "emailAddress": { "name": "Ann Smith", "address": "ann@x.test" } },
        "toRecipients": [{ "emailAddress": { "name": "Ben", "address": "ben@x.test" } }],
        "receivedDateTime": "2026-01-31T23:59:59Z",
    })
}

fn finds(query: &str, meta: &Value) -> bool {
    let query = Query::parse(query).unwrap();
    let item = item(EntryKind::MailMessage, 2_000);
    query.may_match(&item) && query.matches(&item, &Properties::read(meta.to_string().as_bytes()))
}

fn refusal(query: &str) -> String {
    Query::parse(query).unwrap_err().to_string()
}

#[test]
fn every_word_and_every_filter_must_match() {
    for found in [
        "budget",
        "BUDGET draft",
        "ann",
        "ben budget",
        "from:ann to:ben",
        "from:\"ann smith\"",
        "\"first draft\"",
        "draft from:x.test",
        "after:2026-01-31 before:2026-02-01",
        "after:2026-01-31T23:59:59Z",
        "larger:2kb budget",
        "2026:",
    ] {
        assert!(finds(found, &budget()), "{found}");
    }
    for missed in [
        "budget holiday",
        "from:ben",
        "to:ann",
        "\"draft first\"",
        "before:2026-01-31",
        "after:2026-02-01",
        "larger:2001",
        "budget before:2027-01-01 before:2026-01-01",
    ] {
        assert!(!finds(missed, &budget()), "{missed}");
    }
}

#[test]
fn what_has_no_time_is_at_no_time_and_folders_have_no_size() {
    let undated = json!({ "subject": "Budget" });
    assert!(finds("budget", &undated) && !finds("budget after:2000-01-01", &undated));
    let query = Query::parse("larger:1").unwrap();
    assert!(!query.may_match(&item(EntryKind::DriveFolder, 1 << 40)));
}

#[test]
fn people_of_every_kind_are_found() {
    let event = json!({ "subject": "s", "organizer": { "emailAddress": { "address": "ann@x.test" } },
                        "attendees": [{ "emailAddress": { "name": "Ben" } }] });
    let file = json!({ "name": "s", "createdBy": { "user": { "displayName": "Ann" } } });
    let contact = json!({ "displayName": "Zoe", "emailAddresses": [{ "address": "zoe@x.test" }] });
    for (kind, meta, query) in [
        (EntryKind::CalendarEvent, &event, "from:ann to:ben"),
        (EntryKind::DriveFile, &file, "from:ann"),
        (EntryKind::Contact, &contact, "zoe@x.test"),
    ] {
        let properties = Properties::read(meta.to_string().as_bytes());
        assert!(Query::parse(query).unwrap().matches(&item(kind, 1), &properties), "{query}");
    }
}

#[test]
fn folders_are_named_by_path_with_blanks_in_quotes() {
    let query = Query::parse("in:\"/Inbox/Old Projects\" budget").unwrap();
    assert_eq!(query.folders, ["/Inbox/Old Projects"]);
}

#[test]
fn a_query_that_says_nothing_or_something_else_is_explained() {
    assert!(refusal("  ").contains("write words to look for"), "{}", refusal("  "));
    assert!(refusal("\"budget").contains("a double quote is not closed"));
    assert!(refusal("from: ann").contains("write what to look for behind it"));
    assert!(
        refusal("subject:budget").contains("the filters are from:, to:"),
        "{}",
        refusal("subject:budget")
    );
    assert!(refusal("after:yesterday").contains("2026-01-31"));
    assert!(refusal("larger:huge").contains("10MiB"));
    assert!(refusal(&"a".repeat(2_000)).contains("at most 1000 characters"));
    for words in ["Re: budget", "14:30", "https://x.test/a", "\"subject:budget\""] {
        assert!(Query::parse(words).is_ok(), "{words}");
    }
}
