//! The settings of a mailbox. They are overwritten, so only a path that names them brings them back.

use serde_json::{Value, json};

use super::{Outcome, Run, Stored};
use crate::{
    JobError,
    workload::write_back::{Written, copied},
};

/// Settings that may be written as they were; the archive folder and the mailbox's purpose are Exchange's own.
const COPIED: &[&str] = &[
    "timeZone",
    "language",
    "workingHours",
    "dateFormat",
    "timeFormat",
    "delegateMeetingMessageDeliveryOptions",
];
/// What of automatic replies is written as it was.
const REPLIES_COPIED: &[&str] = &["externalAudience", "internalReplyMessage", "externalReplyMessage"];
/// When they are sent, where that was said.
const REPLIES_TIMES: &[&str] = &["scheduledStartDateTime", "scheduledEndDateTime"];
/// They would send mail: they come back switched off.
const REPLIES_OFF: &str = "AutomaticRepliesOff";

pub(super) async fn restore<'a>(
    run: &mut Run<'_>,
    stored: impl Iterator<Item = &'a Stored<'a>>,
) -> Result<(), JobError> {
    for one in stored {
        if !run.is_asked_for() || !run.is_in_place(one)? {
            continue;
        }
        let settings = one.fields.get("mailboxSettings").cloned().unwrap_or_default();
        let (body, losses) = body(&settings);
        let written = run.context.graph.change_mailbox_settings(&run.context.user, &body).await;
        let outcome = written.map(|()| Outcome::Done(Written::Created, losses)).map_err(JobError::from);
        run.note(one, outcome)?;
    }
    Ok(())
}

/// What is written, and what of it is not as it was.
fn body(settings: &Value) -> (Value, Vec<String>) {
    let mut body = copied(|name| settings.get(name), COPIED);
    let mut losses = Vec::new();
    if let Some(replies) = settings.get("automaticRepliesSetting").filter(|replies| replies.is_object()) {
        let status = replies.get("status").and_then(Value::as_str).unwrap_or("disabled");
        let mut off = copied(|name| replies.get(name), REPLIES_COPIED);
        if status == "scheduled" {
            off.extend(copied(|name| replies.get(name), REPLIES_TIMES));
        }
        off.insert("status".to_owned(), json!("disabled"));
        body.insert("automaticRepliesSetting".to_owned(), off.into());
        if status != "disabled" {
            losses.push(REPLIES_OFF.to_owned());
        }
    }
    (body.into(), losses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_replies_come_back_switched_off_and_that_is_said() {
        let settings = json!({ "timeZone": "UTC", "archiveFolder": "f", "userPurpose": "user", "dateFormat": null,
            "automaticRepliesSetting": { "status": "scheduled", "internalReplyMessage": "away",
                "scheduledStartDateTime": { "dateTime": "2026-01-01T00:00:00" } } });
        let expected = json!({ "timeZone": "UTC", "automaticRepliesSetting": { "status": "disabled",
            "internalReplyMessage": "away", "scheduledStartDateTime": { "dateTime": "2026-01-01T00:00:00" } } });
        assert_eq!(body(&settings), (expected, vec![REPLIES_OFF.to_owned()]));
        let off =
            json!({ "automaticRepliesSetting": { "status": "disabled", "scheduledStartDateTime": {} } });
        assert_eq!(body(&off), (json!({ "automaticRepliesSetting": { "status": "disabled" } }), Vec::new()));
    }
}
