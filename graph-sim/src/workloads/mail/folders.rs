//! `/mailFolders`: the tree of a mailbox.

use http::Method;
use serde_json::Value;

use crate::delta::{self, Stand};
use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::json::{list_of, text};
use crate::query::Query;
use crate::workloads::mail::changes::{self, FolderChange};
use crate::workloads::mail::mailbox::{Folder, Mailbox, RECOVERABLE, ROOT, SEARCH_ROOT};
use crate::workloads::mail::search_folders;

const FIELDS: [&str; 11] = [
    "id",
    "displayName",
    "parentFolderId",
    "childFolderCount",
    "unreadItemCount",
    "totalItemCount",
    "isHidden",
    "isSupported",
    "includeNestedFolders",
    "sourceFolderIds",
    "filterQuery",
];

/// Lists or creates below a folder, the root when none is named.
pub(crate) fn children(call: &Call) -> Answer {
    if call.method == Method::POST {
        return create(call);
    }
    let size = call.size()?;
    let skip = call.query.number("$skip").map_err(|text| refuse(400, "BadRequest", text))?.unwrap_or(0);
    let hidden =
        call.query.get("includeHiddenFolders").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let name = match call.query.get("$filter") {
        None => None,
        Some(filter) => Some(display_name_filter(filter)?),
    };
    let mailbox = call.world.mailbox(call.user);
    let parent = parent(call, &mailbox)?;
    let mut folders: Vec<&Folder> = mailbox
        .children(parent)
        .filter(|folder| hidden || !folder.hidden)
        .filter(|folder| name.as_ref().is_none_or(|name| folder.name.eq_ignore_ascii_case(name)))
        .collect();
    let total = folders.len();
    folders = folders.into_iter().skip(skip).take(size).collect();
    let mut out = open(call);
    let view = FolderView::new(&call.query, false)?;
    list_of(&mut out, &folders, |out, folder| write(out, call, &mailbox, folder, &view));
    if skip + folders.len() < total {
        let mut query = call.query.without(&["$skip"]);
        query.0.push(("$skip".into(), (skip + folders.len()).to_string()));
        text(&mut out, "@odata.nextLink", &call.link(&query));
    }
    out.push(b'}');
    Ok(Reply::Json(200, out))
}

fn open(call: &Call) -> Vec<u8> {
    let mut out = b"{".to_vec();
    text(&mut out, "@odata.context", &format!("{}/v1.0/$metadata#mailFolders", call.base));
    out.extend_from_slice(b",\"value\":");
    out
}

fn display_name_filter(filter: &str) -> Result<String, Refusal> {
    filter
        .strip_prefix("displayName eq '")
        .and_then(|rest| rest.strip_suffix('\''))
        .map(|name| name.replace("''", "'"))
        .ok_or_else(|| {
            refuse(400, "ErrorInvalidUrlQueryFilter", format!("The filter '{filter}' is not supported"))
        })
}

fn parent(call: &Call, mailbox: &Mailbox) -> Result<u32, Refusal> {
    match call.param("folder") {
        None => Ok(ROOT),
        Some(name) => find(call, mailbox, name),
    }
}

/// A folder by id or well-known name, where the app may see it.
pub(crate) fn find(call: &Call, mailbox: &Mailbox, name: &str) -> Result<u32, Refusal> {
    let key = mailbox.find_folder(name)?;
    if key == RECOVERABLE && !call.options.recoverable_items {
        return Err(refuse(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again."));
    }
    Ok(key)
}

/// A folder that messages can be put into.
pub(crate) fn destination(call: &Call, mailbox: &Mailbox, name: &str) -> Result<u32, Refusal> {
    let key = find(call, mailbox, name)?;
    if key == RECOVERABLE || key == SEARCH_ROOT || mailbox.folders[&key].search.is_some() {
        return Err(refuse(403, "ErrorAccessDenied", "No message can be put here."));
    }
    Ok(key)
}

fn create(call: &Call) -> Answer {
    let body = call.json()?;
    let name = body.get("displayName").and_then(Value::as_str).map(str::trim).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| refuse(400, "ErrorInvalidArgument", "displayName is missing"))?;
    let hidden = body.get("isHidden").and_then(Value::as_bool).unwrap_or(false);
    let mut mailbox = call.world.mailbox(call.user);
    let parent = parent(call, &mailbox)?;
    let search = search_folders::given(&body, &mailbox)?;
    if parent == RECOVERABLE || (parent == SEARCH_ROOT && search.is_none()) {
        return Err(refuse(403, "ErrorAccessDenied", "No folder can be made here."));
    }
    refuse_twin(&mailbox, parent, name)?;
    let key = mailbox.create_folder(parent, name, hidden);
    if let Some(folder) = mailbox.folders.get_mut(&key) {
        folder.search = search;
        folder.extended = search_folders::extended(&body);
    }
    let mut out = Vec::new();
    write(&mut out, call, &mailbox, &mailbox.folders[&key], &FolderView::new(&call.query, false)?);
    Ok(Reply::Created(out))
}

fn refuse_twin(mailbox: &Mailbox, parent: u32, name: &str) -> Result<(), Refusal> {
    if mailbox.children(parent).any(|folder| folder.name.to_lowercase() == name.to_lowercase()) {
        let text = "A folder with the specified name already exists.";
        return Err(refuse(409, "ErrorFolderExists", text));
    }
    Ok(())
}

/// Reads, renames or deletes one folder.
pub(crate) fn one(call: &Call) -> Answer {
    let mut mailbox = call.world.mailbox(call.user);
    let key = parent(call, &mailbox)?;
    let own = mailbox.is_own(key);
    if call.method == Method::DELETE {
        if !own {
            let text = "Distinguished folders cannot be deleted.";
            return Err(refuse(400, "ErrorDeleteDistinguishedFolder", text));
        }
        mailbox.delete_folder(key);
        return Ok(Reply::Empty(204));
    }
    if call.method == Method::PATCH {
        let body = call.json()?;
        if let Some(search) = search_folders::changed(&body, &mailbox, key)? {
            if let Some(folder) = mailbox.folders.get_mut(&key) {
                folder.search = Some(search);
            }
            mailbox.touch_folder(key);
            let view = FolderView::new(&call.query, false)?;
            let mut out = Vec::new();
            write(&mut out, call, &mailbox, &mailbox.folders[&key], &view);
            return Ok(Reply::Json(200, out));
        }
        let name = body.get("displayName").and_then(Value::as_str).filter(|_| own);
        let name = name
            .ok_or_else(|| refuse(400, "ErrorInvalidArgument", "only displayName of own folders changes"))?;
        if let Some(parent) = mailbox.folders[&key].parent {
            refuse_twin(&mailbox, parent, name)?;
        }
        if let Some(folder) = mailbox.folders.get_mut(&key) {
            folder.name = name.into();
        }
        mailbox.touch_folder(key);
    }
    let mut out = Vec::new();
    write(&mut out, call, &mailbox, &mailbox.folders[&key], &FolderView::new(&call.query, false)?);
    Ok(Reply::Json(200, out))
}

/// One page of changes of folders.
pub(crate) fn delta(call: &Call) -> Answer {
    let size = call.size()?;
    let mailbox = call.world.mailbox(call.user);
    let stand = Stand { seq: mailbox.seq, epoch: mailbox.epoch };
    let mut token = delta::resume(call, stand, "mail folders")?;
    let (changes, more) = changes::folders(&mailbox, &mut token, size);
    let mut out = open(call);
    let view = FolderView::new(&token.query(), true)?;
    list_of(&mut out, &changes, |out, change| match change {
        FolderChange::Present(key) => write(out, call, &mailbox, &mailbox.folders[key], &view),
        FolderChange::Removed(key) => {
            out.extend_from_slice(b"{");
            text(out, "@odata.type", "#microsoft.graph.mailFolder");
            text(out, "id", &mailbox.folder_id(*key));
            out.extend_from_slice(b",\"@removed\":{\"reason\":\"deleted\"}}");
        }
    });
    delta::link(call, &mut out, &token, more);
    out.push(b'}');
    Ok(Reply::Json(200, out))
}

fn write(out: &mut Vec<u8>, call: &Call, mailbox: &Mailbox, folder: &Folder, view: &FolderView) {
    let select = &view.select;
    let shows =
        |name: &str| select.as_ref().is_none_or(|list| list.iter().any(|one| one.eq_ignore_ascii_case(name)));
    out.push(b'{');
    match folder.search {
        Some(_) => text(out, "@odata.type", "#microsoft.graph.mailSearchFolder"),
        None if view.typed => text(out, "@odata.type", "#microsoft.graph.mailFolder"),
        None => {}
    }
    text(out, "id", &mailbox.folder_id(folder.key));
    if shows("displayName") {
        text(out, "displayName", &folder.name);
    }
    if shows("parentFolderId") {
        // The root's parent is outside the visible tree: Exchange gives an id nobody can use.
        text(out, "parentFolderId", &mailbox.folder_id(folder.parent.unwrap_or(0)));
    }
    let mut raw = |name: &str, value: String| {
        if shows(name) || name == "singleValueExtendedProperties" {
            out.extend_from_slice(format!(",\"{name}\":{value}").as_bytes());
        }
    };
    raw("childFolderCount", mailbox.children(folder.key).count().to_string());
    raw("totalItemCount", folder.order.len().to_string());
    raw("isHidden", folder.hidden.to_string());
    if shows("unreadItemCount") {
        let unread = folder
            .order
            .values()
            .filter_map(|key| mailbox.messages.get(key))
            .filter(|message| !call.world.is_read(mailbox, message))
            .count();
        raw("unreadItemCount", unread.to_string());
    }
    for (name, value) in folder.search.iter().flat_map(search_folders::shown) {
        raw(name, value.to_string());
    }
    if let Some(found) = search_folders::extended_shown(&folder.extended, &view.extended) {
        raw("singleValueExtendedProperties", found.to_string());
    }
    out.push(b'}');
}

struct FolderView {
    select: Option<Vec<String>>,
    typed: bool,
    /// Ids of extended properties to show.
    extended: Vec<String>,
}

impl FolderView {
    fn new(query: &Query, typed: bool) -> Result<Self, Refusal> {
        let select: Option<Vec<String>> =
            query.get("$select").map(|list| list.split(',').map(|name| name.trim().to_owned()).collect());
        let unknown =
            select.iter().flatten().find(|name| !FIELDS.iter().any(|one| one.eq_ignore_ascii_case(name)));
        if let Some(name) = unknown {
            let text =
                format!("Could not find a property named '{name}' on type 'microsoft.graph.mailFolder'.");
            return Err(refuse(400, "BadRequest", text));
        }
        let extended = query.extended().map_err(|text| refuse(400, "BadRequest", text))?;
        Ok(Self { select, typed, extended })
    }
}
