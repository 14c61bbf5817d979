//! What of a setting says that somebody changed it.

use serde_json::Value;

/// The times of automatic replies.
const TIMES: [&str; 2] = ["scheduledStartDateTime", "scheduledEndDateTime"];

/// A setting without what moves by itself: where automatic replies are not scheduled, Exchange shows the hour that is running as
/// their time.
pub(super) fn steady(raw: &Value) -> Value {
    let mut steady = raw.clone();
    if let Some(replies) =
        steady.pointer_mut("/mailboxSettings/automaticRepliesSetting").and_then(Value::as_object_mut)
        && replies.get("status").and_then(Value::as_str) != Some("scheduled")
    {
        replies.retain(|name, _| !TIMES.contains(&name.as_str()));
    }
    steady
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_time_of_replies_counts_only_where_they_are_scheduled() {
        let settings = |status: &str, hour: u32| {
            let time = json!({ "dateTime": format!("2026-01-01T{hour:02}:00:00"), "timeZone": "UTC" });
            json!({ "mailboxSettings": { "timeZone": "UTC",
                "automaticRepliesSetting": { "status": status, "scheduledStartDateTime": time } } })
        };
        assert_eq!(steady(&settings("disabled", 1)), steady(&settings("disabled", 2)));
        assert_ne!(steady(&settings("scheduled", 1)), steady(&settings("scheduled", 2)));
        assert_ne!(steady(&settings("disabled", 1)), steady(&settings("alwaysEnabled", 1)));
        let rule = json!({ "displayName": "x" });
        assert_eq!(steady(&rule), rule);
    }
}
