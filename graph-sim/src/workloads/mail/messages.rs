//! Messages: lists, delta, one, MIME, create, change, move.
//!
//! Invariant: what is read under the mailbox's lock is only ids and sources; content is made after it is released.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;

use crate::delta::{self, Stand};
use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::ids::{Form, Id, Missing};
use crate::json::{list_of, text};
use crate::workloads::mail::changes::{self, Change};
use crate::workloads::mail::content::Content;
use crate::workloads::mail::create::{self, SENSITIVE};
use crate::workloads::mail::eml;
use crate::workloads::mail::filter::Filter;
use crate::workloads::mail::folders;
use crate::workloads::mail::json::{self, Head, View};
use crate::workloads::mail::mailbox::{DRAFTS, Mailbox, Message, Source};
use crate::workloads::mail::mime::Mime;

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
    let view = View::of(&call.query).map_err(bad)?;
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
    let mut keys: Vec<u64> = match call.param("folder") {
        Some(name) => {
            mailbox.folders[&folders::find(call, &mailbox, name)?].order.values().copied().collect()
        }
        None => mailbox.messages.keys().copied().collect(),
    };
    if call.param("folder").is_none() {
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

/// One page of changes of a folder.
pub(crate) fn delta(call: &Call) -> Answer {
    if call.query.get("$filter").is_some() || call.query.get("$search").is_some() {
        return Err(bad("The filter is not supported for change tracking".into()));
    }
    let size = call.size()?;
    let (rows, token, more) = {
        let mailbox = call.world.mailbox(call.user);
        let folder = folders::find(call, &mailbox, call.param("folder").unwrap_or_default())?;
        let stand = Stand { seq: mailbox.seq, epoch: mailbox.epoch };
        let mut token = delta::resume(call, stand, &format!("mail {folder}"))?;
        let (changes, more) = delta::disturbed(
            call,
            || changes::messages(&mailbox, folder, &mut token, size),
            |change| matches!(change, Change::Present(_)),
            |key| Change::Removed(key, 0),
        );
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
    let mut view = View::of(&token.query()).map_err(bad)?;
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
    delta::link(call, &mut out, &token, more);
    out.push(b'}');
    Ok(Reply::Json(200, out))
}

/// The whole mailbox has no delta, although Microsoft's description has the path.
pub(crate) fn delta_of_mailbox(_call: &Call) -> Answer {
    Err(refuse(400, "ErrorInvalidRequest", "Change tracking is not supported against this resource."))
}

/// The message a path names: its place and what it holds.
pub(crate) fn target(call: &Call) -> Result<(Head, Arc<Content>), Refusal> {
    if call.luck.strikes("404", call.options.faults.rate_404) {
        call.world.counters.fault("404");
        return Err(Missing::Gone.into());
    }
    let (head, source) = {
        let mailbox = call.world.mailbox(call.user);
        let message = find(call, &mailbox)?;
        (head(call, &mailbox, message), message.source.clone())
    };
    Ok((head, call.world.content_of(call.user, &source)))
}

fn find<'a>(call: &Call, mailbox: &'a Mailbox) -> Result<&'a Message, Refusal> {
    let message = mailbox.find_message(call.param("message").unwrap_or_default())?;
    if let Some(folder) = call.param("folder")
        && mailbox.find_folder(folder)? != message.folder
    {
        return Err(Missing::Gone.into());
    }
    Ok(message)
}

fn shown(call: &Call, status: u16, head: &Head, content: &Content) -> Answer {
    let view = View::of(&call.query).map_err(bad)?;
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
        let folder = match call.param("folder") {
            Some(name) => folders::destination(call, &mailbox, name)?,
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
    let mut content = eml::parse(Bytes::from(raw), &call.world.blobs).ok_or_else(invalid)?;
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
        let target = folders::destination(call, &mailbox, destination)?;
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
