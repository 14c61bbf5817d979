use holdfast_graph_client::{CalendarWindow, Change};
use reqwest::Method;
use serde_json::json;

use crate::harness::{Told, World, outcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_too_slow_is_listed_instead() {
    let mut world = World::new(60).await;
    world.faults(json!({"seed": 1, "calendar-delta-page-max": 12})).await;
    let first = world.back_up().await;
    assert_eq!(first.account.stored, 60, "smaller pages will do");
    world.check_snapshot().await;
    world.faults(json!({"seed": 1, "calendar-delta-page-max": 1})).await;
    world.evolve(json!({"seed": 4, "new": 3, "edited": 5, "moved": 0, "deleted": 4, "flags": 0})).await;
    let second = world.back_up().await;
    assert_eq!(outcome(&second), (59, 8, 51, 4));
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_microsoft_no_longer_has_are_found_by_listing() {
    let mut world = World::new(60).await;
    world.back_up().await;
    world.control("options", json!({"per-calendar-delta": false})).await;
    world.evolve(json!({"seed": 4, "new": 3, "edited": 8, "moved": 4, "deleted": 4, "flags": 6})).await;
    let second = world.back_up().await;
    assert_eq!((second.account.stored, second.account.removed), (21, 4));
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_moved_to_another_calendar_is_there_and_its_attachments_are_not_read_again() {
    for told in [Told::ByDelta, Told::NotAtAll] {
        let mut world = World::with(60, told).await;
        world.back_up().await;
        let files = world.n_files_read();
        world.evolve(json!({"seed": 6, "new": 0, "edited": 0, "moved": 20, "deleted": 0, "flags": 0})).await;
        let finished = world.back_up().await;
        assert_eq!((finished.account.stored, finished.account.removed), (20, 0));
        assert_eq!(world.n_files_read(), files);
        world.check_snapshot().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_calendar_that_is_gone_goes_with_its_events() {
    let mut world = World::new(60).await;
    world.back_up().await;
    let calendars = world.graph().calendars(&world.user.id).await.unwrap();
    let owner = calendars.iter().find(|one| one.is_default).unwrap().owner.clone();
    let doomed = calendars.iter().find(|one| !one.is_default && one.owner == owner).unwrap();
    world.send(Method::DELETE, &format!("/calendars/{}", doomed.id), &json!(null)).await;
    let n_left = world.truth_by_id().await.len() as u64;
    assert!(n_left < 60);
    let finished = world.back_up().await;
    assert_eq!(finished.account.removed, 60 - n_left);
    world.check_snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_of_a_calendar_without_changes_are_looked_at_again_once_a_week() {
    let mut world = World::with(100, Told::NotAtAll).await;
    world.back_up().await;
    let (roots, gets) = (world.reader().await.header().roots, world.n_requests("calendar_event_get"));
    world.back_up().await;
    assert_eq!(world.n_requests("calendar_event_get"), gets, "nothing is due on the same day");
    world.time.days_pass(7);
    world.back_up().await;
    assert!(world.n_requests("calendar_event_get") > gets);
    assert_eq!(world.reader().await.header().roots, roots, "they are the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attachment_kind_is_stored() {
    let mut world = World::new(20).await;
    let truth = world.truth_by_id().await;
    let lonely = truth.values().find(|event| event["attendees"].as_array().unwrap().is_empty()).unwrap();
    let id = lonely["id"].as_str().unwrap();
    let link = json!({"@odata.type": "#microsoft.graph.referenceAttachment", "name": "plan.docx"});
    let item = json!({"@odata.type": "#microsoft.graph.itemAttachment", "name": "a note",
        "item": {"@odata.type": "#microsoft.graph.message", "subject": "within"}});
    for attachment in [&link, &item] {
        world.send(Method::POST, &format!("/events/{id}/attachments"), attachment).await;
    }
    world.back_up().await;
    let stored = world.stored().await;
    let event = stored.iter().find(|event| event.id == id).unwrap();
    let attachments = event.meta["_holdfast"]["attachments"].as_array().unwrap();
    let json_of = |name: &str| -> serde_json::Value {
        let one = attachments.iter().find(|one| one["info"]["name"] == name).unwrap();
        assert_eq!(one["source"]["in"], "json");
        let part = usize::try_from(one["source"]["part"].as_u64().unwrap()).unwrap();
        serde_json::from_slice(&event.parts[part]).unwrap()
    };
    assert_eq!(json_of("plan.docx")["@odata.type"], "#microsoft.graph.referenceAttachment");
    assert_eq!(json_of("a note")["item"]["subject"], "within");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulator_tells_of_what_is_outside_of_the_window_as_removed() {
    // What the test above relies on: without such events it would prove less than it says.
    let mut world = World::new(80).await;
    world.back_up().await;
    let window = CalendarWindow { start: "2026-11-01T00:00:00Z".into(), end: "2026-12-01T00:00:00Z".into() };
    let (graph, user) = (world.graph(), world.user.id.clone());
    let mut link = None;
    let delta = loop {
        let page = graph.calendar_view_delta(&user, None, &window, link.as_deref()).await.unwrap();
        match page.delta {
            Some(delta) => break delta,
            None => link = page.next,
        }
    };
    world.evolve(json!({"seed": 2, "new": 0, "edited": 40, "moved": 0, "deleted": 0, "flags": 0})).await;
    let page = graph.calendar_view_delta(&user, None, &window, Some(&delta)).await.unwrap();
    let n_removed = page.items.iter().filter(|one| matches!(one, Change::Removed { .. })).count();
    assert!(n_removed > 5, "{n_removed}");
}
