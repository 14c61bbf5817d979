//! Messages: lists, delta, one, MIME, create, change, move.
//!
//! Invariant: what is read under the mailbox's lock is only ids and sources; content is made after it is released.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::content::Content;
use crate::create::{self, SENSITIVE};
use crate::delta::{self, Change, Token};
use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::ids::{Form, Id};
use crate::json::{self, Head, View, list_of, text};
use crate::mailbox::{DRAFTS, Mailbox, Message, Source};
use crate::mime::Mime;
use crate::query::{Filter, Query};

pub(crate) const ADVANCED: &str = "Mail-Advanced.ReadWrite.All";
const MAX_MIME: usize = 4 * 1024 * 1024;

/// A message picked under the lock, to be written after it.
struct Row {
    head: Head,
    source: Source,
    is_read: bool,
}

pub(crate) fn head(call: &Call, mailbox: &Mailbox, message: &Message) -> Head {
    Head {
        user: mailbox.user,
        key: message.key,
        id: mailbox.message_id(message, call.form),
        folder_id: mailbox.folder_id(message.folder),
        change: message.change,
        modified_ms: message.modified_ms,
    }
}

fn row(call: &Call, mailbox: &Mailbox, message: &Message) -> Row {
    Row {
        head: head(call, mailbox, message),
        source: message.source.clone(),
        is_read: call.world.is_read(mailbox, message),
    }
}

fn write(call: &Call, out: &mut Vec<u8>, row: &Row, view: &View) {
    let overhead = call.options.attachment_overhead;
    if view.is_light() && matches!(row.source, Source::Generated { .. }) {
        let content = Content { is_read: row.is_read, ..Content::default() };
        json::message(out, &row.head, &content, view, overhead);
    } else {
        let content = call.world.content_of(call.user, &row.source);
        json::message(out, &row.head, &content, view, overhead);
    }
}

fn bad(text: String) -> Refusal {
    refuse(400, "BadRequest", text)
}

fn open(call: &Call) -> Vec<u8> {
    let mut out = b"{".to_vec();
    text(&mut out, "@odata.context", &format!("{}/v1.0/$metadata#messages", call.base));
    out.extend_from_slice(b",\"value\":");
    out
}

/// Lists a folder, or the mailbox when none is named; or creates.
pub(crate) fn collection(call: &Call) -> Answer {
    if call.method == Method::POST {
        return create_one(call);
    }
    let view = call.query.view().map_err(bad)?;
    let size = call.size()?;
    let skip = call.query.number("$skip").map_err(bad)?.unwrap_or(0);
    let filter = call.query.get("$filter").map(Filter::parse).transpose();
    let filter = filter.map_err(|text| refuse(400, "ErrorInvalidUrlQueryFilter", text))?;
    let (rows, more) = pick(call, filter.as_ref(), skip, size)?;
    let mut out = open(call);
    list_of(&mut out, &rows, |out, row| write(call, out, row, &view));
    if more {
        let mut query = call.query.without(&["$skip"]);
        query.0.push(("$skip".into(), (skip + rows.len()).to_string()));
        text(&mut out, "@odata.nextLink", &call.link(&query));
    }
    out.push(b'}');
    Ok(Reply::Json(200, out))
}

fn pick(call: &Call, filter: Option<&Filter>, skip: usize, size: usize) -> Result<(Vec<Row>, bool), Refusal> {
    let mailbox = call.world.mailbox(call.user);
    let mut keys: Vec<u64> = match &call.target.folder {
        Some(name) => mailbox.folders[&mailbox.find_folder(name)?].order.values().copied().collect(),
        None => mailbox.messages.keys().copied().collect(),
    };
    if call.target.folder.is_none() {
        keys.sort_unstable();
    }
    match call.query.get("$orderby").map(str::to_ascii_lowercase).as_deref() {
        None => {}
        Some(order @ ("receiveddatetime desc" | "receiveddatetime" | "receiveddatetime asc")) => {
            keys.sort_by_cached_key(|key| {
                mailbox
                    .messages
                    .get(key)
                    .map_or(0, |message| call.world.content(&mailbox, message).received_ms)
            });
            if order.ends_with("desc") {
                keys.reverse();
            }
        }
        Some(other) => return Err(bad(format!("The orderby '{other}' is not supported"))),
    }
    // A property of one's own is never on a message that was not created through the API.
    let own = matches!(filter, Some(Filter::Extended(id, _)) if id.contains('{'));
    let mut found = keys.iter().filter_map(|key| mailbox.messages.get(key)).filter(|message| match filter {
        None => true,
        Some(_) if own && matches!(message.source, Source::Generated { .. }) => false,
        Some(filter) => filter.accepts(&call.world.content(&mailbox, message)),
    });
    let rows = found.by_ref().skip(skip).take(size).map(|message| row(call, &mailbox, message)).collect();
    let more = found.next().is_some();
    Ok((rows, more))
}

/// The token of a link, checked; none on the first call of a round.
pub(crate) fn resume(call: &Call, mailbox: &Mailbox, folder: Option<u32>) -> Result<Option<Token>, Refusal> {
    let Some(text) = call.query.get("$skiptoken").or_else(|| call.query.get("$deltatoken")) else {
        return Ok(None);
    };
    let gone = || refuse(410, "SyncStateNotFound", "The sync state generation is not found.");
    if call.luck.strikes("410", call.options.faults.rate_expired_delta) {
        call.world.counters.fault("410");
        return Err(gone());
    }
    let token =
        Token::decode(text).ok_or_else(|| refuse(400, "SyncStateInvalid", "The sync state is invalid."))?;
    if token.nonce != call.world.nonce || token.epoch != mailbox.epoch || token.folder != folder {
        return Err(gone());
    }
    Ok(Some(token))
}

/// Appends the next or delta link of a page.
pub(crate) fn delta_page(call: &Call, out: &mut Vec<u8>, token: &Token, more: bool) {
    let (link, name) = match more {
        true => ("@odata.nextLink", "$skiptoken"),
        false => ("@odata.deltaLink", "$deltatoken"),
    };
    text(out, link, &call.link(&Query(vec![(name.into(), token.encode())])));
}

/// One page of changes of a folder.
pub(crate) fn delta(call: &Call) -> Answer {
    if call.query.get("$filter").is_some() || call.query.get("$search").is_some() {
        return Err(bad("The filter is not supported for change tracking".into()));
    }
    let faults = &call.options.faults;
    let size = call.size()?;
    let (rows, token, more) = {
        let mailbox = call.world.mailbox(call.user);
        let folder = mailbox.find_folder(call.target.folder.as_deref().unwrap_or_default())?;
        let mut token = match resume(call, &mailbox, Some(folder))? {
            Some(token) => token,
            None => Token {
                folder: Some(folder),
                position: 0,
                start: mailbox.seq,
                epoch: mailbox.epoch,
                nonce: call.world.nonce,
                options: call.query.without(&["$top"]).0,
            },
        };
        let empty = call.luck.strikes("empty page", faults.rate_empty_page);
        let (mut changes, mut more) = (Vec::new(), true);
        if empty {
            call.world.counters.fault("empty_page");
        } else {
            (changes, more) = delta::messages(&mailbox, folder, &mut token, size);
        }
        if !changes.is_empty() && call.luck.strikes("duplicate", faults.rate_duplicate_in_page) {
            call.world.counters.fault("duplicate_in_page");
            // An older state of something that is gone since is never shown after its removal.
            if let Some(first) = changes.iter().find(|change| matches!(change, Change::Present(_))).copied() {
                changes.push(first);
            }
        }
        if call.luck.strikes("phantom removed", faults.rate_phantom_removed) {
            call.world.counters.fault("phantom_removed");
            changes.push(Change::Removed(u64::MAX - u64::from(call.luck.call), 0));
        }
        let rows: Vec<Result<Row, String>> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Present(key) => {
                    mailbox.messages.get(key).map(|message| Ok(row(call, &mailbox, message)))
                }
                Change::Removed(key, moves) => {
                    let moves = (call.form == Form::Mutable).then_some(*moves);
                    Some(Err(Id::Message { user: mailbox.user, key: *key, moves }.encode()))
                }
            })
            .collect();
        (rows, token, more)
    };
    let mut view = Query(token.options.clone()).view().map_err(bad)?;
    view.typed = true;
    let mut out = open(call);
    list_of(&mut out, &rows, |out, row| match row {
        Ok(row) => write(call, out, row, &view),
        Err(id) => {
            out.push(b'{');
            text(out, "@odata.type", "#microsoft.graph.message");
            text(out, "id", id);
            out.extend_from_slice(b",\"@removed\":{\"reason\":\"deleted\"}}");
        }
    });
    delta_page(call, &mut out, &token, more);
    out.push(b'}');
    Ok(Reply::Json(200, out))
}

/// The message a path names: its place and what it holds.
pub(crate) fn target(call: &Call) -> Result<(Head, Arc<Content>), Refusal> {
    if call.luck.strikes("404", call.options.faults.rate_404) {
        call.world.counters.fault("404");
        return Err(crate::mailbox::Missing::Gone.into());
    }
    let (head, source) = {
        let mailbox = call.world.mailbox(call.user);
        let message = find(call, &mailbox)?;
        (head(call, &mailbox, message), message.source.clone())
    };
    Ok((head, call.world.content_of(call.user, &source)))
}

fn find<'a>(call: &Call, mailbox: &'a Mailbox) -> Result<&'a Message, Refusal> {
    let message = mailbox.find_message(call.target.message.as_deref().unwrap_or_default())?;
    if let Some(folder) = &call.target.folder
        && mailbox.find_folder(folder)? != message.folder
    {
        return Err(crate::mailbox::Missing::Gone.into());
    }
    Ok(message)
}

fn shown(call: &Call, status: u16, head: &Head, content: &Content) -> Answer {
    let view = call.query.view().map_err(bad)?;
    let mut out = Vec::new();
    json::message(&mut out, head, content, &view, call.options.attachment_overhead);
    Ok(if status == 201 { Reply::Created(out) } else { Reply::Json(status, out) })
}

/// Reads, changes or deletes one message.
pub(crate) fn one(call: &Call) -> Answer {
    if call.method == Method::DELETE {
        let mut mailbox = call.world.mailbox(call.user);
        let key = find(call, &mailbox)?.key;
        mailbox.delete_message(key);
        return Ok(Reply::Empty(204));
    }
    if call.method == Method::PATCH {
        update(call)?;
    }
    let (head, content) = target(call)?;
    shown(call, 200, &head, &content)
}

fn update(call: &Call) -> Result<(), Refusal> {
    let body = call.json()?;
    let object = body.as_object().ok_or_else(|| bad("the body is not an object".into()))?;
    let mut mailbox = call.world.mailbox(call.user);
    let message = find(call, &mailbox)?;
    let key = message.key;
    let mut content = (*call.world.content(&mailbox, message)).clone();
    let sensitive = object.keys().any(|name| SENSITIVE.contains(&name.to_ascii_lowercase().as_str()));
    if sensitive {
        if !content.is_draft && !call.has_role(&[ADVANCED]) {
            let text = "Sensitive properties of messages that are not drafts need Mail-Advanced.ReadWrite.";
            return Err(refuse(403, "ErrorAccessDenied", text));
        }
        content.raw_mime = None;
    }
    create::apply(&mut content, object)?;
    mailbox.rewrite(key, content, call.world.clock.now_ms());
    Ok(())
}

/// The message as MIME.
pub(crate) fn value(call: &Call) -> Answer {
    let faults = &call.options.faults;
    if call.luck.dooms("corrupt item", faults.rate_corrupt_item) {
        call.world.counters.fault("corrupt_item");
        return Err(refuse(500, "ErrorCorruptData", "The item is corrupt."));
    }
    let (head, content) = target(call)?;
    let name = &call.world.people.user(call.user).user_principal_name;
    call.world.counters.with(|all| *all.content_requests.entry(name.clone()).or_default() += 1);
    let read = call.world.reads.fetch_add(1, Ordering::Relaxed);
    Ok(Reply::Mime(Mime::new(&content, (read << 20) ^ head.key)))
}

fn create_one(call: &Call) -> Answer {
    let now = call.world.clock.now_ms();
    let unique = call.world.reads.fetch_add(1, Ordering::Relaxed);
    let content = if call.is_json {
        create::message(&call.json()?, now, unique, &call.world.blobs)?
    } else {
        from_mime(call, now)?
    };
    let (head, content) = {
        let mut mailbox = call.world.mailbox(call.user);
        let folder = match &call.target.folder {
            Some(name) => mailbox.find_folder(name)?,
            None => DRAFTS,
        };
        let content = Arc::new(content);
        let key = mailbox.insert(folder, Source::Owned(Arc::clone(&content)), now);
        (head(call, &mailbox, &mailbox.messages[&key]), content)
    };
    call.world.counters.with(|all| all.messages_created += 1);
    shown(call, 201, &head, &content)
}

/// A create from MIME is a draft of today whatever its headers say.
fn from_mime(call: &Call, now: u64) -> Result<Content, Refusal> {
    let invalid =
        || refuse(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.");
    let encoded: Vec<u8> = call.body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let raw = STANDARD.decode(encoded).map_err(|_| invalid())?;
    if raw.len() > MAX_MIME {
        return Err(refuse(
            413,
            "ErrorMessageSizeExceeded",
            "The message exceeds the maximum supported size.",
        ));
    }
    let mut content = crate::eml::parse(Bytes::from(raw), &call.world.blobs).ok_or_else(invalid)?;
    content.is_draft = true;
    content.received_ms = now - now % 1000;
    content.created_ms = content.received_ms;
    Ok(content)
}

/// Moves the message; without immutable ids it has a new id after it.
pub(crate) fn relocate(call: &Call) -> Answer {
    let body = call.json()?;
    let destination = body
        .as_object()
        .and_then(|object| object.iter().find(|(name, _)| name.eq_ignore_ascii_case("destinationId")))
        .and_then(|(_, value)| value.as_str().or(None))
        .ok_or_else(|| refuse(400, "ErrorInvalidArgument", "destinationId is missing"))?;
    let (head, source) = {
        let mut mailbox = call.world.mailbox(call.user);
        let target = mailbox.find_folder(destination)?;
        let key = find(call, &mailbox)?.key;
        mailbox.move_message(key, target, call.world.clock.now_ms());
        let message = &mailbox.messages[&key];
        (head(call, &mailbox, message), message.source.clone())
    };
    let content = call.world.content_of(call.user, &source);
    shown(call, 201, &head, &content)
}

/// Changes the content of the message a path names.
pub(crate) fn rewrite<T>(
    call: &Call,
    change: impl FnOnce(&mut Content, u32) -> Result<T, Refusal>,
) -> Result<(Head, T), Refusal> {
    let mut mailbox = call.world.mailbox(call.user);
    let message = find(call, &mailbox)?;
    let key = message.key;
    let mut content = (*call.world.content(&mailbox, message)).clone();
    let number = mailbox.next_attachment();
    let result = change(&mut content, number)?;
    content.raw_mime = None;
    mailbox.rewrite(key, content, call.world.clock.now_ms());
    Ok((head(call, &mailbox, &mailbox.messages[&key]), result))
}

/// A string of the body, `Null` when absent.
pub(crate) fn field<'a>(body: &'a Value, name: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    body.as_object()
        .and_then(|object| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)))
        .map_or(&NULL, |(_, value)| value)
}
