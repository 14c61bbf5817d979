//! `/mailboxSettings`.
//!
//! Invariant: automatic replies that are switched on are counted as mail that would have been sent.

use serde_json::{Map, Value, json};

use crate::http::{Answer, Call, Refusal, refuse};
use crate::json::timestamp;
use crate::workloads::mailbox_settings::store::{SETTINGS, SettingsStore};
use crate::workloads::objects::page;
use crate::workloads::objects::schema::object;

const REPLIES: &str = "automaticRepliesSetting";
const HOUR_MS: u64 = 3_600_000;

/// What Exchange shows and nobody may write.
const READ_ONLY: [&str; 2] = ["archiveFolder", "userPurpose"];

fn shown(call: &Call, mut settings: Map<String, Value>) -> Value {
    if let Some(replies) = settings.get_mut(REPLIES).and_then(Value::as_object_mut) {
        // What was never set is the hour that is running, and the day after.
        let hour = call.world.clock.now_ms() / HOUR_MS * HOUR_MS;
        let moment = |ms: u64| {
            let text = timestamp(ms);
            json!({"dateTime": format!("{}.0000000", text.trim_end_matches('Z')), "timeZone": "UTC"})
        };
        for (name, at) in [("scheduledStartDateTime", hour), ("scheduledEndDateTime", hour + 24 * HOUR_MS)] {
            replies.entry(name).or_insert_with(|| moment(at));
        }
    }
    let archive = {
        let mailbox = call.world.mailbox(call.user);
        mailbox.find_folder("archive").ok().map(|key| mailbox.folder_id(key))
    };
    settings.insert("archiveFolder".into(), archive.into());
    settings.insert("userPurpose".into(), "user".into());
    let context = format!("{}/v1.0/$metadata#users('{}')/mailboxSettings", call.base, call.user);
    settings.insert("@odata.context".into(), context.into());
    Value::Object(settings)
}

pub(super) fn get(call: &Call) -> Answer {
    let settings = call.world.state::<SettingsStore>(call.user).settings.clone();
    page::one(200, &shown(call, settings))
}

pub(super) fn patch(call: &Call) -> Answer {
    let body = call.json()?;
    let mut body = object(&body)?.clone();
    if let Some(name) = READ_ONLY.iter().find(|name| body.contains_key(**name)) {
        return Err(refuse(400, "ErrorInvalidArgument", format!("{name} cannot be changed")));
    }
    let replies = body.remove(REPLIES);
    let settings = {
        let mut store = call.world.state::<SettingsStore>(call.user);
        if let Some(replies) = replies {
            set_replies(call, &mut store.settings, object(&replies)?)?;
        }
        SETTINGS.apply(&mut store.settings, &body)?;
        store.settings.clone()
    };
    page::one(200, &shown(call, settings))
}

fn set_replies(
    call: &Call,
    settings: &mut Map<String, Value>,
    given: &Map<String, Value>,
) -> Result<(), Refusal> {
    let status = given.get("status").and_then(Value::as_str);
    match status {
        None | Some("disabled") => {}
        Some("alwaysEnabled" | "scheduled") => call.would_send("automatic_replies"),
        Some(_) => return Err(refuse(400, "RequestBodyRead", "Cannot convert the value of 'status'")),
    }
    if let Some(replies) = settings.get_mut(REPLIES).and_then(Value::as_object_mut) {
        replies.extend(given.clone());
    }
    Ok(())
}
