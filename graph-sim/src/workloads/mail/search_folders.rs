//! Search folders: what they search for, in and out of JSON; and the ones that a mailbox is made with.
//!
//! Invariant: a search folder names at least one folder that is there, and a filter, or it is refused.

use serde_json::{Value, json};

use crate::http::{Refusal, refuse};
use crate::rng::Rng;
use crate::workloads::mail::mailbox::{INBOX, Mailbox, SEARCH_ROOT, SENT, Search};

const TYPE: &str = "mailSearchFolder";

/// What a create wants to search for; none where it is not of a search folder.
pub(crate) fn given(body: &Value, mailbox: &Mailbox) -> Result<Option<Search>, Refusal> {
    let kind = body.get("@odata.type").and_then(Value::as_str).unwrap_or_default();
    if !kind.ends_with(TYPE) {
        return Ok(None);
    }
    let blank = Search { includes_nested: false, sources: Vec::new(), filter: String::new() };
    apply(blank, body, mailbox).map(Some)
}

/// What a search folder searches for after a change; none where the change is of something else.
pub(crate) fn changed(body: &Value, mailbox: &Mailbox, key: u32) -> Result<Option<Search>, Refusal> {
    let search = mailbox.folders.get(&key).and_then(|folder| folder.search.clone());
    match search.filter(|_| ["filterQuery", "sourceFolderIds"].iter().any(|name| body.get(name).is_some())) {
        Some(search) => apply(search, body, mailbox).map(Some),
        None => Ok(None),
    }
}

fn apply(mut search: Search, body: &Value, mailbox: &Mailbox) -> Result<Search, Refusal> {
    let invalid = |text: &str| refuse(400, "ErrorInvalidArgument", text);
    if let Some(sources) = body.get("sourceFolderIds").and_then(Value::as_array) {
        search.sources.clear();
        for source in sources {
            let key = mailbox.find_folder(source.as_str().unwrap_or_default())?;
            search.sources.push(mailbox.folder_id(key));
        }
    }
    if let Some(filter) = body.get("filterQuery").and_then(Value::as_str) {
        filter.clone_into(&mut search.filter);
    }
    if let Some(nested) = body.get("includeNestedFolders").and_then(Value::as_bool) {
        search.includes_nested = nested;
    }
    if search.sources.is_empty() || search.filter.is_empty() {
        return Err(invalid("a search folder needs sourceFolderIds and filterQuery"));
    }
    Ok(search)
}

/// The extended properties of a create.
pub(crate) fn extended(body: &Value) -> Vec<(String, String)> {
    let given = body.get("singleValueExtendedProperties").and_then(Value::as_array);
    let text = |one: &Value, name: &str| one.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    given.into_iter().flatten().filter_map(|one| Some((text(one, "id")?, text(one, "value")?))).collect()
}

/// Those of them that were asked for; none where there are none.
pub(crate) fn extended_shown(all: &[(String, String)], wanted: &[String]) -> Option<Value> {
    let is_wanted = |id: &str| wanted.iter().any(|one| one.eq_ignore_ascii_case(id));
    let found = all.iter().filter(|(id, _)| is_wanted(id));
    let found: Vec<Value> = found.map(|(id, value)| json!({"id": id, "value": value})).collect();
    (!found.is_empty()).then(|| found.into())
}

/// The properties that only a search folder has.
pub(crate) fn shown(search: &Search) -> [(&'static str, Value); 4] {
    [
        ("isSupported", true.into()),
        ("includeNestedFolders", search.includes_nested.into()),
        ("sourceFolderIds", search.sources.clone().into()),
        ("filterQuery", search.filter.clone().into()),
    ]
}

/// Makes some in a new mailbox: most where Outlook shows them, every third one in the Inbox.
pub(crate) fn generate(mailbox: &mut Mailbox, seed: u64, count: u32) {
    let mut rng = Rng::new(&[seed, 0x7365_6172, u64::from(mailbox.user)]);
    for number in 0..count {
        let own = mailbox.own_folders();
        let own: Vec<u32> = own.into_iter().filter(|key| mailbox.folders[key].search.is_none()).collect();
        let mut sources = vec![mailbox.folder_id(*rng.pick(&own))];
        if rng.percent(50) {
            sources.push(mailbox.folder_id(if rng.percent(50) { INBOX } else { SENT }));
        }
        let filter = match number % 2 {
            0 => format!("contains(subject, 'weekly digest {number}')"),
            _ => "isRead eq false".to_owned(),
        };
        let parent = if number % 3 == 2 { INBOX } else { SEARCH_ROOT };
        let key = mailbox.create_folder(parent, &format!("Search {number}"), false);
        if let Some(folder) = mailbox.folders.get_mut(&key) {
            folder.search = Some(Search { includes_nested: rng.percent(50), sources, filter });
        }
    }
}
