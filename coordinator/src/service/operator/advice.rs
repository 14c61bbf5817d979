//! What to do about a failed item: one sentence per cause.

/// What to do about a code of Microsoft's, or of ours; one such as `PermissionNotRestored:sharingDisabled` says first what is
/// missing and then why.
pub(super) fn advice(code: &str) -> &'static str {
    let lower = code.to_ascii_lowercase();
    let known = |code: &str| ADVICE.iter().find(|(codes, _)| codes.contains(&code));
    let cause = || lower.split_once(':').and_then(|(_, cause)| known(cause));
    known(&lower).or_else(cause).map_or(UNKNOWN, |(_, advice)| advice)
}

const UNKNOWN: &str = "look the code up at Microsoft, or give their support the request id that `holdfast jobs JOB --json` shows";

/// Codes in lower case.
const ADVICE: &[(&[&str], &str)] = &[
    (
        &[
            "transport",
            "timeout",
            "truncated",
            "throttled",
            "status",
            "no-token",
            "generalexception",
            "servicenotavailable",
            "unknownerror",
            "toomanyrequests",
            "activitylimitreached",
            "applicationthrottled",
            "mailboxconcurrency",
            "errortoomanyobjectsopened",
        ],
        "nothing: Microsoft did not answer in time, and the next run tries again",
    ),
    (
        &["changed", "ambiguous", "resourcemodified", "hash-differs"],
        "nothing: the item changed while it was read, and the next run tries again",
    ),
    (
        &["malwaredetected", "virussuspicious"],
        "Microsoft holds the file back as infected: ask its owner to remove it",
    ),
    (
        &["errorcorruptdata", "errorcannotopenfileattachment", "erroritemcorrupt"],
        "Microsoft cannot read the item itself: open it in Outlook, and delete it if that fails too",
    ),
    (
        &["accessdenied", "erroraccessdenied"],
        "Microsoft refuses this item: a label or a policy protects it from the app; allow the app, or leave it",
    ),
    (
        &["resourcelocked", "notallowed"],
        "the item is locked or checked out: ask its owner to release it, and the next run takes it",
    ),
    (
        &["errorquotaexceeded", "quotalimitreached", "insufficientstorage"],
        "the mailbox or drive is full: make room, and run the job again",
    ),
    (
        &["noresolvedusers", "sharingdisabled"],
        "somebody it is shared with is gone, or sharing is switched off: share it by hand",
    ),
    (
        &["linkhaspassword", "linknamespeople"],
        "nobody can make the link as it was without its password, or without a mail to those it names: share it by hand",
    ),
    (
        &["packagerestoredasfolder"],
        "its files are there in a folder, which no app can make a notebook again: open them in OneNote and copy them into a new one",
    ),
    (
        &["malformed", "incomplete"],
        "Microsoft's answer is not what it promises: give their support the request id that `holdfast jobs JOB --json` shows",
    ),
    (&["too-large", "too-many"], "the item is larger than Holdfast takes: keep it elsewhere, and tell us"),
    (
        &["restoreddisabled", "automaticrepliesoff"],
        "nothing, or switch it on by hand: a restore must send no mail, so what would send some comes back switched off",
    ),
    (
        &["rulefoldergone", "searchfoldersourcesgone", "searchfoldersourcegone"],
        "a folder that it names was gone already when the snapshot was made: make it anew by hand",
    ),
    (
        &["readonlyrule"],
        "nothing: another program made the rule and keeps it; Microsoft lets nobody else write it",
    ),
    (&["nametakenbyfolder"], "rename the folder of the same name, or restore with `--conflict rename`"),
    (&["onlyinplace"], "it has one place only: restore it without `--into`"),
    (
        &["notreadable:erroraccessdenied", "notreadable:accessdenied"],
        "the app may not read it: grant it the permissions in docs/connecting-a-tenant.md, and the next run takes it",
    ),
    (&["unreadable"], "no copy of it could be read from storage: `holdfast nodes` shows what is missing"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_advice_and_no_code_has_two() {
        assert!(advice("ErrorCorruptData").contains("Outlook"));
        assert!(advice("transport").starts_with("nothing"));
        assert_eq!(advice("somethingNew"), UNKNOWN);
        assert_eq!(advice("PermissionNotRestored:sharingDisabled"), advice("sharingDisabled"));
        assert_ne!(advice("PermissionNotRestored:LinkHasPassword"), UNKNOWN);
        assert_eq!(advice("PermissionNotRestored:somethingNew"), UNKNOWN);
        let codes: Vec<&str> = ADVICE.iter().flat_map(|(codes, _)| codes.iter().copied()).collect();
        let distinct: std::collections::BTreeSet<&str> = codes.iter().copied().collect();
        assert_eq!(codes.len(), distinct.len());
        assert!(codes.iter().all(|code| *code == code.to_ascii_lowercase()));
    }
}
