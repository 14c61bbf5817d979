//! The list of flagged mail: a view of the mailbox, which nobody writes to and nobody should restore.

use serde_json::{Value, json};

use crate::delta::{self, Stand, Token};
use crate::http::{Answer, Call};
use crate::ids::{Form, Id, Missing};
use crate::json::{change_key, timestamp};
use crate::workloads::mail::mailbox::{Mailbox, Message};
use crate::workloads::objects::view::View;
use crate::workloads::objects::{Change, Named, page};
use crate::workloads::todo::store::{FLAGGED_TAG, SCHEMA, TodoStore};

fn shown(call: &Call, mailbox: &Mailbox, message: &Message, view: &View) -> Option<Value> {
    let content = call.world.content(mailbox, message);
    let status = match content.flag_status() {
        "flagged" => "notStarted",
        "complete" => "completed",
        _ => return None,
    };
    let mut fields = SCHEMA.blank();
    let link = json!({
        "id": mailbox.message_id(message, Form::Immutable), "applicationName": "Outlook",
        "displayName": content.subject, "externalId": mailbox.message_id(message, Form::Immutable),
        "webUrl": "https://outlook.office365.com/owa/",
    });
    fields.extend([
        ("@odata.etag".to_owned(), json!(format!("W/\"{}\"", change_key(message.change)))),
        ("id".to_owned(), id(call, message.key).into()),
        ("title".to_owned(), content.subject.clone().into()),
        ("status".to_owned(), status.into()),
        ("body".to_owned(), json!({"content": "", "contentType": "text"})),
        ("createdDateTime".to_owned(), timestamp(content.created_ms).into()),
        ("lastModifiedDateTime".to_owned(), timestamp(message.modified_ms.max(content.created_ms)).into()),
        ("hasAttachments".to_owned(), false.into()),
    ]);
    if view.expands("linkedResources") {
        fields.insert("linkedResources".into(), json!([link]));
    }
    Some(view.project(fields, &[]))
}

fn id(call: &Call, message: u64) -> String {
    Id::Object { tag: FLAGGED_TAG, user: call.user, key: message, extra: 0, moves: None }.encode()
}

pub(crate) fn list(call: &Call) -> Answer {
    let view = View::of(&SCHEMA, &call.query, &["linkedResources"])?;
    let mailbox = call.world.mailbox(call.user);
    let mut messages: Vec<&Message> = mailbox.messages.values().collect();
    messages.sort_unstable_by_key(|message| message.key);
    let tasks: Vec<Value> =
        messages.into_iter().filter_map(|message| shown(call, &mailbox, message, &view)).collect();
    page::list(call, "tasks", &tasks, Value::clone)
}

pub(crate) fn get(call: &Call) -> Answer {
    let view = View::of(&SCHEMA, &call.query, &["linkedResources"])?;
    let wanted = Named::of(call.param("task").unwrap_or_default(), FLAGGED_TAG, call.user)?.key;
    let mailbox = call.world.mailbox(call.user);
    let message = mailbox.messages.get(&wanted).ok_or(Missing::Gone)?;
    page::one(200, &shown(call, &mailbox, message, &view).ok_or(Missing::Gone)?)
}

/// Messages that changed since: those with a flag are there, those without are removed, ever seen or not.
pub(crate) fn delta(call: &Call) -> Answer {
    page::refuse_options(call)?;
    let size = call.size()?;
    let epoch = call.world.state::<TodoStore>(call.user).numbers.epoch;
    let mailbox = call.world.mailbox(call.user);
    let mut token = delta::resume(call, Stand { seq: mailbox.seq, epoch }, "todo flagged")?;
    let view = View::of(&SCHEMA, &token.query(), &[])?;
    let (changes, more) = delta::disturbed(
        call,
        || changes(call, &mailbox, &mut token, size),
        |change| matches!(change, Change::Present(_)),
        |key| Change::Removed(key, 0),
    );
    let line = |change: Change| match change {
        Change::Present(key) => {
            let shown = shown(call, &mailbox, mailbox.messages.get(&key)?, &view)?;
            Some(page::typed(shown, SCHEMA.name))
        }
        Change::Removed(key, _) => Some(page::removed(&id(call, key), SCHEMA.name)),
    };
    let lines = changes.into_iter().filter_map(line).collect();
    page::answer(call, "Collection(todoTask)", lines, &token, more)
}

fn changes(call: &Call, mailbox: &Mailbox, token: &mut Token, size: usize) -> (Vec<Change>, bool) {
    let is_flagged = |message: &Message| call.world.content(mailbox, message).flag_status() != "notFlagged";
    let mut present: Vec<(u64, Change)> = mailbox
        .messages
        .values()
        .filter(|message| message.seq > token.position)
        .filter_map(|message| {
            if is_flagged(message) {
                return Some((message.seq, Change::Present(message.key)));
            }
            (message.seq > token.start).then_some((message.seq, Change::Removed(message.key, 0)))
        })
        .collect();
    present.sort_unstable_by_key(|(seq, _)| *seq);
    let mut removed: Vec<(u64, Change)> = mailbox
        .folders
        .values()
        .flat_map(|folder| folder.tombstones.range(token.position.max(token.start) + 1..))
        .filter(|(_, (key, _))| !mailbox.messages.contains_key(key))
        .map(|(seq, (key, _))| (*seq, Change::Removed(*key, 0)))
        .collect();
    removed.sort_unstable_by_key(|(seq, _)| *seq);
    delta::page(present.into_iter().peekable(), removed.into_iter().peekable(), token, size)
}
