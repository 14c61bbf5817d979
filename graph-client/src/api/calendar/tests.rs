use bytes::Bytes;
use serde_json::json as value;

use super::*;
use crate::{
    AttachmentOwner, Change, ErrorClass, NewAttachment,
    testing::{Seen, Server, json, refusal},
};

fn page(items: &[Value]) -> String {
    value!({ "value": items }).to_string()
}

fn body(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap()
}

fn window() -> CalendarWindow {
    CalendarWindow { start: "2020-01-01T00:00:00Z".into(), end: "2030-01-01T00:00:00Z".into() }
}

const PREFER: &str = r#"IdType="ImmutableId", outlook.timezone="UTC""#;

#[tokio::test]
async fn all_calendars_are_listed_with_whose_they_are() {
    let calendars = [
        value!({"id": "a", "name": "Kalender", "isDefaultCalendar": true, "owner": {"address": "u@x"}}),
        value!({"id": "b", "name": "Theirs", "owner": {"name": "n", "address": "v@x"}, "hexColor": "#f00"}),
    ];
    let server = Server::start(move |_, _| json(200, page(&calendars))).await;
    let client = server.client();
    let found = client.calendars("u").await.unwrap();
    assert_eq!((found[0].is_default, found[1].is_default), (true, false));
    assert_eq!((found[1].owner.as_deref(), &found[1].raw["hexColor"]), (Some("v@x"), &value!("#f00")));
    assert_eq!(client.calendar_groups("u").await.unwrap().len(), 2);
    server.assert_described();
}

#[tokio::test]
async fn the_view_of_the_primary_calendar_has_a_delta_that_asks_for_less_when_it_is_slow() {
    let server = Server::start(|n, seen| {
        let link =
            format!("http://{}/v1.0/users/u/calendarView/delta?$skiptoken=x", seen.header("host").unwrap());
        match n {
            0 => json(503, ""),
            1 => json(
                200,
                value!({"value": [
                {"id": "o", "type": "occurrence", "seriesMasterId": "m", "start": {"dateTime": "x"}},
                {"id": "r", "@removed": {"reason": "deleted"}},
            ], "@odata.nextLink": link})
                .to_string(),
            ),
            _ => json(200, r#"{"value":[],"@odata.deltaLink":"d"}"#),
        }
    })
    .await;
    let client = server.client();
    let first = client.calendar_view_delta("u", None, &window(), None).await.unwrap();
    assert!(matches!(&first.items[0], Change::Present(event)
        if event.kind == CalendarEventKind::Occurrence && event.is_partial && event.series_master_id.as_deref() == Some("m")));
    assert!(matches!(&first.items[1], Change::Removed { .. }));
    let last = client.calendar_view_delta("u", None, &window(), first.next.as_deref()).await.unwrap();
    assert_eq!(last.delta.as_deref(), Some("d"));
    let seen = server.seen();
    let sizes: Vec<_> = seen.iter().map(|seen| seen.header("prefer").unwrap().to_owned()).collect();
    let expected: Vec<_> = [50, 12, 50].map(|size| format!("odata.maxpagesize={size}, {PREFER}")).into();
    assert_eq!(sizes, expected);
    let query = "startDateTime=2020-01-01T00:00:00Z&endDateTime=2030-01-01T00:00:00Z";
    assert_eq!(seen[0].uri.to_string(), format!("/v1.0/users/u/calendarView/delta?{query}"));
    server.assert_described();
}

#[tokio::test]
async fn whether_another_calendar_has_a_delta_is_found_out_by_one_call() {
    let server = Server::start(|n, _| match n {
        0 => json(200, r#"{"value":[],"@odata.deltaLink":"d"}"#),
        1 => refusal(400, "ErrorInvalidRequest"),
        _ => refusal(404, "ErrorItemNotFound"),
    })
    .await;
    let client = server.client();
    assert!(client.has_calendar_delta("u", "c", &window()).await.unwrap());
    assert!(!client.has_calendar_delta("u", "c", &window()).await.unwrap());
    let error = client.has_calendar_delta("u", "c", &window()).await.unwrap_err();
    assert_eq!((error.class(), server.seen().len()), (ErrorClass::Gone, 3));
    server.assert_described();
}

#[tokio::test]
async fn events_are_listed_and_read_as_they_come() {
    let raw = r#"{"@odata.etag":"W/\"k\"","id":"e","type":"seriesMaster","subject":"s","body":{"content":"<img src='cid:1'>"},"attendees":[],"isCancelled":true,"lastModifiedDateTime":"2024-05-01T10:00:05Z","future":1.50}"#;
    let invited =
        r#"{"id":"i","changeKey":"c","type":"newKind","body":{},"attendees":[{"emailAddress":{}}]}"#;
    let server = Server::start(move |_, seen| match seen.uri.path().rsplit('/').next().unwrap() {
        "events" => json(200, format!(r#"{{"value":[{raw},{invited}]}}"#)),
        _ => json(200, raw),
    })
    .await;
    let client = server.client();
    let events = client.calendar_events("u", "c", None).await.unwrap().items;
    assert_eq!((events[0].change_key.as_str(), &events[0].kind), ("k", &CalendarEventKind::SeriesMaster));
    assert_eq!((events[0].modified_ms, events[0].has_attendees), (Some(1_714_557_605_000), Some(false)));
    assert!(events[0].body_has_cid() && events[0].is_cancelled && !events[0].is_partial);
    assert_eq!(events[0].raw, raw.as_bytes());
    assert_eq!(
        (&events[1].kind, events[1].has_attendees),
        (&CalendarEventKind::Unknown("newKind".into()), Some(true))
    );
    assert_eq!(client.calendar_event("u", "e").await.unwrap(), events[0]);
    assert!(server.seen().iter().all(|seen| seen.header("prefer") == Some(PREFER)));
    server.assert_described();
}

#[tokio::test]
async fn a_series_comes_with_its_exceptions_and_with_what_was_called_off() {
    let exception =
        value!({"id": "x", "type": "exception", "originalStart": "2024-05-01T10:00:00Z", "body": {}});
    let server = Server::start(move |_, seen| match seen.uri.path().rsplit('/').next().unwrap() {
        "instances" => json(200, page(std::slice::from_ref(&exception))),
        _ => json(200, value!({"id": "m", "exceptionOccurrences": [exception], "cancelledOccurrences": ["OID.m.2024-05-02"]}).to_string()),
    })
    .await;
    let client = server.client();
    let series = client.calendar_series("u", "m").await.unwrap();
    assert_eq!(series.cancelled, ["OID.m.2024-05-02"]);
    assert_eq!(series.exceptions[0].original_start.as_deref(), Some("2024-05-01T10:00:00Z"));
    assert_eq!(client.calendar_instances("u", "m", &window(), "UTC").await.unwrap(), series.exceptions);
    assert!(server.seen()[0].uri.query().unwrap().contains("$expand=exceptionOccurrences"));
    server.assert_described();
}

#[tokio::test]
async fn whatever_an_event_is_made_from_it_invites_nobody() {
    let server = Server::start(|n, _| match n {
        0 => json(502, ""),
        _ => json(201, r#"{"id":"new"}"#),
    })
    .await;
    let client = server.client();
    let stored = value!({
        "id": "old", "changeKey": "k", "iCalUId": "x", "uid": "y", "webLink": "w", "transactionId": "t0",
        "subject": "s", "body": {"contentType": "text", "content": "b"}, "start": {"dateTime": "a"}, "end": null,
        "attendees": [{"emailAddress": {"address": "v@x"}}], "organizer": {"emailAddress": {}},
        "isOnlineMeeting": true, "onlineMeeting": {"joinUrl": "j"}, "responseRequested": true,
        "recurrence": {"pattern": {"type": "daily"}, "range": {"recurrenceTimeZone": "", "type": "noEnd"}},
        "exceptionOccurrences": [], "attachments": [],
    });
    let content = CalendarEventContent::of_stored(&stored)
        .with_extended_properties(value!([{"id": "String {x} Name y", "value": "z"}]))
        .with_times(value!({"dateTime": "s", "timeZone": "z"}), value!({"dateTime": "e", "timeZone": "z"}))
        .with_body(value!({"contentType": "text", "content": "b, and who was invited"}));
    let created = client.create_calendar_event("u", "c", &content, "t1").await.unwrap();
    assert_eq!((created.id(), server.seen().len()), ("new", 2));
    let expected = value!({
        "subject": "s", "transactionId": "t1",
        "start": {"dateTime": "s", "timeZone": "z"}, "end": {"dateTime": "e", "timeZone": "z"},
        "body": {"contentType": "text", "content": "b, and who was invited"},
        "recurrence": {"pattern": {"type": "daily"}, "range": {"recurrenceTimeZone": null, "type": "noEnd"}},
        "singleValueExtendedProperties": [{"id": "String {x} Name y", "value": "z"}],
    });
    for seen in server.seen() {
        assert_eq!(body(&seen), expected);
    }
    client.update_calendar_event("u", &created, &CalendarEventContent::of_stored(&stored)).await.unwrap();
    let patch = server.seen().pop().unwrap();
    assert_eq!((patch.method.as_str(), body(&patch).get("attendees")), ("PATCH", None));
    client.delete_calendar_event("u", &created).await.unwrap();
    server.assert_described();
}

#[tokio::test]
async fn only_an_event_that_is_known_to_invite_nobody_can_be_changed() {
    let events = [
        value!({"id": "a", "attendees": []}),
        value!({"id": "b", "attendees": [{"emailAddress": {}}]}),
        value!({"id": "c"}),
    ];
    let server = Server::start(move |_, _| json(200, page(&events))).await;
    let events = server.client().calendar_events("u", "c", None).await.unwrap().items;
    let proofs: Vec<_> = events.iter().map(|event| UnattendedEvent::of(event).is_some()).collect();
    assert_eq!(proofs, [true, false, false]);
}

#[tokio::test]
async fn attachments_of_an_event_are_those_of_a_message_in_another_place() {
    let server = Server::start(|_, seen| {
        let url = format!("http://{}/up", seen.header("host").unwrap());
        match (seen.method.as_str(), seen.uri.path().rsplit('/').next().unwrap()) {
            ("GET", "attachments") => {
                json(200, page(&[value!({"@odata.type": "#microsoft.graph.fileAttachment", "id": "a"})]))
            }
            ("GET", "a") => json(200, r#"{"id":"a","contentBytes":"eA=="}"#),
            ("GET", _) => json(200, "x"),
            ("POST", "createUploadSession") => json(201, value!({ "uploadUrl": url }).to_string()),
            ("POST", "attachments") => json(201, r#"{"id":"b"}"#),
            ("POST", _) => json(201, r#"{"id":"e"}"#),
            _ => json(201, ""),
        }
    })
    .await;
    let client = server.client();
    let owner = AttachmentOwner::CalendarEvent("e");
    assert_eq!(client.attachments_of("u", owner).await.unwrap()[0].id, "a");
    assert_eq!(client.attachment_value_of("u", owner, "a").await.unwrap().read_all(9).await.unwrap(), "x");
    let json = client.attachment_json_of("u", owner, "a", crate::ExpandItem::No).await.unwrap();
    assert_eq!(json["contentBytes"], "eA==");
    let content = CalendarEventContent::of_stored(&value!({"subject": "s"}));
    let event = client.create_calendar_event("u", "c", &content, "t").await.unwrap();
    assert_eq!(client.add_event_attachment("u", &event, &value!({"name": "n"})).await.unwrap(), "b");
    let new =
        NewAttachment { name: "n".into(), size: 1, content_type: None, is_inline: false, content_id: None };
    let mut session = client.create_event_upload_session("u", &event, &new).await.unwrap();
    client.upload(&mut session, &Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(server.seen().pop().unwrap().header("authorization"), None);
    server.assert_described();
}

#[tokio::test]
async fn a_calendar_that_may_have_been_made_is_not_made_again() {
    let server = Server::start(|n, _| match n {
        0 => json(201, r#"{"id":"c","name":"n"}"#),
        _ => json(502, ""),
    })
    .await;
    let client = server.client();
    assert_eq!(client.create_calendar("u", "n").await.unwrap().id, "c");
    let lost = client.create_calendar("u", "n").await.unwrap_err();
    assert!(matches!(lost, GraphError::Ambiguous { .. }), "{lost:?}");
    server.assert_described();
}
