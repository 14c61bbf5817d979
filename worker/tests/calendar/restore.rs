use serde_json::{Value, json};

use crate::harness::World;

/// Nobody is invited again: those who were are named in the text.
fn without_invitations(before: &mut [Value], after: &mut [Value]) {
    let mut invited = std::collections::BTreeSet::new();
    for one in before.iter_mut() {
        let identity = one["identity"].clone();
        for_each_time(one, |day, time| {
            if time["attendees"].as_array().is_some_and(|all| !all.is_empty()) {
                invited.insert((identity.to_string(), day.to_owned()));
                time["attendees"] = json!([]);
                time["body"] = Value::Null;
            }
        });
    }
    assert!(!invited.is_empty(), "somebody was invited");
    for one in after {
        let identity = one["identity"].clone();
        for_each_time(one, |day, time| {
            if invited.contains(&(identity.to_string(), day.to_owned())) {
                let text = time["body"]["content"].as_str().unwrap();
                assert!(text.contains("Organizer: "), "{text}");
                time["body"] = Value::Null;
            }
        });
    }
}

/// The event, and each exception of a series.
fn for_each_time(event: &mut Value, mut with: impl FnMut(&str, &mut Value)) {
    with("", event);
    for (day, exception) in event["exceptions"].as_object_mut().into_iter().flatten() {
        with(day, exception);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_calendars_come_back_property_by_property_and_once() {
    World::new(40).await.assert_comes_back_once(without_invitations).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calendars_come_back_through_faults_of_every_kind() {
    World::new(30).await.assert_comes_back_through_faults(without_invitations).await;
}
