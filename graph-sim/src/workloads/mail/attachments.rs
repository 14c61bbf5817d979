//! Attachments of messages.

use bytes::Bytes;
use http::Method;

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::ids::{Form, Id, Missing};
use crate::json::{list_of, text};
use crate::workloads::mail::content::{Attachment, Content, Kind};
use crate::workloads::mail::create::{self, field};
use crate::workloads::mail::json::{self, AttachmentView, Head};
use crate::workloads::mail::messages::{ADVANCED, rewrite, target};
use crate::workloads::mail::mime::item_bytes;
use crate::world::World;

/// Larger ones need an upload session.
pub(crate) const MAX_DIRECT: u64 = 3 * 1024 * 1024;
const MAX_ATTACHMENT: u64 = 150_000_000;
/// A list with content beyond this fails, as it does in the field.
const MAX_LISTED_BYTES: u64 = 64 * 1024 * 1024;

const BASE_FIELDS: [&str; 6] = ["id", "name", "contentType", "size", "isInline", "lastModifiedDateTime"];

/// What `$select` and `$expand` show of attachments.
pub(crate) struct Shown {
    select: Option<Vec<String>>,
    item: bool,
}

pub(crate) fn shown(call: &Call) -> Result<Shown, Refusal> {
    let select = call.query.get("$select").map(selected).transpose()?;
    let item = match call.query.get("$expand").map(str::to_ascii_lowercase).as_deref() {
        None => false,
        Some("microsoft.graph.itemattachment/item") => true,
        Some(other) => return Err(refuse(400, "BadRequest", format!("Cannot expand '{other}'"))),
    };
    Ok(Shown { select, item })
}

/// Properties of the subtype must be cast: `microsoft.graph.fileAttachment/contentId`.
fn selected(list: &str) -> Result<Vec<String>, Refusal> {
    let name_of = |name: &str| {
        let lower = name.to_ascii_lowercase();
        if let Some(own) = lower.strip_prefix("microsoft.graph.fileattachment/") {
            return Ok(own.to_owned());
        }
        if BASE_FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name)) {
            return Ok(lower);
        }
        let text = format!("Could not find a property named '{name}' on type 'microsoft.graph.attachment'.");
        Err(refuse(400, "BadRequest", text))
    };
    list.split(',').map(str::trim).map(name_of).collect()
}

pub(crate) fn view<'a>(call: &Call, shown: &'a Shown) -> AttachmentView<'a> {
    AttachmentView {
        content: true,
        item: shown.item,
        select: shown.select.as_deref(),
        overhead: call.options.attachment_overhead,
    }
}

/// Lists all of them, without pages, or adds one.
pub(crate) fn collection(call: &Call) -> Answer {
    if call.method == Method::POST {
        return add(call);
    }
    let shown = shown(call)?;
    let (head, content) = target(call)?;
    let bytes: u64 = content.attachments.iter().map(file_size).sum();
    let with_content = shown
        .select
        .as_ref()
        .is_none_or(|list| list.iter().any(|one| one.eq_ignore_ascii_case("contentBytes")));
    if with_content && bytes > MAX_LISTED_BYTES {
        return Err(refuse(500, "ErrorTooManyObjectsOpened", "Too many objects are opened."));
    }
    let mut out = b"{".to_vec();
    text(&mut out, "@odata.context", &format!("{}/v1.0/$metadata#attachments", call.base));
    out.extend_from_slice(b",\"value\":");
    list_of(&mut out, &content.attachments, |out, one| {
        json::attachment(out, &head, one, &view(call, &shown))
    });
    out.push(b'}');
    Ok(Reply::Json(200, out))
}

pub(crate) fn file_size(attachment: &Attachment) -> u64 {
    match &attachment.kind {
        Kind::File(data) => data.len(),
        Kind::Item(item) => item.body.len() as u64,
        Kind::Reference => 0,
    }
}

/// Whether this message takes attachments at all.
pub(crate) fn check_draft(call: &Call, content: &Content) -> Result<(), Refusal> {
    if content.is_draft || call.options.attachments_on_non_drafts || call.has_role(&[ADVANCED]) {
        return Ok(());
    }
    Err(refuse(
        403,
        "ErrorAccessDenied",
        "Attachments of messages that are not drafts need Mail-Advanced.ReadWrite.",
    ))
}

fn add(call: &Call) -> Answer {
    let body = call.json()?;
    let now = call.world.clock.now_ms();
    let mut attachment = create::attachment(&body, 0, now, &call.world.blobs)?;
    if file_size(&attachment) > MAX_DIRECT {
        return Err(refuse(413, "ErrorMessageSizeExceeded", "The attachment needs an upload session."));
    }
    let (head, attachment) = rewrite(call, |content, key| {
        check_draft(call, content)?;
        attachment.key = key;
        content.attachments.push(attachment.clone());
        Ok(attachment)
    })?;
    let mut out = Vec::new();
    let view = AttachmentView {
        content: false,
        item: false,
        select: None,
        overhead: call.options.attachment_overhead,
    };
    json::attachment(&mut out, &head, &attachment, &view);
    Ok(Reply::Created(out))
}

fn find<'a>(call: &Call, head: &Head, content: &'a Content) -> Result<&'a Attachment, Refusal> {
    let key = wanted(call, head)?;
    let found = content.attachments.iter().find(|one| one.key == key);
    found.ok_or_else(|| Missing::Gone.into())
}

fn wanted(call: &Call, head: &Head) -> Result<u32, Refusal> {
    match Id::decode(call.param("attachment").unwrap_or_default()) {
        Some(Id::Attachment { user, message, key }) if user == head.user && message == head.key => Ok(key),
        Some(_) => Err(Missing::Gone.into()),
        None => Err(Missing::Malformed.into()),
    }
}

/// Reads or removes one.
pub(crate) fn one(call: &Call) -> Answer {
    let (head, content) = target(call)?;
    if call.method == Method::DELETE {
        let key = wanted(call, &head)?;
        rewrite(call, |content, _| {
            check_draft(call, content)?;
            let before = content.attachments.len();
            content.attachments.retain(|one| one.key != key);
            if content.attachments.len() == before { Err(Missing::Gone.into()) } else { Ok(()) }
        })?;
        return Ok(Reply::Empty(204));
    }
    let shown = shown(call)?;
    let mut out = Vec::new();
    json::attachment(&mut out, &head, find(call, &head, &content)?, &view(call, &shown));
    Ok(Reply::Json(200, out))
}

/// The bytes of a file, the MIME of an item; a reference has none.
pub(crate) fn value(call: &Call) -> Answer {
    let (head, content) = target(call)?;
    let attachment = find(call, &head, &content)?;
    value_of(attachment)
}

/// The bytes of an attachment.
pub(crate) fn value_of(attachment: &Attachment) -> Answer {
    match &attachment.kind {
        Kind::File(data) => Ok(Reply::Data(data.clone(), attachment.content_type.clone())),
        Kind::Item(item) => {
            let bytes = bytes::Bytes::from(item_bytes(item));
            let hash = *blake3::hash(&bytes).as_bytes();
            Ok(Reply::Data(crate::blob::Data::Kept { hash, bytes }, "text/plain".into()))
        }
        Kind::Reference => Err(refuse(405, "ErrorInvalidRequest", "A reference attachment has no value.")),
    }
}

/// What `createUploadSession` of an Outlook item asks for.
pub(crate) struct Announced {
    pub size: u64,
    /// Without its bytes.
    pub attachment: Attachment,
}

impl Announced {
    pub(crate) fn of(call: &Call) -> Result<Self, Refusal> {
        let body = call.json()?;
        let item = field(&body, "AttachmentItem");
        let size = field(item, "size").as_u64().unwrap_or(0);
        let name = field(item, "name").as_str().unwrap_or_default().to_owned();
        let is_file =
            field(item, "attachmentType").as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("file"));
        if size == 0 || name.is_empty() || !is_file {
            let text = "AttachmentItem needs attachmentType file, name and size.";
            return Err(refuse(400, "ErrorInvalidArgument", text));
        }
        if size > MAX_ATTACHMENT {
            return Err(refuse(413, "ErrorAttachmentSizeLimitExceeded", "The attachment is too large."));
        }
        let attachment = Attachment {
            key: 0,
            name,
            content_type: field(item, "contentType").as_str().unwrap_or("application/octet-stream").into(),
            is_inline: field(item, "isInline").as_bool().unwrap_or(false),
            content_id: field(item, "contentId").as_str().map(Into::into),
            // Replaced when the last piece has come.
            kind: Kind::Reference,
        };
        Ok(Self { size, attachment })
    }
}

/// Opens an upload session.
pub(crate) fn open_session(call: &Call) -> Answer {
    let Announced { size, mut attachment } = Announced::of(call)?;
    let (head, content) = target(call)?;
    check_draft(call, &content)?;
    let (user, message) = (call.user, head.key);
    let finish = move |world: &World, bytes: Bytes, base: &str| {
        attachment.kind = Kind::File(world.blobs.keep(bytes));
        finish(world, user, message, attachment, base)
    };
    let opened = call.world.uploads.open(call, size, Box::new(finish))?;
    opened.answer(call, &opened.url(call))
}

fn finish(
    world: &World,
    user: u32,
    message: u64,
    mut attachment: Attachment,
    base: &str,
) -> Result<String, Refusal> {
    let mut mailbox = world.mailbox(user);
    let key = mailbox.next_attachment();
    attachment.key = key;
    let found = mailbox.messages.get(&message);
    let found = found.ok_or_else(|| refuse(404, "ErrorItemNotFound", "The message is gone."))?;
    let message_id = mailbox.message_id(found, Form::Mutable);
    let mut content = (*world.content(&mailbox, found)).clone();
    content.raw_mime = None;
    content.attachments.push(attachment);
    mailbox.rewrite(message, content, world.clock.now_ms());
    let id = Id::Attachment { user, message, key }.encode();
    let owner = &world.people.user(user).id;
    Ok(format!("{base}/v1.0/Users('{owner}')/Messages('{message_id}')/Attachments('{id}')"))
}
